//! Git's packet lines, written and read by hand: the requests that no git client would send.

/// Ends a section or a message.
pub(crate) const FLUSH: &[u8] = b"0000";

/// Separates the capabilities from the arguments of a v2 command.
pub(crate) const DELIMITER: &[u8] = b"0001";

/// The capabilities that a stock client names with its first update.
pub(crate) const REPORT: &str = " report-status side-band-64k object-format=sha1 agent=test";

/// One packet.
pub(crate) fn line(payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut packet = format!("{:04x}", payload.len() + 4).into_bytes();
    packet.extend_from_slice(payload);
    packet
}

/// A v2 command with its arguments.
pub(crate) fn command(name: &str, arguments: &[&str]) -> Vec<u8> {
    let mut body = line(format!("command={name}\n"));
    body.extend_from_slice(&line("object-format=sha1\n"));
    body.extend_from_slice(DELIMITER);
    body.extend(arguments.iter().flat_map(|argument| line(format!("{argument}\n"))));
    body.extend_from_slice(FLUSH);
    body
}

/// A v2 `fetch` of everything that `oid` reaches.
pub(crate) fn fetch(oid: &str) -> Vec<u8> {
    command("fetch", &["ofs-delta", "no-progress", &format!("want {oid}"), "done"])
}

/// A v0 clone of everything that `oid` reaches.
pub(crate) fn clone_v0(oid: &str) -> Vec<u8> {
    let want = line(format!("want {oid} side-band-64k ofs-delta no-progress agent=test\n"));
    [want, FLUSH.to_vec(), line("done\n")].concat()
}

/// The command section of a push: each update is `OLD NEW REF`.
pub(crate) fn updates(updates: &[String], capabilities: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (number, update) in updates.iter().enumerate() {
        let tail = if number == 0 { format!("\0{capabilities}") } else { String::new() };
        body.extend_from_slice(&line(format!("{update}{tail}")));
    }
    body.extend_from_slice(FLUSH);
    body
}

/// The packets of `bytes`, a flush and a delimiter as empty ones; what is no packet any more is the last.
pub(crate) fn parse(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while let Some(head) = bytes.get(..4) {
        let length = std::str::from_utf8(head).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
        let Some(packet) = length.and_then(|length| bytes.get(4..length.max(4))) else { break };
        packets.push(packet.to_vec());
        bytes = &bytes[4 + packet.len()..];
    }
    packets.extend((!bytes.is_empty()).then(|| bytes.to_vec()));
    packets
}

/// What came on side band `band`, joined.
pub(crate) fn band(bytes: &[u8], band: u8) -> Vec<u8> {
    let packets = parse(bytes).into_iter().filter(|packet| packet.first() == Some(&band));
    packets.flat_map(|packet| packet[1..].to_vec()).collect()
}
