//! A real browser without a window.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::place::{Place, path_variable};

/// Headless Chromium with a home of its own in `place`; what it is to do follows.
pub(crate) fn chromium(place: &Place) -> Command {
    static VISITS: AtomicU32 = AtomicU32::new(0);
    let home = place.work(&format!("chromium-{}", VISITS.fetch_add(1, Ordering::Relaxed)));
    let mut chromium = Command::new("chromium");
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    chromium.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    chromium.args(["--disable-dev-shm-usage", "--no-proxy-server"]);
    chromium.arg(format!("--user-data-dir={}", home.display()));
    chromium.env_clear().env("PATH", path_variable()).env("HOME", &home).current_dir(place.path());
    chromium
}
