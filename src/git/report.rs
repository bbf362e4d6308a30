//! Answering a push without git: the report of `gitprotocol-pack(5)`, "Report Status", in the client's side band if it
//! has one.
//!
//! The client prints a refusal as `! [remote rejected] main -> main (reason)`, and each remark as a `remote:` line.

use crate::git::pktline::{Packet, encode};
use crate::git::push_request::{Command, PushRequest};
use crate::git::sideband::{Band, Width, encode_band, encode_err, encode_fatal, encode_lines};
use crate::model::text::sanitize;

/// What became of one ref: done, or refused with a reason.
pub type Verdict<'a> = Result<(), &'a str>;

/// Longest reason in a report, in bytes: with the longest ref name it stays within a packet.
const REASON_MAX: usize = 1000;

/// The whole answer to a push: `remarks` for people, what became of the pack, and a verdict for each command.
///
/// A client that asked for no report gets the first refusal as an error of the stream.
#[must_use]
pub fn answer<'a>(
    request: &PushRequest,
    remarks: &[&str],
    unpack: Verdict<'_>,
    verdict: impl Fn(&Command) -> Verdict<'a>,
) -> Vec<u8> {
    let mut out = Vec::new();
    let in_band = request.capabilities.has_side_band();
    if in_band {
        remarks.iter().for_each(|remark| encode_lines(Band::Progress, remark, Width::Large, &mut out));
    }
    if request.capabilities.wants_report() {
        let report = report(request, unpack, verdict);
        if in_band { encode_band(Band::Data, &report, Width::Large, &mut out) } else { out.extend(report) }
    } else if let Some(reason) =
        unpack.err().or_else(|| request.commands.iter().find_map(|c| verdict(c).err()))
    {
        if in_band { encode_fatal(reason, &mut out) } else { encode_err(reason, &mut out) }
    }
    if in_band {
        encode(Packet::Flush, &mut out);
    }
    out
}

/// The answer that refuses every command for one reason.
#[must_use]
pub fn refusal(request: &PushRequest, remarks: &[&str], reason: &str) -> Vec<u8> {
    answer(request, remarks, Ok(()), |_| Err(reason))
}

fn report<'a>(
    request: &PushRequest,
    unpack: Verdict<'_>,
    verdict: impl Fn(&Command) -> Verdict<'a>,
) -> Vec<u8> {
    let mut report = Vec::new();
    let status = unpack.map_or_else(reason_text, |()| "ok".to_owned());
    encode(Packet::Data(format!("unpack {status}\n").as_bytes()), &mut report);
    for command in &request.commands {
        encode(Packet::Data(&line(&command.name, verdict(command))), &mut report);
    }
    encode(Packet::Flush, &mut report);
    report
}

/// The ref's name goes back byte for byte, or the client would not know it again; but a name with control bytes is none
/// that a git has, and they are escaped.
fn line(name: &[u8], verdict: Verdict<'_>) -> Vec<u8> {
    let name: Vec<u8> = name.iter().flat_map(|&byte| escaped(byte)).collect();
    match verdict {
        Ok(()) => [b"ok ", &name[..], b"\n"].concat(),
        Err(reason) => [b"ng ", &name[..], b" ", reason_text(reason).as_bytes(), b"\n"].concat(),
    }
}

fn escaped(byte: u8) -> Vec<u8> {
    if byte.is_ascii_control() { format!("\\x{byte:02x}").into_bytes() } else { vec![byte] }
}

fn reason_text(reason: &str) -> String {
    let mut text = sanitize(reason);
    while text.len() > REASON_MAX {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::push_request::Bounds;

    fn request(capabilities: &str) -> PushRequest {
        let (old, new) = ("a".repeat(40), "b".repeat(40));
        let mut stream = Vec::new();
        encode(Packet::Data(format!("{old} {new} refs/heads/x\0{capabilities}").as_bytes()), &mut stream);
        encode(Packet::Data(format!("{old} {new} refs/heads/y").as_bytes()), &mut stream);
        encode(Packet::Flush, &mut stream);
        PushRequest::read(&stream[..], Bounds { commands: 9, bytes: 9999 }).unwrap()
    }

    #[test]
    fn a_report_without_side_band_is_plain_packets() {
        let verdict = |command: &Command| if command.name.ends_with(b"x") { Ok(()) } else { Err("no\nway") };
        let answer = answer(&request("report-status"), &["unheard"], Ok(()), verdict);
        assert_eq!(answer, b"000eunpack ok\n0014ok refs/heads/x\n001bng refs/heads/y no way\n0000");
    }

    #[test]
    fn in_a_side_band_remarks_come_first_and_a_flush_ends_it() {
        let answer = refusal(&request("report-status-v2 side-band-64k"), &["look\nhere"], "no");
        let expected = b"000a\x02look\n000a\x02here\n0045\x01000eunpack ok\n0017ng refs/heads/x no\n0017ng refs/heads/y no\n00000000";
        assert_eq!(answer.escape_ascii().to_string(), expected.escape_ascii().to_string());
    }

    #[test]
    fn a_client_that_reads_no_report_is_told_all_the_same() {
        assert_eq!(refusal(&request("side-band-64k"), &[], "no"), b"0008\x03no\n0000");
        assert_eq!(refusal(&request(""), &[], "no"), b"000bERR no\n");
        assert_eq!(answer(&request(""), &[], Ok(()), |_| Ok(())), b"");
    }

    #[test]
    fn a_name_with_control_bytes_is_escaped_and_any_other_goes_back_as_it_came() {
        assert_eq!(line(b"refs/x\nok refs/y\x1b\x7f", Err("no")), b"ng refs/x\\x0aok refs/y\\x1b\\x7f no\n");
        assert_eq!(line("refs/ä\\\u{9b}".as_bytes(), Ok(())), "ok refs/ä\\\u{9b}\n".as_bytes());
        assert_eq!(line(b"refs/\xff", Ok(())), b"ok refs/\xff\n");
    }

    #[test]
    fn a_failed_unpack_is_told_in_its_own_line() {
        let answer = answer(&request("report-status"), &[], Err("disk full"), |_| Err("unpacker error"));
        assert!(answer.starts_with(b"0015unpack disk full\n"));
    }
}
