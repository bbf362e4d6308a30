//! What commits add: secrets and blocked texts, in every kind of file and commit.

use crate::support::{Site, all_pass, gits, messages, only_failure};
use tidegate::config::checks::{ChecksSettings, TextSettings};
use tidegate::model::block::{Needle, PathGlob};
use tidegate::model::check::Finding;

/// Put together here, so that no scanner takes this file for a leak.
fn token() -> String {
    ["gh", "p_", "Zk3vQ8mT1xLr7WnB5cHy2JdP9sFgA4uE6iKo"].concat()
}

fn secrets() -> ChecksSettings {
    ChecksSettings { secrets: true, ..ChecksSettings::default() }
}

fn blocking(literal: &str) -> ChecksSettings {
    let block = vec![Needle::literal(literal).unwrap()];
    let content = TextSettings { block, block_patterns: Vec::new() };
    ChecksSettings { content, ..ChecksSettings::default() }
}

/// Path and message of each finding.
fn places(findings: &[Finding]) -> Vec<(&str, &str)> {
    findings.iter().map(|finding| (finding.path.as_deref().unwrap(), &*finding.message)).collect()
}

const MAIN: [(&str, &str, &str); 1] = [("refs/heads/main", "base", "main")];

#[test]
fn a_secret_that_a_later_commit_removes_is_found_and_stored_redacted() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(&format!(
            "echo 1 >> file; git commit -q -a -m one
             printf 'a\\ntoken = {}\\r\\nb\\n' > conf; git add .; git commit -q -m two
             git rm -q conf; git commit -q -m three",
            token()
        ));
        site.push("main");
        let results = site.check(&MAIN, &secrets());
        let findings = only_failure(&results, "secrets");
        assert_eq!(places(findings), [("conf", "line 2 holds what looks like a GitHub token: ghp_…")]);
        assert_eq!(findings[0].commit.as_deref(), Some(&*site.oid("main~1")));
        let stored = serde_json::to_string(&results).unwrap();
        assert!(!stored.contains(&token()[..12]), "{stored}");
    }
}

#[test]
fn a_secret_in_a_message_or_in_a_tag_is_found() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(&format!("git commit -q --allow-empty -m 'see {0}'; git tag -a -m 'with {0}' v1", token()));
        site.push("main v1");
        let asks = [MAIN[0], ("refs/tags/v1", "", "v1")];
        let results = site.check(&asks, &secrets());
        assert_eq!(only_failure(&results, "secrets").len(), 2);
    }
}

#[test]
fn binary_files_and_attributes_hide_nothing() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(&format!(
            "printf 'a\\0b\\n\\0{0}\\n' > blob.bin; echo '* -diff -text' > .gitattributes
             echo {0} > plain; printf 'no newline {0}' > last; ln -s {0} link; git add .; git commit -q -m one",
            token()
        ));
        site.sh("mkdir -p srv.git/info; echo '* binary' > srv.git/info/attributes
                 git -C srv.git config core.bigFileThreshold 1
                 git -C srv.git config diff.external /bin/false
                 git -C srv.git config diff.noprefix true
                 git -C srv.git config log.showRoot false
                 git -C srv.git config core.quotePath false");
        site.push("main");
        let results = site.check(&MAIN, &secrets());
        let found: Vec<_> =
            places(only_failure(&results, "secrets")).into_iter().map(|(path, _)| path).collect();
        assert_eq!(found, ["blob.bin", "last", "link", "plain"]);
    }
}

#[test]
fn a_very_long_line_is_looked_at_to_its_end() {
    let site = Site::new(&gits()[0]);
    site.work(&format!(
        "{{ head -c 300000 /dev/zero | tr '\\0' x; echo ' {}'; }} > min.js; git add .; git commit -q -m one",
        token()
    ));
    site.push("main");
    let results = site.check(&MAIN, &secrets());
    assert_eq!(places(only_failure(&results, "secrets"))[0].0, "min.js");
}

#[test]
fn a_moved_file_adds_no_lines_but_those_that_are_new() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(
            "echo 'the MARK is old' >> file; git commit -q -a -m one; git push -q ../srv.git main; git tag -f base > /dev/null
             git mv file moved; git commit -q -m move
             echo 'a new mark' >> moved; git mv moved again; git commit -q -a -m 'move and add'",
        );
        site.push("main");
        let results = site.check(&MAIN, &blocking("mark"));
        assert_eq!(places(only_failure(&results, "content")), [("again", "line 42 holds \"mark\"")]);
    }
}

#[test]
fn a_merge_is_charged_with_what_none_of_its_parents_has() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(
            "git checkout -q -b side; sed -i '1s/.*/side mark/' file; printf 'x\\0y\\n' > bin; git add .; git commit -q -m side
             git push -q ../srv.git side
             git checkout -q main; sed -i '40s/.*/main/' file; printf 'x\\0z\\n' > bin; git add .; git commit -q -m main
             git merge -q --no-commit side > /dev/null 2>&1 || true
             printf 'x\\0y\\n' > bin; git add .; git commit -q -m clean",
        );
        site.push("main");
        // The side branch is in the target, so what it says is not new, and the merge adds nothing of its own.
        all_pass(&site.check(&MAIN, &blocking("mark")));
        site.work(
            "git checkout -q -b evil main~1; git merge -q --no-commit side > /dev/null 2>&1 || true
             printf 'x\\0y\\nmark in binary\\n' > bin; sed -i '20s/.*/evil mark/' file
             printf 'late mark\\n' > fresh
             { head -c 9000 /dev/zero | tr '\\0' a; printf '\\nlong\\0mark after NUL\\n'; } >> file
             git add .; git commit -q -m evil",
        );
        site.push("evil");
        let results = site.check(&[("refs/heads/evil", "", "evil")], &blocking("mark"));
        let findings = only_failure(&results, "content");
        let mut found = places(findings);
        found.sort_unstable();
        let line = |number| format!("line {number} holds \"mark\"");
        let expected = [("bin", line(2)), ("file", line(20)), ("file", line(42)), ("fresh", line(1))];
        assert_eq!(found, expected.each_ref().map(|(path, message)| (*path, message.as_str())));
        assert!(findings.iter().all(|finding| finding.commit.as_deref() == Some(&*site.oid("evil"))));
    }
}

#[test]
fn a_merge_that_adds_nothing_passes_every_check() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(
            "git checkout -q -b side; echo s > side; git add .; git commit -q -m side
             git checkout -q main; echo m > main; git add .; git commit -q -m main
             git checkout -q -b third base; git rm -q file; git commit -q -m third
             git checkout -q main; git merge -q -m clean side; git merge -q -m 'clean again' third
             git merge -q -s ours -m ours base; git commit -q --allow-empty -m empty
             git checkout -q -b a; git commit -q --allow-empty -m a; git checkout -q -b b main; git commit -q --allow-empty -m b
             git checkout -q -b c main; echo c > c; git add .; git commit -q -m c
             git checkout -q main; git merge -q -m octopus a b c",
        );
        site.push("main");
        let mut settings = blocking("mark");
        settings.secrets = true;
        settings.blobs.size_max = Some(1 << 20);
        all_pass(&site.check(&MAIN, &settings));
    }
}

#[test]
fn hostile_names_and_texts_come_out_plain() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(
            "printf 'mark\\n' > \"$(printf 'a\\377\\033[2J\\r\\nb \\342\\200\\256c.pem')\"
             git add .; GIT_AUTHOR_EMAIL=\"$(printf 'e\\033[2Jv\\302\\233e@x')\" git commit -q -m one",
        );
        site.push("main");
        let mut settings = blocking("mark");
        settings.paths = vec![PathGlob::parse("*.pem").unwrap()];
        settings.email.domains = vec![tidegate::model::block::Domain::parse("example.com").unwrap()];
        let results = site.check(&MAIN, &settings);
        let findings: Vec<_> = results.iter().flat_map(|result| &result.findings).collect();
        assert_eq!(findings.len(), 3, "{results:#?}");
        for finding in findings {
            let text = format!("{}{}", finding.path.as_deref().unwrap_or_default(), finding.message);
            assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
        }
        let path =
            results.iter().flat_map(|result| &result.findings).find_map(|finding| finding.path.as_deref());
        assert_eq!(path, Some("a\u{fffd}?[2J? b ?c.pem"));
    }
}

#[test]
fn a_tree_or_a_file_outside_of_commits_is_refused_where_files_are_looked_at() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(&format!(
            "echo {} > x; git tag blob $(git hash-object -w x); git add x; git tag -a -m t tree $(git write-tree)",
            token()
        ));
        site.push("blob tree");
        let asks = [("refs/tags/blob", "", "blob"), ("refs/tags/tree", "", "tree")];
        all_pass(&site.check(&asks, &ChecksSettings::default()));
        let results = site.check(&asks, &secrets());
        let mut found = messages(only_failure(&results, "secrets"));
        found.sort_unstable();
        let expected = ["blob", "tree"]
            .map(|kind| format!("the ref leads to a {kind} outside of any commit, which is not looked into"));
        assert_eq!(found, expected);
    }
}

#[test]
fn text_in_utf_16_hides_nothing() {
    for git in gits() {
        let site = Site::new(&git);
        let text = format!("first\r\n\u{442}\u{430}\u{439}\u{43d}\u{430} {}\r\nlast\n", token());
        let encode = |name: &str, mark: &str, unit: fn(u16) -> [u8; 2]| {
            let bytes: Vec<u8> = format!("{mark}{text}").encode_utf16().flat_map(unit).collect();
            std::fs::write(site.path("work").join(name), bytes).unwrap();
        };
        encode("be", "", u16::to_be_bytes);
        encode("be-marked", "\u{feff}", u16::to_be_bytes);
        encode("le", "", u16::to_le_bytes);
        encode("le-marked", "\u{feff}", u16::to_le_bytes);
        site.work("git add .; git commit -q -m one");
        site.push("main");
        let names = ["be", "be-marked", "le", "le-marked"];
        let token = "line 2 holds what looks like a GitHub token: ghp_…";
        let results = site.check(&MAIN, &secrets());
        assert_eq!(places(only_failure(&results, "secrets")), names.map(|name| (name, token)));
        for literal in ["\u{442}\u{430}\u{439}\u{43d}\u{430}", "GHP_ZK3"] {
            let results = site.check(&MAIN, &blocking(literal));
            let found = format!("line 2 holds \"{literal}\"");
            assert_eq!(places(only_failure(&results, "content")), names.map(|name| (name, &*found)));
        }
    }
}

#[test]
fn a_secret_in_a_name_or_a_header_is_found_and_stored_redacted() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(&format!(
            "echo 1 > x-{0}; git add .; GIT_COMMITTER_EMAIL={0}@example.com git commit -q --author='A {0} <a@x>' -m one
             id=$(git cat-file commit main | sed 's/^committer .*/committer A <a@x> 1 +0000\\nnote {0}/' |
                  git hash-object -t commit -w --stdin --literally)
             git branch noted $id
             git -c user.name='T {0}' -c user.email=t@x tag -m one v1
             tag=$(git cat-file tag v1 | sed 's/^tagger .*/tagger T {0} <t@x> 1 +0000/' |
                   git hash-object -t tag -w --stdin --literally)
             git update-ref refs/tags/v1 $tag; git branch b-{0}",
            token()
        ));
        site.push(&format!("main noted v1 b-{}", token()));
        let branch = format!("refs/heads/b-{}", token());
        let asks =
            [MAIN[0], ("refs/heads/noted", "", "noted"), ("refs/tags/v1", "", "v1"), (&*branch, "", "main")];
        let results = site.check(&asks, &secrets());
        let mut found = messages(only_failure(&results, "secrets"));
        found.sort_unstable();
        let expected = [
            // Of two commits each.
            "the author's identity",
            "the author's identity",
            "the committer's identity",
            "the header",
            "the name of the file",
            "the name of the file",
            "the name of the ref",
            "the tagger's identity",
        ];
        assert_eq!(
            found,
            expected.map(|whose| format!("{whose} holds what looks like a GitHub token: ghp_…"))
        );
        let stored = serde_json::to_string(&results).unwrap();
        assert!(!stored.contains(&token()[..12]), "{stored}");
    }
}
