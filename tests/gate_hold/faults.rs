//! The gate is killed before and after each commit of a push's life; after the next start the record is right.

use crate::fates::{Fate, fate, points};
use crate::support::{PATIENCE, Site};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use tidegate::model::push::PushState;
use tidegate::store::pushes::Filter;
use tidegate::sys::fault::Point;

#[test]
fn a_gate_that_dies_at_any_point_leaves_no_canceled_push_undecided_and_forwards_an_approved_one_once() {
    points().for_each(|point| die_at(point, false));
}

#[test]
fn a_gate_that_dies_at_any_point_still_forwards_a_push_that_is_kept() {
    points().for_each(|point| die_at(point, true));
}

#[test]
fn an_unknown_point_is_refused() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["serve", "--root", "/"])
        .env("TIDEGATE_FAULT_POINT", "before-lunch")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("\"before-lunch\" is no fault point"));
}

#[track_caller]
fn die_at(point: Point, is_kept: bool) {
    let fate = fate(point, is_kept);
    let mode = if is_kept { "keep" } else { "cancel" };
    let mut site = Site::stopped(&format!("on_disconnect = {mode:?}"));
    site.sh("printf '#!/bin/sh\\necho once >> ../../forwards\\n' > root/app.git/hooks/post-receive
             chmod +x root/app.git/hooks/post-receive; touch forwards");
    site.fault_point = Some(format!("{:?}-{}", point.side, point.state).to_lowercase());
    site.start();
    let client = site.push("main");
    if site.until_dead_or(PushState::Pending) {
        // The answer is lost with the gate that was to give it.
        site.decide(&["approve", "1"]);
    }
    assert_eq!(site.await_end().signal(), Some(9), "{point:?}: the gate dies there");
    let (is_success, said) = client.finish();
    assert!(!is_success, "{point:?}: {said}");

    site.fault_point = None;
    site.start();
    match fate {
        Fate::Unknown => {
            assert!(
                site.store
                    .pushes()
                    .list(&Filter { limit: 1, ..Filter::default() })
                    .unwrap()
                    .pushes
                    .is_empty()
            );
        }
        Fate::Canceled => drop(site.until(PushState::Canceled)),
        Fate::Waits => {
            let push = site.until(PushState::Pending);
            let approved = site.decide(&["approve", &push.id.to_string()]);
            assert!(approved.status.success(), "{point:?}: {approved:?}");
            site.until(PushState::Forwarded);
        }
        Fate::Forwarded => drop(site.until(PushState::Forwarded)),
    }
    let is_forwarded = matches!(fate, Fate::Waits | Fate::Forwarded);
    assert_eq!(site.main_of("root/app.git") == site.main_of("work"), is_forwarded, "{point:?}");
    assert_eq!(site.sh("wc -l < forwards"), if is_forwarded { "1" } else { "0" }, "{point:?}");
    site.until_empty("data/held");
    site.until_empty("data/tmp");
    site.until_childless();
}

impl Site {
    /// Waits for the end of a gate that dies by itself.
    fn await_end(&mut self) -> ExitStatus {
        self.gate.take().unwrap().wait().unwrap()
    }

    /// Waits until the gate has died, or the newest push is there; answers whether it is.
    fn until_dead_or(&mut self, state: PushState) -> bool {
        let since = Instant::now();
        loop {
            if self.newest().is_some_and(|push| push.state == state) {
                return true;
            }
            if self.gate.as_mut().unwrap().try_wait().unwrap().is_some() {
                return false;
            }
            assert!(since.elapsed() < PATIENCE, "neither dead nor {state}: {:?}", self.newest());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a directory holds nothing.
    fn until_empty(&self, name: &str) {
        let since = Instant::now();
        let names = || fs::read_dir(self.path(name)).unwrap().map(|entry| entry.unwrap().file_name());
        while names().count() > 0 {
            assert!(since.elapsed() < PATIENCE, "{name} holds {:?}", names().collect::<Vec<_>>());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until no process names this place, as every git of the gate does.
    fn until_childless(&self) {
        let (home, since) = (self.home.path().to_str().unwrap().to_owned(), Instant::now());
        let left = || {
            let lines = fs::read_dir("/proc").unwrap().filter_map(|entry| {
                let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
                Some(String::from_utf8_lossy(&line).replace('\0', " "))
            });
            lines.filter(|line| line.contains(&home)).collect::<Vec<_>>()
        };
        while !left().is_empty() {
            assert!(since.elapsed() < PATIENCE, "these live on: {:?}", left());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
