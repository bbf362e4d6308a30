//! Asking a listening socket of our own for a sign of life, as a client would.

use crate::sys::net::Address;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The shortest request that deserves an answer.
const REQUEST: &[u8] = b"GET /-/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// The start of every answer, whatever its status: who refuses because it is full does live.
const ANSWER: &[u8] = b"HTTP/1.1 ";

/// Whether whoever listens at `address` answers HTTP within `limit` for each of its steps.
///
/// # Errors
/// What went wrong: no connection, no answer, or something that is no HTTP.
pub fn answers(address: &Address, limit: Duration) -> io::Result<()> {
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect_timeout(&reachable(*address), limit)?;
            stream.set_read_timeout(Some(limit))?;
            stream.set_write_timeout(Some(limit))?;
            ask(stream)
        }
        Address::Unix(Some(path)) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(limit))?;
            stream.set_write_timeout(Some(limit))?;
            ask(stream)
        }
        Address::Unix(None) => Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket without a name")),
    }
}

fn ask(mut stream: impl Read + Write) -> io::Result<()> {
    stream.write_all(REQUEST)?;
    let mut answer = [0; ANSWER.len()];
    stream.read_exact(&mut answer)?;
    if answer == ANSWER {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))
    }
}

/// An address that listens on every interface is asked on the loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
