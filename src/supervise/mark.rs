//! The marks in the environment of every child, by which it and whatever it starts is known for ours.

use crate::sys::procfs;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

/// The variable that names the data directory, and so the gate.
const DATA: &str = "TIDEGATE_DATA";

/// The variable that names the job within the life of one gate.
const JOB: &str = "TIDEGATE_JOB";

/// The identity of a gate across its lives: device and inode of the lock in its data directory.
///
/// A process that clears its environment loses the mark, and is ours only as long as it stays in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    /// The mark of the gate that holds `lock`.
    ///
    /// # Errors
    /// When the file cannot be inspected.
    pub fn of(lock: &File) -> io::Result<Self> {
        let facts = lock.metadata()?;
        Ok(Self(format!("{}:{}", facts.dev(), facts.ino())))
    }

    /// What a child of job `number` gets into its environment.
    pub(super) fn variables(&self, number: u64) -> [(&'static str, String); 2] {
        [(DATA, self.0.clone()), (JOB, number.to_string())]
    }

    /// Whether a process with this environment comes from this gate, in this life or an earlier one.
    pub(super) fn is_in(&self, environ: &[u8]) -> bool {
        procfs::variable(environ, DATA) == Some(self.0.as_bytes())
    }

    /// The job that a process with this environment belongs to; `None` when it is not ours.
    pub(super) fn job_in(&self, environ: &[u8]) -> Option<u64> {
        let number = procfs::variable(environ, JOB).filter(|_| self.is_in(environ))?;
        str::from_utf8(number).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_known_only_beside_our_own_mark() {
        let mark = Mark("64:17".to_owned());
        assert_eq!(mark.job_in(b"TIDEGATE_JOB=7\0TIDEGATE_DATA=64:17\0"), Some(7));
        assert_eq!(mark.job_in(b"TIDEGATE_JOB=7\0TIDEGATE_DATA=64:170\0"), None);
        assert_eq!(mark.job_in(b"TIDEGATE_JOB=\0TIDEGATE_DATA=64:17\0"), None);
        assert_eq!(mark.job_in(b""), None);
    }

    #[test]
    fn two_locks_are_two_gates() {
        let (one, two) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        assert_eq!(Mark::of(&one).unwrap(), Mark::of(&one).unwrap());
        assert_ne!(Mark::of(&one).unwrap(), Mark::of(&two).unwrap());
    }
}
