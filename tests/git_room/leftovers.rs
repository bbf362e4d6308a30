//! What really killed pushes leave, and that all of it goes and nothing else.

use crate::support::{Site, ZERO, gits, kill, run, spawn, spooled, wait_for};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::time::{Duration, Instant, SystemTime};
use tidegate::git::command::{Protocol, Service};
use tidegate::git::footprint::Footprint;
use tidegate::git::layout::Repository;
use tidegate::git::lease::{LeaseError, Leases};
use tidegate::git::leftovers::{Swept, Window, sweep};
use tidegate::git::push_request::{Bounds, PushRequest};
use tidegate::supervise::{Child, Input};

/// A limit of hanging.
const LIMIT: Duration = Duration::from_secs(60);

const BOUNDS: Bounds = Bounds { commands: 100, bytes: 100_000 };

fn footprint(body: &[u8]) -> Footprint {
    Footprint::of_push(&PushRequest::read(body, BOUNDS).unwrap())
}

/// Kills a push with `body` when `is_far_enough`, and sweeps after it.
fn killed(site: &Site, body: &[u8], stdin: Input, is_far_enough: impl Fn()) -> Swept {
    let from = SystemTime::now();
    let child = spawn(site.serve(Service::ReceivePack, false, Protocol::V0), stdin);
    is_far_enough();
    kill(child);
    let window = Window { from, until: SystemTime::now() };
    sweep(&site.repository(), window, &footprint(body), &[]).unwrap()
}

/// A push that succeeds at the first try, and a repository without a fault.
fn assert_well(site: &Site, body: &[u8]) {
    site.sh("rm -f srv.git/hooks/*");
    let (outcome, answer) = run(site.serve(Service::ReceivePack, false, Protocol::V0), spooled(body));
    let text = answer.escape_ascii().to_string();
    assert!(outcome.is_success() && text.contains("unpack ok") && !text.contains("ng refs/"), "{text}");
    site.sh("git -C srv.git fsck --strict --no-dangling");
}

/// A push that updates HEAD's branch, makes a ref in new directories and deletes one.
fn many_sided(site: &Site) -> Vec<u8> {
    let tip = site.tip();
    let commands = [("refs/heads/main", &*tip), ("refs/heads/new/deep/er", &tip), ("refs/heads/gone", ZERO)];
    site.push_body(&commands, "atomic", &[])
}

#[test]
fn a_push_killed_while_its_pack_arrives_leaves_nothing() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("git -C srv.git config receive.unpackLimit 1");
        let before = site.files();
        let body = many_sided(&site);
        let from = SystemTime::now();
        let mut child = spawn(site.serve(Service::ReceivePack, false, Protocol::V0), Input::Pipe);
        let mut stdin = fs::File::from(child.take_stdin().unwrap());
        stdin.write_all(&body[..body.len() - 30]).unwrap();
        wait_for(|| site.files().iter().any(|name| name.contains("/tmp_pack_")));
        kill(child);
        drop(stdin);
        let window = Window { from, until: SystemTime::now() };
        let swept = sweep(&site.repository(), window, &footprint(&body), &[]).unwrap();
        assert!(swept.is_clean() && !swept.removed.is_empty(), "{swept:?}");
        assert_eq!(site.files(), before);
        assert_well(&site, &body);
    }
}

#[test]
fn a_push_killed_in_any_hook_leaves_nothing() {
    // Where it hangs, from how many objects on the pack is kept whole, and whether anything is left there: after the refs
    // there is not, nor before them, unless a pack is being kept.
    let stages = [
        ("pre-receive", "", 100, true),
        ("pre-receive", "", 1, true),
        ("update", "", 100, false),
        ("update", "", 1, true),
        ("reference-transaction", "prepared", 100, true),
        ("reference-transaction", "committed", 1, true),
        ("post-receive", "", 1, false),
    ];
    for git in gits() {
        for (hook, when, unpack_limit, leaves) in stages {
            let site = Site::new(&git);
            site.sh(&format!("git -C srv.git config receive.unpackLimit {unpack_limit}"));
            let before = site.files();
            let body = many_sided(&site);
            site.hang_in(hook, when);
            let swept = killed(&site, &body, spooled(&body), || site.wait_until_hung());
            assert!(swept.is_clean(), "{hook} {when}: {swept:?}");
            assert_eq!(!swept.removed.is_empty(), leaves, "{hook} {when}: {swept:?}");
            let new = [
                "./refs/heads/main",
                "./refs/heads/new",
                "./refs/heads/new/deep",
                "./refs/heads/new/deep/er",
            ];
            let files = site.files();
            let left = files.difference(&before).filter(|name| !new.contains(&name.as_str()));
            assert_eq!(left.collect::<Vec<_>>(), Vec::<&String>::new(), "{hook} {when}: after {swept:?}");
            let tip = site.tip();
            let again =
                site.push_body(&[("refs/heads/main", &tip), ("refs/heads/again", &tip)], "atomic", &[]);
            assert_well(&site, &again);
        }
    }
}

#[test]
fn a_shallow_push_leaves_neither_its_lock_nor_its_list() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh(
            "git -C srv.git config receive.shallowUpdate true; git -C srv.git config receive.unpackLimit 1",
        );
        let before = site.files();
        let parent = site.sh("git -C work rev-parse main~1");
        // A shallow border that the server does not have: an orphan of its own.
        let border = site.sh("cd work; git commit-tree -m border $(git rev-parse main^{tree})");
        let child =
            site.sh(&format!("cd work; git commit-tree -p {border} -m child $(git rev-parse main^{{tree}})"));
        site.sh(&format!("cd work; printf '%s\\n^%s\\n' {child} {parent} | git pack-objects -q --revs --stdout > ../whole; git update-ref refs/heads/main {child}; git update-ref refs/heads/border {border}"));
        let mut body = site.push_body(&[("refs/heads/shallow", &child)], "", &[&border]);
        let head = PushRequest::read(&body[..], BOUNDS).unwrap().pack_offset;
        body.truncate(usize::try_from(head).unwrap());
        body.extend(fs::read(site.path("whole")).unwrap());
        site.hang_in("reference-transaction", "prepared");
        let swept = killed(&site, &body, spooled(&body), || site.wait_until_hung());
        assert!(swept.is_clean(), "{swept:?}");
        let allowed = BTreeSet::from(["./shallow".to_owned()]);
        let left: BTreeSet<String> = site.files().difference(&before).cloned().collect();
        assert!(left.is_subset(&allowed), "{left:?} after {swept:?}");
    }
}

#[test]
fn the_locks_and_files_of_other_writers_stay() {
    for git in gits() {
        let site = Site::new(&git);
        let earlier = ["refs/heads/theirs.lock", "config.lock", "objects/tmp_objdir-incoming-theirs"];
        let later = ["refs/heads/later.lock", "shallow.lock"];
        site.sh(&format!("cd srv.git; for f in {}; do touch $f; done; sleep 0.1", earlier.join(" ")));
        let body = many_sided(&site);
        site.hang_in("reference-transaction", "prepared");
        let swept = killed(&site, &body, spooled(&body), || {
            site.wait_until_hung();
            site.sh(&format!("cd srv.git; for f in {}; do touch $f; done", later.join(" ")));
        });
        assert!(swept.is_clean() && swept.removed.len() >= 4, "{swept:?}");
        for name in earlier.iter().chain(&later) {
            assert!(site.path("srv.git").join(name).exists(), "{name} is not ours: {swept:?}");
        }
        assert!(!site.path("srv.git/HEAD.lock").exists());
    }
}

#[test]
fn nothing_is_removed_while_a_foreign_git_is_at_work() {
    for git in gits() {
        let site = Site::new(&git);
        let body = many_sided(&site);
        site.hang_in("pre-receive", "");
        let from = SystemTime::now();
        let child = spawn(site.serve(Service::ReceivePack, false, Protocol::V0), spooled(&body));
        site.wait_until_hung();
        kill(child);
        let (before, footprint) = (site.files(), footprint(&body).notes().join("\n"));
        for work in ["cd srv.git; exec git", "exec git --git-dir=srv.git", "exec env GIT_DIR=srv.git git"] {
            let mut foreign = spawn(site.shell(&format!("{work} cat-file --batch")), Input::Pipe);
            let stdin = foreign.take_stdin();
            wait_for(|| is_called(&foreign, "git"));
            assert_eq!(sweep_as_a_sibling(&site, from, &footprint), "0 removed, 1 skipped", "{work}");
            assert_eq!(site.files(), before);
            drop(stdin);
            assert!(foreign.finish().is_success());
        }
        let reader = spawn(site.shell("exec tail -f srv.git/HEAD"), Input::Null);
        wait_for(|| is_called(&reader, "tail"));
        assert_eq!(sweep_as_a_sibling(&site, from, &footprint), "1 removed, 0 skipped");
        kill(reader);
    }
}

/// Whether a child has become this program.
fn is_called(child: &Child, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/comm", child.pid())).is_ok_and(|comm| comm.trim_end() == name)
}

/// Sweeps in a process of its own, to which the children of this one are foreign.
fn sweep_as_a_sibling(site: &Site, from: SystemTime, footprint: &str) -> String {
    let mut invocation = site.shell("");
    invocation.program = std::env::current_exe().unwrap();
    invocation.args = ["--ignored", "--exact", "leftovers::sweeps_on_behalf_of_another_test", "--nocapture"]
        .map(Into::into)
        .into();
    let from = from.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros().to_string();
    let git_dir = site.path("srv.git").display().to_string();
    let orders = [("SWEEP_DIR", git_dir), ("SWEEP_FROM", from), ("SWEEP_FOOTPRINT", footprint.to_owned())];
    invocation.env.extend(orders.map(|(name, value)| (name.into(), value.into())));
    let (outcome, output) = run(invocation, Input::Null);
    assert!(outcome.is_success(), "{outcome}");
    let output = String::from_utf8(output).unwrap();
    output.lines().find_map(|line| line.split_once("swept: ")).unwrap().1.to_owned()
}

#[test]
#[ignore = "a part of nothing_is_removed_while_a_foreign_git_is_at_work"]
#[expect(clippy::disallowed_methods, reason = "orders for this process come from the test that starts it")]
fn sweeps_on_behalf_of_another_test() {
    let order = |name: &str| std::env::var(name).unwrap();
    let git_dir = std::path::PathBuf::from(order("SWEEP_DIR"));
    let repository = Repository { common_dir: git_dir.clone(), git_dir };
    let from = SystemTime::UNIX_EPOCH + Duration::from_micros(order("SWEEP_FROM").parse().unwrap());
    let footprint = Footprint::from_notes(&order("SWEEP_FOOTPRINT").lines().collect::<Vec<_>>());
    let swept = sweep(&repository, Window { from, until: SystemTime::now() }, &footprint, &[]).unwrap();
    println!("swept: {} removed, {} skipped", swept.removed.len(), swept.skipped.len());
}

#[test]
fn our_own_readers_do_not_keep_a_repository_from_being_cleaned() {
    for git in gits() {
        let site = Site::new(&git);
        let mut reader = spawn(site.serve(Service::UploadPack, false, Protocol::V2), Input::Pipe);
        let _stdin = reader.take_stdin();
        let body = many_sided(&site);
        site.hang_in("pre-receive", "");
        let swept = killed(&site, &body, spooled(&body), || site.wait_until_hung());
        assert!(swept.is_clean() && swept.removed.len() == 1, "{swept:?}");
    }
}

#[test]
fn reftables_are_unlocked_where_git_has_them() {
    for git in gits() {
        let site = Site::new(&git);
        let made = "rm -rf srv.git; git init -q --bare --ref-format=reftable srv.git 2>/dev/null && echo yes || echo no";
        if site.sh(made) != "yes" {
            continue;
        }
        site.sh("git -C work push -q ../srv.git main~1:refs/heads/gone");
        let before = site.files();
        let body = many_sided(&site);
        site.hang_in("reference-transaction", "prepared");
        let swept = killed(&site, &body, spooled(&body), || site.wait_until_hung());
        assert!(swept.is_clean(), "{swept:?}");
        assert_eq!(site.files(), before);
        assert_well(&site, &body);
    }
}

#[test]
fn a_push_killed_beside_a_hanging_one_closes_the_repository_to_nobody() {
    for git in gits() {
        let site = Site::new(&git);
        let before = site.files();
        let leases = Leases::new();
        let enter = |body: &[u8], time| {
            let deadline = Instant::now() + time;
            leases.enter(&site.repository(), footprint(body), Box::new(()), deadline, || false)
        };
        let start = |body: &[u8]| {
            let lease = enter(body, LIMIT).unwrap();
            let mut child = spawn(site.serve(Service::ReceivePack, false, Protocol::V0), spooled(body));
            child.hold(Box::new(lease.hold()));
            site.wait_until_hung();
            (lease, child)
        };
        let tip = site.tip();
        let alive = site.push_body(&[("refs/heads/alive", &tip)], "", &[]);
        site.hook("pre-receive", "touch ../hung\nuntil [ -e ../released ]; do sleep 0.05; done");
        let (living, hanging) = start(&alive);

        site.sh("rm srv.git/hooks/pre-receive");
        let doomed = many_sided(&site);
        site.hang_in("reference-transaction", "prepared");
        let (killed, child) = start(&doomed);
        kill(child);
        for lock in ["HEAD.lock", "packed-refs.lock", "refs/heads/new/deep/er.lock"] {
            assert!(site.path("srv.git").join(lock).exists(), "{lock}");
        }
        drop(killed);

        // Another ref, then those of the killed push.
        for body in [site.push_body(&[("refs/heads/third", &tip)], "", &[]), doomed] {
            let lease = enter(&body, LIMIT).unwrap();
            assert_well(&site, &body);
            lease.settle();
        }
        site.sh("touch released");
        let (outcome, answer) = hanging.collect(1 << 16, None);
        let text = answer.escape_ascii().to_string();
        assert!(outcome.is_success() && text.contains("ok refs/heads/alive"), "{text}");
        living.settle();
        assert_eq!(leases.tend(), 0);
        let new = ["alive", "main", "new", "new/deep", "new/deep/er", "third"];
        let new: BTreeSet<String> = new.map(|name| format!("./refs/heads/{name}")).into();
        let left: BTreeSet<String> = site.files().difference(&before).cloned().collect();
        assert!(left.is_subset(&new), "{left:?}");
    }
}

#[test]
fn locks_that_a_living_push_may_hold_stay_and_close_only_their_refs_until_it_ends() {
    for git in gits() {
        let site = Site::new(&git);
        let before = site.files();
        let leases = Leases::new();
        let body = many_sided(&site);
        site.hang_in("reference-transaction", "prepared");
        let enter = |time| {
            let deadline = Instant::now() + time;
            leases.enter(&site.repository(), footprint(&body), Box::new(()), deadline, || false)
        };
        let lease = enter(LIMIT).unwrap();
        let beside = enter(LIMIT).unwrap();
        let mut child = spawn(site.serve(Service::ReceivePack, false, Protocol::V0), spooled(&body));
        child.hold(Box::new(lease.hold()));
        site.wait_until_hung();
        kill(child);
        assert_ne!(site.files(), before);
        drop(lease);
        assert_eq!(enter(Duration::from_millis(10)).unwrap_err(), LeaseError::Deadline);
        assert!(site.path("srv.git/HEAD.lock").exists());
        beside.settle();
        assert_eq!(site.files(), before);
        let lease = enter(LIMIT).unwrap();
        assert_well(&site, &body);
        lease.settle();
    }
}
