//! Which objects are new, and which came along unseen.

use crate::support::{Site, all_pass, gits, messages, of, only_failure};
use std::fs;
use tidegate::config::checks::ChecksSettings;
use tidegate::model::check::Verdict;

const MAIN: [(&str, &str, &str); 1] = [("refs/heads/main", "base", "main")];

fn everything() -> ChecksSettings {
    let mut settings = ChecksSettings { secrets: true, ..ChecksSettings::default() };
    settings.blobs.size_max = Some(1 << 20);
    settings
}

#[test]
fn a_thin_pack_and_objects_that_the_target_has_are_no_hidden_ones() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(
            "sed -i '7s/.*/seven/' file; git commit -q -a -m one; git revert --no-edit HEAD > /dev/null",
        );
        // The whole history again, besides what the push brings with bases added to its deltas.
        site.push("main");
        site.work("git rev-list --objects --all | git pack-objects -q --stdout | git -C ../held.git index-pack --stdin > /dev/null");
        assert!(fs::read_dir(site.path("held.git/objects/pack")).unwrap().count() > 3);
        all_pass(&site.check(&MAIN, &everything()));
    }
}

#[test]
fn an_object_that_no_pushed_ref_reaches_is_refused() {
    for git in gits() {
        let site = Site::new(&git);
        site.work("echo 1 >> file; git commit -q -a -m one");
        site.push("main");
        let unseen = site.work(
            "echo unseen > u; git add u; git stash -q; T=$(git rev-parse stash)
             printf '%s\\n^%s\\n' $T main | git pack-objects -q --revs --stdout | git -C ../held.git index-pack --stdin > /dev/null
             echo $T",
        );
        let loose = site.sh("echo loose | GIT_OBJECT_DIRECTORY=held.git/objects git -C . --git-dir=held.git hash-object -w --stdin");
        let results = site.check(&MAIN, &everything());
        let found = messages(only_failure(&results, "hidden"));
        for oid in [unseen, loose] {
            let message = format!("the pack holds {oid}, which no pushed ref reaches");
            assert!(found.contains(&message.as_str()), "{message}: {found:?}");
        }
        // The same commit, once a ref names it.
        site.work("git branch named stash");
        site.push("main named");
        all_pass(&site.check(&[MAIN[0], ("refs/heads/named", "", "named")], &ChecksSettings::default()));
    }
}

#[test]
fn what_git_adds_to_a_thin_pack_is_not_looked_for_and_hides_nothing() {
    for git in gits() {
        let mut site = Site::new(&git);
        site.count_gits();
        site.work(
            "seq 1 4000 > file; git commit -q -a -m long; git push -q ../srv.git main; git tag -f base
             echo x >> file; git commit -q -a -m more",
        );
        let objects = || -> usize {
            site.sh("git -C srv.git show-index < $(ls held.git/objects/pack/*.idx) | wc -l").parse().unwrap()
        };
        let sent = || usize::from(fs::read(site.path("pack")).unwrap()[11]);
        site.take_thin("$(git rev-parse main)");
        assert!(
            objects() > sent() && sent() == 3,
            "git has added the base of the file: {} {}",
            objects(),
            sent()
        );
        let before = site.gits_counted();
        all_pass(&site.check(&MAIN, &ChecksSettings::default()));
        // Naming the two ends of the push and the length of ids is the test's own.
        assert_eq!(site.gits_counted() - before - 3, 1);

        // The target has a file that no ref of its leads to. The push names it and does not bring it, and brings another one
        // as a difference to it.
        let [known, hidden] = [
            "seq 9 4000 > new; git add new; git commit -q -m new; git -C ../srv.git hash-object -w $PWD/new",
            "(seq 9 4000; echo y) | git hash-object -w --stdin",
        ]
        .map(|script| site.work(script));
        site.take_thin(&format!("$(git rev-parse main) {hidden} ^{known}"));
        assert!(objects() > sent() && sent() == 6, "{} of {}", sent(), objects());
        let results = site.check(&MAIN, &ChecksSettings::default());
        assert!(messages(only_failure(&results, "hidden"))[0].contains(&hidden), "{results:?}");
    }
}

#[test]
fn a_deletion_that_brings_objects_is_refused() {
    let site = Site::new(&gits()[0]);
    site.work("echo 1 >> file; git commit -q -a -m one");
    site.push("main");
    let results = site.check(&[("refs/heads/main", "base", "")], &everything());
    assert_eq!(only_failure(&results, "hidden").len(), 3);
}

#[test]
fn repositories_of_the_other_hash_are_checked_as_well() {
    for git in gits() {
        let site = Site::of_format(&git, "sha256");
        site.work("echo 1 >> file; git commit -q -a -m one; git tag -a -m t v1");
        site.push("main v1");
        let asks = [MAIN[0], ("refs/tags/v1", "", "v1")];
        all_pass(&site.check(&asks, &everything()));
        let mut settings = everything();
        settings.blobs.size_max = Some(1);
        let results = site.check(&asks, &settings);
        assert_eq!(only_failure(&results, "blobs")[0].commit.as_deref(), Some(&*site.oid("main")));
        site.work("echo unseen | git hash-object -w --stdin | git pack-objects -q --stdout | git -C ../held.git index-pack --stdin > /dev/null");
        assert_eq!(only_failure(&site.check(&asks, &everything()), "hidden").len(), 1);
    }
}

#[test]
fn a_replacement_in_the_target_hides_nothing() {
    for git in gits() {
        let site = Site::new(&git);
        site.work(
            "GIT_AUTHOR_EMAIL=eve@evil.example git commit -q --allow-empty -m bad; git branch bad
                   git reset -q --hard base; git commit -q --allow-empty -m good; git branch good",
        );
        site.push("bad");
        site.work("git push -q ../srv.git good; git -C ../srv.git update-ref refs/replace/$(git rev-parse bad) good");
        let mut settings = everything();
        settings.email.domains = vec![tidegate::model::block::Domain::parse("example.com").unwrap()];
        let results = site.check(&[("refs/heads/bad", "", "bad")], &settings);
        only_failure(&results, "identity-email");
    }
}

#[test]
fn what_git_cannot_read_refuses_every_check_that_needs_it() {
    for git in gits() {
        let site = Site::new(&git);
        site.work("echo 1 >> file; git commit -q -a -m one");
        site.push("main");
        site.sh("rm held.git/objects/pack/*");
        let results = site.check(&MAIN, &everything());
        assert_eq!(of(&results, "empty").verdict, Verdict::Pass);
        for name in ["hidden", "blobs", "secrets"] {
            let result = of(&results, name);
            assert_eq!(result.verdict, Verdict::Unavailable, "{results:#?}");
            assert!(result.findings[0].message.starts_with("the check could not run: git failed at listing"));
            assert!(!result.findings[0].message.contains(site.path("").to_str().unwrap()), "{result:#?}");
        }
        site.sh("touch held.git/objects/pack/pack-1.pack");
        assert_eq!(of(&site.check(&MAIN, &everything()), "hidden").verdict, Verdict::Unavailable);
    }
}
