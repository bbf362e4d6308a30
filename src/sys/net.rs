//! Listeners and client sockets: tcp and unix behind one type each, never blocking, closed on exec.
//!
//! Owns every socket option that the public front relies on and the waits for a socket. It knows nothing of HTTP: a
//! [`Socket`] moves bytes, says whether its client is gone, and leaves deadlines to its caller.

use crate::sys::poll::{self, Interest};
use crate::sys::stop::{Level, Stop};
use nix::libc;
use socket2::{Domain, SockAddr, TcpKeepalive, Type};
use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, IoSlice, Read};
use std::mem;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Connections that may wait in the kernel to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;

/// Keep-alive probes start after this much silence ...
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
/// ... come this often ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// ... and this many unanswered ones end the connection, unless `TCP_USER_TIMEOUT` allows more: where it is set, Linux
/// asks for its time instead of their number.
const KEEPALIVE_PROBES: u32 = 3;

/// A client that owes us an acknowledgement and has sent none for this long is gone: ten retransmissions or so.
const ACK_SILENCE: Duration = Duration::from_secs(30);

/// The mode of a unix socket of ours: anybody may connect, as to a port on the loopback. To connect is to write, and a
/// proxy's workers run as another user; who must not come here is kept out by the mode of the directory.
const SOCKET_MODE: u32 = 0o666;

/// Where a socket listens, or where a client comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An internet address and port.
    Tcp(SocketAddr),
    /// A unix socket; clients of one have no path of their own.
    Unix(Option<PathBuf>),
}

impl Address {
    /// The internet address, when there is one; an IPv4 address mapped into IPv6 comes out as IPv4.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip().to_canonical()),
            Self::Unix(_) => None,
        }
    }

    fn of(address: &SockAddr) -> Self {
        match address.as_socket() {
            Some(address) => Self::Tcp(address),
            None => Self::Unix(address.as_pathname().map(Path::to_owned)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(None) => f.write_str("unix"),
        }
    }
}

/// A listening socket. Dropping it frees the port, and removes the file of a unix socket that we made.
#[derive(Debug)]
pub struct Listener {
    socket: socket2::Socket,
    address: Address,
    file: Option<SocketFile>,
}

impl Listener {
    /// Listens on an internet address; port 0 takes any free port (see [`Listener::address`]).
    ///
    /// # Errors
    /// What `socket(2)`, `bind(2)` or `listen(2)` answer: an address in use, or one that is not ours.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Self::listening(socket, None)
    }

    /// Listens on a unix socket at `path`, to which every user of the machine may connect who reaches its directory.
    /// A socket file that nobody listens on, left by a killed gate, is replaced.
    ///
    /// # Errors
    /// [`ErrorKind::AddrInUse`] when someone listens there or the path is not a socket; else as [`Listener::tcp`].
    pub fn unix(path: &Path) -> io::Result<Self> {
        remove_stale_socket(path)?;
        let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile::at(path)?;
        // Before it listens, so that nobody is turned away by the mode that the umask left.
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
        socket.listen(BACKLOG)?;
        Self::listening(socket, Some(file))
    }

    /// Takes over a listening descriptor that the service manager passed; its socket file stays the manager's.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the descriptor is not a listening stream socket.
    pub fn inherited(fd: OwnedFd) -> io::Result<Self> {
        let number = fd.as_raw_fd();
        let socket = socket2::Socket::from(fd);
        let listens = socket.r#type().and_then(|kind| Ok(kind == Type::STREAM && socket.is_listener()?));
        let unfit = |why: &str| {
            let what = format!("descriptor {number}, which the service manager passed, {why} (LISTEN_FDS)");
            io::Error::new(ErrorKind::InvalidInput, what)
        };
        match listens {
            Ok(true) => {}
            Ok(false) => return Err(unfit("is a socket that does not listen for streams")),
            Err(error) => return Err(unfit(&format!("is no socket: {error}"))),
        }
        socket.set_cloexec(true)?;
        Self::listening(socket, None)
    }

    /// Where it listens, with the port that the kernel chose.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Takes one waiting connection.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] when none waits; else what `accept4(2)` answers.
    pub fn accept(&self) -> io::Result<Socket> {
        let (inner, peer) = self.socket.accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)?;
        Ok(Socket { inner, peer: Address::of(&peer) })
    }

    fn listening(socket: socket2::Socket, file: Option<SocketFile>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = Address::of(&socket.local_addr()?);
        Ok(Self { socket, address, file })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            file.remove();
        }
    }
}

/// The file of a unix socket that we bound, told from a successor's file of the same name by its inode.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: meta.dev(), inode: meta.ino() })
    }

    fn remove(&self) {
        let ours = |meta: fs::Metadata| meta.dev() == self.device && meta.ino() == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // Who cannot remove it now replaces it at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn remove_stale_socket(path: &Path) -> io::Result<()> {
    let taken = |why| Err(io::Error::new(ErrorKind::AddrInUse, why));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(meta) if !meta.file_type().is_socket() => taken("the path exists and is not a socket"),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
            Err(error) => Err(error),
            Ok(_) => taken("another process listens on this socket"),
        },
    }
}

/// How a wait for a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// What was waited for is there.
    Now,
    /// The client is gone, so there will never be room.
    Gone,
    /// The stop reached the level that ends this wait.
    Stopped,
    /// The time is over.
    TimedOut,
}

/// A client's connection. No call blocks but [`Socket::wait`]; dropping it closes the connection.
#[derive(Debug)]
pub struct Socket {
    inner: socket2::Socket,
    peer: Address,
}

impl Socket {
    /// Where the client is, as the kernel knows it.
    #[must_use]
    pub fn peer(&self) -> &Address {
        &self.peer
    }

    /// The descriptor, to be waited on with others: [`Interest::HangUp`] is the client's end.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }

    /// Prepares a tcp connection for a long life: no delay for small writes, keep-alive probes, and an end to
    /// unacknowledged data after `write_stall`. That last one also ends a live client that stops reading.
    ///
    /// # Errors
    /// What `setsockopt(2)` answers; the connection is then of no use.
    pub fn prepare(&self, write_stall: Duration) -> io::Result<()> {
        if self.peer.ip().is_none() {
            return Ok(());
        }
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_TIME)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        self.inner.set_tcp_keepalive(&keepalive)?;
        self.inner.set_tcp_user_timeout(Some(write_stall))?;
        self.inner.set_tcp_nodelay(true)
    }

    /// Lets the kernel keep no more than `bytes` of what the client has not acknowledged, and as much again for itself.
    ///
    /// # Errors
    /// What `setsockopt(2)` answers.
    pub fn bound_send_buffer(&self, bytes: usize) -> io::Result<()> {
        self.inner.set_send_buffer_size(bytes)
    }

    /// Takes bytes that have arrived; 0 at the end of them.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] when none have; else what `recv(2)` answers.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| (&self.inner).read(buffer))
    }

    /// Hands bytes to the kernel, as many as it takes; `more` says that others follow at once.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] when there is no room; else what `sendmsg(2)` answers.
    pub fn send(&self, parts: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        let flags = libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
        uninterrupted(|| self.inner.send_vectored_with_flags(parts, flags))
    }

    /// Hands up to `len` bytes of `file`, from `offset` on, to the kernel without copying them through this process;
    /// 0 at the end of the file.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] when there is no room; else what `sendfile(2)` answers.
    pub fn send_file(&self, file: &fs::File, offset: u64, len: u64) -> io::Result<usize> {
        let beyond = |_| io::Error::from(ErrorKind::InvalidInput);
        let offset = usize::try_from(offset).map_err(beyond)?;
        match NonZeroUsize::new(usize::try_from(len).unwrap_or(usize::MAX)) {
            Some(len) => uninterrupted(|| self.inner.sendfile(file, offset, Some(len))),
            None => Ok(0),
        }
    }

    /// Waits until the socket is ready for `interest`, the stop reaches `level`, or `until`.
    ///
    /// A client that only closed its sending half counts as gone: git never does that, and the two look alike.
    ///
    /// # Errors
    /// What `poll(2)` answers.
    pub fn wait(&self, interest: Interest, stop: &Stop, level: Level, until: Instant) -> io::Result<Ready> {
        let hang_up = (interest == Interest::Write).then_some((self.fd(), Interest::HangUp));
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let watches = [hang_up, Some((self.fd(), interest)), Some((stop.fd(level), Interest::Read))];
            // Bytes that have arrived go before a stop: their sender may not send them twice.
            match poll::wait(watches, Some(left))? {
                [true, _, _] => return Ok(Ready::Gone),
                [false, true, _] => return Ok(Ready::Now),
                [false, false, true] => return Ok(Ready::Stopped),
                [false, false, false] if Instant::now() >= until => return Ok(Ready::TimedOut),
                [false, false, false] => {}
            }
        }
    }

    /// Waits until bytes can be sent, or until `until`, whatever the stop says: for the last words to a client.
    ///
    /// # Errors
    /// What `poll(2)` answers.
    pub fn wait_for_room(&self, until: Instant) -> io::Result<Ready> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let watches = [Some((self.fd(), Interest::HangUp)), Some((self.fd(), Interest::Write))];
            match poll::wait(watches, Some(left))? {
                [true, _] => return Ok(Ready::Gone),
                [false, true] => return Ok(Ready::Now),
                [false, false] if Instant::now() >= until => return Ok(Ready::TimedOut),
                [false, false] => {}
            }
        }
    }

    /// Whether the client is known to be gone: it closed or reset the connection, or owes an acknowledgement for
    /// data of ours and has been silent for 30 seconds.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.hung_up() || self.is_silent()
    }

    /// The error that ended the connection, told once.
    #[must_use]
    pub fn fault(&self) -> Option<io::Error> {
        self.inner.take_error().ok().flatten()
    }

    /// Ends one direction, or both.
    pub fn shutdown(&self, how: Shutdown) {
        // Fails only when the client has ended the connection, which is the same end.
        let _ = self.inner.shutdown(how);
    }

    /// Makes the closing of this socket a reset, so that a client that was to read until the end sees an error
    /// instead of an end.
    pub fn reset_on_close(&self) {
        // Without it the client sees a short answer; nothing else can be done for it.
        let _ = self.inner.set_linger(Some(Duration::ZERO));
    }

    fn hung_up(&self) -> bool {
        poll::wait([Some((self.fd(), Interest::HangUp))], Some(Duration::ZERO)).is_ok_and(|[hung_up]| hung_up)
    }

    fn is_silent(&self) -> bool {
        self.peer.ip().is_some() && tcp_info(self.fd()).is_ok_and(|info| owes_ack(&info))
    }
}

fn owes_ack(info: &libc::tcp_info) -> bool {
    info.tcpi_unacked > 0 && Duration::from_millis(info.tcpi_last_ack_recv.into()) > ACK_SILENCE
}

fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn tcp_info(fd: BorrowedFd<'_>) -> io::Result<libc::tcp_info> {
    let mut info = mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).map_err(io::Error::other)?;
    // SAFETY: `info` has room for `len` bytes and both live through the call; the kernel writes at most `len`.
    let answer = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every field is an integer and the memory was zeroed, so what the kernel left out is zero.
    Ok(unsafe { info.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpStream;

    fn pair() -> (TcpStream, Socket) {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let Address::Tcp(address) = *listener.address() else { panic!("a tcp listener has a tcp address") };
        let client = TcpStream::connect(address).unwrap();
        let limit = Some(Duration::from_secs(10));
        assert_eq!(poll::wait([Some((listener.as_fd(), Interest::Read))], limit).unwrap(), [true]);
        (client, listener.accept().unwrap())
    }

    #[test]
    fn what_is_inherited_and_no_listener_is_named() {
        let why = |fd: OwnedFd| {
            let number = fd.as_raw_fd();
            let error = Listener::inherited(fd).unwrap_err().to_string();
            error
                .strip_prefix(&format!("descriptor {number}, which the service manager passed, "))
                .unwrap()
                .to_owned()
        };
        assert!(why(std::fs::File::open("/dev/null").unwrap().into()).starts_with("is no socket: "));
        let (connected, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(why(connected.into()), "is a socket that does not listen for streams (LISTEN_FDS)");
    }

    #[test]
    fn a_closed_client_is_gone_and_one_that_pipelines_is_not() {
        let stop = Stop::new().unwrap();
        let (mut client, socket) = pair();
        socket.prepare(Duration::from_secs(120)).unwrap();
        client.write_all(b"more").unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        assert_eq!(socket.wait(Interest::Read, &stop, Level::Killing, until).unwrap(), Ready::Now);
        assert!(!socket.is_gone());
        client.shutdown(Shutdown::Both).unwrap();
        drop(client);
        let limit = Some(Duration::from_secs(10));
        assert_eq!(poll::wait([Some((socket.fd(), Interest::HangUp))], limit).unwrap(), [true]);
        assert!(socket.is_gone(), "unread bytes must not hide the end");
    }

    #[test]
    fn a_prepared_socket_has_its_options_and_no_child_inherits_it() {
        let (_client, socket) = pair();
        socket.prepare(Duration::from_secs(120)).unwrap();
        let inner = &socket.inner;
        assert!(inner.keepalive().unwrap() && inner.tcp_nodelay().unwrap() && inner.nonblocking().unwrap());
        assert_eq!(inner.tcp_keepalive_time().unwrap(), KEEPALIVE_TIME);
        assert_eq!(inner.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(inner.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
        assert_eq!(inner.tcp_user_timeout().unwrap(), Some(Duration::from_secs(120)));
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", inner.as_raw_fd())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
        assert_eq!(flags & libc::O_CLOEXEC, libc::O_CLOEXEC);
    }

    #[test]
    fn a_stop_ends_a_wait_but_only_at_its_level() {
        let stop = Stop::new().unwrap();
        let (_client, socket) = pair();
        stop.raise(Level::Draining);
        let soon = || Instant::now() + Duration::from_millis(20);
        let wait = |level| socket.wait(Interest::Read, &stop, level, soon()).unwrap();
        assert_eq!(wait(Level::Draining), Ready::Stopped);
        assert_eq!(wait(Level::Killing), Ready::TimedOut);
    }

    #[test]
    fn an_owed_acknowledgement_means_gone_only_after_the_silence() {
        // SAFETY: every field is an integer, for which zero is a value.
        let mut info: libc::tcp_info = unsafe { mem::zeroed() };
        info.tcpi_last_ack_recv = 31_000;
        assert!(!owes_ack(&info), "nothing is owed");
        info.tcpi_unacked = 1;
        assert!(owes_ack(&info));
        info.tcpi_last_ack_recv = 29_000;
        assert!(!owes_ack(&info), "it may still come");
    }

    #[test]
    fn a_unix_listener_replaces_a_dead_file_but_no_live_one_and_cleans_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("http.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the standard library leaves its file, as a killed process does");
        let listener = Listener::unix(&path).unwrap();
        assert_eq!(Listener::unix(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(listener.address().to_string(), format!("unix:{}", path.display()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, SOCKET_MODE, "whatever the umask is");
        drop(listener);
        assert!(!path.exists());
        fs::write(&path, "a file").unwrap();
        assert_eq!(Listener::unix(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert!(path.exists(), "what is not a socket is not ours to remove");
    }

    #[test]
    fn an_inherited_descriptor_must_listen() {
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listening.local_addr().unwrap();
        let listener = Listener::inherited(listening.into()).unwrap();
        assert_eq!(*listener.address(), Address::Tcp(address));
        let (client, _socket) = pair();
        assert_eq!(Listener::inherited(client.into()).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
