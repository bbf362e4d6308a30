//! A proxy as companies have one between their machines and the world: it makes tunnels for CONNECT, and passes requests
//! with whole addresses on. It alone knows where `forge.invalid` is.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// The name of a server that no resolver knows.
pub(crate) const HOST: &str = "forge.invalid";

/// What it does with those who come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes on.
    Pass,
    /// Passes on for whoever shows this value of `Proxy-Authorization`; 407 for others.
    Login(String),
    /// Answers with this status.
    Status(u16),
    /// Says nothing until the other side gives up.
    Hang,
    /// Closes the connection.
    Close,
}

/// A running proxy; dropping it ends it.
pub(crate) struct ForwardProxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    mode: Mutex<Mode>,
    /// The heads of what was asked of it.
    heads: Mutex<Vec<String>>,
    clients: Mutex<Vec<TcpStream>>,
    is_over: Mutex<bool>,
}

impl ForwardProxy {
    pub(crate) fn start(mode: Mode) -> ForwardProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            mode: Mutex::new(mode),
            heads: Mutex::default(),
            clients: Mutex::default(),
            is_over: Mutex::new(false),
        });
        let theirs = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if *theirs.is_over.lock().unwrap() {
                    return;
                }
                theirs.clients.lock().unwrap().push(client.try_clone().unwrap());
                let shared = theirs.clone();
                thread::spawn(move || shared.serve(client));
            }
        });
        ForwardProxy { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Cuts all connections off, and does this with the next ones.
    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
        self.cut();
    }

    fn cut(&self) {
        for client in self.shared.clients.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// Everything that was asked of it.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// How many requests began so.
    pub(crate) fn count(&self, start: &str) -> usize {
        self.heads().iter().filter(|head| head.starts_with(start)).count()
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        *self.shared.is_over.lock().unwrap() = true;
        self.cut();
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// One connection to its end: that we keep another hand on it must not keep it open.
    fn serve(&self, client: TcpStream) {
        self.answer(&client);
        let _ = client.shutdown(Shutdown::Both);
    }

    fn answer(&self, mut client: &TcpStream) {
        let Some((head, body)) = read_head(client) else { return };
        self.heads.lock().unwrap().push(head.clone());
        let mode = self.mode.lock().unwrap().clone();
        let status = match mode {
            Mode::Pass => None,
            Mode::Login(value) => {
                let field = format!("Proxy-Authorization: {value}\r\n");
                (!head.contains(&field)).then_some(407)
            }
            Mode::Status(status) => Some(status),
            Mode::Hang => {
                let _ = client.read(&mut [0; 1]);
                return;
            }
            Mode::Close => return,
        };
        if let Some(status) = status {
            let challenge = "Proxy-Authenticate: Basic realm=\"p\"\r\nContent-Length: 0\r\nConnection: close";
            let _ = client.write_all(format!("HTTP/1.1 {status} No\r\n{challenge}\r\n\r\n").as_bytes());
            return;
        }
        let _ = pass_on(client, &head, &body);
    }
}

fn pass_on(mut client: &TcpStream, head: &str, body: &[u8]) -> std::io::Result<()> {
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let server = if method == "CONNECT" {
        let server = TcpStream::connect(place(target))?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        server
    } else {
        let rest = target.strip_prefix("http://").expect("the whole address");
        let (authority, path) = rest.split_at(rest.find('/').unwrap());
        let mut server = TcpStream::connect(place(authority))?;
        let fields = head.split_once("\r\n").unwrap().1;
        let is_ours = |line: &&str| !line.is_empty() && !line.to_lowercase().starts_with("proxy-");
        let fields: String = fields.split("\r\n").filter(is_ours).map(|line| format!("{line}\r\n")).collect();
        write!(server, "{method} {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n")?;
        server
    };
    let mut to = server.try_clone()?;
    to.write_all(body)?;
    let from = client.try_clone()?;
    let sending = thread::spawn(move || pump(from, to));
    pump(server, client.try_clone()?);
    sending.join().unwrap();
    Ok(())
}

/// The server behind an authority: everything is on this machine.
fn place(authority: &str) -> SocketAddr {
    let (host, port) = authority.rsplit_once(':').expect("a port");
    assert!([HOST, "127.0.0.1"].contains(&host), "{authority}");
    SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// The head, with the empty line at its end, and what of the rest came with it.
fn read_head(mut client: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Some((String::from_utf8(bytes).unwrap(), body));
        }
        match client.read(&mut buffer) {
            Ok(length @ 1..) => bytes.extend_from_slice(&buffer[..length]),
            _ => return None,
        }
    }
}
