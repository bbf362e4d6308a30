//! A real browser without a window.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::unistd::geteuid;

use super::network::Namespace;
use super::place::{Place, path_variable};

/// Headless Chromium. It gives up what it loads as soon as an interface of its network comes or goes, as it does on a
/// laptop that is carried away, and other tests make interfaces: where root runs the tests, it has a network of its own.
pub(crate) struct Chromium {
    network: Option<Namespace>,
}

impl Chromium {
    pub(crate) fn new() -> Chromium {
        Chromium { network: geteuid().is_root().then(Namespace::new) }
    }

    /// A listener at `address`, a literal address and port, that it reaches.
    #[track_caller]
    pub(crate) fn listener(&self, address: &str) -> TcpListener {
        let bind = || TcpListener::bind(address).unwrap();
        self.network.as_ref().map_or_else(bind, |network| network.inside(bind))
    }

    /// Lets it reach the server at `address`, where that listens for everybody else.
    #[track_caller]
    pub(crate) fn reaches(&self, address: SocketAddr) {
        if self.network.is_some() {
            let listener = self.listener(&address.to_string());
            thread::spawn(move || {
                for client in listener.incoming().map_while(Result::ok) {
                    thread::spawn(move || relay(&client, &TcpStream::connect(address)?));
                }
            });
        }
    }

    /// Its command line, with a home of its own in `place`; what it is to do follows.
    pub(crate) fn command(&self, place: &Place) -> Command {
        static VISITS: AtomicU32 = AtomicU32::new(0);
        let home = place.work(&format!("chromium-{}", VISITS.fetch_add(1, Ordering::Relaxed)));
        let program = "chromium";
        let mut command =
            self.network.as_ref().map_or_else(|| Command::new(program), |network| network.command(program));
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        command.args(["--disable-dev-shm-usage", "--no-proxy-server"]);
        command.arg(format!("--user-data-dir={}", home.display()));
        command.env_clear().env("PATH", path_variable()).env("HOME", &home).current_dir(place.path());
        command
    }
}

/// Passes on whatever either says, until both have ended.
fn relay(client: &TcpStream, server: &TcpStream) -> io::Result<()> {
    let pass = |mut from: &TcpStream, mut to: &TcpStream| {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    thread::scope(|scope| {
        scope.spawn(|| pass(client, server));
        pass(server, client);
    });
    Ok(())
}
