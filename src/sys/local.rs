//! File systems of this machine alone, and the clock by which they stamp files.
//!
//! On these every change of a file or directory, by whomever, gives it a new time of change (`st_ctime`) before the call that
//! changed it returns, taken from a clock that can be read here. On others (NFS, FUSE, 9p) an answer of `stat` may be an old
//! one, and whose clock it tells is not known.

use nix::errno::Errno;
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC,
    XFS_SUPER_MAGIC, statfs,
};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use std::io;
use std::path::Path;

/// The file systems of which that is known; ext2 and ext3 share their number with ext4.
const LOCAL: [FsType; 6] = [
    EXT4_SUPER_MAGIC,
    XFS_SUPER_MAGIC,
    BTRFS_SUPER_MAGIC,
    F2FS_SUPER_MAGIC,
    TMPFS_MAGIC,
    OVERLAYFS_SUPER_MAGIC,
];

/// How far the wall clock may have been set back unnoticed, in seconds: slewing takes hours for as much.
const SET_BACK_MAX: i64 = 1;

/// Whether `path` is on such a file system.
///
/// # Errors
/// What statfs(2) answers.
pub fn is_local(path: &Path) -> io::Result<bool> {
    let kind = statfs(path)?.filesystem_type();
    Ok(LOCAL.contains(&kind))
}

/// A moment of the clock that stamps files.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// What a file that changes now is stamped with, in seconds and nanoseconds since 1970, or a little less: never more.
    pub stamp: (i64, i64),
    /// The seconds since 1970 at which the machine was started, by the same clock.
    boot: i64,
}

impl Moment {
    /// The present one.
    ///
    /// # Errors
    /// When the kernel has no such clocks.
    pub fn now() -> io::Result<Self> {
        let (wall, since_boot) = (read(ClockId::CLOCK_REALTIME_COARSE)?, read(ClockId::CLOCK_BOOTTIME)?);
        let stamp = (wall.tv_sec(), wall.tv_nsec());
        Ok(Self { stamp, boot: wall.tv_sec() - since_boot.tv_sec() })
    }

    /// Whether the clock was set back between `earlier` and this moment, so that a time may have come twice.
    #[must_use]
    pub const fn is_set_back_from(&self, earlier: &Self) -> bool {
        self.boot + SET_BACK_MAX < earlier.boot
    }
}

fn read(clock: ClockId) -> Result<TimeSpec, Errno> {
    clock_gettime(clock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_that_changes_is_stamped_no_earlier_than_the_moment_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for number in 0..200 {
            let before = Moment::now().unwrap();
            fs::write(&path, number.to_string()).unwrap();
            let found = fs::metadata(&path).unwrap();
            assert!((found.ctime(), found.ctime_nsec()) >= before.stamp);
        }
    }

    #[test]
    fn proc_is_none_of_the_file_systems_whose_stamps_are_trusted() {
        assert!(!is_local(Path::new("/proc")).unwrap());
        assert!(is_local(&std::env::temp_dir()).unwrap(), "the tests of what is remembered need one that is");
        assert!(is_local(Path::new("/no/such/place")).is_err());
    }

    #[test]
    fn a_clock_that_was_set_back_is_noticed_and_one_that_runs_on_is_not() {
        let earlier = Moment::now().unwrap();
        let set_back = |seconds| Moment { boot: earlier.boot - seconds, ..earlier };
        assert!(!set_back(0).is_set_back_from(&earlier) && !set_back(1).is_set_back_from(&earlier));
        assert!(set_back(2).is_set_back_from(&earlier) && !set_back(-100).is_set_back_from(&earlier));
    }
}
