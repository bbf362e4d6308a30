//! `tidegate demo`: one command, a push that waits, lines to paste, and nothing is left when it ends.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::Signal;

use crate::support::gate::{BINARY, listing};
use crate::support::place::{Place, path_variable};
use crate::support::procfs;
use crate::support::run::{Run, Running};
use crate::support::{HANG, eventually, obtain};

/// Demos that look for a free port at once could find the same one: they start one after the other.
static START: Mutex<()> = Mutex::new(());

/// A demo that has printed its guide.
struct Tour {
    demo: Running,
    temporary: PathBuf,
    guide: String,
}

impl Tour {
    #[track_caller]
    fn start(place: &Place) -> Tour {
        let _turn = START.lock().unwrap_or_else(PoisonError::into_inner);
        Tour::start_now(place)
    }

    #[track_caller]
    fn start_now(place: &Place) -> Tour {
        let temporary = place.work("tmp");
        fs::create_dir(&temporary).unwrap();
        let mut command = Command::new(BINARY);
        command.arg("demo").current_dir(place.path()).env_clear();
        command.env("PATH", path_variable()).env("TMPDIR", &temporary);
        let mut demo = Running::start(command, Vec::new());
        let guide = obtain(HANG, "the demo says what to paste", || {
            assert!(demo.is_running(), "the demo ended: {}", demo.heard());
            let heard = demo.heard();
            heard.contains("Ctrl-C ends the demo").then_some(heard)
        });
        Tour { demo, temporary, guide }
    }

    /// The lines to paste below each number.
    fn steps(&self) -> BTreeMap<char, Vec<String>> {
        let mut steps: BTreeMap<char, Vec<String>> = BTreeMap::new();
        let mut step = '0';
        for line in self.guide.lines() {
            if let Some(pasted) = line.strip_prefix("  ") {
                steps.entry(step).or_default().push(pasted.to_owned());
            } else if let Some((number, _)) = line.split_once(". ").filter(|(number, _)| number.len() == 1) {
                step = number.chars().next().unwrap();
            }
        }
        steps
    }

    /// Ends it as Ctrl-C does, and sees that nothing is left.
    #[track_caller]
    fn end(self, place: &Place) -> Run {
        self.demo.signal(Signal::SIGINT);
        let run = self.demo.finish(HANG).ok();
        let left: Vec<_> =
            fs::read_dir(&self.temporary).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        let mut names: Vec<_> =
            fs::read_dir(place.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, ["home", "root", "tmp"]);
        let alive = procfs::working_in(place.mark());
        assert!(alive.is_empty(), "still alive:\n{}", listing(&alive));
        run
    }
}

/// A terminal of somebody whose git knows nobody, in a directory that has nothing to do with the demo.
fn terminal(lines: &[&str]) -> Running {
    let mut shell = Command::new("sh");
    shell.args(["-ec", &lines.join("\n")]).current_dir("/").env_clear();
    shell.env("PATH", path_variable()).env("HOME", "/nonexistent").env("GIT_CONFIG_NOSYSTEM", "1");
    Running::start(shell, Vec::new())
}

#[track_caller]
fn paste(lines: &[&str]) -> Run {
    terminal(lines).finish(HANG).ok()
}

fn words(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).collect()
}

#[test]
fn the_guide_of_the_demo_leads_two_pushes_through_the_gate() {
    let place = Place::new();
    let tour = Tour::start(&place);
    let steps = tour.steps();
    let [decide, look, push, approve] = ['1', '2', '3', '4'].map(|number| words(&steps[&number]));

    let shown = paste(&decide[..2]);
    assert!(shown.text().starts_with("push 1 to forge/lighthouse: pending"), "{}", shown.heard());
    assert!(paste(&[decide[0], decide[2]]).text().contains("+1. Light the lamp at dusk, and in fog"));
    assert!(
        !paste(&look).text().contains("Light the lamp"),
        "it is in the upstream before anybody has approved"
    );
    paste(&decide).says("push 1 is approved");
    eventually(HANG, "Ada's push ends", || tour.demo.heard().contains("of ada has ended (exit 0)"));
    let ended = tour.demo.heard();
    for line in ["  remote: push 1 is approved", "  To http://127.0.0.1:", "  main -> main\n"] {
        assert!(ended.contains(line), "no {line}: {ended}");
    }
    assert!(paste(&look).text().contains("Light the lamp early in fog"));

    let mine = terminal(&push);
    eventually(HANG, "the newcomer's push waits", || mine.heard().contains("push 2 waits for approval"));
    let own = decide[0].replace("grace-grace", "you-and-me");
    terminal(&[&own, approve[0]]).finish(HANG).fails().says("403");
    paste(&[decide[0], approve[0]]).says("push 2 is approved");
    mine.finish(HANG).ok().says("main -> main");
    assert!(paste(&look).text().contains("Say that all is well"));
    tour.end(&place);
}

#[test]
fn a_demo_that_is_left_at_once_leaves_neither_a_file_nor_a_process() {
    let place = Place::new();
    let tour = Tour::start(&place);
    let git = procfs::working_in(place.mark());
    assert!(git.iter().any(|process| process.name.contains("git")), "nobody waits:\n{}", listing(&git));
    let ended = tour.end(&place);
    ended.says("pending -> canceled");
}

#[test]
fn a_demo_beside_another_server_takes_another_port() {
    let place = Place::new();
    let turn = START.lock().unwrap_or_else(PoisonError::into_inner);
    // Whoever has the usual port already, somebody has it now.
    let usual = TcpListener::bind("127.0.0.1:8418");
    let tour = Tour::start_now(&place);
    drop((usual, turn));
    let page = tour.steps()[&'4'][1].clone();
    assert!(page.starts_with("http://127.0.0.1:") && !page.contains(":8418/"), "{page}");
    let configuration =
        tour.guide.lines().find_map(|line| line.strip_prefix("The gate's configuration is in "));
    let configuration = fs::read_to_string(Path::new(configuration.unwrap().trim_end_matches('.'))).unwrap();
    assert!(configuration.contains("approval = \"required\""), "{configuration}");
    tour.end(&place);
}
