//! How a git of ours learns the credential for an upstream: from a configuration file that lies in our memory only.
//!
//! What was measured with git 2.39.5 and 2.47.3 against nginx with Basic authentication:
//!
//! * `include.path` is obeyed when it comes from `GIT_CONFIG_COUNT`, and its path may be `/proc/PID/fd/N` of another process.
//!   `git remote-http`, the one that speaks, is a grandchild; it reads the same variables and opens the file again, from
//!   its start. An inherited descriptor would not do: every program started meanwhile would inherit it as well.
//! * `http.URL.extraHeader` with only scheme, host and port in the URL is sent for every path there, in the first request
//!   (no 401 is waited for), and to no other port or host. With `http.followRedirects=false` a redirect ends the command.
//! * Another user gets "unable to access '/proc/PID/fd/N': Permission denied", and git ends. A file that is gone is passed
//!   over without a word, so the file has to live as long as the child's group.
//! * Where the credential is not taken, git asks for another one; `GIT_TERMINAL_PROMPT=0` and an askpass that answers nothing
//!   make that "Authentication failed" at once, and "could not read Username" where there is no askpass program.
//!
//! No argument, no environment, no file on a disk and no shell takes part.

use crate::model::credential::UpstreamCredential;
use crate::model::secret::Secret;
use crate::model::upstream::Origin;
use crate::sys::memory_file::MemoryFile;
use std::any::Any;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A configuration that makes git send a credential to one origin; clones share it.
#[derive(Clone, Debug)]
pub struct CredentialFile(Arc<MemoryFile>);

impl CredentialFile {
    /// The file for `credential`, which is shown to `origin` and nobody else, and for the address of a proxy that has a login
    /// in it. A directory is shown none: the file is empty.
    ///
    /// # Errors
    /// When the machine is short of memory or descriptors.
    pub fn of(
        credential: Option<&UpstreamCredential>,
        origin: &Origin,
        proxy: Option<&Secret>,
    ) -> io::Result<Self> {
        let shown = |credential: &UpstreamCredential| {
            let value = credential.authorization();
            format!("[http \"{origin}/\"]\n\textraHeader = \"Authorization: {}\"\n", value.reveal())
        };
        let way = |proxy: &Secret| format!("[http]\n\tproxy = \"{}\"\n", proxy.reveal());
        let text = match origin {
            Origin::Http { .. } => {
                credential.map(shown).unwrap_or_default() + &proxy.map(way).unwrap_or_default()
            }
            Origin::Directory => String::new(),
        };
        Ok(Self(Arc::new(MemoryFile::of(text.as_bytes())?)))
    }

    /// Where git finds it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.path()
    }

    /// What a child holds that may read it: [`Child::hold`](crate::supervise::Child::hold).
    #[must_use]
    pub fn hold(&self) -> Box<dyn Any + Send> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::upstream::UpstreamUrl;
    use std::fs;

    fn written_for(url: &str) -> String {
        let credential =
            UpstreamCredential { username: "bot".to_owned(), secret: Secret::new("s3cret".to_owned()) };
        let file =
            CredentialFile::of(Some(&credential), &UpstreamUrl::parse(url).unwrap().origin(), None).unwrap();
        fs::read_to_string(file.path()).unwrap()
    }

    #[test]
    fn the_credential_is_bound_to_scheme_host_and_port() {
        let text = written_for("https://Forge.Example/team/");
        let expected =
            "[http \"https://forge.example/\"]\n\textraHeader = \"Authorization: Basic Ym90OnMzY3JldA==\"\n";
        assert_eq!(text, expected);
        assert!(written_for("http://[::1]:8080/x").starts_with("[http \"http://[::1]:8080/\"]"));
        assert_eq!(written_for("/srv/git"), "");
    }

    #[test]
    fn a_proxy_with_a_login_stands_there_by_itself_or_beside_the_credential() {
        let origin = UpstreamUrl::parse("https://forge/").unwrap().origin();
        let proxy = Secret::new("http://u:p@proxy:1".to_owned());
        let file = CredentialFile::of(None, &origin, Some(&proxy)).unwrap();
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "[http]\n\tproxy = \"http://u:p@proxy:1\"\n");
    }
}
