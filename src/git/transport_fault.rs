//! What git says when a fetch from a server, or a push to one, does not get through: which fault it is, and whether it passes.
//!
//! Read from the lines that our own git writes, `fatal: …` and `error: …`; what the other side says stands behind
//! `remote: ` and is not looked at, since it could say anything. The samples of the tests are what git 2.39.5 and 2.47.3
//! (libcurl with GnuTLS) said to servers that failed in each of these ways; both said the same.

/// A fault on the way to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportFault {
    /// 401: the credential is not taken, or one is needed.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404 or 410.
    NotFound,
    /// A redirect, which is not followed.
    Moved(u16),
    /// Any other status.
    Status(u16),
    /// The name has no address, or nobody answers there.
    Unreachable,
    /// An answer did not come in time.
    TimedOut,
    /// TLS could not be agreed on, or the certificate is not trusted.
    Tls,
    /// The connection ended in the middle.
    HungUp,
    /// The answer was not of git's smart protocol.
    NotGit,
}

/// What stands in a line, and what it means. The first that fits counts.
const SIGNS: [(&str, TransportFault); 28] = [
    ("Authentication failed for ", TransportFault::Unauthorized),
    ("could not read Username for ", TransportFault::Unauthorized),
    ("could not read Password for ", TransportFault::Unauthorized),
    ("Could not resolve host", TransportFault::Unreachable),
    ("Could not resolve proxy", TransportFault::Unreachable),
    ("CONNECT tunnel failed", TransportFault::Unreachable),
    ("Failed to connect to ", TransportFault::Unreachable),
    ("Couldn't connect to server", TransportFault::Unreachable),
    ("Connection refused", TransportFault::Unreachable),
    ("Network is unreachable", TransportFault::Unreachable),
    ("No route to host", TransportFault::Unreachable),
    ("Operation too slow", TransportFault::TimedOut),
    ("timed out", TransportFault::TimedOut),
    ("Timeout was reached", TransportFault::TimedOut),
    ("gnutls_handshake() failed", TransportFault::Tls),
    ("certificate", TransportFault::Tls),
    ("SSL", TransportFault::Tls),
    ("TLS", TransportFault::Tls),
    ("invalid server response", TransportFault::NotGit),
    ("not valid: is this a git repository", TransportFault::NotGit),
    ("no DAV locking support", TransportFault::NotGit),
    ("Empty reply from server", TransportFault::HungUp),
    ("transfer closed with ", TransportFault::HungUp),
    ("Recv failure", TransportFault::HungUp),
    ("Send failure", TransportFault::HungUp),
    ("RPC failed", TransportFault::HungUp),
    ("early EOF", TransportFault::HungUp),
    ("the remote end hung up", TransportFault::HungUp),
];

/// What stands before the status of an answer.
const STATUS: &str = "The requested URL returned error: ";

impl TransportFault {
    /// The fault that git reports on its standard error; `None` when it failed for a reason of its own.
    #[must_use]
    pub fn find(stderr: &str) -> Option<Self> {
        stderr.lines().filter_map(own_words).find_map(Self::of_line)
    }

    /// Whether the same may go well in a while. A no of the upstream, and an answer that says that the request is wrong,
    /// are final.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        match self {
            Self::Unauthorized | Self::Forbidden | Self::NotFound | Self::Moved(_) => false,
            Self::Status(status) => status >= 500 || matches!(status, 408 | 425 | 429),
            Self::Unreachable | Self::TimedOut | Self::Tls | Self::HungUp | Self::NotGit => true,
        }
    }

    fn of_line(line: &str) -> Option<Self> {
        let reason = reason(line);
        if let Some((_, status)) = reason.split_once(STATUS) {
            return Some(Self::of_status(status.trim_end().parse().ok()?));
        }
        if reason.starts_with("repository '") && reason.ends_with("' not found") {
            return Some(Self::NotFound);
        }
        SIGNS.into_iter().find(|(sign, _)| reason.contains(sign)).map(|(_, fault)| fault)
    }

    /// What an answer with this status means, which is none that git goes on with.
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 | 410 => Self::NotFound,
            // A proxy says so: it has passed nothing on.
            407 => Self::Unreachable,
            300..=399 => Self::Moved(status),
            _ => Self::Status(status),
        }
    }
}

/// A line that is our git's own. What follows a `\r` has overwritten a line of progress, and is shown escaped.
pub(crate) fn own_words(line: &str) -> Option<&str> {
    let line = line.rsplit("\\r").next().unwrap_or(line);
    ["fatal: ", "error: "].into_iter().find_map(|start| line.strip_prefix(start))
}

/// What follows the address in `unable to access 'URL': REASON`, so that no part of the address is taken for a reason.
fn reason(words: &str) -> &str {
    let after = words.strip_prefix("unable to access '").and_then(|rest| rest.split_once("': "));
    after.map_or(words, |(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use super::TransportFault as Fault;

    /// The end of what a push says whose request got no whole answer.
    const HUNG_UP: &str = "send-pack: unexpected disconnect while reading sideband packet\n\
                           fatal: the remote end hung up unexpectedly\n";

    fn to(reason: &str) -> String {
        format!("fatal: unable to access 'http://127.0.0.1:18090/SSL/a.git/': {reason}\n")
    }

    #[test]
    fn what_git_says_before_anything_is_sent_is_understood() {
        let refused = "Failed to connect to 127.0.0.1 port 1 after 0 ms: Couldn't connect to server";
        let slow = "Operation too slow. Less than 1 bytes/sec transferred the last 2 seconds";
        let tls = "gnutls_handshake() failed: An unexpected TLS packet was received.";
        let untrusted = "server certificate verification failed. CAfile: /etc/ca.crt CRLfile: none";
        let prompt = "error: cannot run true: No such file or directory\nfatal: could not read Username for \
                      'http://127.0.0.1:18081': terminal prompts disabled\n";
        let dav = "XML error: syntax error\nerror: no DAV locking support on http://127.0.0.1:18090/html/a.git/\n\
                   fatal: git-http-push failed\n";
        let cases = [
            (
                "fatal: Authentication failed for 'http://127.0.0.1:18090/401/a.git/'\n".into(),
                Fault::Unauthorized,
            ),
            (prompt.to_owned(), Fault::Unauthorized),
            (to("The requested URL returned error: 403"), Fault::Forbidden),
            ("fatal: repository 'http://127.0.0.1:18090/404/a.git/' not found\n".into(), Fault::NotFound),
            (to("The requested URL returned error: 410"), Fault::NotFound),
            (to("The requested URL returned error: 301"), Fault::Moved(301)),
            (to("The requested URL returned error: 429"), Fault::Status(429)),
            (to("The requested URL returned error: 504"), Fault::Status(504)),
            (to("Could not resolve host: no.such.invalid"), Fault::Unreachable),
            (to(refused), Fault::Unreachable),
            (to("Could not resolve proxy: no.such.invalid"), Fault::Unreachable),
            (to("CONNECT tunnel failed, response 407"), Fault::Unreachable),
            (to("The requested URL returned error: 407"), Fault::Unreachable),
            (to(slow), Fault::TimedOut),
            (to(tls), Fault::Tls),
            (to(untrusted), Fault::Tls),
            (to("Empty reply from server"), Fault::HungUp),
            (to("transfer closed with 466 bytes remaining to read"), Fault::HungUp),
            (dav.to_owned(), Fault::NotGit),
        ];
        for (stderr, fault) in cases {
            assert_eq!(Fault::find(&stderr), Some(fault), "{stderr}");
        }
    }

    #[test]
    fn what_git_says_about_a_request_that_was_sent_is_understood() {
        for status in [401, 403, 404, 413, 429, 500, 503] {
            let words = format!("HTTP {status} curl 22 The requested URL returned error: {status}");
            let stderr = format!("error: RPC failed; {words}\n{HUNG_UP}");
            assert_eq!(Fault::find(&stderr), Some(Fault::of_status(status)), "{stderr}");
        }
        for words in [
            "curl 52 Empty reply from server",
            "curl 18 transfer closed with 996 bytes remaining to read",
            "curl 56 Recv failure: Connection reset by peer",
        ] {
            assert_eq!(Fault::find(&format!("error: RPC failed; {words}\n{HUNG_UP}")), Some(Fault::HungUp));
        }
        assert_eq!(Fault::find(HUNG_UP), Some(Fault::HungUp));
        let progress =
            "Receiving objects:  10% (1/10)\\rfatal: early EOF\nfatal: fetch-pack: invalid index-pack output";
        assert_eq!(Fault::find(progress), Some(Fault::HungUp));
    }

    #[test]
    fn a_no_is_final_and_a_fault_passes() {
        let is_passing = |status| Fault::of_status(status).is_passing();
        assert_eq!([401, 403, 404, 410, 302, 400, 413].map(is_passing), [false; 7]);
        assert_eq!([429, 408, 500, 502, 503, 504].map(is_passing), [true; 6]);
        let faults = [Fault::Unreachable, Fault::TimedOut, Fault::Tls, Fault::HungUp, Fault::NotGit];
        assert!(faults.into_iter().all(Fault::is_passing));
    }

    #[test]
    fn what_the_other_side_says_is_not_taken_for_a_fault() {
        let remote = "remote: fatal: Authentication failed for 'x'\nremote: error: RPC failed\n\
                      error: failed to push some refs to 'http://127.0.0.1/a.git'\n";
        assert_eq!(Fault::find(remote), None);
        assert_eq!(Fault::find(&to("something new")), None, "no part of the address is a reason");
        assert_eq!(Fault::find("fatal: bad object 1234\n"), None);
    }
}
