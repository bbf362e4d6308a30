//! Everything that can happen to a waiting push, fired at once through the road itself, with a real target behind it.
//!
//! The staging repository of the first push is taken in by git; those of the others are copies of it, since every push
//! brings the same commit to a branch of its own.

use crate::support::{Site, gits, reaper};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tidegate::config::{ChecksSettings, GateSettings, Settings};
use tidegate::gate::changes::{Changes, ChangesParts};
use tidegate::gate::decide::{Desk, Verb};
use tidegate::gate::maintenance::Maintenance;
use tidegate::gate::road::{Parts, Road};
use tidegate::gate::waiters::Waiters;
use tidegate::git::layout::Root;
use tidegate::git::pool::{Kind, Lane, Size};
use tidegate::git::upkeep::Tools as Keepers;
use tidegate::mirror::upstreams::Upstreams;
use tidegate::mirror::{Approach, MirrorSettings, Mirrors};
use tidegate::model::access::{Caller, Pushers, Rules};
use tidegate::model::name::{RepoName, UserName};
use tidegate::model::oid::Oid;
use tidegate::model::push::{
    Actor, Approval, CancelCause, Event, NewPush, OnDisconnect, Owner, PushId, PushState, Pusher, RefName,
    RefUpdate, RefUpdates, Target,
};
use tidegate::model::role::Role;
use tidegate::model::secret::Secret;
use tidegate::store::pushes::Step;
use tidegate::store::users::NewToken;
use tidegate::sys::current::Current;
use tidegate::sys::stop::Stop;

/// Who fires.
const SHOTS: [Shot; 8] = [
    Shot::Approve,
    Shot::Reject,
    Shot::Cancel,
    Shot::Disconnect,
    Shot::Expire,
    Shot::ForwardSession,
    Shot::ForwardDue,
    Shot::Sweep,
];

/// The longest a shot is late: so spread that each wins now and then.
const SPREAD_MICROS: u64 = 1500;

/// How long a push may take to end before the test has hung.
const HANG: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum Shot {
    Approve,
    Reject,
    Cancel,
    Disconnect,
    Expire,
    ForwardSession,
    ForwardDue,
    Sweep,
}

/// `TIDEGATE_TEST_RACES`, or 1,000.
#[expect(clippy::disallowed_methods, reason = "the one variable by which these tests are made longer")]
fn rounds() -> usize {
    std::env::var("TIDEGATE_TEST_RACES").map_or(1000, |text| text.parse().unwrap())
}

struct Race {
    road: Road,
    waiters: Waiters,
    rules: Rules,
    site: Site,
    name: RepoName,
}

fn name(text: &str) -> UserName {
    UserName::parse(text).unwrap()
}

impl Race {
    fn new() -> Self {
        let git = gits().remove(0);
        let site = Site::new(&git);
        for (user, role) in [("alice", Role::Pusher), ("rita", Role::Reviewer)] {
            let token = NewToken { given: Some(Secret::new(format!("{user}-token"))), ..NewToken::default() };
            site.store.users().add(&name(user), role, &token, Timestamp::now()).unwrap();
        }
        let (lane, _) = Lane::start(Kind::Write, Size { workers: 4, queue: 256 }).unwrap();
        let waiters = Waiters::new(16);
        let rules = Rules::new(Vec::new(), Pushers::Users);
        let alone = |kind| Lane::start(kind, Size { workers: 1, queue: 1 }).unwrap().0;
        let (upkeep_lane, _) = Lane::start(Kind::Upkeep, Size { workers: 1, queue: 256 }).unwrap();
        let keepers = Keepers { reaper: reaper().clone(), git: git.clone(), leases: site.leases.clone() };
        let stop = Stop::new().unwrap();
        let mirrors = Mirrors::open(&site.path("data"), MirrorSettings::default(), &stop).unwrap();
        let approach = Approach {
            mirrors: mirrors.clone(),
            git: git.clone(),
            reaper: reaper().clone(),
            grace: Duration::from_secs(1),
            probes: alone(Kind::Probe),
            lane: alone(Kind::Upstream),
        };
        let root = Root::open(site.path("srv.git").parent().unwrap(), false).unwrap();
        let upstreams = Upstreams::new(Vec::new(), mirrors, false);
        let changes = Changes::new(ChangesParts {
            store: site.store.clone(),
            reaper: reaper().clone(),
            git: git.clone(),
            grace: Duration::from_secs(1),
            root: root.clone(),
            upstreams: upstreams.clone(),
            lane: lane.clone(),
            stop: stop.clone(),
        });
        let road = Road::new(Parts {
            store: site.store.clone(),
            reaper: reaper().clone(),
            git,
            repository_settings: Arc::default(),
            maintenance: Maintenance::new(upkeep_lane, keepers, site.store.clone()),
            root,
            changes: changes.unwrap(),
            leases: site.leases.clone(),
            held: site.held.clone(),
            waiters: waiters.clone(),
            lane,
            approach,
            rules: Current::new(rules.clone()),
            checks: Current::new(ChecksSettings::default()),
            stop,
            gate: GateSettings::default(),
            upstreams,
            git_settings: Settings::defaults(None, 2).git,
            open_max: 100,
        });
        Self { road, waiters, rules, site, name: RepoName::parse("srv").unwrap() }
    }

    /// A push that waits, is due to expire, and has a session that is dead: everybody may end it.
    fn waiting(&self, round: usize, tip: &str, template: &str) -> PushId {
        let long_ago = Timestamp::now().saturating_sub(SignedDuration::from_mins(1)).unwrap();
        let oid = |text: &str| Oid::parse(text.as_bytes()).unwrap();
        let update = RefUpdate {
            name: RefName::parse(format!("refs/heads/race-{round}").as_bytes()).unwrap(),
            old: oid(&"0".repeat(40)),
            new: oid(tip),
        };
        let pushes = self.site.store.pushes();
        let push = NewPush {
            repo: self.name.clone(),
            target: Target::Hosted { directory: self.site.path("srv.git") },
            pusher: Pusher::user(&name("alice")),
            refs: RefUpdates::new(vec![update]).unwrap(),
            options: Vec::new(),
            on_disconnect: OnDisconnect::Cancel,
            owner: Owner { boot: self.site.store.boot().to_owned(), session: Some(1) },
            deadline: long_ago,
        };
        let id = pushes.create(&push, usize::MAX, long_ago).unwrap().unwrap();
        self.site.sh(&format!("cp -a {template} data/held/{id}.git"));
        for (from, event) in [
            (PushState::Received, Event::CheckingBegan),
            (PushState::Checking, Event::ChecksPassed { approval: Approval::Required }),
        ] {
            pushes.transition(id, &Step::new(from, event, &Actor::Gate, ""), long_ago).unwrap();
        }
        id
    }

    fn fire(&self, shot: Shot, id: PushId) {
        let user = |text, role| Caller::User { name: name(text), role };
        let decide = |caller, verb| {
            let upstreams = self.road.upstreams();
            let Self { rules, waiters, site, .. } = self;
            let desk = Desk { store: &site.store, rules, upstreams, waiters };
            // Whoever is late is told so; who won is judged by the record.
            let _ = desk.decide(&caller, id, verb, "raced", Timestamp::now());
        };
        let push = self.road.look(id).unwrap().unwrap();
        match shot {
            Shot::Approve => decide(user("rita", Role::Reviewer), Verb::Approve),
            Shot::Reject => decide(user("rita", Role::Reviewer), Verb::Reject),
            Shot::Cancel => decide(user("alice", Role::Pusher), Verb::Cancel),
            Shot::Disconnect => self.road.abandon(&push, CancelCause::ClientGone, "its client left"),
            Shot::Expire => self.road.expire_due().unwrap(),
            Shot::ForwardSession => self.road.send_off(id, None),
            Shot::ForwardDue => self.road.forward_due().unwrap(),
            Shot::Sweep => {
                self.road.close_orphans().unwrap();
                self.road.sweep_held().unwrap();
            }
        }
    }

    /// Waits for the end of a push and of whatever was made for it.
    fn end_of(&self, id: PushId) -> PushState {
        let since = Instant::now();
        loop {
            // As the sweeper does again and again: who decides removes nothing himself.
            self.road.forward_due().unwrap();
            self.road.sweep_held().unwrap();
            let push = self.road.look(id).unwrap().unwrap();
            if !push.state.is_open() && !self.site.held.has(id) {
                return push.state;
            }
            assert!(since.elapsed() < HANG, "{push:?}");
            thread::yield_now();
        }
    }
}

#[test]
fn of_all_that_happens_to_a_waiting_push_at_once_one_ends_it_and_it_is_forwarded_at_most_once() {
    let race = Race::new();
    let site = &race.site;
    site.sh("cd work; echo raced > raced; git add raced; git commit -q -m raced");
    let tip = site.rev("work", "HEAD");
    let first = site.hold(site.request("HEAD:refs/heads/template"));
    site.sh(&format!(
        "mv data/held/{}.git template.git
         mkdir -p srv.git/hooks; printf '#!/bin/sh\\ncat >> \"{}\"\\n' > srv.git/hooks/post-receive
         chmod +x srv.git/hooks/post-receive",
        first.id,
        site.path("ledger").display()
    ));
    let (target, gun) = (Arc::new(Mutex::new(None::<PushId>)), Arc::new(Barrier::new(SHOTS.len() + 1)));
    let mut ids = Vec::new();
    thread::scope(|scope| {
        for (place, shot) in SHOTS.into_iter().enumerate() {
            let (race, target, gun) = (&race, &target, &gun);
            scope.spawn(move || {
                for round in 0_u64.. {
                    gun.wait();
                    let Some(id) = *target.lock().unwrap() else { return };
                    // Fixed by the round and the place: a failure can be repeated.
                    let late = (round * 7919 + place as u64 * 104_729).wrapping_mul(2_654_435_761) >> 7;
                    let until = Instant::now() + Duration::from_micros(late % SPREAD_MICROS);
                    while Instant::now() < until {
                        thread::yield_now();
                    }
                    race.fire(shot, id);
                    gun.wait();
                }
            });
        }
        for round in 0..rounds() {
            let id = race.waiting(round, &tip, "template.git");
            *target.lock().unwrap() = Some(id);
            gun.wait();
            gun.wait();
            ids.push((id, race.end_of(id)));
        }
        *target.lock().unwrap() = None;
        gun.wait();
    });
    judge(&race, &ids);
}

fn judge(race: &Race, ids: &[(PushId, PushState)]) {
    let ledger = fs::read_to_string(race.site.path("ledger")).unwrap_or_default();
    let mut ends: BTreeMap<PushState, usize> = BTreeMap::new();
    let mut arrived = BTreeSet::new();
    for (round, (id, state)) in ids.iter().enumerate() {
        let events = race.site.store.pushes().events(*id).unwrap();
        for pair in events.windows(2) {
            assert_eq!(pair[1].cause.unwrap().0, pair[0].to, "{id}: {events:?}");
        }
        let count = |wanted: fn(&Event) -> bool| {
            events.iter().filter_map(|row| row.cause).filter(|(_, event)| wanted(event)).count()
        };
        assert_eq!(events.iter().filter(|row| !row.to.is_open()).count(), 1, "{id}: {events:?}");
        assert_eq!(events.last().unwrap().to, *state);
        let is_forwarded = *state == PushState::Forwarded;
        assert!(!is_forwarded || count(|event| *event == Event::Approved) == 1, "{id}: {events:?}");
        let begun = count(|event| *event == Event::ForwardBegan);
        assert_eq!(begun, usize::from(is_forwarded), "{id}: {events:?}");
        let branch = format!("refs/heads/race-{round}");
        let told = ledger.lines().filter(|line| line.split(' ').nth(2) == Some(&branch)).count();
        assert_eq!(told, usize::from(is_forwarded), "{id}: {events:?}");
        if is_forwarded {
            arrived.insert(branch);
        }
        *ends.entry(*state).or_default() += 1;
    }
    let refs = race.site.sh("git -C srv.git for-each-ref --format='%(refname)' 'refs/heads/race-*'");
    assert_eq!(refs.lines().map(str::to_owned).collect::<BTreeSet<_>>(), arrived);
    assert!(race.site.held.list().unwrap().is_empty());
    if ids.len() >= 1000 {
        assert_eq!(ends.len(), 4, "each end should come about now and then: {ends:?}");
    }
}
