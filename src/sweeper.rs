//! The door through which time comes in: the table of jobs that the thread `sweeper` runs.
//!
//! A job is short, looks at facts only, and may be run at any time and twice.

use crate::config::SweeperSettings;
use crate::http::app::App;
use crate::sys::timetable::{self, Job};
use jiff::Timestamp;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// A row: the name in `[sweeper]`, the interval's setting, one run.
type Row = (&'static str, fn(&SweeperSettings) -> Duration, fn(&Arc<App>) -> Result<(), String>);

/// Every job.
const JOBS: [Row; 4] = [
    ("orphans", |every| every.orphans, end_orphans),
    ("leftovers", |every| every.leftovers, clean_leftovers),
    ("tokens", |every| every.tokens, forget_expired_tokens),
    ("checkpoint", |every| every.checkpoint, checkpoint),
];

/// Starts the thread `sweeper`.
///
/// # Errors
/// When it cannot be started.
pub fn start(app: &Arc<App>) -> io::Result<JoinHandle<()>> {
    let jobs = JOBS.map(|(name, every, run)| Job { name, every: every(&app.settings.sweeper), run });
    timetable::start("sweeper", jobs.into(), Arc::clone(app), app.stop.clone(), &app.sweeps)
}

/// What left its group and outlived its job is told to go, and killed when it does not.
fn end_orphans(app: &Arc<App>) -> Result<(), String> {
    app.reaper.sweep_orphans(app.settings.git.kill_grace);
    Ok(())
}

/// What a killed git left and a foreign writer kept from being cleaned.
fn clean_leftovers(app: &Arc<App>) -> Result<(), String> {
    app.leases.tend();
    Ok(())
}

fn forget_expired_tokens(app: &Arc<App>) -> Result<(), String> {
    app.store.users().forget_expired(Timestamp::now()).map(drop).map_err(|error| error.to_string())
}

/// Keeps the write-ahead log short.
fn checkpoint(app: &Arc<App>) -> Result<(), String> {
    app.store.checkpoint().map_err(|error| error.to_string())
}
