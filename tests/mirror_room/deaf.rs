//! Servers that answer one question well: one that reads nothing of what is pushed then but the head, and one that does
//! what it is told with every further request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// The server; its connections stay open, and unread, as long as it lives.
pub(crate) struct Deaf {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Deaf {
    /// One that says `answer` as soon as a push begins, or nothing.
    pub(crate) fn new(answer: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<Mutex<Vec<TcpStream>>>::default();
        let kept = connections.clone();
        thread::Builder::new()
            .spawn(move || {
                // One connection is all that a push needs.
                let (mut stream, _) = listener.accept().unwrap();
                assert!(
                    head(&mut stream).starts_with("GET /x/team/app.git/info/refs?service=git-receive-pack ")
                );
                stream.write_all(advertisement().as_bytes()).unwrap();
                assert!(head(&mut stream).starts_with("POST /x/team/app.git/git-receive-pack "));
                stream.write_all(answer.unwrap_or_default().as_bytes()).unwrap();
                kept.lock().unwrap().push(stream);
            })
            .unwrap();
        Self { address, connections }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/x", self.address)
    }

    /// Whether a push has begun, and a part of it waits to be read.
    pub(crate) fn is_full(&self) -> bool {
        let connections = self.connections.lock().unwrap();
        let mut waiting = vec![0; 64 << 10];
        connections.iter().any(|stream| stream.peek(&mut waiting).unwrap() == waiting.len())
    }
}

/// A server whose connections each answer one question, and leave what comes next over them to `then`.
pub(crate) fn once_each(then: impl Fn(TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let serve = move |mut stream: TcpStream, then: &dyn Fn(TcpStream)| {
        head(&mut stream);
        stream.write_all(advertisement().as_bytes()).unwrap();
        head(&mut stream);
        then(stream);
    };
    let accept = move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let then = then.clone();
            thread::Builder::new().spawn(move || serve(stream, &then)).unwrap();
        }
    };
    thread::Builder::new().spawn(accept).unwrap();
    url
}

/// Reads up to the empty line, and nothing behind it.
fn head(stream: &mut TcpStream) -> String {
    let (mut text, mut byte) = (String::new(), [0]);
    while !text.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    text
}

fn advertisement() -> String {
    let first =
        format!("{} capabilities^{{}}\0report-status delete-refs side-band-64k quiet\n", "0".repeat(40));
    let body = format!("001f# service=git-receive-pack\n0000{:04x}{first}0000", first.len() + 4);
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-receive-pack-advertisement\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
