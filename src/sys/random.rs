//! Random bytes from the kernel, by getrandom(2) itself.
//!
//! The crate of that name looks the call up with dlsym(3), which a static binary does not have, and then opens
//! `/dev/random`, which an empty root does not have.

use nix::errno::Errno;
use nix::libc;
use std::io;

/// Bytes that are fit for keys; waits, once after the machine's start, until the kernel has any.
///
/// # Errors
/// What the kernel says when the call is forbidden or missing.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

/// A number from 0 to 1, for what is to happen at different times in different places. Without random bytes it is 0: it
/// happens side by side then, and no worse.
#[must_use]
pub fn fraction() -> f64 {
    let bytes = bytes::<2>().unwrap_or_default();
    f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX)
}

fn fill(mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        // SAFETY: the pointer and the length are those of one buffer, valid for writes.
        let answer = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match Errno::result(answer).map(usize::try_from) {
            // A request of more than 256 bytes may be cut short by a signal.
            Ok(filled) => buffer = buffer.split_at_mut(filled.unwrap_or(0)).1,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_random_and_differs_each_time() {
        let (one, two) = (bytes::<1000>().unwrap(), bytes::<1000>().unwrap());
        assert_ne!(one, two);
        assert!(one[990..].iter().any(|byte| *byte != 0));
    }
}
