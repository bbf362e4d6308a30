//! The addresses of other servers: looked up in threads that can be left behind.
//!
//! The system's resolver cannot be called off, and takes half a minute for a name whose servers are silent. So each lookup
//! has a thread of its own, one at a time for a name, [`LOOKUPS_MAX`] in all; who asks waits for it 5 s at most. What was found
//! is kept for 30 s, and used beyond that only while no newer answer is to be had.

use crate::model::route::Proxy;
use crate::sys::thread;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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
pub(super) struct Names(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    names: Mutex<HashMap<String, Name>>,
    changed: Condvar,
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
    /// The addresses of `host`, within `limit`.
    fn find(&self, host: &str, limit: Duration) -> Result<Vec<IpAddr>, Error> {
        let since = Instant::now();
        let until = since + limit;
        let mut names = self.lock();
        loop {
            let now = Instant::now();
            self.look_up(&mut names, host, now);
            match names.entry(host.to_owned()).or_default().answer(since, now) {
                Some(Found::Addresses(addresses)) => return Ok(addresses),
                Some(Found::Nothing) => return Err(Error::HostNotFound),
                None if now >= until => return Err(Error::Timeout(Timeout::Resolve)),
                None => {}
            }
            let left = until.saturating_duration_since(now).min(STALE_AFTER);
            names = self.0.changed.wait_timeout(names, left).unwrap_or_else(PoisonError::into_inner).0;
        }
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
            this.0.changed.notify_all();
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
}

impl NextHop {
    /// The proxy where there is one, which looks names up itself; the server otherwise.
    pub(super) const fn new(names: Names, proxy: Option<Proxy>) -> Self {
        Self { names, proxy }
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
            Err(_) => self.names.find(plain, LIMIT.min(*timeout.after))?,
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
        let names = Names::default();
        let found = names.find("localhost", LIMIT).unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty());
        assert!(names.find("nobody.invalid", LIMIT).is_err());
    }

    #[test]
    fn who_waits_for_a_silent_resolver_is_told_so_and_it_is_asked_no_more_than_so_often() {
        let names = Names::default();
        {
            let mut all = names.lock();
            (0..LOOKUPS_MAX).for_each(|number| {
                all.insert(number.to_string(), Name { is_looked_up: true, ..Name::default() });
            });
        }
        let told = names.find("localhost", Duration::from_millis(5));
        assert!(matches!(told, Err(Error::Timeout(Timeout::Resolve))), "{told:?}");
        assert!(!names.lock()["localhost"].is_looked_up);
        names.lock().get_mut("localhost").unwrap().good = Some((Instant::now(), vec![ADDRESS]));
        assert_eq!(names.find("localhost", LIMIT).unwrap(), [ADDRESS], "an old answer is better than none");
    }
}
