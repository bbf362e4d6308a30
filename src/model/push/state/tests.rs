//! The whole table, walked.

use super::*;
use PushState as S;

/// Every pair of a state and an event, with what becomes of it.
fn pairs() -> impl Iterator<Item = (PushState, Event, Option<PushState>)> {
    S::ALL
        .into_iter()
        .flat_map(|state| Event::ALL.into_iter().map(move |event| (state, event, next(state, event).ok())))
}

/// What the design says, told from the events' side: where each may happen, and where it leads.
fn design(event: Event) -> &'static [(PushState, PushState)] {
    match event {
        Event::CheckingBegan => &[(S::Received, S::Checking)],
        Event::PackRefused => &[(S::Received, S::Failed)],
        Event::ChecksPassed { approval: Approval::Required } => &[(S::Checking, S::Pending)],
        Event::ChecksPassed { approval: Approval::Auto } => &[(S::Checking, S::Approved)],
        Event::ChecksFailed => &[(S::Checking, S::Blocked)],
        Event::Approved => &[(S::Pending, S::Approved)],
        Event::Rejected => &[(S::Pending, S::Rejected)],
        Event::Canceled(CancelCause::Pusher | CancelCause::Admin) => &[
            (S::Received, S::Canceled),
            (S::Checking, S::Canceled),
            (S::Pending, S::Canceled),
            (S::Approved, S::Canceled),
        ],
        Event::Canceled(CancelCause::ClientGone | CancelCause::GateStopping | CancelCause::Orphaned) => {
            &[(S::Received, S::Canceled), (S::Checking, S::Canceled), (S::Pending, S::Canceled)]
        }
        Event::Expired => &[(S::Received, S::Expired), (S::Checking, S::Expired), (S::Pending, S::Expired)],
        Event::ForwardBegan => &[(S::Approved, S::Forwarding)],
        Event::ForwardSucceeded => &[(S::Forwarding, S::Forwarded)],
        Event::ForwardRefused => &[(S::Forwarding, S::Failed)],
        Event::ForwardDeferred => &[(S::Forwarding, S::Approved)],
        Event::ForwardAbandoned => &[(S::Approved, S::Failed), (S::Forwarding, S::Failed)],
        Event::UpstreamMoved => &[(S::Pending, S::Stale), (S::Approved, S::Stale), (S::Forwarding, S::Stale)],
        Event::Faulted => &[
            (S::Received, S::Failed),
            (S::Checking, S::Failed),
            (S::Pending, S::Failed),
            (S::Approved, S::Failed),
        ],
        Event::Retried => &[(S::Failed, S::Approved)],
        Event::Adopted => &[
            (S::Received, S::Received),
            (S::Checking, S::Checking),
            (S::Pending, S::Pending),
            (S::Approved, S::Approved),
            (S::Forwarding, S::Forwarding),
        ],
    }
}

#[test]
fn every_pair_of_state_and_event_is_as_the_design_says() {
    let mut walked = 0;
    for (state, event, found) in pairs() {
        let expected = design(event).iter().find(|(from, _)| *from == state).map(|(_, to)| *to);
        assert_eq!(found, expected, "{state} + {event}");
        walked += 1;
    }
    assert_eq!(walked, 12 * 22);
}

#[test]
fn a_refused_pair_names_both() {
    let refused = next(S::Rejected, Event::Approved).unwrap_err();
    assert_eq!(refused, NoTransition { state: S::Rejected, event: Event::Approved });
    assert_eq!(refused.to_string(), "a push that is rejected cannot have the event approved");
}

#[test]
fn no_end_is_left_but_failed_by_a_retry() {
    let left: Vec<_> = pairs().filter(|(state, _, to)| state.is_end() && to.is_some()).collect();
    assert_eq!(left, [(S::Failed, Event::Retried, Some(S::Approved))]);
}

#[test]
fn forwarding_begins_from_approved_alone_and_forwarded_comes_from_forwarding_alone() {
    let into = |target: S| {
        pairs().filter(move |(state, _, to)| *to == Some(target) && *state != target).map(|(state, ..)| state)
    };
    assert_eq!(into(S::Forwarding).collect::<Vec<_>>(), [S::Approved]);
    assert_eq!(into(S::Forwarded).collect::<Vec<_>>(), [S::Forwarding]);
}

#[test]
fn approved_is_reached_by_a_decision_the_checks_a_passing_fault_or_a_retry() {
    let into: Vec<_> =
        pairs().filter(|(state, _, to)| *to == Some(S::Approved) && *state != S::Approved).collect();
    let expected = [
        (S::Checking, Event::ChecksPassed { approval: Approval::Auto }, Some(S::Approved)),
        (S::Pending, Event::Approved, Some(S::Approved)),
        (S::Forwarding, Event::ForwardDeferred, Some(S::Approved)),
        (S::Failed, Event::Retried, Some(S::Approved)),
    ];
    assert_eq!(into, expected);
}

#[test]
fn what_nobody_approved_ends_by_its_deadline_a_stop_a_lost_client_or_a_dead_owner() {
    for state in [S::Received, S::Checking, S::Pending] {
        assert_eq!(next(state, Event::Expired), Ok(S::Expired));
        for cause in [CancelCause::GateStopping, CancelCause::ClientGone, CancelCause::Orphaned] {
            assert_eq!(next(state, Event::Canceled(cause)), Ok(S::Canceled));
        }
    }
}

#[test]
fn what_was_approved_outlives_its_client_and_the_gate() {
    for state in S::ALL.into_iter().filter(|state| state.is_approved()) {
        for cause in [CancelCause::GateStopping, CancelCause::ClientGone, CancelCause::Orphaned] {
            assert!(next(state, Event::Canceled(cause)).is_err(), "{state}");
        }
        assert_eq!(next(state, Event::Adopted), Ok(state));
    }
    // The forward's own deadline, and the next attempt's.
    assert_eq!(next(S::Forwarding, Event::ForwardDeferred), Ok(S::Approved));
    assert_eq!(next(S::Approved, Event::ForwardBegan), Ok(S::Forwarding));
}

#[test]
fn a_forward_under_way_is_settled_by_its_outcome_alone() {
    let out: Vec<_> = pairs()
        .filter(|(state, _, to)| *state == S::Forwarding && to.is_some())
        .map(|(_, event, _)| event)
        .collect();
    let outcomes = [
        Event::ForwardSucceeded,
        Event::ForwardRefused,
        Event::ForwardDeferred,
        Event::ForwardAbandoned,
        Event::UpstreamMoved,
        Event::Adopted,
    ];
    assert_eq!(out, outcomes);
}

#[test]
fn from_every_open_state_an_end_can_be_reached_and_every_state_from_received() {
    let mut reached = vec![S::Received];
    let mut at = 0;
    while at < reached.len() {
        let state = reached[at];
        for (_, _, to) in pairs().filter(|(from, ..)| *from == state) {
            reached.extend(to.filter(|to| !reached.contains(to)));
        }
        at += 1;
    }
    reached.sort();
    assert_eq!(reached, S::ALL);
    for state in S::ALL.into_iter().filter(|state| state.is_open()) {
        assert!(pairs().any(|(from, _, to)| from == state && to.is_some_and(S::is_end)), "{state} is a trap");
    }
}

#[test]
fn words_are_unique_lower_case_and_read_back() {
    for state in S::ALL {
        assert_eq!(S::parse(state.as_str()), Ok(state));
    }
    for event in Event::ALL {
        assert_eq!(Event::parse(event.as_str()), Some(event));
    }
    for word in ["", "Pending", "pending ", "open"] {
        assert!(S::parse(word).is_err() && Event::parse(word).is_none(), "{word:?}");
    }
}
