//! The lock that makes a data directory belong to one running gate.
//!
//! It is an flock(2) on `DATA/lock`: the kernel lets go of it when the process ends, however it ends. Commands
//! that work on the database beside the gate do not take it.

use super::{StoreError, private};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;

/// The file's name in the data directory. It is never removed: another one of that name would be another lock.
const FILE: &str = "lock";
/// The most of its content that is read: a process id.
const PID_BYTES_MAX: u64 = 20;
/// How long a gate that was killed may take to vanish: the kernel frees its memory first, and closes its files then.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait before another look whether it has.
const STEP: Duration = Duration::from_millis(10);

/// A data directory held for this process; dropping it lets go.
#[derive(Debug)]
pub struct DataLock {
    file: Flock<File>,
}

/// Why the data directory could not be taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another gate runs on it.
    #[error("{} is in use by another gate{}: stop that one, or give this one a --data-dir of its own", path.display(), process(*pid))]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The other gate's process, where it said so.
        pid: Option<u32>,
    },
    /// The directory or the file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

impl DataLock {
    /// Takes `data_dir`, made if it is not there, or says who has it. Waits for at most 3 seconds, and only while somebody
    /// else has it: a service manager starts the next gate while a killed one is still on its way out.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process keeps it; otherwise when directory or file are not ours or cannot be made.
    pub fn take(data_dir: &Path) -> Result<Self, LockError> {
        let give_up = Instant::now() + PATIENCE;
        Self::take_while(data_dir, || {
            std::thread::park_timeout(STEP);
            Instant::now() < give_up
        })
    }

    /// The same; `wait` passes some time and answers whether there is to be another look.
    fn take_while(data_dir: &Path, mut wait: impl FnMut() -> bool) -> Result<Self, LockError> {
        private::directory(data_dir)?;
        let path = data_dir.join(FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("opening", &path))?;
        let mut file = loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => break file,
                Err((again, Errno::EWOULDBLOCK)) if wait() => file = again,
                Err((file, Errno::EWOULDBLOCK)) => return Err(LockError::Held { path, pid: holder(file) }),
                Err((_, errno)) => return Err(StoreError::io("locking", &path)(errno.into()).into()),
            }
        };
        sign(&mut file).map_err(StoreError::io("writing", &path))?;
        Ok(Self { file })
    }

    /// The locked file: its device and inode name this data directory on this machine.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Leaves our process id for whoever comes too late.
fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}

fn holder(mut file: File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_second_gate_is_told_who_has_the_directory_until_the_first_lets_go() {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        let first = DataLock::take(&data).unwrap();
        let error = DataLock::take_while(&data, || false).unwrap_err();
        assert!(
            matches!(error, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()),
            "{error}"
        );
        let identity = first.file().metadata().unwrap().ino();
        drop(first);
        let again = DataLock::take(&data).unwrap();
        assert_eq!(again.file().metadata().unwrap().ino(), identity);
    }

    #[test]
    fn a_gate_that_is_on_its_way_out_is_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let dying = DataLock::take(home.path()).unwrap();
        let killed = crate::sys::thread::spawn("dying", move || {
            std::thread::park_timeout(10 * STEP);
            drop(dying);
        });
        DataLock::take(home.path()).unwrap();
        killed.unwrap().join().unwrap();
    }

    #[test]
    fn one_that_stays_is_waited_for_no_longer_than_the_patience_and_a_free_one_not_at_all() {
        let home = tempfile::tempdir().unwrap();
        let _first = DataLock::take_while(home.path(), || panic!("nobody has it")).unwrap();
        let asked = Instant::now();
        assert!(matches!(DataLock::take(home.path()), Err(LockError::Held { pid: Some(_), .. })));
        let waited = asked.elapsed();
        assert!(waited >= PATIENCE, "{waited:?}");
    }
}
