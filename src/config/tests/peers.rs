//! `[[peer]]`: what may be said of another gate.

use super::*;
use crate::model::upstream::UpstreamUrl;

const TWO: &str = r#"
[[peer]]
name = "edge-2"
url = "https://Edge-2.example.com/"
token_file = "edge-2.token"
ca_file = "/etc/ssl/corp.pem"

[[peer]]
name = "edge-3"
url = "http://127.0.0.1:8419"
token_file = "/etc/tidegate/edge-3.token"
"#;

#[test]
fn peers_are_read_printed_and_read_back() {
    let settings = read(TWO, &[]).unwrap();
    let [second, third] = &settings.peers[..] else { panic!("{:?}", settings.peers) };
    let UpstreamUrl::Http(url) = UpstreamUrl::parse("https://edge-2.example.com").unwrap() else { panic!() };
    assert_eq!((second.name.as_str(), &second.url), ("edge-2", &url));
    assert!(second.token_file.is_absolute() && second.token_file.ends_with("edge-2.token"));
    assert_eq!(second.ca_file.as_deref(), Some(Path::new("/etc/ssl/corp.pem")));
    assert_eq!(third.ca_file, None);
    let printed = settings.to_toml();
    assert_eq!(read(&printed, &[]).unwrap(), settings, "{printed}");
}

#[test]
fn peers_may_change_while_the_gate_runs() {
    let (old, new) = (read("", &[]).unwrap(), read(TWO, &[]).unwrap());
    assert_eq!(old.changes_needing_restart(&new), Vec::<&str>::new());
    let idle = read("[fleet]\npeer_idle = \"3s\"", &[]).unwrap();
    assert_eq!(old.changes_needing_restart(&idle), ["fleet.peer_idle"]);
}

#[test]
fn what_is_wrong_with_a_peer_is_said() {
    let cases = [
        ("U\nT", "t.toml:1: peer.name: is missing: a peer has a name"),
        ("N\nT", "t.toml:1: peer.url: is missing: a peer is at an address"),
        ("N\nU", "t.toml:1: peer.token_file: is missing: a peer tells what a user"),
        ("name = \"a/b\"\nU\nT", "peer.name: is no name for a peer"),
        ("N\nurl = \"/srv/git\"\nT", "peer.url: is no address of a gate: write https://HOST"),
        ("N\nurl = \"file:///srv/git\"\nT", "peer.url: is no address of a gate"),
        ("N\nurl = \"ssh://x\"\nT", "peer.url: is no address of a gate"),
        ("N\nurl = \"https://u:p@x\"\nT", "peer.url: holds a user or a password"),
        ("N\nurl = \"https://x/?a\"\nT", "peer.url: holds a ? or a #"),
        ("N\nurl = \"https://x/gate\"\nT", "peer.url: has a path, and a gate is at the top of its host"),
        (
            "N\nurl = \"http://localhost:8418\"\nT",
            "peer.url: http://localhost:8418 is where this gate is itself",
        ),
        ("N\nU\nT\nusername = \"x\"", "peer.username: is no key of a peer: the keys are name, url,"),
        ("N\nurl = \"http://edge\"\nT", "peer.url: http://edge is asked in the clear, and whoever"),
        ("N\nurl = \"http://localhost\"\nT\nca_file = \"/x\"", "peer.ca_file: is for the certificates of"),
        ("N\nU\nT\n[[peer]]\nN\nurl = \"https://y\"\nT", "peer.name: \"x\" stands there twice"),
        (
            "N\nU\nT\n[[peer]]\nname = \"y\"\nurl = \"https://X:443/\"\nT",
            "peer.url: https://x stands there twice, and",
        ),
    ];
    for (text, want) in cases {
        let filled = text.replace("N\n", "name = \"x\"\n").replace("\nT", "\ntoken_file = \"/t\"");
        let filled = filled.replace("\nU", "\nurl = \"https://x\"").replace("U\n", "url = \"https://x\"\n");
        let found = problems(&format!("[[peer]]\n{filled}"), &[]);
        assert!(found.len() == 1 && found[0].contains(want), "{filled}: {found:?}");
    }
    let own = "public_url = \"https://Git.example.com\"\n[[peer]]\nname = \"x\"\nurl = \"https://git.example.com:443\"\n\
               token_file = \"/t\"";
    let found = problems(own, &[]);
    assert!(
        found.len() == 1 && found[0].contains("https://git.example.com is where this gate is"),
        "{found:?}"
    );
    let clear = "insecure_http = true\n[[peer]]\nname = \"x\"\nurl = \"http://edge\"\ntoken_file = \"/t\"";
    assert_eq!(problems(clear, &[]), Vec::<String>::new());
}

#[test]
fn there_is_a_limit_to_peers() {
    let peer = |number: usize| {
        format!("[[peer]]\nname = \"p{number}\"\nurl = \"https://p{number}\"\ntoken_file = \"/t\"\n")
    };
    let text = |count: usize| (0..count).map(peer).collect::<String>();
    assert!(read(&text(256), &[]).is_ok());
    let found = problems(&text(257), &[]);
    assert!(found.len() == 1 && found[0].contains("stands there 257 times: at most 256"), "{found:?}");
}

#[test]
fn a_start_looks_whether_the_authorities_can_be_read() {
    let text = TWO.replace("/etc/ssl/corp.pem", "/nonexistent/corp.pem");
    let settings = read(&text, &[]).unwrap();
    let error = settings.check_places().unwrap_err().to_string();
    assert!(error.starts_with("peer.ca_file: edge-2: the certificates in /nonexistent/corp.pem"), "{error}");
}
