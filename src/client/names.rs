//! The addresses of other servers: looked up in threads that can be left behind.
//!
//! The system's resolver cannot be called off, and takes half a minute for a name whose servers are silent. So each lookup
//! has a thread of its own, one at a time for a name, [`LOOKUPS_MAX`] in all; who asks waits for it 5 s at most, and no
//! longer than he lives. What was found is kept for 30 s, and used beyond that only while no newer answer is to be had.

use crate::model::route::Proxy;
use crate::sys::poll::{self, Interest};
use crate::sys::stop::{Level, Stop};
use crate::sys::thread;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Error, Timeout};

/// How long an answer holds.
const KEPT: Duration = Duration::from_secs(30);

/// How long an old answer serves while no new one comes.
const STALE: Duration = Duration::from_secs(3600);

/// How long an old answer is not used because a new one may come.
const STALE_AFTER: Duration = Duration::from_secs(1);

/// How long the absence of an answer is one: a name may have been made a moment ago.
const ABSENT: Duration = Duration::from_secs(2);

/// How long somebody waits for a name.
const LIMIT: Duration = Duration::from_secs(5);

/// Lookups at a time. Each is a thread that sleeps, for half a minute where the name's servers are silent: as many as make
/// sure that a dead zone of the configuration does not keep other names from being looked up.
const LOOKUPS_MAX: usize = 64;

/// The most addresses that are tried: as many as the client takes.
const ADDRESSES_MAX: usize = 16;

/// All that is known of names; clones share it. There are as many as there are servers in the configuration.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    names: Mutex<HashMap<String, Name>>,
    /// Who waits for the end of a lookup; each is woken at every end. Taken after the other lock, if both are.
    waiting: Mutex<Vec<Arc<EventFd>>>,
}

/// A place among those who wait, until it is dropped.
struct Waiter<'a> {
    shared: &'a Shared,
    woken: Arc<EventFd>,
}

impl<'a> Waiter<'a> {
    fn new(shared: &'a Shared) -> io::Result<Self> {
        let woken = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        shared.waiting().push(Arc::clone(&woken));
        Ok(Self { shared, woken })
    }

    /// Waits for the end of a lookup; `time` at most.
    fn wait(&self, time: Duration, stop: &Stop) -> io::Result<()> {
        let ends =
            [Some((self.woken.as_fd(), Interest::Read)), Some((stop.fd(Level::Killing), Interest::Read))];
        poll::wait(ends, Some(time))?;
        // It may not have been written to, which is as well.
        let _ = self.woken.read();
        match stop.level() {
            Level::Killing => Err(io::Error::other("whoever asked has been stopped")),
            Level::Running | Level::Draining => Ok(()),
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.shared.waiting().retain(|other| !Arc::ptr_eq(other, &self.woken));
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Vec<Arc<EventFd>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes everybody. A full counter is already readable, which is all that they need.
    fn wake(&self) {
        for woken in self.waiting().iter() {
            let _ = woken.write(1);
        }
    }
}

#[derive(Debug, Default)]
struct Name {
    is_looked_up: bool,
    /// The last lookup that has ended.
    last: Option<(Instant, Found)>,
    /// The last answer that had addresses.
    good: Option<(Instant, Vec<IpAddr>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Addresses(Vec<IpAddr>),
    Nothing,
}

impl Name {
    /// What there is to be said at `now` to somebody who began to wait at `since`.
    fn answer(&self, since: Instant, now: Instant) -> Option<Found> {
        let age = |at: &Instant| now.saturating_duration_since(*at);
        let last = self.last.as_ref().filter(|(at, found)| match found {
            Found::Addresses(_) => age(at) < KEPT,
            Found::Nothing => age(at) < ABSENT,
        });
        let is_old_good = !self.is_looked_up || now.saturating_duration_since(since) >= STALE_AFTER;
        let good = self.good.as_ref().filter(|(at, _)| is_old_good && age(at) < STALE);
        match (last, good) {
            (Some((_, found @ Found::Addresses(_))), _) => Some(found.clone()),
            (_, Some((_, addresses))) => Some(Found::Addresses(addresses.clone())),
            (Some((_, Found::Nothing)), None) => Some(Found::Nothing),
            (None, None) => None,
        }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.last.as_ref().is_some_and(|(at, found)| {
            let kept = if *found == Found::Nothing { ABSENT } else { KEPT };
            now.saturating_duration_since(*at) < kept
        })
    }

    fn learn(&mut self, addresses: Vec<IpAddr>, now: Instant) {
        self.is_looked_up = false;
        let found = if addresses.is_empty() { Found::Nothing } else { Found::Addresses(addresses.clone()) };
        if found != Found::Nothing {
            self.good = Some((now, addresses));
        }
        self.last = Some((now, found));
    }
}

impl Names {
    /// The addresses of `host`, which may be one itself, [`ADDRESSES_MAX`] at most, within `limit` and before `stop` kills.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none, [`ErrorKind::TimedOut`] when that is not known yet.
    pub fn addresses(&self, host: &str, limit: Duration, stop: &Stop) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        match self.find(host, LIMIT.min(limit), stop) {
            Ok(found) => Ok(found.into_iter().take(ADDRESSES_MAX).collect()),
            Err(Error::Timeout(_)) => Err(ErrorKind::TimedOut.into()),
            Err(Error::HostNotFound) => Err(io::Error::new(ErrorKind::NotFound, "the name has no address")),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// The addresses of `host`, within `limit` and before `stop` kills.
    fn find(&self, host: &str, limit: Duration, stop: &Stop) -> Result<Vec<IpAddr>, Error> {
        let since = Instant::now();
        let until = since + limit;
        let mut waiter = None;
        loop {
            let now = Instant::now();
            match self.look(host, since, now) {
                Some(Found::Addresses(addresses)) => return Ok(addresses),
                Some(Found::Nothing) => return Err(Error::HostNotFound),
                None if now >= until => return Err(Error::Timeout(Timeout::Resolve)),
                None => {}
            }
            // Whoever begins to wait looks again first: the lookup may have ended in between.
            match &waiter {
                None => waiter = Some(Waiter::new(&self.0)?),
                Some(waiter) => waiter.wait(until.saturating_duration_since(now).min(STALE_AFTER), stop)?,
            }
        }
    }

    /// What is known of a name by now, with a lookup under way where that is to be.
    fn look(&self, host: &str, since: Instant, now: Instant) -> Option<Found> {
        let mut names = self.lock();
        self.look_up(&mut names, host, now);
        names.entry(host.to_owned()).or_default().answer(since, now)
    }

    /// Begins to look a name up where that is to be done and not under way.
    fn look_up(&self, names: &mut HashMap<String, Name>, host: &str, now: Instant) {
        let lookups = names.values().filter(|name| name.is_looked_up).count();
        let name = names.entry(host.to_owned()).or_default();
        if name.is_looked_up || name.is_fresh(now) || lookups >= LOOKUPS_MAX {
            return;
        }
        let (this, host) = (self.clone(), host.to_owned());
        // What cannot be started is tried again by whoever waits.
        name.is_looked_up = thread::spawn("resolve", move || {
            let found = (host.as_str(), 0).to_socket_addrs();
            let addresses = found.map(|all| all.map(|it| it.ip()).collect()).unwrap_or_default();
            this.lock().entry(host).or_default().learn(addresses, Instant::now());
            this.0.wake();
        })
        .is_ok();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Name>> {
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a way leads to first.
#[derive(Debug)]
pub(super) struct NextHop {
    names: Names,
    proxy: Option<Proxy>,
    stop: Stop,
}

impl NextHop {
    /// The proxy where there is one, which looks names up itself; the server otherwise. Nobody is looked for any more when
    /// `stop` kills.
    pub(super) const fn new(names: Names, proxy: Option<Proxy>, stop: Stop) -> Self {
        Self { names, proxy, stop }
    }
}

impl Resolver for NextHop {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let (host, port) = match &self.proxy {
            Some(proxy) => (proxy.host(), proxy.port()),
            None => (uri.host().ok_or(Error::HostNotFound)?, port(uri)),
        };
        let plain = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = match plain.parse() {
            Ok(address) => vec![address],
            Err(_) => self.names.find(plain, LIMIT.min(*timeout.after), &self.stop)?,
        };
        let mut found = self.empty();
        addresses.into_iter().take(ADDRESSES_MAX).for_each(|it| found.push(SocketAddr::new(it, port)));
        Ok(found)
    }
}

fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn an_answer_holds_and_an_old_one_serves_while_there_is_no_other() {
        let (mut name, now) = (Name::default(), Instant::now());
        let found = || Some(Found::Addresses(vec![ADDRESS]));
        assert_eq!(name.answer(now, now), None);
        name.learn(vec![ADDRESS], now);
        assert!(name.is_fresh(now) && !name.is_fresh(now + KEPT));
        name.is_looked_up = true;
        let later = now + KEPT;
        assert_eq!(name.answer(later, later), None, "a new one may come");
        assert_eq!(name.answer(later, later + STALE_AFTER), found());
        name.learn(Vec::new(), later + STALE_AFTER);
        assert_eq!(name.answer(later, later + STALE_AFTER), found(), "the new one had nothing");
        assert_eq!(name.answer(now + STALE, now + STALE), None);
    }

    #[test]
    fn a_name_without_an_address_is_not_asked_for_again_at_once() {
        let (mut name, now) = (Name::default(), Instant::now());
        name.learn(Vec::new(), now);
        assert_eq!(name.answer(now, now), Some(Found::Nothing));
        assert_eq!(name.answer(now, now + ABSENT), None);
        assert!(!name.is_fresh(now + ABSENT));
    }

    #[test]
    fn a_name_of_this_machine_is_found_and_another_is_not() {
        let (names, stop) = (Names::default(), Stop::new().unwrap());
        let found = names.find("localhost", LIMIT, &stop).unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty());
        assert!(names.find("nobody.invalid", LIMIT, &stop).is_err());
    }

    #[test]
    fn who_waits_for_a_silent_resolver_is_told_so_and_it_is_asked_no_more_than_so_often() {
        let (names, stop) = (Names::default(), Stop::new().unwrap());
        {
            let mut all = names.lock();
            (0..LOOKUPS_MAX).for_each(|number| {
                all.insert(number.to_string(), Name { is_looked_up: true, ..Name::default() });
            });
        }
        let told = names.find("localhost", Duration::from_millis(5), &stop);
        assert!(matches!(told, Err(Error::Timeout(Timeout::Resolve))), "{told:?}");
        assert!(!names.lock()["localhost"].is_looked_up);
        names.lock().get_mut("localhost").unwrap().good = Some((Instant::now(), vec![ADDRESS]));
        assert_eq!(
            names.find("localhost", LIMIT, &stop).unwrap(),
            [ADDRESS],
            "an old answer is better than none"
        );
    }

    #[test]
    fn who_waits_for_a_silent_resolver_leaves_at_once_when_he_is_stopped() {
        let (names, stop) = (Names::default(), Stop::new().unwrap());
        names.lock().insert("silent".to_owned(), Name { is_looked_up: true, ..Name::default() });
        let waiter = {
            let (names, stop) = (names.clone(), stop.clone());
            thread::spawn("waiter", move || names.find("silent", Duration::from_secs(600), &stop)).unwrap()
        };
        while names.0.waiting().is_empty() {
            std::thread::yield_now();
        }
        stop.raise(Level::Killing);
        assert!(matches!(waiter.join().unwrap(), Err(Error::Io(_))));
        assert!(names.0.waiting().is_empty());
    }

    #[test]
    fn who_waits_is_woken_by_the_end_of_any_lookup() {
        let (names, stop) = (Names::default(), Stop::new().unwrap());
        let waiter = Waiter::new(&names.0).unwrap();
        assert!(names.find("localhost", LIMIT, &stop).is_ok());
        waiter.wait(Duration::from_secs(600), &stop).unwrap();
    }
}
