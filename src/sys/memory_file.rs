//! A file that lies nowhere but in memory, and that a child of ours can open by its place in `/proc`.
//!
//! It is how a program is told a secret that reads nothing but files: no argument, no environment and no disk holds it.
//! The kernel lets only processes into our `/proc/PID/fd` that it would let trace us: those of the same user without
//! more rights lost than we have, and root. Another user gets `EACCES`, whatever the mode of the file says.

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fmt;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// An open file that holds `content`, to be read from its start: the input of a child that has to work with a full disk, too.
///
/// # Errors
/// When the machine is short of memory or descriptors.
pub fn reader_of(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("tidegate", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// A file in memory that nobody can change. It is there until this is dropped; its place is then free for another file,
/// so whoever was told it must have ended.
pub struct MemoryFile(File);

impl MemoryFile {
    /// A file that holds `content`. No child inherits it.
    ///
    /// # Errors
    /// When the machine is short of memory or descriptors.
    pub fn of(content: &[u8]) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = File::from(memfd_create("tidegate", flags)?);
        file.write_all(content)?;
        let seals =
            SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self(file))
    }

    /// Where a child finds it: every opening reads from the start.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }
}

impl fmt::Debug for MemoryFile {
    /// Without what it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryFile").field(&self.path()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, OpenOptions};

    #[test]
    fn it_is_read_by_its_place_as_often_as_one_likes_and_never_changed() {
        let file = MemoryFile::of(b"secret").unwrap();
        for _ in 0..2 {
            assert_eq!(fs::read(file.path()).unwrap(), b"secret");
        }
        let opened = OpenOptions::new().write(true).open(file.path());
        assert!(opened.and_then(|mut file| file.write_all(b"other")).is_err());
        assert_eq!(fs::read(file.path()).unwrap(), b"secret");
        assert!(!format!("{file:?}").contains("secret"));
    }
}
