//! What gets into a staging repository, and what does not.

use crate::support::{Site, gits};
use std::fs::{self, File};
use std::io::{BufReader, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use tidegate::gate::forward::Verdict;
use tidegate::git::object_format::ObjectFormat;
use tidegate::git::push_request::{Bounds, PushRequest};

const ACCEPTED: Verdict = Verdict::Accepted;

#[test]
fn a_held_push_is_one_pack_beside_the_target_and_runs_no_hook() {
    for git in gits() {
        let site = Site::new(&git);
        site.hook("pre-receive", "touch ../ran; exit 1");
        let (before, objects) = (site.files(), site.objects());
        site.sh("cd work; for i in 4 5 6; do echo $i > file; git commit -q -a -m $i; done");
        let push = site.hold(site.request("main main:refs/heads/new"));
        let held = push.staging.git_dir().display();
        assert_eq!(site.sh(&format!("ls {held}/objects/pack/*.pack | wc -l")), "1");
        assert_eq!(site.sh(&format!("find {held}/objects -name '??' | wc -l")), "0");
        // Self-contained: it can be read without the target.
        site.sh(&format!("cd {held}; mv objects/info/alternates ../; git verify-pack objects/pack/*.idx; mv ../alternates objects/info/"));
        assert_eq!(site.sh(&format!("git -C {held} rev-parse main")), site.rev("work", "main"));
        assert_eq!((site.files(), site.objects()), (before, objects), "the target is untouched");
        assert!(!site.path("ran").exists());
        let mode = fs::metadata(push.staging.git_dir()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        site.remove(&push);
    }
}

#[test]
fn a_push_that_is_behind_the_target_is_refused_in_git_s_words() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("cd work; echo 4 > file; git commit -q -a -m 4");
        let body = site.request("main main:refs/heads/new");
        site.sh("git -C srv.git update-ref refs/heads/main main~1");
        let push = site.try_hold(body).1.unwrap();
        assert!(push.answer.unpack.is_ok() && push.answer.verdicts[1].is_ok());
        let why = push.answer.verdicts[0].as_ref().unwrap_err();
        assert!(why.contains("failed to update ref") || why.contains("incorrect old value"), "{why}");
        site.remove(&push);
    }
}

#[test]
fn a_corrupt_pack_and_a_bad_object_are_refused_with_a_sentence() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("cd work; echo 4 > file; git commit -q -a -m 4");
        site.request("main");
        let mut body = fs::read(site.path("body")).unwrap();
        let middle = body.len() - 40;
        body[middle] ^= 0x55;
        let push = site.try_hold(spooled(&body)).1.unwrap();
        let why = push.answer.refusal_of_pack().unwrap();
        assert!(why.starts_with("git refused the pack: ") && why.len() > 40, "{why}");
        assert!(push.answer.verdicts.iter().all(Result::is_err));
        site.remove(&push);

        // Cut short in the middle of the pack.
        let push = site.try_hold(spooled(&body[..middle])).1.unwrap();
        assert!(push.answer.refusal_of_pack().is_some());
        site.remove(&push);

        commit(&site, "a <a@b> 1 +0000\\nauthor b <b@b> 1 +0000", "bad");
        let push = site.try_hold(site.request("bad")).1.unwrap();
        let why = push.answer.refusal_of_pack().unwrap();
        assert!(why.contains("multipleAuthors"), "{why}");
        site.remove(&push);
    }
}

#[test]
fn the_faults_of_old_gits_are_forgiven() {
    for git in gits() {
        let site = Site::new(&git);
        commit(&site, "a a@b 1 +0000", "no-email");
        commit(&site, "a <a@b> 1 +051800", "timezone");
        let push = site.hold(site.request("no-email timezone"));
        assert!(push.answer.remarks.iter().any(|line| line.contains("badTimezone")), "{:?}", push.answer);
        assert_eq!(site.forward(&push).verdict, ACCEPTED);
        site.remove(&push);
    }
}

/// Makes a branch of one commit by `author`, whatever that is.
fn commit(site: &Site, author: &str, branch: &str) {
    site.sh(&format!(
        "cd work; git update-ref refs/heads/{branch} $(printf 'tree %s\\nauthor {author}\\ncommitter a <a@b> 1 +0000\\n\\nm\\n' \
         $(git rev-parse main^{{tree}}) | git hash-object -t commit -w --stdin --literally)"
    ));
}

fn spooled(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn a_pack_without_what_its_commits_need_is_refused() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("cd work; for i in 4 5; do echo $i > file; git commit -q -a -m $i; done");
        let body = site.request("main");
        // Only the last commit's objects follow the commands.
        let head = PushRequest::read(BufReader::new(&body), Bounds { commands: 9, bytes: 9999 }).unwrap();
        let mut cut = fs::read(site.path("body")).unwrap();
        cut.truncate(usize::try_from(head.pack_offset).unwrap());
        site.sh("cd work; printf 'main\\n^main~1\\n' | git pack-objects -q --revs --stdout > ../pack");
        cut.extend(fs::read(site.path("pack")).unwrap());
        let push = site.try_hold(spooled(&cut)).1.unwrap();
        let why = push.answer.refusal_of_pack().unwrap();
        assert!(why.starts_with("git refused the pack: did not receive expected object"), "{why}");
        assert!(!why.contains("shallow"), "{why}");
        site.remove(&push);
    }
}

#[test]
fn a_shallow_clone_pushes_what_ends_in_the_target_s_history_and_nothing_else() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("git clone -q --depth 1 file://$PWD/srv.git shallow; cd shallow
             for i in 4 5; do echo $i > file; git commit -q -a -m $i; done
             git init -q ../foreign; cd ../foreign; for i in 1 2 3; do echo x$i > f; git add f; git commit -q -m x$i; done
             git clone -q --depth 2 file://$PWD ../borders; cd ../borders; git branch -m own");
        for what in ["main", "main~1:refs/heads/new main:refs/heads/newer"] {
            let push = site.hold(site.request_from("shallow", what));
            assert_eq!(site.forward(&push).verdict, ACCEPTED);
            assert_eq!(site.refs("srv.git"), site.refs("copy.git"));
            assert!(!site.path("srv.git/shallow").exists());
            site.remove(&push);
        }
        site.sh("git -C srv.git fsck --strict --no-dangling");
        let push = site.try_hold(site.request_from("borders", "own")).1.unwrap();
        let why = push.answer.refusal_of_pack().unwrap();
        assert!(why.contains("expected object") && why.contains("--unshallow"), "{why}");
        site.remove(&push);
    }
}

#[test]
fn a_target_that_is_shallow_itself_can_be_pushed_to() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh(
            "git clone -q --bare --depth 1 file://$PWD/srv.git cut.git; rm -rf srv.git; mv cut.git srv.git
             cd work; echo 4 > file; git commit -q -a -m 4",
        );
        let push = site.hold(site.request("main main:refs/heads/new"));
        assert_eq!(site.forward(&push).verdict, ACCEPTED);
        assert_eq!(site.refs("srv.git"), site.refs("copy.git"));
        site.remove(&push);
    }
}

#[test]
fn an_empty_target_takes_its_first_push() {
    for git in gits() {
        let site = Site::empty(&git, ObjectFormat::Sha1, "");
        site.sh("cd work; echo 1 > file; git add file; git commit -q -m 1; git tag -a -m t v1");
        let push = site.hold(site.request("main v1"));
        assert_eq!(site.forward(&push).verdict, ACCEPTED);
        assert_eq!(site.refs("srv.git"), site.refs("copy.git"));
        site.remove(&push);
    }
}

#[test]
fn the_hash_and_the_ref_format_of_the_target_do_not_matter() {
    for git in gits() {
        let has_reftable = git.version() >= tidegate::git::command::GitVersion::new(2, 45, 0);
        let kinds = [(ObjectFormat::Sha256, ""), (ObjectFormat::Sha1, "--ref-format=reftable")];
        for (format, init) in kinds.into_iter().filter(|(_, init)| init.is_empty() || has_reftable) {
            let site = Site::of(&git, format, init);
            site.sh("cd work; echo 4 > file; git commit -q -a -m 4");
            let push = site.hold(site.request("main main:refs/heads/new :gone"));
            assert_eq!(site.forward(&push).verdict, ACCEPTED);
            assert_eq!(site.refs("srv.git"), site.refs("copy.git"));
            site.remove(&push);
        }
    }
}

#[test]
fn what_the_target_itself_borrows_is_found_through_it() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("mv srv.git 'po \"ol.git'; git init -q --bare srv.git; cd srv.git; git symbolic-ref HEAD refs/heads/main
             printf '\"../../po \\\\\"ol.git/objects\"\\n' > objects/info/alternates; git update-ref refs/heads/main $(git -C ../work rev-parse main)
             cd ../work; echo 4 > file; git commit -q -a -m 4");
        let push = site.hold(site.request("main"));
        assert_eq!(site.forward(&push).verdict, ACCEPTED);
        assert_eq!(site.rev("srv.git", "main"), site.rev("work", "main"));
        site.remove(&push);
    }
}

#[test]
fn a_ref_may_have_a_name_that_the_gate_has_for_its_own() {
    for git in gits() {
        for name in ["refs/tidegate/border", "refs/tidegate/border/x"] {
            let site = Site::new(&git);
            site.sh("cd work; echo 4 > file; git commit -q -a -m 4");
            let push = site.hold(site.request(&format!("main:{name}")));
            assert_eq!(site.forward(&push).verdict, ACCEPTED);
            assert_eq!(site.refs("srv.git"), site.refs("copy.git"));
            site.remove(&push);
        }
    }
}

#[test]
fn what_a_push_needs_may_be_behind_any_branch_of_the_target_however_many_there_are() {
    for git in gits() {
        for count in [3, 10_001] {
            let site = Site::new(&git);
            site.sh(&format!(
                "cd srv.git; for i in $(seq {count}); do printf 'commit refs/heads/b%s\ncommitter a <a@b> %s +0000\ndata 1\nx\n' $i $i
                 printf 'M 644 inline f\ndata %s\n%s\n' ${{#i}} $i; done | git fast-import --quiet
                 cd ../work; git fetch -q ../srv.git b3; git checkout -q -b side FETCH_HEAD; echo 4 > g; git add g; git commit -q -m 4"
            ));
            let push = site.hold(site.request("side main:refs/heads/same"));
            let held = push.staging.git_dir().display();
            let borders = site.sh(&format!("git -C {held} for-each-ref refs/tidegate | wc -l"));
            // Those of the target and those of these branches.
            assert_eq!(borders, if count < 10_000 { (count + 2).to_string() } else { "0".to_owned() });
            assert_eq!(site.forward(&push).verdict, ACCEPTED);
            assert_eq!(site.refs("srv.git"), site.refs("copy.git"));
            site.remove(&push);
        }
    }
}
