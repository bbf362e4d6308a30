//! A mirror becomes what its upstream is, whatever happens there.

use crate::server::Tls;
use crate::support::{LONG, MIRROR, Site, UPSTREAM, credential, gits, stop};
use std::thread;
use std::time::Duration;
use tidegate::git::head::Head;
use tidegate::mirror::{MirrorSettings, Mirrors, Side, UpstreamError};
use tidegate::model::route::Route;

#[test]
fn a_mirror_is_made_and_follows_every_change() {
    for git in gits() {
        let site = Site::new(&git);
        assert!(site.mirrors.find(&site.repo()).is_none());
        let mirror = site.sync();
        assert_eq!(mirror.git_dir, site.path(MIRROR));
        assert_eq!(site.mirrors.find(&site.repo()), Some(mirror));
        assert_eq!(site.sh(&format!("ls -A {MIRROR}/hooks 2>/dev/null || true")), "", "no hooks");
        let steps = [
            "echo 4 > file; git commit -qam 4; git push -q ../srv/team/app.git main main:refs/heads/new",
            "git push -q ../srv/team/app.git :refs/heads/old",
            "git commit -q --amend -m other; git push -q -f ../srv/team/app.git main",
            "git push -q -f ../srv/team/app.git main:refs/tags/v1 main~1:refs/heads/topic",
            "git push -q ../srv/team/app.git :refs/heads/topic; git push -q ../srv/team/app.git main:refs/heads/topic/x",
            "git push -q ../srv/team/app.git :refs/heads/topic/x; git push -q ../srv/team/app.git main~1:refs/heads/topic",
            "git -C ../srv/team/app.git symbolic-ref HEAD refs/heads/new",
            "git push -q ../srv/team/app.git main:refs/changes/1/head",
            "git -C ../srv/team/app.git symbolic-ref HEAD refs/heads/main
             git push -q ../srv/team/app.git :refs/heads/new :refs/heads/topic :refs/tags/v1",
        ];
        for step in steps {
            site.sh(&format!("cd work; {step}"));
            site.sync();
        }
        let packs = site.sh(&format!("find {MIRROR}/objects -type f | grep -cv pack/ || true"));
        assert_eq!(packs, "0", "every fetch leaves packs and no loose objects");
    }
}

#[test]
fn an_empty_upstream_has_an_empty_mirror_that_fills() {
    for git in gits() {
        for format in ["sha1", "sha256"] {
            let site = Site::empty(&git, format);
            site.sync();
            site.sh(&format!(
                "git -C {UPSTREAM} symbolic-ref HEAD refs/heads/trunk
                 cd work; echo 1 > file; git add file; git commit -q -m 1
                 git push -q ../{UPSTREAM} main:refs/heads/trunk"
            ));
            site.sync();
        }
    }
}

#[test]
fn a_directory_is_mirrored_like_a_server_also_when_it_is_another_user_s() {
    for git in gits() {
        let site = Site::new(&git);
        let sync = || {
            // Where this is not root, it stays ours.
            site.sh(&format!("chown -R 65534 {UPSTREAM} || true"));
            let seen = site.ask_at(site.path("srv").to_str().unwrap(), Side::Fetch, None, LONG).unwrap();
            site.bring_seen(&seen).unwrap();
            site.sh(&format!("chown -R $(id -u) {UPSTREAM}"));
            site.assert_same();
        };
        sync();
        let push = "git push -q ../srv/team/app.git main:topic :old";
        site.sh(&format!("cd work; echo 4 > file; git commit -qam 4; {push}"));
        sync();
    }
}

#[test]
fn a_mirror_of_a_closed_server_needs_the_credential() {
    for git in gits() {
        let site = Site::new(&git);
        let seen = site.ask_at(&site.server.closed(), Side::Fetch, Some(&credential()), LONG).unwrap();
        let refused = site.bring_seen(&seen).unwrap_err();
        assert!(matches!(refused, UpstreamError::Unauthorized { .. }), "{refused}");
        assert!(site.mirrors.find(&site.repo()).is_none());
        site.assert_tidy();
        site.bring_with(&seen, Some(&credential()), LONG).unwrap();
        site.assert_same();
    }
}

#[test]
fn what_is_up_to_date_costs_no_fetch_and_those_who_wait_share_one() {
    let site = Site::new(&gits()[0]);
    site.sync();
    site.sh(&format!("cd work; echo 4 > file; git commit -qam 4; git push -q ../{UPSTREAM} main"));
    let before = site.server.requests().matches("POST").count();
    let seen: Vec<_> = (0..6).map(|_| site.ask()).collect();
    thread::scope(|scope| {
        for seen in &seen {
            let site = &site;
            scope.spawn(move || site.bring_seen(seen).unwrap());
        }
    });
    site.assert_same();
    // Protocol v2: what is there was said before, and one request brings the objects.
    assert_eq!(site.server.requests().matches("POST").count() - before, 1);
    site.sync();
    assert_eq!(site.server.requests().matches("POST").count() - before, 1, "nothing has changed");
}

#[test]
fn an_older_answer_does_not_undo_a_newer_one() {
    let site = Site::new(&gits()[0]);
    site.sync();
    let old = site.ask();
    site.sh("cd work; echo 4 > file; git commit -qam 4; git push -q ../srv/team/app.git main main:new");
    site.sync();
    site.bring_seen(&old).unwrap();
    site.assert_same();
}

#[test]
fn a_page_in_the_place_of_the_upstream_removes_nothing() {
    for git in gits() {
        let site = Site::new(&git);
        site.sync();
        let before = site.state(MIRROR);
        site.sh(&format!("cd work; echo 4 > file; git commit -qam 4; git push -q ../{UPSTREAM} main :old"));
        let mut seen = site.ask();
        seen.url =
            tidegate::model::upstream::UpstreamUrl::parse(&site.server.at("page/team/app.git")).unwrap();
        let error = site.bring_seen(&seen).unwrap_err();
        assert!(matches!(error, UpstreamError::Malformed { .. }) && error.is_down(), "{error}");
        assert_eq!(site.state(MIRROR), before);
        site.sync();
    }
}

#[test]
fn a_server_behind_tls_is_trusted_by_its_authority_only() {
    for git in gits() {
        let mut site = Site::new(&git);
        let tls = Tls::before(&site.server, &site.path(""));
        let ask = |site: &Site| site.ask_at(&tls.at("closed"), Side::Fetch, Some(&credential()), LONG);
        let bring = |site: &Site, seen| site.bring_with(seen, Some(&credential()), LONG);
        let error = ask(&site).unwrap_err();
        assert!(matches!(error, UpstreamError::Tls { .. }) && error.is_down(), "{error:?}");
        let trusting = Route { ca_file: Some(tls.authority.clone()), ..Route::default() };
        let system = std::mem::replace(&mut site.route, trusting.clone());
        let seen = ask(&site).unwrap();
        site.route = system;
        let error = bring(&site, &seen).unwrap_err();
        assert!(matches!(error, UpstreamError::Tls { .. }), "git trusts it as little: {error:?}");
        site.route = trusting;
        bring(&site, &seen).unwrap();
        site.assert_same();
    }
}

#[test]
fn a_hostile_head_is_not_followed() {
    let site = Site::new(&gits()[0]);
    let mut seen = site.ask();
    for head in ["refs/heads/../../config", "refs/tags/v1", "refs/heads/gone"] {
        seen.head = Some(Head::Branch(head.to_owned()));
        seen.at += Duration::from_nanos(1);
        site.bring_seen(&seen).unwrap();
        site.assert_same();
    }
}

#[test]
fn objects_that_git_would_not_take_are_not_mirrored_and_old_faults_are_forgiven() {
    for git in gits() {
        let site = Site::new(&git);
        site.sync();
        let commit = |site: &Site, header: &str| {
            site.sh(&format!("cd {UPSTREAM}; tree=$(git rev-parse main^{{tree}})
                 id=$(printf 'tree %s\\n{header}\\n\\nx\\n' $tree | git hash-object -t commit -w --literally --stdin)
                 git update-ref refs/heads/odd $id"));
        };
        commit(&site, "author a <> 1 +0000\\ncommitter a 1 +0000");
        site.bring_seen(&site.ask()).unwrap();
        assert_eq!(site.state(MIRROR), site.state(UPSTREAM));
        let before = site.state(MIRROR);
        commit(&site, "author a <a@b> 99999999999999999999999 +0000\\ncommitter a <a@b> 1 +0000");
        let error = site.bring_seen(&site.ask()).unwrap_err();
        assert!(matches!(error, UpstreamError::Git { .. }), "{error}");
        assert_eq!(site.state(MIRROR), before);
        site.assert_tidy();
    }
}

/// Moves the upstream by one commit.
const MOVE: &str = "cd work; echo more >> file; git commit -qam more; git push -q ../srv/team/app.git main";

#[test]
fn a_ref_that_names_nothing_is_taken_out_and_the_mirror_goes_on() {
    for git in gits() {
        let mut site = Site::new(&git);
        site.sync();
        let dangling = format!("echo {} > {MIRROR}/refs/heads/dangling", "1".repeat(40));
        let inode = |site: &Site| site.sh(&format!("stat -c %i {MIRROR}"));
        let before = inode(&site);
        site.sh(&format!("{dangling}\n{MOVE}"));
        // What an earlier life left there.
        site.mirrors = Mirrors::open(&site.path("data"), MirrorSettings::default(), stop()).unwrap();
        site.sync();
        assert_eq!(inode(&site), before, "the mirror is not made anew for one ref");
    }
}

#[test]
fn the_refs_of_a_mirror_are_in_one_file_that_git_would_write_byte_for_byte() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("cd work; git tag -m v2 v2 v1; git tag -m tree tree main^{tree}; git tag light main^{tree}
                 git push -q ../srv/team/app.git --tags main:refs/heads/a-b main:refs/heads/a/b main:refs/heads/ä");
        for step in ["true", MOVE] {
            site.sh(step);
            site.sync();
            // Git's own, out of the same refs as it keeps them before it packs them.
            site.sh(&format!(
                "rm -rf theirs.git; git clone -q --mirror {UPSTREAM} theirs.git; cd theirs.git; rm packed-refs
                 git fetch -q origin; git for-each-ref | wc -l; git pack-refs --all; cmp packed-refs ../{MIRROR}/packed-refs"
            ));
            assert_eq!(site.sh(&format!("find {MIRROR}/refs -type f")), "");
        }
    }
}

#[test]
fn a_mirror_with_loose_refs_is_taken_over() {
    for git in gits() {
        let mut site = Site::new(&git);
        site.sync();
        let inode = |site: &Site| site.sh(&format!("stat -c %i {MIRROR}"));
        let before = inode(&site);
        for is_all in [true, false] {
            let main = if is_all { "" } else { "grep -v main |" };
            site.sh(&format!(
                "cd {MIRROR}; git for-each-ref --format='update %(refname) %(objectname)' > ../all; rm packed-refs
                 cat ../all | {main} cat > ../loose; grep -F main ../all > ../one
                 git update-ref --stdin < ../one; git pack-refs --all; git update-ref --stdin < ../loose
                 git update-ref refs/tidegate/x main; find refs -type f | grep -q ."
            ));
            site.mirrors = Mirrors::open(&site.path("data"), MirrorSettings::default(), stop()).unwrap();
            site.sh(MOVE);
            site.sync();
            assert_eq!(site.sh(&format!("cd {MIRROR}; find refs -type f -not -path '*/tidegate/*'")), "");
            site.sh(&format!("git -C {MIRROR} rev-parse -q --verify refs/tidegate/x"));
        }
        assert_eq!(inode(&site), before, "it is the same mirror");
    }
}

#[test]
fn refs_that_no_repository_can_have_beside_each_other_or_as_branches_change_nothing() {
    let site = Site::new(&gits()[0]);
    site.sync();
    let before = site.state(MIRROR);
    let (main, tag) = ("refs/heads/main", "refs/tags/v1");
    for (name, like) in [("refs/heads/main/x", main), ("refs/heads/tag", tag)] {
        let mut seen = site.ask();
        let oid = seen.refs[like].clone();
        seen.refs.insert(name.to_owned(), oid);
        let error = site.bring_seen(&seen).unwrap_err();
        assert!(matches!(&error, UpstreamError::Malformed { why, .. } if why.contains(name)), "{error}");
        assert_eq!(site.state(MIRROR), before);
        site.assert_tidy();
    }
}

#[test]
fn what_is_gone_since_the_upstream_was_asked_ends_in_what_it_has_now() {
    for git in gits() {
        let site = Site::new(&git);
        site.sync();
        site.sh(&format!("cd work; git checkout -q -b gone; echo gone > file; git commit -qam gone; git push -q ../{UPSTREAM} gone"));
        let seen = site.ask();
        site.sh(&format!(
            "git -C work checkout -q main; ({MOVE})
             git -C {UPSTREAM} update-ref -d refs/heads/gone; git -C {UPSTREAM} gc -q --prune=now"
        ));
        site.bring_seen(&seen).unwrap();
        site.assert_same();
    }
}

#[test]
fn a_broken_mirror_is_made_anew_and_keeps_what_a_held_push_borrows() {
    for (git, is_held) in gits().into_iter().flat_map(|git| [(git.clone(), false), (git, true)]) {
        let mut site = Site::new(&git);
        site.sync();
        // A commit that only the mirror has, and refs that nobody can read.
        let only = site.sh(&format!(
            "cd work; id=$(git commit-tree -m only main^{{tree}}); git push -q ../{MIRROR} $id:refs/heads/only; echo $id"
        ));
        site.sh(&format!("echo x y z > {MIRROR}/packed-refs\n{MOVE}"));
        if is_held {
            let held = site.path("data/held/7.git/objects/info").display().to_string();
            let objects = site.path(MIRROR).join("objects").display().to_string();
            site.sh(&format!("mkdir -p {held}; echo '\"{objects}\"' > {held}/alternates"));
        }
        site.mirrors = Mirrors::open(&site.path("data"), MirrorSettings::default(), stop()).unwrap();
        site.sync();
        let found = site.sh(&format!("git -C {MIRROR} cat-file -e {only} 2>/dev/null && echo there || true"));
        assert_eq!(found == "there", is_held);
        site.sh(MOVE);
        site.sync();
    }
}
