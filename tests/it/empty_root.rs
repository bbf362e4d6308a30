//! One binary in a root that holds nothing but git and the libraries of the two, as PID 1: a container from scratch.
//!
//! `/dev` and `/proc` are there as in every container: git 2.47 takes no push without `/dev/urandom`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::gate::BINARY;
use crate::support::git::gits;
use crate::support::place::{Place, path_variable, token_of};
use crate::support::run::{Running, run};
use crate::support::{HANG, eventually, obtain, procfs, repo};

/// The libraries that the dynamic loader would load for `program`, and the loader itself; none for a static one.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let mut command = Command::new("ldd");
    command.arg(program);
    let listed = run(command, b"", HANG);
    listed.text().split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// Puts `file` at the same place below `root`.
fn install(root: &Path, file: &Path) {
    let target = root.join(file.strip_prefix("/").unwrap());
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    // By another process, so that no descriptor open for writing here reaches a child of another test (ETXTBSY).
    let mut copy = Command::new("cp");
    copy.arg("--dereference").arg(file).arg(target);
    run(copy, b"", HANG).ok();
}

/// A root with the gate, git and their libraries: no shell, no `/etc`.
fn furnish(root: &Path, git: &Path) {
    let mut command = Command::new(git);
    command.arg("--exec-path");
    let helper = PathBuf::from(run(command, b"", HANG).ok().text()).join("git");
    for program in [Path::new(BINARY), git, &helper] {
        install(root, program);
        libraries(program).iter().for_each(|library| install(root, library));
    }
}

/// What runs the following words as the first process of a pid namespace, with `root` as its root.
fn unshared_command(root: &Path) -> Command {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--pid", "--fork", "--kill-child", "--mount", "--", "/bin/sh", "-c"]);
    command
        .arg("mount --rbind /dev \"$0/dev\" && mount -t proc proc \"$0/proc\" && exec chroot \"$0\" \"$@\"");
    command.arg(root).env_clear().env("PATH", path_variable());
    command
}

#[test]
fn the_gate_runs_as_pid_1_in_a_root_that_holds_only_git_and_libraries() {
    let place = Place::new();
    place.user("alice", "pusher");
    let served = repo::history(&place, "demo.git");
    let git = gits().remove(0);
    let root = place.work("empty");
    furnish(&root, &git);
    for directory in ["root", "data"] {
        fs::rename(place.path().join(directory), root.join(directory)).unwrap();
    }
    for directory in ["proc", "dev"] {
        fs::create_dir(root.join(directory)).unwrap();
    }

    let mut command = unshared_command(&root);
    command.args([BINARY, "serve", "--root", "/root", "--data-dir", "/data", "--listen", "127.0.0.1:0"]);
    let mut gate = Running::start(command, Vec::new());
    let address = obtain(HANG, "the gate listens", || {
        assert!(gate.is_running(), "the gate ended: {}", gate.heard());
        let heard = gate.heard();
        let rest = heard.split("listening on http://").nth(1)?;
        rest.split_whitespace().next().map(str::to_owned)
    });

    let client = place.client();
    let clone = client.cloned(
        &[],
        &format!("http://alice:{}@{address}/demo", token_of("alice")),
        &place.work("clone"),
    );
    let tip = clone.commit("a", b"a", "a");
    clone.git(&["push", "origin", "HEAD"]).ok();
    assert_eq!(served.at(&root.join("root/demo.git")).oid("main"), tip);

    let unshare = gate.pid().as_raw();
    let pid = procfs::children(unshare).remove(0).pid;
    eventually(HANG, "no child is left", || procfs::descendants(pid).is_empty());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    gate.finish(HANG).ok();
}
