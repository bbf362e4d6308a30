//! A client that asks the same over and over on connections that stay, and the barest server there can be for it.

use crate::Result;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// How long a connection waits for the next byte.
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes of one read: what comes of a large answer at a time.
const READ: usize = 256 << 10;

/// Answers up to this many bytes leave by one write; larger ones from a file, without a copy.
const WRITTEN_MAX: usize = 16 << 10;

/// Sends `request` `count` times on each of `connections` connections at once, and reads every answer to its end.
pub(crate) fn ask(address: SocketAddr, request: &str, connections: usize, count: usize) -> Result<()> {
    let each = || -> std::result::Result<(), String> {
        let mut connection = Connection::open(address).map_err(|error| error.to_string())?;
        (0..count).try_for_each(|_| connection.ask(request).map(|_| ()).map_err(|error| error.to_string()))
    };
    let ended: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(each)).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a client panicked".to_owned())).collect()
    });
    ended.into_iter().try_for_each(|ended| Ok(ended??))
}

/// The bytes of one whole answer, its head among them, from a server that tells its length.
pub(crate) fn answer(address: SocketAddr, request: &str) -> Result<Vec<u8>> {
    let mut connection = Connection::open(address)?;
    let length = connection.ask(request)?;
    // Now that it is known, the same once more.
    connection.socket.write_all(request.as_bytes())?;
    let mut bytes = vec![0; length];
    connection.socket.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A connection that stays.
struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, buffer: vec![0; READ] })
    }

    /// Asks once and answers how many bytes came.
    fn ask(&mut self, request: &str) -> Result<usize> {
        self.socket.write_all(request.as_bytes())?;
        let mut has = 0;
        let head = loop {
            has += self.more(has)?;
            if let Some(end) = find(&self.buffer[..has], b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_ascii_lowercase();
        if !text.starts_with("http/1.1 200") {
            return Err(format!("an answer of another kind: {text}").into());
        }
        match text.lines().find_map(|line| line.strip_prefix("content-length: ")) {
            Some(length) => self.count(has, head + length.trim().parse::<usize>()?),
            None => self.chunks(has, head),
        }
    }

    /// Reads until `length` bytes of the answer have come. What does not fit the buffer takes the place of what came before.
    fn count(&mut self, mut has: usize, length: usize) -> Result<usize> {
        while has < length {
            let from = if length <= READ { has } else { 0 };
            has += self.more(from)?;
        }
        Ok(length)
    }

    /// Reads chunks until the last one; `head` bytes of those that are here stand before them.
    fn chunks(&mut self, has: usize, head: usize) -> Result<usize> {
        let mut pending = self.buffer[head..has].to_vec();
        let mut length = head;
        loop {
            while let Some(end) = find(&pending, b"\r\n") {
                let size = usize::from_str_radix(std::str::from_utf8(&pending[..end])?, 16)?;
                let whole = end + 2 + size + 2;
                if pending.len() < whole {
                    break;
                }
                pending.drain(..whole);
                length += whole;
                if size == 0 {
                    return Ok(length);
                }
            }
            let count = self.more(0)?;
            pending.extend_from_slice(&self.buffer[..count]);
        }
    }

    fn more(&mut self, from: usize) -> Result<usize> {
        match self.socket.read(&mut self.buffer[from..])? {
            0 => Err("the server has closed, or the answer does not fit".into()),
            count => Ok(count),
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Answers every request at `address` with the bytes of the file at `path`, for ever.
pub(crate) fn serve(address: &str, path: &Path) -> Result<()> {
    let answer = std::fs::read(path)?;
    let listener = TcpListener::bind(address)?;
    for socket in listener.incoming() {
        let (socket, file, answer) = (socket?, File::open(path)?, answer.clone());
        thread::spawn(move || serve_one(socket, &file, &answer));
    }
    Ok(())
}

/// Requests of this benchmark come in one piece, so that a read is a request.
fn serve_one(mut socket: TcpStream, file: &File, answer: &[u8]) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let mut buffer = [0; 8192];
    while socket.read(&mut buffer).ok()? > 0 {
        if answer.len() <= WRITTEN_MAX {
            socket.write_all(answer).ok()?;
            continue;
        }
        let mut offset = 0;
        while usize::try_from(offset).ok()? < answer.len() {
            let left = answer.len() - usize::try_from(offset).ok()?;
            // SAFETY: both descriptors are open, and the offset is ours to be written to.
            let sent =
                unsafe { nix::libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &raw mut offset, left) };
            if sent <= 0 {
                return None;
            }
        }
    }
    Some(())
}
