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
use thiserror::Error;

/// The file's name in the data directory. It is never removed: another one of that name would be another lock.
const FILE: &str = "lock";
/// The most of its content that is read: a process id.
const PID_BYTES_MAX: u64 = 20;

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
    /// Takes `data_dir`, made if it is not there, or says who has it; does not wait.
    ///
    /// # Errors
    /// [`LockError::Held`] while another process has it; otherwise when directory or file are not ours or cannot be made.
    pub fn take(data_dir: &Path) -> Result<Self, LockError> {
        private::directory(data_dir)?;
        let path = data_dir.join(FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("opening", &path))?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((file, Errno::EWOULDBLOCK)) => return Err(LockError::Held { path, pid: holder(file) }),
            Err((_, errno)) => return Err(StoreError::io("locking", &path)(errno.into()).into()),
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
        let error = DataLock::take(&data).unwrap_err();
        assert!(
            matches!(error, LockError::Held { pid: Some(pid), .. } if pid == std::process::id()),
            "{error}"
        );
        let identity = first.file().metadata().unwrap().ino();
        drop(first);
        let again = DataLock::take(&data).unwrap();
        assert_eq!(again.file().metadata().unwrap().ino(), identity);
    }
}
