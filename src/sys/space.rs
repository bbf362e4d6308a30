//! How much room a volume has.

use nix::sys::statvfs::statvfs;
use std::io;
use std::path::Path;

/// Bytes that this process may still write on the volume of `path`.
///
/// # Errors
/// What statvfs(3) answers.
pub fn available(path: &Path) -> io::Result<u64> {
    let volume = statvfs(path)?;
    Ok(volume.blocks_available().saturating_mul(volume.fragment_size()))
}
