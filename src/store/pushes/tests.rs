//! Push records on a real disk.

use super::*;
use crate::model::check::{Finding, Verdict};
use crate::model::name::UserName;
use crate::model::oid::Oid;
use crate::model::push::{Approval, CancelCause, OnDisconnect, Pusher, RefUpdate, RefUpdates, Target};
use crate::store::tests::{at, fresh};

pub(super) fn user(name: &str) -> Actor {
    Actor::User(UserName::parse(name).unwrap())
}

fn update(name: &str, old: u8, new: u8) -> RefUpdate {
    let oid = |digit| Oid::parse(&[digit; 40]).unwrap();
    RefUpdate { name: RefName::parse(name.as_bytes()).unwrap(), old: oid(old), new: oid(new) }
}

pub(super) fn new_push(store: &Store) -> NewPush {
    NewPush {
        repo: RepoName::parse("acme/app").unwrap(),
        target: Target::Hosted { directory: "/srv/git/acme/app.git".into() },
        pusher: Pusher::user(&UserName::parse("alice").unwrap()),
        refs: RefUpdates::new(vec![
            update("refs/heads/main", b'1', b'2'),
            update("refs/tags/v1", b'0', b'3'),
        ])
        .unwrap(),
        options: vec!["ci.skip".to_owned()],
        on_disconnect: OnDisconnect::Keep,
        owner: Owner { boot: store.boot().to_owned(), session: Some(7) },
        deadline: at(60),
    }
}

fn received(store: &Store) -> PushId {
    store.pushes().create(&new_push(store), usize::MAX, at(0)).unwrap().unwrap()
}

fn take(store: &Store, id: PushId, expected: PushState, event: Event) -> Result<Moved, TransitionError> {
    store.pushes().transition(id, &Step::new(expected, event, &Actor::Gate, ""), at(1))
}

pub(super) fn pass_checks(store: &Store, id: PushId) {
    take(store, id, PushState::Received, Event::CheckingBegan).unwrap();
    take(store, id, PushState::Checking, Event::ChecksPassed { approval: Approval::Required }).unwrap();
}

fn approved(store: &Store) -> PushId {
    let id = received(store);
    pass_checks(store, id);
    let decision = Decision::new(Ruling::Approve, user("rev"), "fine", true, at(2)).unwrap();
    store.pushes().decide(id, &decision, Some(at(90))).unwrap();
    id
}

fn get(store: &Store, id: PushId) -> Push {
    store.pushes().get(id).unwrap().unwrap()
}

fn execute(store: &Store, sql: &str) -> rusqlite::Result<usize> {
    store.writer().execute(sql, ())
}

#[test]
fn a_record_is_read_back_as_it_was_made() {
    let (home, store) = fresh();
    let new = new_push(&store);
    let id = store.pushes().create(&new, usize::MAX, at(0)).unwrap().unwrap();
    let found = get(&Store::open(&home.path().join("data")).unwrap(), id);
    let expected = Push {
        id,
        state: PushState::Received,
        repo: new.repo,
        target: new.target,
        pusher: new.pusher,
        refs: new.refs,
        answers: vec![None, None],
        options: new.options,
        on_disconnect: OnDisconnect::Keep,
        created: at(0),
        updated: at(0),
        deadline: Some(at(60)),
        owner: new.owner,
        attempts: 0,
        message: "the push was received".to_owned(),
        upstream: None,
        decision: None,
    };
    assert_eq!(found, expected);
    let events = store.pushes().events(id).unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].cause, events[0].to, &events[0].actor),
        (None, PushState::Received, &user("alice"))
    );
    assert_eq!(store.pushes().get(PushId::new(99).unwrap()).unwrap(), None);
}

#[test]
fn where_a_push_goes_is_read_back_and_a_damaged_address_is_told() {
    let (_home, store) = fresh();
    let target = Target::Upstream { url: "https://forge.example/org/app.git".to_owned() };
    let new = NewPush { target: target.clone(), ..new_push(&store) };
    let id = store.pushes().create(&new, usize::MAX, at(0)).unwrap().unwrap();
    assert_eq!(get(&store, id).target, target);
    // No statement of ours could do this.
    execute(&store, "DROP TRIGGER pushes_are_bound").unwrap();
    execute(&store, "UPDATE pushes SET target = x'ff'").unwrap();
    assert!(matches!(store.pushes().get(id), Err(StoreError::Damaged("the target of a push"))));
}

#[test]
fn an_approved_push_is_forwarded_and_the_record_tells_all_of_it() {
    let (_home, store) = fresh();
    let id = approved(&store);
    take(&store, id, PushState::Approved, Event::ForwardBegan).unwrap();
    let answer = Answer {
        words: "remote: thanks\x1b[2J\nremote: bye".to_owned(),
        refs: new_push(&store).refs.iter().map(|update| (update.name.clone(), RefAnswer::Accepted)).collect(),
    };
    let step = Step {
        answer: Some(&answer),
        ..Step::new(PushState::Forwarding, Event::ForwardSucceeded, &Actor::Gate, "the target\x07 took it")
    };
    let moved = store.pushes().transition(id, &step, at(5)).unwrap();
    assert_eq!((moved.from, moved.to), (PushState::Forwarding, PushState::Forwarded));
    let push = get(&store, id);
    assert_eq!((push.state, push.deadline, push.updated), (PushState::Forwarded, None, at(5)));
    assert_eq!(push.message, "the target? took it");
    assert_eq!(push.upstream.as_deref(), Some("remote: thanks?[2J\nremote: bye"));
    assert_eq!(push.answers, [Some(RefAnswer::Accepted), Some(RefAnswer::Accepted)]);
    let decision = push.decision.unwrap();
    assert_eq!((decision.ruling, decision.by, decision.is_override), (Ruling::Approve, user("rev"), true));
    let view = store.pushes().view(id).unwrap().unwrap();
    let events: Vec<_> = view.events.unwrap().into_iter().map(|event| (event.event, event.to)).collect();
    let expected = [
        ("received", "received"),
        ("checking_began", "checking"),
        ("checks_passed", "pending"),
        ("approved", "approved"),
        ("forward_began", "forwarding"),
        ("forward_succeeded", "forwarded"),
    ];
    assert_eq!(events, expected.map(|(event, to)| (event.to_owned(), to.to_owned())));
}

#[test]
fn who_is_late_learns_where_the_push_stands_and_changes_nothing() {
    let (_home, store) = fresh();
    let id = approved(&store);
    let before = (get(&store, id), store.pushes().events(id).unwrap());
    let reject = Decision::new(Ruling::Reject, user("late"), "no", false, at(4)).unwrap();
    let lost = store.pushes().decide(id, &reject, None).unwrap_err();
    assert!(matches!(lost, TransitionError::Lost { now_in: PushState::Approved }), "{lost}");
    let lost = take(&store, id, PushState::Pending, Event::Canceled(CancelCause::ClientGone)).unwrap_err();
    assert!(matches!(lost, TransitionError::Lost { now_in: PushState::Approved }), "{lost}");
    let never = take(&store, id, PushState::Approved, Event::ForwardSucceeded).unwrap_err();
    assert!(matches!(never, TransitionError::NotAllowed(_)), "{never}");
    let unknown = take(&store, PushId::new(99).unwrap(), PushState::Pending, Event::Expired).unwrap_err();
    assert!(matches!(unknown, TransitionError::Unknown(_)), "{unknown}");
    assert_eq!((get(&store, id), store.pushes().events(id).unwrap()), before);
}

#[test]
fn what_cannot_be_written_whole_is_not_written_at_all() {
    let (_home, store) = fresh();
    let id = received(&store);
    pass_checks(&store, id);
    execute(&store, "CREATE TRIGGER full BEFORE INSERT ON decisions BEGIN SELECT RAISE(ABORT, 'disk'); END")
        .unwrap();
    let decision = Decision::new(Ruling::Approve, user("rev"), "", false, at(2)).unwrap();
    assert!(matches!(store.pushes().decide(id, &decision, None), Err(TransitionError::Store(_))));
    assert_eq!(get(&store, id).state, PushState::Pending);
    assert_eq!(store.pushes().events(id).unwrap().len(), 3);
}

#[test]
fn open_records_keep_or_get_a_deadline_and_ends_have_none() {
    let (_home, store) = fresh();
    let id = approved(&store);
    assert_eq!(get(&store, id).deadline, Some(at(90)));
    take(&store, id, PushState::Approved, Event::ForwardBegan).unwrap();
    assert_eq!(get(&store, id).deadline, Some(at(90)));
    let later = Step {
        deadline: Some(at(120)),
        ..Step::new(PushState::Forwarding, Event::ForwardDeferred, &Actor::Gate, "upstream is down")
    };
    store.pushes().transition(id, &later, at(3)).unwrap();
    assert_eq!((get(&store, id).deadline, get(&store, id).attempts), (Some(at(120)), 1));
    let canceled = Step {
        deadline: Some(at(200)),
        ..Step::new(PushState::Approved, Event::Canceled(CancelCause::Admin), &Actor::Operator, "")
    };
    store.pushes().transition(id, &canceled, at(4)).unwrap();
    assert_eq!(get(&store, id).deadline, None);
}

#[test]
fn a_failed_forward_may_be_retried_while_its_objects_are_kept() {
    let (_home, store) = fresh();
    let fail = |deadline| {
        let id = approved(&store);
        take(&store, id, PushState::Approved, Event::ForwardBegan).unwrap();
        let step =
            Step { deadline, ..Step::new(PushState::Forwarding, Event::ForwardRefused, &Actor::Gate, "no") };
        store.pushes().transition(id, &step, at(5)).unwrap();
        id
    };
    let retry = |id, now| {
        let actor = user("alice");
        let step = Step { deadline: Some(now), ..Step::new(PushState::Failed, Event::Retried, &actor, "") };
        store.pushes().transition(id, &step, now)
    };
    let kept = fail(Some(at(100)));
    assert_eq!(retry(kept, at(99)).unwrap().to, PushState::Approved);
    assert_eq!((get(&store, kept).attempts, get(&store, kept).deadline), (0, Some(at(99))));
    for (id, now) in [(fail(Some(at(100))), at(100)), (fail(None), at(6))] {
        assert!(matches!(retry(id, now), Err(TransitionError::NothingKept)));
    }
    let released = fail(Some(at(100)));
    assert!(!store.pushes().release(released, at(99)).unwrap());
    assert!(store.pushes().release(released, at(100)).unwrap());
    assert!(!store.pushes().release(released, at(101)).unwrap());
    assert!(matches!(retry(released, at(50)), Err(TransitionError::NothingKept)));
}

#[test]
fn a_push_that_nobody_approved_is_never_retried() {
    let (_home, store) = fresh();
    let id = received(&store);
    let actor = Actor::Gate;
    let refused = Step {
        deadline: Some(at(100)),
        ..Step::new(PushState::Received, Event::PackRefused, &actor, "unpacker error")
    };
    store.pushes().transition(id, &refused, at(1)).unwrap();
    assert_eq!(get(&store, id).deadline, None);
    let retried = take(&store, id, PushState::Failed, Event::Retried);
    assert!(matches!(retried, Err(TransitionError::NothingKept)));
}

#[test]
fn an_open_record_of_a_repository_is_found_and_none_that_has_ended() {
    let (_home, store) = fresh();
    let of = |name| store.pushes().open_of(&RepoName::parse(name).unwrap()).unwrap().map(|push| push.id);
    assert_eq!(of("acme/app"), None);
    let id = received(&store);
    assert_eq!([of("acme/app"), of("acme/App"), of("acme")], [Some(id), None, None]);
    take(&store, id, PushState::Received, Event::PackRefused).unwrap();
    assert_eq!(of("acme/app"), None);
}

#[test]
fn open_records_of_earlier_lives_are_found_and_adopted_once() {
    let (home, earlier) = fresh();
    let (waiting, ended) = (received(&earlier), received(&earlier));
    take(&earlier, ended, PushState::Received, Event::PackRefused).unwrap();
    let store = Store::open(&home.path().join("data")).unwrap();
    let own = received(&store);
    let found = store.pushes().open_elsewhere(store.boot()).unwrap();
    assert_eq!(found.iter().map(|push| push.id).collect::<Vec<_>>(), [waiting]);
    assert_eq!(rows::open_count(&store.writer()).unwrap(), 2);
    let to = Owner { boot: store.boot().to_owned(), session: None };
    let adoption = Adoption {
        expected: PushState::Received,
        from: &found[0].owner,
        to: &to,
        deadline: Some(at(500)),
        why: "the gate was started again",
    };
    let moved = store.pushes().adopt(waiting, &adoption, at(9)).unwrap();
    assert_eq!((moved.from, moved.to), (PushState::Received, PushState::Received));
    let push = get(&store, waiting);
    assert_eq!((&push.owner, push.deadline, push.message), (&to, Some(at(500)), found[0].message.clone()));
    assert_eq!(store.pushes().events(waiting).unwrap().len(), 2);
    assert!(store.pushes().open_elsewhere(store.boot()).unwrap().is_empty());
    let again = store.pushes().adopt(waiting, &adoption, at(9));
    assert!(matches!(again, Err(TransitionError::Lost { now_in: PushState::Received })));
    assert_eq!(get(&store, own).owner.session, Some(7));
}

#[test]
fn what_is_due_is_found_the_longest_overdue_first() {
    let (_home, store) = fresh();
    let due = |second| {
        let due = store.pushes().due(at(second)).unwrap();
        due.into_iter().map(|push| push.id).collect::<Vec<_>>()
    };
    let (first, second) = (received(&store), approved(&store));
    let early = NewPush { deadline: at(30), ..new_push(&store) };
    let third = store.pushes().create(&early, usize::MAX, at(0)).unwrap().unwrap();
    assert_eq!(due(29), []);
    assert_eq!(due(30), [third]);
    assert_eq!(due(60), [third, first]);
    assert_eq!(due(90), [third, first, second]);
    take(&store, third, PushState::Received, Event::Expired).unwrap();
    assert_eq!(due(90), [first, second]);
}

#[test]
fn what_checks_found_is_kept_with_the_step_that_follows_from_it_or_not_at_all() {
    let (_home, store) = fresh();
    let id = received(&store);
    let finding =
        Finding { message: "no \"secrets\"".to_owned(), key: "secrets".to_owned(), ..Finding::default() };
    let failed =
        CheckResult { name: "secrets".to_owned(), verdict: Verdict::Fail, findings: vec![finding], ms: 12 };
    let passed = CheckResult { name: "refs".to_owned(), verdict: Verdict::Pass, findings: Vec::new(), ms: 0 };
    let with = |state, event, results: &[CheckResult]| {
        let step = Step { checks: Some(results), ..Step::new(state, event, &Actor::Gate, "") };
        store.pushes().transition(id, &step, at(1))
    };
    let early = with(PushState::Checking, Event::ChecksFailed, std::slice::from_ref(&failed));
    assert!(matches!(early, Err(TransitionError::Lost { now_in: PushState::Received })));
    assert!(store.pushes().checks(id).unwrap().is_empty(), "nothing is kept of a step that was not taken");
    take(&store, id, PushState::Received, Event::CheckingBegan).unwrap();
    with(PushState::Checking, Event::ChecksFailed, &[passed.clone(), failed.clone()]).unwrap();
    let late = with(PushState::Checking, Event::ChecksFailed, &[]);
    assert!(matches!(late, Err(TransitionError::Lost { now_in: PushState::Blocked })));
    assert_eq!(store.pushes().checks(id).unwrap(), [passed.clone(), failed.clone()]);
    assert_eq!(store.pushes().view(id).unwrap().unwrap().checks.unwrap(), [passed, failed]);
}

#[test]
fn only_a_step_that_promises_nobody_anything_is_committed_without_waiting_for_the_disk() {
    let (_home, store) = fresh();
    let level =
        || store.writer().pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0)).unwrap();
    const NORMAL: i64 = 1;
    const FULL: i64 = 2;
    let first = received(&store);
    take(&store, first, PushState::Received, Event::CheckingBegan).unwrap();
    assert_eq!(level(), FULL, "numbers of events are put aside, for this one and many more");
    let id = received(&store);
    let auto = Event::ChecksPassed { approval: Approval::Auto };
    let steps = [
        (PushState::Received, Event::CheckingBegan, NORMAL),
        (PushState::Checking, auto, NORMAL),
        (PushState::Approved, Event::ForwardBegan, FULL),
        (PushState::Forwarding, Event::ForwardSucceeded, FULL),
    ];
    for (state, event, expected) in steps {
        take(&store, id, state, event).unwrap();
        assert_eq!(level(), expected, "{event}");
    }
    let id = received(&store);
    take(&store, id, PushState::Received, Event::CheckingBegan).unwrap();
    take(&store, id, PushState::Checking, Event::ChecksPassed { approval: Approval::Required }).unwrap();
    assert_eq!(level(), FULL, "its client is told that it waits");
}

#[test]
fn lists_are_filtered_and_paged_the_newest_first() {
    let (_home, store) = fresh();
    let ids: Vec<PushId> = (0..7).map(|_| received(&store)).collect();
    let other = NewPush {
        repo: RepoName::parse("lib").unwrap(),
        pusher: Pusher::user(&UserName::parse("bob").unwrap()),
        ..new_push(&store)
    };
    let other = store.pushes().create(&other, usize::MAX, at(1)).unwrap().unwrap();
    take(&store, ids[2], PushState::Received, Event::Expired).unwrap();
    let list = |filter: Filter| {
        let page = store.pushes().list(&filter).unwrap();
        (page.pushes.into_iter().map(|push| push.id).collect::<Vec<_>>(), page.next)
    };
    let all = || Filter { limit: 3, ..Filter::default() };
    assert_eq!(list(all()), (vec![other, ids[6], ids[5]], Some(ids[5])));
    assert_eq!(list(Filter { before: Some(ids[5]), ..all() }), (vec![ids[4], ids[3], ids[2]], Some(ids[2])));
    assert_eq!(list(Filter { before: Some(ids[2]), ..all() }), (vec![ids[1], ids[0]], None));
    assert_eq!(list(Filter { user: Some("bob".to_owned()), ..all() }), (vec![other], None));
    assert_eq!(list(Filter { user: Some("' OR 1=1 --".to_owned()), ..all() }), (vec![], None));
    let app = RepoName::parse("acme/app").ok();
    let expired =
        Filter { state: Some(PushState::Expired), repo: app, user: Some("alice".to_owned()), ..all() };
    assert_eq!(list(expired), (vec![ids[2]], None));
    assert_eq!(list(Filter { limit: 0, ..all() }), (vec![other], Some(other)));
    assert_eq!(list(Filter { limit: u32::MAX, ..all() }).0.len(), 8);
}

#[test]
fn no_page_is_longer_than_a_hundred_and_each_filter_has_an_index() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open_relaxed(&home.path().join("data")).unwrap();
    for _ in 0..101 {
        received(&store);
    }
    let page = store.pushes().list(&Filter { limit: 1000, ..Filter::default() }).unwrap();
    assert_eq!((page.pushes.len(), page.next), (100, PushId::new(2)));
    let plan = |condition: &str| -> String {
        let query = format!("EXPLAIN QUERY PLAN SELECT * FROM pushes WHERE {condition}");
        store.writer().query_row(&query, (), |row| row.get("detail")).unwrap()
    };
    for (condition, index) in [
        ("TRUE AND state = 'pending' AND id < 9 ORDER BY id DESC", "pushes_by_state (state=? AND id<?)"),
        ("TRUE AND repo = 'app' ORDER BY id DESC", "pushes_by_repo (repo=?)"),
        ("TRUE AND pusher = 'alice' ORDER BY id DESC", "pushes_by_pusher (pusher=?)"),
        ("deadline <= 5 ORDER BY deadline, id", "pushes_due (deadline<?)"),
        ("deadline IS NULL AND updated < 5 ORDER BY updated", "pushes_over (updated<?)"),
    ] {
        assert!(plan(condition).contains(index), "{condition}: {}", plan(condition));
    }
}

#[test]
fn events_decisions_and_what_was_asked_cannot_be_changed_or_taken_away() {
    let (_home, store) = fresh();
    let id = approved(&store);
    let before = store.pushes().view(id).unwrap();
    for sql in [
        "UPDATE push_events SET why = 'other'",
        "UPDATE push_events SET at = 0 WHERE id = 1",
        "DELETE FROM push_events",
        "DELETE FROM push_events WHERE id = (SELECT max(id) FROM push_events)",
        "INSERT OR REPLACE INTO push_events SELECT * FROM push_events",
        "INSERT INTO push_events (push_id, at, actor, event, from_state, to_state, why)
         VALUES (1, 0, 'eve', 'forward_succeeded', 'forwarding', 'forwarded', '')",
        "INSERT INTO push_events (push_id, at, actor, event, from_state, to_state, why)
         VALUES (1, 0, 'eve', 'retried', 'failed', 'approved', '')",
        "INSERT INTO push_events (push_id, at, actor, to_state, why) VALUES (99, 0, 'eve', 'received', '')",
        "UPDATE decisions SET by = 'eve'",
        "DELETE FROM decisions",
        "INSERT OR REPLACE INTO decisions VALUES (1, 'approve', 'eve', '', 0, 0)",
        "UPDATE push_refs SET new = old",
        "DELETE FROM push_refs",
        "UPDATE pushes SET repo = 'other'",
        "UPDATE pushes SET target = x'00'",
        "UPDATE pushes SET pusher = 'eve', verified = 1",
        "UPDATE pushes SET deadline = NULL",
        "UPDATE pushes SET state = 'done'",
        "DELETE FROM pushes",
        "INSERT OR REPLACE INTO pushes SELECT * FROM pushes",
    ] {
        let refused = execute(&store, sql).unwrap_err();
        assert!(
            refused.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation),
            "{sql}: {refused}"
        );
    }
    assert_eq!(store.pushes().view(id).unwrap(), before);
    take(&store, id, PushState::Approved, Event::Canceled(CancelCause::Admin)).unwrap();
    assert!(execute(&store, "UPDATE pushes SET state = 'approved', deadline = 1").is_err());
}

#[test]
fn old_ends_are_pruned_whole_and_nothing_else() {
    let (_home, store) = fresh();
    let (open, ended, fresh_end) = (received(&store), received(&store), received(&store));
    pass_checks(&store, ended);
    let reject = Decision::new(Ruling::Reject, user("rev"), "no", false, at(2)).unwrap();
    store.pushes().decide(ended, &reject, None).unwrap();
    let expire = Step::new(PushState::Received, Event::Expired, &Actor::Gate, "");
    store.pushes().transition(fresh_end, &expire, at(50)).unwrap();
    let retryable = approved(&store);
    let failed = Step {
        deadline: Some(at(100)),
        ..Step::new(PushState::Approved, Event::ForwardAbandoned, &Actor::Gate, "")
    };
    store.pushes().transition(retryable, &failed, at(3)).unwrap();
    assert_eq!(store.pushes().prune(at(50)).unwrap(), 1);
    assert_eq!(store.pushes().prune(at(50)).unwrap(), 0);
    assert_eq!(store.pushes().get(ended).unwrap(), None);
    for id in [open, fresh_end, retryable] {
        assert!(store.pushes().get(id).unwrap().is_some());
    }
    for table in ["push_refs", "push_events", "checks", "decisions"] {
        let left: i64 = store
            .writer()
            .query_row(&format!("SELECT count(*) FROM {table} WHERE push_id = ?1"), [ended.get()], |row| {
                row.get(0)
            })
            .unwrap();
        assert_eq!(left, 0, "{table}");
    }
    store.pushes().release(retryable, at(100)).unwrap();
    assert_eq!(store.pushes().prune(at(1000)).unwrap(), 2);
    assert!(received(&store) > retryable, "a number is never used twice");
}

#[test]
fn every_state_of_the_model_fits_the_schema_and_the_schema_knows_which_are_open() {
    let (_home, store) = fresh();
    let schema: String = store
        .writer()
        .query_row("SELECT sql FROM sqlite_schema WHERE name = 'pushes'", (), |row| row.get(0))
        .unwrap();
    for state in PushState::ALL {
        assert!(schema.contains(&format!("'{state}'")), "{state}");
    }
    for state in PushState::ALL {
        let query = format!("SELECT {} FROM (SELECT ?1 AS state)", rows::IS_OPEN);
        let is_open: bool = store.writer().query_row(&query, [state.as_str()], |row| row.get(0)).unwrap();
        assert_eq!(is_open, state.is_open(), "{state}");
    }
}
