//! A browser's own client of events, headless Chromium's `EventSource`, hears what the gate tells and comes back by itself.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{Desk, TRAVEL};
use crate::support::HANG;
use crate::support::browser::Chromium;
use crate::support::http::basic;
use crate::support::place::Place;
use crate::support::run::Running;

/// Tells the site of each event that it hears, one after the other.
const PAGE: &str = "<!DOCTYPE html><title>listens</title><script>
const source = new EventSource('/-/events');
let last = Promise.resolve();
const names = ['hello', 'reset', 'received', 'checking', 'approved', 'forwarding', 'forwarded'];
for (const name of names) {
    const full = ['hello', 'reset'].includes(name) ? name : 'push.' + name;
    source.addEventListener(full, event => {
        const heard = full + ' ' + event.lastEventId + ' ' + (JSON.parse(event.data).push?.id ?? '-');
        last = last.then(() => fetch('/heard', { method: 'POST', body: heard }));
    });
}
</script>";

/// A site, as nginx may make one of a gate: it has a page, knows who its visitors are, and passes on what they ask for.
struct Site {
    address: SocketAddr,
    gate: Arc<Mutex<SocketAddr>>,
    heard: Receiver<String>,
}

impl Site {
    fn before(gate: SocketAddr, listener: TcpListener) -> Site {
        let (tell, heard) = mpsc::channel();
        let site = Site { address: listener.local_addr().unwrap(), gate: Arc::new(Mutex::new(gate)), heard };
        let gate = Arc::clone(&site.gate);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (gate, tell) = (Arc::clone(&gate), tell.clone());
                // Who asks a gate that is not there sees a connection that ends, and tries again.
                thread::spawn(move || serve(client, &gate, &tell));
            }
        });
        site
    }

    /// The next thing that the page heard.
    #[track_caller]
    fn next(&self) -> Vec<String> {
        let heard = self.heard.recv_timeout(HANG).expect("the page hears something");
        heard.split(' ').map(str::to_owned).collect()
    }
}

fn serve(client: TcpStream, gate: &Mutex<SocketAddr>, tell: &Sender<String>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    match path.as_str() {
        "/-/events" => pass_on(&head, client, *gate.lock().unwrap()),
        "/heard" => {
            let length = head.iter().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.parse::<u64>().unwrap())
            });
            let mut body = String::new();
            reader.take(length.unwrap_or(0)).read_to_string(&mut body)?;
            tell.send(body).map_err(io::Error::other)?;
            answer(client, "")
        }
        _ => answer(client, PAGE),
    }
}

fn answer(mut client: TcpStream, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n");
    client.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes())
}

fn pass_on(head: &[String], mut client: TcpStream, gate: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(gate)?;
    let login = format!("Authorization: {}", basic("alice"));
    let head: Vec<&str> = head.iter().map(String::as_str).chain([login.as_str(), "", ""]).collect();
    server.write_all(head.join("\r\n").as_bytes())?;
    io::copy(&mut server, &mut client).map(drop)
}

#[test]
fn a_browser_hears_what_happens_and_comes_back_to_where_it_was_when_the_gate_starts_again() {
    let desk = Desk::new();
    let gate = desk.gate().start();
    let chromium = Chromium::new();
    let site = Site::before(gate.address(), chromium.listener("127.0.0.1:0"));
    // Not in the place of the gate, with which all goes that works there.
    let elsewhere = Place::new();
    let mut browser = chromium.command(&elsewhere);
    browser.args(["--remote-debugging-port=0", &format!("http://{}/", site.address)]);
    let browser = Running::start(browser, Vec::new());
    assert_eq!(site.next()[0], "hello");
    let travels = |push: &str| {
        for name in TRAVEL {
            let heard = site.next();
            assert_eq!((heard[0].as_str(), heard[2].as_str()), (name, push), "{heard:?}");
        }
    };
    desk.push(&gate, "demo", "one");
    travels("1");
    gate.stop();
    let gate = desk.gate().start();
    desk.push(&gate, "demo", "two");
    *site.gate.lock().unwrap() = gate.address();
    assert_eq!(site.next()[0], "hello");
    travels("2");
    drop(browser);
}
