//! Bytes that a terminal would obey, or a page, in everything that a pusher may choose: they reach nobody as they are.

use crate::support::Site;
use tidegate::model::push::PushState;

/// Control characters of both sets, as text and as raw bytes, bidirectional marks, ends of lines and markup, for printf(1).
const NASTY: &str = r"\001\007\010\011\013\014\015\033[2J\033]0;t\033\134\177\302\205\302\23331m\233\342\200\256\342\201\246\342\200\250<script>alert(1)</script>&\042\015";

/// Blocks what comes from the branch `bad`, and makes the rest wait.
const SECTIONS: &str = "[gate]\napproval = \"required\"\n[checks]\nemail.domains = [\"example.com\", \"nasty.example\"]\n\
                        content.block = [\"boo\"]\nmessage.block = [\"boo\"]\npaths.block = [\"boo*\"]\n";

/// Whoever is shown `bytes` sees them on lines of plain text.
fn assert_plain(sink: &str, bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap_or_else(|error| {
        panic!("{sink} is no UTF-8 at {}: {:?}", error.valid_up_to(), String::from_utf8_lossy(bytes))
    });
    let obeyed = |c: &char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let found: Vec<char> = text.chars().filter(obeyed).collect();
    assert!(found.is_empty(), "{sink} has {found:?}: {text:?}");
}

/// What comes after the head of an answer.
fn content(answer: &[u8]) -> &[u8] {
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n").expect("an answer has a head");
    &answer[end + 4..]
}

/// A work tree with hostile names and words; `bad` adds what is blocked to them.
fn prepare(site: &Site) {
    site.sh(&format!(
        "cd work; nasty=$(printf '{NASTY}'); author=$(printf %s \"$nasty\" | tr -d '<>')
         commit() {{
            GIT_AUTHOR_NAME=\"A$author B\" GIT_AUTHOR_EMAIL=\"$1\" GIT_COMMITTER_NAME=\"C$author D\" git commit -q -F -
         }}
         for branch in fine bad; do
            git checkout -q -b $branch main
            [ $branch = fine ] && word= || word=boo
            [ $branch = fine ] && mail=a@nasty.example || mail=\"x$author@evil.example\"
            printf '%s\\n%s\\n' \"$word$nasty\" \"$nasty\" > \"$word$(printf '{NASTY}' | tr / _)\"
            git add .
            printf 'subject %s %s\\n\\nbody %s\\n' \"$word\" \"$nasty\" \"$nasty\" | commit \"$mail\"
         done"
    ));
}

#[test]
fn hostile_bytes_reach_nobody_as_they_are() {
    let site = Site::with(SECTIONS);
    prepare(&site);
    let program = site.program(
        "check",
        &format!("read old new ref; [ $ref = refs/heads/fine ] || {{ printf 'says {NASTY}\\n'; printf 'and {NASTY}\\n' >&2; exit 1; }}"),
    );
    site.reload(&format!("{SECTIONS}[[checks.command]]\nname = \"nasty\"\nargv = [\"{program}\"]"));

    let (is_success, said) = site.push("bad").finish();
    assert!(!is_success, "{said}");
    let bad = site.until(PushState::Blocked).id;
    for check in ["identity-email", "message", "paths", "content", "command:nasty"] {
        assert!(said.contains(&format!("remote: {check}: ")), "{check} found nothing: {said}");
    }
    assert!(said.contains("<script>alert(1)"), "the client is shown what was found: {said}");
    assert_plain("the client", said.as_bytes());

    let client = site.push("fine");
    let fine = site.until(PushState::Pending).id;
    for id in [bad, fine] {
        let id = id.to_string();
        for words in [&["list"][..], &["show", &id], &["show", &id, "--json"], &["diff", &id]] {
            let output = site.decide(words);
            let is_gone = words[0] == "diff" && id == bad.to_string();
            assert_eq!(output.status.success(), !is_gone, "{words:?}: {output:?}");
            assert_plain(&words.join(" "), &[output.stdout, output.stderr].concat());
        }
        let page = site.ask(&format!("GET /-/pushes/{id}"), b"");
        assert_plain("the page", content(&page));
        let page = String::from_utf8_lossy(&page).into_owned();
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert(1)"), "{page}");
        assert_plain("the JSON", content(&site.ask(&format!("GET /-/api/v1/pushes/{id}"), b"")));
    }
    assert_plain("the list", content(&site.ask("GET /-/", b"")));

    let reason = format!("$(printf 'no {NASTY}' | tr -d '\\233')");
    let script = format!("exec \"$0\" push reject {fine} --data-dir data --reason \"{reason}\"");
    let rejected = site.run(&script);
    assert_plain("the rejection", &[rejected.stdout, rejected.stderr].concat());
    if !rejected.status.success() {
        assert!(site.decide(&["reject", &fine.to_string(), "--reason", "no"]).status.success());
    }
    assert_plain("the rejected client", client.finish().1.as_bytes());
    assert_plain("the log", site.log().as_bytes());
}

#[test]
fn a_hostile_name_of_a_ref_is_refused_and_comes_back_in_the_report_alone() {
    let site = Site::with(SECTIONS);
    let new = site.main_of("work");
    for nasty in ["\u{1b}[2J", "\u{9b}31m", "\u{202e}", "\u{7f}", "a\rb"] {
        let name = format!("refs/heads/x{nasty}");
        let line = format!("{} {new} {name}\0 report-status side-band-64k", "0".repeat(40));
        let mut body = format!("{:04x}{line}0000", line.len() + 4).into_bytes();
        body.extend(
            b"PACK\0\0\0\x02\0\0\0\0\x02\x9d\x08\x82;\xd8\xa8\xea\xb5\x10\xadj\xc7\\\x82<\xfd>\xd3\x1e",
        );
        let answer = site.ask("POST /app.git/git-receive-pack", &body);
        let said = String::from_utf8_lossy(content(&answer)).into_owned();
        assert!(
            said.contains("the name of a ref is UTF-8 without") || said.contains("400"),
            "{nasty:?}: {said:?}"
        );
        // Git itself shows the name that it was given, never the one that comes back.
        let rest: String = said
            .replace(&format!("ng {name} "), "")
            .chars()
            .filter(|c| !matches!(c, '\u{1}' | '\u{2}'))
            .collect();
        assert_plain("the answer", rest.as_bytes());
    }
    assert_plain("the log", site.log().as_bytes());
    assert!(site.store.pushes().list(&Default::default()).unwrap().pushes.is_empty());
}
