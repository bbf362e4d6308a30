//! A listening unix socket that no other process finds: for a server of ours that must not be reached but through us.

use nix::libc;
use socket2::{Domain, SockAddr, Type};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Connections that wait to be accepted: more than there can be callers at a time.
const BACKLOG: i32 = 256;

/// The way to a socket that has lost its name; the kernel finds it by this handle of its inode.
#[derive(Debug)]
pub struct PrivateAddress(File);

impl PrivateAddress {
    /// Makes the socket at `path`, takes the name away, and only then listens: whoever saw the name was refused. What
    /// else stands at `path` is removed.
    ///
    /// # Errors
    /// What the system answers to any of these steps.
    pub fn listen(path: &Path) -> io::Result<(UnixListener, Self)> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let inode = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
        fs::remove_file(path)?;
        socket.listen(BACKLOG)?;
        Ok((OwnedFd::from(socket).into(), Self(inode)))
    }

    /// Connects to the socket, wherever its name has gone.
    ///
    /// # Errors
    /// As `connect(2)`: refused when nobody listens any more.
    pub fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// Ends the accepting of a listener, also of one that another thread waits on.
pub fn end_accepting(listener: &UnixListener) {
    // Fails only where nothing is accepted any more.
    let _ = socket2::SockRef::from(listener).shutdown(std::net::Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_private_socket_has_no_name_and_is_reached_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inner");
        fs::write(&path, "left behind").unwrap();
        let (listener, address) = PrivateAddress::listen(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut client = address.connect().unwrap();
        client.write_all(b"hello").unwrap();
        let mut got = [0; 5];
        listener.accept().unwrap().0.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        drop(listener);
        assert_eq!(address.connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_listener_whose_accepting_is_ended_wakes_its_thread() {
        let dir = tempfile::tempdir().unwrap();
        let (listener, _address) = PrivateAddress::listen(&dir.path().join("inner")).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| listener.accept().is_err());
            end_accepting(&listener);
            assert!(waiting.join().unwrap());
        });
    }
}
