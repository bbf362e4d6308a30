//! `tidegate demo`: one command, and nothing is left when it ends.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::gate::BINARY;
use crate::support::place::{Place, path_variable};
use crate::support::run::Running;
use crate::support::{HANG, obtain};

/// The first address of a repository in what was printed.
fn address(text: &str) -> Option<String> {
    let words = text.split_whitespace().map(|word| word.trim_matches(|c: char| "`'\"".contains(c)));
    words
        .filter(|word| word.starts_with("http://"))
        .find(|word| word.matches('/').count() > 2)
        .map(str::to_owned)
}

#[test]
fn the_demo_serves_what_it_says_and_leaves_nothing_behind() {
    let place = Place::new();
    let temporary = place.work("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = Command::new(BINARY);
    command
        .arg("demo")
        .current_dir(place.path())
        .env_clear()
        .env("PATH", path_variable())
        .env("TMPDIR", &temporary);
    let mut demo = Running::start(command, Vec::new());
    let url = obtain(HANG, "the demo says what to paste", || {
        assert!(demo.is_running(), "the demo ended: {}", demo.heard());
        address(&demo.heard())
    });
    let clone = place.client().cloned(&[], &url, &place.work("clone"));
    let commits: u32 = clone.git(&["rev-list", "--count", "--all"]).ok().text().parse().unwrap();
    assert!(commits >= 24, "only {commits} commits to look at");
    assert!(fs::read_dir(&temporary).unwrap().count() > 0, "the demo works somewhere else than in TMPDIR");
    demo.signal(Signal::SIGINT);
    demo.finish(HANG).ok();
    let left: Vec<_> = fs::read_dir(&temporary).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let mut names: Vec<_> =
        fs::read_dir(place.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["clone", "home", "root", "tmp"]);
}
