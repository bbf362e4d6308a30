//! The public front: accepts connections, bounds them, and gives each a thread of its own.
//!
//! Owns the listeners, the thread `front` that polls them and the threads `request-N`. It accepts through every error
//! that can pass. Whom it cannot serve, because the house is full or a descriptor or a thread is missing, is told 503
//! at once; nothing is queued here, and nothing that a client does can make this thread wait.

use crate::http::connection::{say_goodbye, serve};
use crate::http::exchange::Handler;
use crate::http::house::{Counters, House, TurnedAway};
use crate::http::limits::FrontLimits;
use crate::http::message::Response;
use crate::sys::net::{Listener, Socket};
use crate::sys::poll::{self, Interest, Watch};
use crate::sys::proxies::TrustedProxies;
use crate::sys::stop::{Level, Stop};
use crate::sys::thread;
use nix::libc;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections taken from one listener before the others and the stop are looked at again.
const ACCEPT_BATCH: usize = 64;

/// How long accepting rests when the machine has nothing left to accept with.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Seconds after which a client that was turned away is asked to come back.
const RETRY_AFTER: &str = "2";

/// Clients that were turned away and may still be reading why. Each holds a descriptor beyond the cap.
const DEPARTING_MAX: usize = 64;

/// How long such a client's connection stays open at most.
const DEPARTING_LIMIT: Duration = Duration::from_secs(1);

/// How often the thread looks whether they have left, and for a new reserve when it has none.
const TICK: Duration = Duration::from_millis(100);

/// Warnings about the same trouble come this far apart.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// How the front ended.
#[derive(Debug)]
pub struct Ended {
    /// Connections that were still there at the deadline.
    pub left: usize,
    /// Why it ended before it was told to, if it did.
    pub fault: Option<io::Error>,
}

/// The running front.
#[derive(Debug)]
pub struct Front {
    house: Arc<House>,
    thread: JoinHandle<io::Result<()>>,
}

impl Front {
    /// Serves `listeners` until `stop` reaches [`Level::Draining`]: the listeners are then closed, idle connections
    /// end at once, and requests in flight are completed, until [`Level::Killing`] cuts them too. When a listener
    /// breaks, the front raises the draining itself and [`Front::join`] says why.
    ///
    /// # Errors
    /// When the process has no descriptor or thread left for it.
    pub fn start(
        listeners: Vec<Listener>,
        limits: FrontLimits,
        proxies: TrustedProxies,
        handler: Arc<dyn Handler>,
        stop: Stop,
    ) -> io::Result<Self> {
        let house = House::new(limits, proxies, stop);
        let acceptor = Acceptor {
            house: Arc::clone(&house),
            handler,
            reserve: Some(File::open("/dev/null")?),
            departing: VecDeque::new(),
            serial: 0,
            warned: None,
        };
        let thread = thread::spawn("front", move || acceptor.run(listeners))?;
        Ok(Self { house, thread })
    }

    /// What others may see of it, also after it has ended.
    #[must_use]
    pub fn view(&self) -> View {
        View(Arc::clone(&self.house))
    }

    /// Whether it accepts no more, because it was told to or because a listener broke.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the listeners are closed and every connection has ended, but for the latter not beyond
    /// `deadline`. To be called after the stop was raised.
    #[must_use]
    pub fn join(self, deadline: Instant) -> Ended {
        let fault = match self.thread.join() {
            Ok(result) => result.err(),
            Err(_) => Some(io::Error::other("the thread front panicked")),
        };
        Ended { left: self.house.wait_until_empty(deadline), fault }
    }
}

/// A look at the front from elsewhere; clones share it.
#[derive(Clone, Debug)]
pub struct View(Arc<House>);

impl View {
    /// Connections at the moment.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.connections()
    }

    /// What the front has done since it started.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }
}

/// What an error of `accept(2)` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// None waits any more.
    Over,
    /// That client left; the next one may be fine.
    ThisClient,
    /// The process has no descriptor for a client.
    NoDescriptor,
    /// The machine is short of something; it may pass.
    Shortage,
    /// This is no listener (any more); it will never pass.
    Broken,
}

impl Trouble {
    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Self::Over,
            Some(libc::EMFILE) => Self::NoDescriptor,
            Some(libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => Self::Shortage,
            Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK) => Self::Broken,
            // The rest are errors of the network or the client that were waiting on the new socket (accept(2)).
            Some(_) | None => Self::ThisClient,
        }
    }
}

/// The thread `front`.
struct Acceptor {
    house: Arc<House>,
    handler: Arc<dyn Handler>,
    /// Given up for a moment when no other descriptor is left, to tell the client that waits.
    reserve: Option<File>,
    departing: VecDeque<Departing>,
    serial: u64,
    warned: Option<Instant>,
}

/// A client that was turned away.
struct Departing {
    socket: Arc<Socket>,
    until: Instant,
}

/// Whatever ends the thread, a panic included: nobody can come in any more, and the daemon must hear of it.
struct EndOfAccepting(Stop);

impl Drop for EndOfAccepting {
    fn drop(&mut self) {
        self.0.raise(Level::Draining);
    }
}

impl Acceptor {
    fn run(mut self, listeners: Vec<Listener>) -> io::Result<()> {
        let _end = EndOfAccepting(self.house.stop.clone());
        self.accept_until_stopped(&listeners)
    }

    fn accept_until_stopped(&mut self, listeners: &[Listener]) -> io::Result<()> {
        let stop = self.house.stop.clone();
        let mut watches: Vec<Watch<'_>> =
            listeners.iter().map(|listener| Some((listener.as_fd(), Interest::Read))).collect();
        watches.push(Some((stop.fd(Level::Draining), Interest::Read)));
        let mut ready = vec![false; watches.len()];
        while stop.is_running() {
            self.see_off();
            self.restore_reserve();
            let busy = !self.departing.is_empty() || self.reserve.is_none();
            let tick = busy.then_some(TICK);
            if let Err(error) = poll::wait_for_any(&watches, &mut ready, tick) {
                self.rest_or_give_up(error)?;
                continue;
            }
            for (listener, _) in listeners.iter().zip(&ready).filter(|(_, ready)| **ready) {
                self.accept_batch(listener)?;
            }
        }
        Ok(())
    }

    fn accept_batch(&mut self, listener: &Listener) -> io::Result<()> {
        for _ in 0..ACCEPT_BATCH {
            let error = match listener.accept() {
                Ok(socket) => {
                    self.admit(Arc::new(socket));
                    continue;
                }
                Err(error) => error,
            };
            match Trouble::of(&error) {
                Trouble::Over => break,
                Trouble::ThisClient => log::debug!("a client of {} left early: {error}", listener.address()),
                Trouble::NoDescriptor => {
                    self.turn_away_without_descriptor(listener);
                    break;
                }
                Trouble::Shortage | Trouble::Broken => return self.rest_or_give_up(error),
            }
        }
        Ok(())
    }

    fn rest_or_give_up(&mut self, error: io::Error) -> io::Result<()> {
        if Trouble::of(&error) == Trouble::Broken {
            return Err(error);
        }
        self.warn(&format!("cannot accept clients for a moment: {error}"));
        self.back_off();
        Ok(())
    }

    fn admit(&mut self, socket: Arc<Socket>) {
        let Some(place) = self.house.admit() else {
            self.turn_away(socket, TurnedAway::Full);
            self.warn("all connections are taken, new ones are turned away: raise limits.connections");
            return;
        };
        self.serial += 1;
        let (own, handler) = (Arc::clone(&socket), Arc::clone(&self.handler));
        // The handler goes before the place: once the crowd is gone, nobody uses it any more.
        let body = move || serve(own, place.house(), handler);
        if let Err(error) = thread::spawn(format!("request-{}", self.serial), body) {
            self.turn_away(socket, TurnedAway::NoThread);
            self.warn(&format!("cannot start a thread for a client: {error}: raise the limit of tasks"));
        }
    }

    /// Answers 503 without waiting, and keeps the connection for a moment: closed with a request unread, it would be
    /// reset, and the answer lost with it.
    fn turn_away(&mut self, socket: Arc<Socket>, why: TurnedAway) {
        self.house.counters.turn_away(why);
        say_goodbye(&socket, &busy());
        if self.departing.len() == DEPARTING_MAX {
            self.departing.pop_front();
        }
        self.departing.push_back(Departing { socket, until: Instant::now() + DEPARTING_LIMIT });
    }

    /// Sees who of the departing has left.
    fn see_off(&mut self) {
        let now = Instant::now();
        let mut sink = [0; 4096];
        self.departing.retain(|client| {
            let gone = match client.socket.receive(&mut sink) {
                Ok(count) => count == 0,
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            };
            !gone && now < client.until
        });
    }

    /// Uses the reserve to tell one waiting client. Without it the client would stay in the backlog and poll would
    /// report it again at once, for ever.
    fn turn_away_without_descriptor(&mut self, listener: &Listener) {
        self.departing.clear();
        self.warn("no descriptor is left for a client: raise LimitNOFILE or lower limits.connections");
        match self.reserve.take() {
            Some(reserve) => drop(reserve),
            None => return self.back_off(),
        }
        if let Ok(socket) = listener.accept() {
            self.house.counters.accept();
            self.house.counters.turn_away(TurnedAway::NoDescriptor);
            say_goodbye(&socket, &busy());
        }
        self.restore_reserve();
    }

    /// Another thread may have been quicker to take the descriptor, so this is tried until it succeeds.
    fn restore_reserve(&mut self) {
        if self.reserve.is_none() {
            self.reserve = File::open("/dev/null").ok();
        }
    }

    fn back_off(&self) {
        // Cut short by the stop, which the loop sees next.
        let _ = self.house.stop.sleep(BACK_OFF, Level::Draining);
    }

    fn warn(&mut self, text: &str) {
        let now = Instant::now();
        if self.warned.is_none_or(|last| now.duration_since(last) >= WARN_INTERVAL) {
            self.warned = Some(now);
            log::warn!("{text}");
        }
    }
}

fn busy() -> Response {
    Response::text(503, "the gate is busy: try again in a moment").with("Retry-After", RETRY_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_of_the_listener_itself_end_the_accepting() {
        let trouble = |code| Trouble::of(&io::Error::from_raw_os_error(code));
        for code in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK] {
            assert_eq!(trouble(code), Trouble::Broken);
        }
        for code in
            [libc::ECONNABORTED, libc::EPERM, libc::EPROTO, libc::ENETDOWN, libc::EOPNOTSUPP, libc::EINTR]
        {
            assert_eq!(trouble(code), Trouble::ThisClient);
        }
        assert_eq!(trouble(libc::EMFILE), Trouble::NoDescriptor);
        assert_eq!(trouble(libc::ENFILE), Trouble::Shortage);
        assert_eq!(trouble(libc::EAGAIN), Trouble::Over);
    }
}
