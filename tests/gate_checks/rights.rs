//! Who may do what to refs, and whose signatures count.

use crate::support::{Site, all_pass, gits, messages, of, only_failure, user};
use std::fs;
use tidegate::config::checks::{ChecksSettings, ProtectedRefs, SignatureSettings};
use tidegate::model::access::{Caller, Pushers};
use tidegate::model::block::RefGlob;
use tidegate::model::check::Verdict;
use tidegate::model::role::Role;

fn protected() -> ChecksSettings {
    let list = |entries: &[&str]| Pushers::parse_list(entries.iter().copied()).unwrap();
    let entry = |refs: &str, update: Pushers| ProtectedRefs {
        refs: RefGlob::parse(refs).unwrap(),
        create: list(&["role:reviewer"]),
        update,
        force: list(&["bob"]),
        delete: Pushers::Nobody,
    };
    let protected =
        vec![entry("refs/heads/main", Pushers::Users), entry("refs/tags/**", list(&["bob", "alice"]))];
    ChecksSettings { protected, ..ChecksSettings::default() }
}

#[test]
fn protected_refs_are_made_moved_rewound_and_deleted_by_those_who_may() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(
            "echo 1 >> file; git commit -q -a -m one; git branch next
             git checkout -q --orphan other; git commit -q -m other; git tag here; git tag there base",
        );
        site.push("next other here there");
        let settings = protected();
        let (alice, bob) = (user("alice", Role::Pusher), user("bob", Role::Pusher));
        let reviewer = user("rita", Role::Reviewer);
        let judge = |pusher: &Caller, ask| {
            let results = site.check_by(pusher, &[ask], &settings);
            of(&results, "refs").findings.first().map(|finding| finding.message.clone())
        };
        let (forward, forced) = (("refs/heads/main", "base", "next"), ("refs/heads/main", "next", "other"));
        assert_eq!(judge(&alice, forward), None);
        assert!(judge(&Caller::Anonymous, forward).unwrap().ends_with("may not be moved by you"));
        assert_eq!(
            judge(&alice, forced).unwrap(),
            "refs/heads/main is protected by \"refs/heads/main\" and may only be moved forward"
        );
        assert_eq!(judge(&bob, forced), None);
        assert_eq!(judge(&Caller::Local, ("refs/heads/main", "base", "")), None);
        assert!(judge(&bob, ("refs/heads/main", "base", "")).unwrap().ends_with("may not be deleted by you"));
        let create = ("refs/heads/main", "", "next");
        assert!(judge(&bob, create).unwrap().ends_with("may not be made by you"));
        assert_eq!(judge(&reviewer, create), None);
        // A tag never moves forward.
        assert!(judge(&alice, ("refs/tags/here", "base", "next")).unwrap().ends_with("moved forward"));
        assert_eq!(judge(&bob, ("refs/tags/here", "base", "next")), None);
        assert_eq!(judge(&alice, ("refs/heads/other", "base", "other")), None);
    }
}

#[test]
fn a_push_that_asks_for_nothing_is_told_so() {
    let site = Site::new(&gits()[0]);
    site.push_nothing();
    let results = site.check(&[("refs/heads/main", "base", "base")], &ChecksSettings::default());
    assert_eq!(messages(only_failure(&results, "empty")), ["the ref stays where it is"]);
}

#[test]
fn signatures_count_when_their_keys_are_allowed() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("ssh-keygen -q -t ed25519 -N '' -f good; ssh-keygen -q -t ed25519 -N '' -f other
             echo \"alice@example.com $(cat good.pub)\" > signers
             cd work; git config gpg.format ssh; git config user.signingKey ../good
             git commit -q -S --allow-empty -m good; git tag -s -m good v-good");
        site.push("main v-good");
        let signature = SignatureSettings { required: true, allowed_signers: Some(site.path("signers")) };
        let settings = ChecksSettings { signature, ..ChecksSettings::default() };
        let asks = [("refs/heads/main", "base", "main"), ("refs/tags/v-good", "", "v-good")];
        // What the owner of the repository has configured does not count.
        site.sh(
            "cd srv.git; git config gpg.ssh.allowedSignersFile /dev/null; git config log.showSignature true
                 git config gpg.ssh.program /bin/true; git config gpg.program /bin/true",
        );
        all_pass(&site.check(&asks, &settings));

        site.work(
            "git commit -q --allow-empty -m unsigned; git tag -a -m unsigned v-none
             git config user.signingKey ../other; git commit -q -S --allow-empty -m other; git tag -s -m other v-other
             git cat-file commit main~2 | sed 's/^good$/changed/' | git hash-object -t commit -w --stdin > ../changed
             git branch changed $(cat ../changed)",
        );
        site.push("main v-none v-other changed");
        let asks = [
            ("refs/heads/main", "base", "main"),
            ("refs/heads/changed", "", "changed"),
            ("refs/tags/v-none", "", "v-none"),
            ("refs/tags/v-other", "", "v-other"),
        ];
        let results = site.check(&asks, &settings);
        let findings = only_failure(&results, "signature");
        let mut found = messages(findings);
        found.sort_unstable();
        let expected = [
            "the commit is not signed with an ssh key",
            "the commit is signed with a key that is not allowed",
            "the commit's signature is bad, expired or revoked",
            "the tag v-none is not signed with an ssh key that is allowed",
            "the tag v-other is not signed with an ssh key that is allowed",
        ];
        assert_eq!(found, expected);
        let unsigned = findings.iter().find(|finding| finding.message == expected[0]).unwrap();
        assert_eq!(unsigned.commit.as_deref(), Some(&*site.oid("main~1")));

        site.work(
            "id=$({ git cat-file tag v-good; echo 'and not a word of this'; } | git hash-object -t tag -w --stdin)
             git update-ref refs/tags/v-more $id",
        );
        site.push("v-more");
        let results = site.check(&[("refs/tags/v-more", "", "v-more")], &settings);
        let more = "the tag v-good has text behind its signature";
        assert_eq!(messages(only_failure(&results, "signature")), [more]);

        fs::remove_file(site.path("signers")).unwrap();
        let results = site.check(&asks, &settings);
        assert_eq!(of(&results, "signature").verdict, Verdict::Unavailable);
    }
}
