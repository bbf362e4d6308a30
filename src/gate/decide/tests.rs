//! Decisions on a real store: every role, own and other pushes, every state.

use super::*;
use crate::mirror::{MirrorSettings, Mirrors};
use crate::model::access::{Grantee, Pattern, Pushers, Readers, Rule};
use crate::model::name::RepoName;
use crate::model::oid::Oid;
use crate::model::push::{Approval, NewPush, OnDisconnect, Owner, Pusher, RefName, RefUpdate, RefUpdates};
use crate::sys::stop::Stop;
use std::sync::Barrier;
use tempfile::TempDir;

struct House {
    _home: TempDir,
    store: Store,
    rules: Rules,
    upstreams: Upstreams,
    waiters: Waiters,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn user(name: &str, role: Role) -> Caller {
    Caller::User { name: UserName::parse(name).unwrap(), role }
}

fn rule(repos: &str, read: Readers, self_certify: &[&str]) -> Rule {
    let grantee = |name: &&str| Grantee::User(UserName::parse(name).unwrap());
    Rule {
        repos: Pattern::parse(repos).unwrap(),
        read,
        push: Pushers::Users,
        self_certify: self_certify.iter().map(grantee).collect(),
    }
}

fn house() -> House {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(&home.path().join("data")).unwrap();
    let rules = vec![
        rule("trusted", Readers::Anyone, &["alice"]),
        rule("closed", Readers::Nobody, &[]),
        rule("inner/*", Readers::Users, &[]),
    ];
    let rules = Rules::new(rules, Pushers::Users);
    let (settings, stop) = (MirrorSettings::default(), Stop::new().unwrap());
    let mirrors = Mirrors::open(&home.path().join("data"), settings, &stop).unwrap();
    let upstreams = Upstreams::new(Vec::new(), mirrors, false);
    House { _home: home, store, rules, upstreams, waiters: Waiters::new(9) }
}

impl House {
    fn desk(&self) -> Desk<'_> {
        Desk { store: &self.store, rules: &self.rules, upstreams: &self.upstreams, waiters: &self.waiters }
    }

    fn received(&self, repo: &str) -> PushId {
        let oid = |digit| Oid::parse(&[digit; 40]).unwrap();
        let name = RefName::parse(b"refs/heads/main").unwrap();
        let push = NewPush {
            repo: RepoName::parse(repo).unwrap(),
            target: Target::Hosted { directory: "/srv/git/app.git".into() },
            pusher: Pusher::user(&UserName::parse("alice").unwrap()),
            refs: RefUpdates::new(vec![RefUpdate { name, old: oid(b'1'), new: oid(b'2') }]).unwrap(),
            options: Vec::new(),
            on_disconnect: OnDisconnect::Cancel,
            owner: Owner { boot: self.store.boot().to_owned(), session: None },
            deadline: at(60),
        };
        self.store.pushes().create(&push, usize::MAX, at(0)).unwrap().unwrap()
    }

    fn step(&self, id: PushId, event: Event) {
        let expected = self.state(id);
        let step = Step { deadline: Some(at(900)), ..Step::new(expected, event, &Actor::Gate, "because") };
        self.store.pushes().transition(id, &step, at(1)).unwrap();
    }

    fn pending(&self, repo: &str) -> PushId {
        let id = self.received(repo);
        self.step(id, Event::CheckingBegan);
        self.step(id, Event::ChecksPassed { approval: Approval::Required });
        id
    }

    fn state(&self, id: PushId) -> PushState {
        self.store.pushes().get(id).unwrap().unwrap().state
    }

    fn decide(&self, caller: &Caller, id: PushId, verb: Verb) -> Result<PushView, DecideError> {
        self.desk().decide(caller, id, verb, "because", at(2))
    }
}

/// The road to every state, by what happens.
fn road(state: PushState) -> &'static [Event] {
    const CHECKED: Event = Event::ChecksPassed { approval: Approval::Required };
    match state {
        PushState::Received => &[],
        PushState::Checking => &[Event::CheckingBegan],
        PushState::Pending => &[Event::CheckingBegan, CHECKED],
        PushState::Approved => &[Event::CheckingBegan, CHECKED, Event::Approved],
        PushState::Forwarding => &[Event::CheckingBegan, CHECKED, Event::Approved, Event::ForwardBegan],
        PushState::Forwarded => {
            &[Event::CheckingBegan, CHECKED, Event::Approved, Event::ForwardBegan, Event::ForwardSucceeded]
        }
        PushState::Blocked => &[Event::CheckingBegan, Event::ChecksFailed],
        PushState::Rejected => &[Event::CheckingBegan, CHECKED, Event::Rejected],
        PushState::Canceled => &[Event::Canceled(CancelCause::Admin)],
        PushState::Expired => &[Event::Expired],
        PushState::Stale => &[Event::CheckingBegan, CHECKED, Event::UpstreamMoved],
        PushState::Failed => {
            &[Event::CheckingBegan, CHECKED, Event::Approved, Event::ForwardBegan, Event::ForwardRefused]
        }
    }
}

/// `.` done, `o` done as an override, `x` not allowed.
fn outcome(house: &House, repo: &str, caller: &Caller, verb: Verb) -> char {
    let id = house.pending(repo);
    if verb == Verb::Retry {
        for event in [Event::Approved, Event::ForwardBegan, Event::ForwardRefused] {
            house.step(id, event);
        }
    }
    match house.decide(caller, id, verb) {
        Ok(view) if view.decision.as_ref().is_some_and(|decision| decision.is_override) => 'o',
        Ok(_) => '.',
        Err(DecideError::Denied(_)) => 'x',
        Err(error) => panic!("{verb:?} by {caller:?}: {error}"),
    }
}

#[test]
fn who_may_do_what_to_whose_push_is_one_table() {
    let house = house();
    // approve, reject, cancel, retry: on a push of his own, of somebody else, and of his own where a rule trusts him.
    let table = [
        (Role::Reader, "xx.x", "xxxx", ".x.x"),
        (Role::Pusher, "xx..", "xxxx", ".x.."),
        (Role::Reviewer, "x...", "..x.", "...."),
        (Role::Admin, "o...", "....", "...."),
    ];
    for (role, own, other, trusted) in table {
        let row = |repo, name| -> String {
            Verb::ALL.iter().map(|verb| outcome(&house, repo, &user(name, role), *verb)).collect()
        };
        let rows = (row("app", "alice"), row("app", "bob"), row("trusted", "alice"));
        assert_eq!(rows, (own.to_owned(), other.to_owned(), trusted.to_owned()), "{role}");
        assert_eq!(row("trusted", "bob"), other, "{role}: a rule trusts whom it names");
    }
    let local: String = Verb::ALL.iter().map(|verb| outcome(&house, "app", &Caller::Local, *verb)).collect();
    assert_eq!(local, "o...");
}

#[test]
fn an_admin_approves_his_own_push_only_with_a_reason() {
    let house = house();
    let (id, alice) = (house.pending("app"), user("alice", Role::Admin));
    let refused = house.desk().decide(&alice, id, Verb::Approve, " ", at(2));
    assert!(matches!(refused, Err(DecideError::Denied(Denied::OverrideNeedsReason))));
    let view = house.desk().decide(&alice, id, Verb::Approve, "on fire", at(2)).unwrap();
    let decision = view.decision.unwrap();
    assert!(decision.is_override && decision.by == "alice" && decision.reason == "on fire");
}

#[test]
fn people_are_offered_what_they_may_do_and_the_push_takes() {
    let house = house();
    let id = house.pending("app");
    let open = |name, role| house.desk().open_to(&user(name, role), id).unwrap();
    assert_eq!(open("bob", Role::Reader), []);
    assert_eq!(open("alice", Role::Pusher), [Verb::Cancel]);
    assert_eq!(open("bob", Role::Reviewer), [Verb::Approve, Verb::Reject]);
    house.decide(&user("bob", Role::Reviewer), id, Verb::Approve).unwrap();
    assert_eq!(open("root", Role::Admin), [Verb::Cancel]);
}

#[test]
fn every_state_takes_what_the_table_of_the_record_allows_and_names_itself_otherwise() {
    let house = house();
    let root = user("root", Role::Admin);
    for state in PushState::ALL {
        for verb in Verb::ALL {
            let id = house.received("app");
            road(state).iter().for_each(|event| house.step(id, *event));
            assert_eq!(house.state(id), state);
            let expected = match verb {
                Verb::Approve if state == PushState::Pending => Some(PushState::Approved),
                Verb::Reject if state == PushState::Pending => Some(PushState::Rejected),
                Verb::Cancel if state.is_open() && state != PushState::Forwarding => {
                    Some(PushState::Canceled)
                }
                Verb::Retry if state == PushState::Failed => Some(PushState::Approved),
                Verb::Approve | Verb::Reject | Verb::Cancel | Verb::Retry => None,
            };
            let events = house.store.pushes().events(id).unwrap().len();
            match (house.decide(&root, id, verb), expected) {
                (Ok(view), Some(to)) => assert_eq!(view.state, to.as_str(), "{verb:?} of {state}"),
                (Err(DecideError::Conflict { state: now, .. }), None) => {
                    assert_eq!((now, house.state(id)), (state, state));
                    assert_eq!(house.store.pushes().events(id).unwrap().len(), events);
                }
                (result, _) => panic!("{verb:?} of {state}: {result:?}"),
            }
        }
    }
}

#[test]
fn pushes_of_repositories_that_one_may_not_read_are_not_there() {
    let house = house();
    let (closed, inner) = (house.pending("closed"), house.pending("inner/app"));
    let root = user("root", Role::Admin);
    for verb in Verb::ALL {
        assert!(matches!(house.decide(&root, closed, verb), Err(DecideError::Unknown(_))));
        assert!(matches!(house.decide(&Caller::Anonymous, inner, verb), Err(DecideError::NeedsCredential)));
    }
    assert!(matches!(house.desk().view(&root, closed), Err(DecideError::Unknown(_))));
    assert!(matches!(house.desk().for_diff(&root, closed), Err(DecideError::Unknown(_))));
    let nobody = house.desk().view(&Caller::Anonymous, PushId::new(99).unwrap());
    assert!(matches!(nobody, Err(DecideError::NeedsCredential)));
    assert!(house.desk().view(&Caller::Local, closed).is_ok());
    assert!(house.desk().view(&user("r", Role::Reader), inner).is_ok());
}

#[test]
fn what_was_pushed_is_shown_to_its_pusher_and_to_those_who_decide() {
    let house = house();
    let id = house.pending("app");
    let sees = |caller: &Caller| house.desk().for_diff(caller, id).is_ok();
    let refused = house.desk().for_diff(&user("eve", Role::Reader), id).unwrap_err();
    assert!(matches!(refused, DecideError::Denied(Denied::MayNotSeeChanges)), "{refused}");
    assert!(sees(&user("alice", Role::Pusher)) && sees(&user("bob", Role::Reviewer)) && sees(&Caller::Local));
    assert!(sees(&user("Alice", Role::Reader)) && !sees(&user("bob", Role::Pusher)));
}

#[test]
fn nobody_approves_his_own_push_by_another_spelling_of_his_name() {
    let house = house();
    let id = house.pending("app");
    let denied = house.decide(&user("ALICE", Role::Reviewer), id, Verb::Approve);
    assert!(matches!(denied, Err(DecideError::Denied(Denied::OwnPush))), "{denied:?}");
}

#[test]
fn a_list_skips_what_may_not_be_seen_and_its_pages_join() {
    let house = house();
    let names = ["app", "closed", "closed", "closed", "inner/app", "closed", "app", "closed"];
    let ids: Vec<PushId> = names.iter().map(|name| house.received(name)).collect();
    let reader = user("r", Role::Reader);
    let (mut filter, mut seen) = (Filter { limit: 2, ..Filter::default() }, Vec::new());
    loop {
        let page = house.desk().list(&reader, &filter).unwrap();
        assert!(page.pushes.len() <= 2);
        seen.extend(page.pushes.iter().map(|push| push.id));
        filter.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(seen, [ids[6], ids[4], ids[0]]);
    assert_eq!(house.desk().list(&Caller::Local, &Filter::default()).unwrap().pushes.len(), 1);
    assert!(matches!(house.desk().list(&Caller::Anonymous, &filter), Err(DecideError::NeedsCredential)));
}

#[test]
fn a_list_over_much_that_is_hidden_stops_and_says_where_to_go_on() {
    let house = house();
    let seen = house.received("app");
    for _ in 0..12 {
        house.received("closed");
    }
    let filter = Filter { limit: 1, ..Filter::default() };
    let page = house.desk().list(&user("r", Role::Reader), &filter).unwrap();
    let next = page.next.unwrap();
    assert!(page.pushes.is_empty() && next > seen);
    let page = house.desk().list(&user("r", Role::Reader), &Filter { before: Some(next), ..filter }).unwrap();
    assert_eq!(page.pushes.iter().map(|push| push.id).collect::<Vec<_>>(), [seen]);
}

#[test]
fn a_rejection_says_why_and_a_reason_is_no_book() {
    let house = house();
    let id = house.pending("app");
    let decide =
        |verb, reason: &str| house.desk().decide(&user("root", Role::Admin), id, verb, reason, at(2));
    assert!(matches!(decide(Verb::Reject, "\n "), Err(DecideError::Reason(DecisionError::NoReason))));
    let book = "x".repeat(REASON_BYTES_MAX + 1);
    for verb in [Verb::Approve, Verb::Reject, Verb::Cancel, Verb::Retry] {
        assert!(matches!(decide(verb, &book), Err(DecideError::Reason(DecisionError::ReasonTooLong))));
    }
    assert_eq!(decide(Verb::Reject, "no\x1b[2J").unwrap().message, "no?[2J");
}

#[test]
fn whoever_waits_is_woken_and_forwards_and_the_sweeper_does_where_nobody_waits() {
    let house = house();
    let (awaited, alone) = (house.pending("app"), house.pending("app"));
    let waiter = house.waiters.wait(awaited).unwrap();
    let root = user("root", Role::Admin);
    house.decide(&root, awaited, Verb::Approve).unwrap();
    house.decide(&root, alone, Verb::Approve).unwrap();
    let mut fds = [nix::poll::PollFd::new(waiter.fd(), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO), Ok(1));
    let due: Vec<_> = house.store.pushes().due(at(2)).unwrap().iter().map(|push| push.id).collect();
    assert_eq!(due, [alone]);
}

#[test]
fn of_two_who_decide_at_once_one_wins_and_the_other_learns_the_state() {
    let house = house();
    let (id, start) = (house.pending("app"), Barrier::new(8));
    let results: Vec<_> = std::thread::scope(|scope| {
        let (house, start) = (&house, &start);
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let verb = if number % 2 == 0 { Verb::Approve } else { Verb::Reject };
                scope.spawn(move || {
                    start.wait();
                    house.decide(&user("root", Role::Admin), id, verb)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let now = house.state(id);
    for error in results.into_iter().filter_map(Result::err) {
        assert!(matches!(error, DecideError::Conflict { state, .. } if state == now), "{error}");
    }
}
