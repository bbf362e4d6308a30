//! Pushes that are refused before anything of them is stored.

use crate::support::Site;
use tidegate::store::pushes::Filter;

/// The head of a push of these refs, which all become the same commit or are deleted.
fn head(site: &Site, refs: &[(&str, bool)]) -> Vec<u8> {
    let (commit, zero) = (site.main_of("root/app.git"), "0".repeat(40));
    let mut body = String::new();
    for (at, (name, is_made)) in refs.iter().enumerate() {
        let (old, new) = if *is_made { (&zero, &commit) } else { (&commit, &zero) };
        let capabilities = if at == 0 { "\0 report-status" } else { "" };
        let command = format!("{old} {new} {name}{capabilities}");
        body += &format!("{:04x}{command}", command.len() + 4);
    }
    (body + "0000").into_bytes()
}

#[test]
fn a_push_that_git_cannot_pass_on_or_may_confuse_is_told_so_and_not_recorded() {
    let site = Site::new("");
    site.sh("git -C root/app.git branch topic");
    let cases: [(&[(&str, bool)], &str); 3] = [
        (
            &[("refs/heads/topic", false), ("refs/heads/topic/x", true)],
            "refs/heads/topic/x lies below refs/heads/topic",
        ),
        (&[("refs/heads/a/b", true), ("refs/heads/a", true)], "refs/heads/a/b lies below refs/heads/a"),
        (&[("refs/heads/refs/heads/main", true)], "git may take this ref for another one"),
    ];
    for (refs, words) in cases {
        let answer = site.post(&head(&site, refs));
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(words), "{answer}");
    }
    assert!(site.store.pushes().list(&Filter { limit: 1, ..Filter::default() }).unwrap().pushes.is_empty());
    assert_eq!(site.sh("ls -A data/held"), "");
}

#[test]
fn a_name_that_git_cannot_have_comes_back_on_one_line_of_plain_text() {
    let site = Site::new("");
    let answer = site.post(&head(&site, &[("refs/heads/a\nok refs/heads/b\u{1b}[2J\u{7f}", true)]));
    assert!(answer.contains("ng refs/heads/a\\x0aok refs/heads/b\\x1b[2J\\x7f "), "{answer}");
    assert!(!answer.contains("\nok ") && !answer.contains('\u{1b}'), "{answer}");
}

#[test]
fn a_push_with_ids_of_another_hash_is_its_client_s_mistake() {
    let site = Site::new("");
    site.sh("git init -q --bare --object-format=sha256 root/long.git");
    for (repository, format, digits) in [
        ("app", "sha256", 64),
        ("app", "sha256", 40),
        ("app", "sha1", 64),
        ("long", "sha1", 40),
        ("long", "sha256", 40),
    ] {
        let (old, new) = ("0".repeat(digits), "1".repeat(digits));
        let line = format!("{old} {new} refs/heads/x\0 report-status object-format={format}");
        let body = format!("{:04x}{line}0000", line.len() + 4);
        let request = format!("POST /{repository}.git/git-receive-pack");
        let answer = String::from_utf8_lossy(&site.ask(&request, body.as_bytes())).into_owned();
        let own = if repository == "app" { "sha1" } else { "sha256" };
        let why = format!("this repository names its objects by {own}, and the push does not");
        assert!(answer.contains("ng refs/heads/x ") && answer.contains(&why), "{format} {digits}: {answer}");
    }
}
