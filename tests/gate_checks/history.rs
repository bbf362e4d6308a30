//! Every new commit and tag of every ref is looked at, and everything is told at once.

use crate::support::{Site, all_pass, gits, messages, of, only_failure};
use tidegate::config::checks::{BlobSettings, ChecksSettings, EmailSettings, TextSettings};
use tidegate::model::block::{Domain, LocalGlob, Needle, PathGlob};
use tidegate::model::check::Verdict;
use tidegate::model::filetype::FileType;

fn strict() -> ChecksSettings {
    ChecksSettings {
        email: EmailSettings {
            domains: vec![Domain::parse("example.com").unwrap()],
            block_local: vec![LocalGlob::parse("root").unwrap()],
        },
        message: TextSettings {
            block: vec![Needle::literal("WIP").unwrap()],
            block_patterns: vec![Needle::pattern("^fixup!").unwrap()],
        },
        paths: vec![PathGlob::parse("*.pem").unwrap()],
        ..ChecksSettings::default()
    }
}

#[test]
fn three_violations_in_two_commits_are_all_listed() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(
            "echo 1 >> file; GIT_AUTHOR_EMAIL=eve@evil.example git commit -q -a -m 'wip: one'
             echo key > deep.pem; mkdir -p a/b; cp deep.pem a/b; git add .; git commit -q -m two",
        );
        site.push("main");
        let results = site.check(&[("refs/heads/main", "base", "main")], &strict());
        let (first, second) = (site.oid("main~1"), site.oid("main"));
        let email = &of(&results, "identity-email").findings;
        assert_eq!(messages(email), ["the author's address <eve@evil.example> is not at an allowed domain"]);
        assert_eq!(email[0].commit.as_deref(), Some(&*first));
        assert_eq!(email[0].ref_name.as_deref(), Some("refs/heads/main"));
        assert_eq!(email[0].key, "checks.email.domains");
        assert!(email[0].hint.contains("user.email"));
        let message = &of(&results, "message").findings;
        assert_eq!(messages(message), ["the message holds \"WIP\""]);
        assert_eq!((message[0].commit.as_deref(), &*message[0].key), (Some(&*first), "checks.message.block"));
        let paths = &of(&results, "paths").findings;
        let found: Vec<_> = paths.iter().map(|finding| finding.path.as_deref().unwrap()).collect();
        assert_eq!(found, ["a/b/deep.pem", "deep.pem"]);
        assert!(paths.iter().all(|finding| finding.commit.as_deref() == Some(&*second)));
        for always in ["empty", "hidden", "refs"] {
            assert_eq!(of(&results, always).verdict, Verdict::Pass);
        }
    }
}

#[test]
fn the_first_of_three_commits_of_a_new_branch_is_looked_at() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(
            "git checkout -q -b topic
             echo 1 >> file; GIT_COMMITTER_EMAIL=root@example.com git commit -q -a -m one
             echo 2 >> file; git commit -q -a -m two
             echo 3 >> file; git commit -q -a -m three",
        );
        site.push("topic");
        let results = site.check(&[("refs/heads/topic", "", "topic")], &strict());
        let findings = only_failure(&results, "identity-email");
        assert_eq!(messages(findings), ["the committer's address <root@example.com> is blocked by \"root\""]);
        assert_eq!(findings[0].commit.as_deref(), Some(&*site.oid("topic~2")));
    }
}

#[test]
fn what_the_target_has_is_not_looked_at_again() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(
            "echo 1 >> file; GIT_AUTHOR_EMAIL=eve@evil.example git commit -q -a -m WIP
             git push -q ../srv.git main
             echo 2 >> file; git commit -q -a -m fine
             git branch old main~1",
        );
        site.push("main old");
        let asks = [("refs/heads/main", "main~1", "main"), ("refs/heads/old", "", "old")];
        all_pass(&site.check(&asks, &strict()));
        site.push_nothing();
        all_pass(&site.check(&[("refs/heads/gone", "base", "")], &strict()));
    }
}

#[test]
fn a_tag_that_brings_unseen_commits_is_fully_checked() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(
            "echo 1 >> file; git commit -q -a -m 'fixup! one'
             echo x > a.pem; git add .; GIT_AUTHOR_EMAIL=eve@evil.example git commit -q -m two
             GIT_COMMITTER_EMAIL=tag@evil.example git tag -a -m 'WIP tag' v1
             git tag -a -m outer v2 v1 2> /dev/null
             git reset -q --hard base",
        );
        site.push("v2");
        let results = site.check(&[("refs/tags/v2", "", "v2")], &strict());
        let mut email = messages(&of(&results, "identity-email").findings);
        email.sort_unstable();
        let expected = [
            "the author's address <eve@evil.example> is not at an allowed domain",
            "the tagger's address <tag@evil.example> is not at an allowed domain",
        ];
        assert_eq!(email, expected);
        let mut message = messages(&of(&results, "message").findings);
        message.sort_unstable();
        assert_eq!(message, ["the message matches \"^fixup!\"", "the message of the tag v1 holds \"WIP\""]);
        assert_eq!(of(&results, "paths").findings.len(), 1);
        let all = results.iter().flat_map(|result| &result.findings);
        assert!(all.into_iter().all(|finding| finding.ref_name.as_deref() == Some("refs/tags/v2")));
    }
}

#[test]
fn an_encoding_that_could_hide_a_message_is_refused() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(
            "git -c i18n.commitEncoding=UTF-16LE commit -q --allow-empty -m one
             git -c i18n.commitEncoding=ISO-8859-1 commit -q --allow-empty -m \"$(printf 'gr\\374n')\"",
        );
        site.push("main");
        let results = site.check(&[("refs/heads/main", "base", "main")], &strict());
        for name in ["identity-email", "message"] {
            let found = messages(&of(&results, name).findings);
            assert_eq!(found, ["the commit declares the encoding \"UTF-16LE\", which can hide what it says"]);
        }
    }
}

#[test]
fn files_are_judged_by_size_and_by_what_they_are() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(
            "head -c 5000 /dev/zero > big; printf '\\177ELF\\002\\001' > innocent.txt; git add .; git commit -q -m one
             git rm -q big; git mv innocent.txt other.txt; git commit -q -m two",
        );
        site.push("main");
        let blobs = BlobSettings { size_max: Some(4096), block_types: vec![FileType::parse("elf").unwrap()] };
        let settings = ChecksSettings { blobs, ..ChecksSettings::default() };
        let results = site.check(&[("refs/heads/main", "base", "main")], &settings);
        let mut found: Vec<_> = only_failure(&results, "blobs")
            .iter()
            .map(|finding| (finding.path.as_deref().unwrap(), &*finding.message, &*finding.key))
            .collect();
        found.sort_unstable();
        assert_eq!(found[0].0, "big");
        assert_eq!(found[0].1, "the file has 5000 bytes, and at most 4KiB are taken");
        assert_eq!(found[1].1, "the file is of the blocked kind \"elf\"");
        assert_eq!(found[1].2, "checks.blobs.block_types");
        // Git tells commits newest first, and a file is reported once, where it turns up first.
        assert!(["innocent.txt", "other.txt"].contains(&found[1].0) && found.len() == 2);
    }
}

#[test]
fn many_findings_are_counted_and_many_commits_start_no_more_gits() {
    let mut site = Site::new(&gits()[0]);
    site.count_gits();
    let mut settings = strict();
    settings.secrets = true;
    let asks = [("refs/heads/main", "base", "main")];
    let mut counted = Vec::new();
    for commits in [1, 70] {
        site.work(&format!(
            "for i in $(seq {commits}); do echo $i >> file; git commit -q -a -m \"wip $i\"; done"
        ));
        site.push("main");
        let before = site.gits_counted();
        let results = site.check(&asks, &settings);
        // Naming the two ends of the push is the test's own.
        counted.push(site.gits_counted() - before - 3);
        let findings = only_failure(&results, "message");
        if commits == 70 {
            assert_eq!((findings.len(), &*findings[50].message), (51, "… and 21 more"));
        }
    }
    // One more when the pack is thin: the bases of its deltas are looked for in the target.
    assert!(counted.iter().all(|gits| (5..=6).contains(gits)), "{counted:?}");
}

#[test]
fn an_identity_with_two_addresses_is_no_way_around_a_rule() {
    for git in gits() {
        let site = Site::new(&git);
        let forge = |branch: &str, author: &str| {
            site.work(&format!(
                "id=$(git cat-file commit main | sed 's/^author .*/author {author} 1 +0000/' |
                      git hash-object -t commit -w --stdin --literally)
                 git branch {branch} $id"
            ));
        };
        forge("two", "A <alice@example.com> <x@evil.example>");
        forge("behind", "A <alice@example.com>evil@evil.example>");
        site.push("two behind");
        let asks = [("refs/heads/two", "", "two"), ("refs/heads/behind", "", "behind")];
        let domains = EmailSettings { domains: strict().email.domains, ..EmailSettings::default() };
        let block_local = vec![LocalGlob::parse("noreply").unwrap()];
        for email in [domains, EmailSettings { block_local, ..EmailSettings::default() }] {
            let settings = ChecksSettings { email, ..ChecksSettings::default() };
            let results = site.check(&asks, &settings);
            let message = "the author's identity does not hold exactly one address";
            assert_eq!(messages(only_failure(&results, "identity-email")), [message; 2]);
        }
    }
}

#[test]
fn a_blocked_path_is_blocked_as_a_directory_and_as_a_submodule() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(
            "mkdir d.pem sub; echo 1 > d.pem/a; ln -s file secretdir; git add .
             git update-index --add --cacheinfo 160000,$(git rev-parse main),sub/secretdir
             git commit -q -m one",
        );
        site.push("main");
        let paths = ["*.pem", "secretdir/"].map(|glob| PathGlob::parse(glob).unwrap()).to_vec();
        let settings = ChecksSettings { paths, ..ChecksSettings::default() };
        let results = site.check(&[("refs/heads/main", "base", "main")], &settings);
        let findings = only_failure(&results, "paths");
        let found: Vec<_> = findings.iter().map(|finding| finding.path.as_deref().unwrap()).collect();
        assert_eq!(found, ["d.pem/a", "sub/secretdir"]);
    }
}
