//! What the files of all answers may take on the disk.

use crate::sys::space;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where files are made, and the sum of what is in them, whether they are kept, being written or still being read.
#[derive(Debug)]
pub(super) struct Disk {
    tmp: PathBuf,
    bytes_max: u64,
    floor: u64,
    used: AtomicU64,
}

impl Disk {
    pub(super) const fn new(tmp: PathBuf, bytes_max: u64, floor: u64) -> Self {
        Self { tmp, bytes_max, floor, used: AtomicU64::new(0) }
    }

    /// A file without a name.
    pub(super) fn file(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.tmp)
    }

    /// How many bytes more must be free on the volume; `None` where that cannot be told.
    pub(super) fn missing(&self) -> Option<u64> {
        space::available(&self.tmp).ok().map(|free| self.floor.saturating_sub(free))
    }

    /// Whether a file of `bytes` has room where there is no other.
    pub(super) const fn could_have(&self, bytes: u64) -> bool {
        bytes <= self.bytes_max
    }

    /// Takes `bytes` if all files together may have them.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let more = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}
