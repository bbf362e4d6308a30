//! When a peer is asked again: decided without a clock, and without a peer.

use super::error::PeerError;
use crate::model::pause::Doubling;
use crate::model::peer::PeerState;
use std::time::Duration;

/// How often a listener may fail by a defect of ours before it is left alone.
const FAULTS_MAX: u32 = 3;

/// What a listener keeps to.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a peer may say nothing before it is taken for dead.
    pub idle: Duration,
    /// The pause after the first failure; each further one doubles it.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// A connection on which the peer spoke as a gate does was a good one if it lived this long: others greet and close, for
    /// ever.
    pub lasting: Duration,
    /// A connection that lived this long was a good one, whatever was said on it.
    pub settled: Duration,
}

impl Timing {
    /// With this limit of silence.
    #[must_use]
    pub const fn new(idle: Duration) -> Self {
        let (pause, pause_max) = (Duration::from_secs(1), Duration::from_secs(60));
        Self { idle, pause, pause_max, lasting: Duration::from_secs(10), settled: pause_max }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Why.
    pub(super) error: PeerError,
    /// How long there was one.
    pub(super) lived: Duration,
    /// Whether the peer has said anything on it that only a gate says.
    pub(super) has_heard: bool,
}

/// What is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another attempt, this much later.
    Wait(Duration),
    /// Nothing.
    Rest(PeerState),
}

/// How often in a row it was to no avail. There is no number of failures after which a peer is given up.
#[derive(Debug, Default)]
pub(super) struct Patience {
    failures: u32,
    faults: u32,
}

impl Patience {
    /// Attempts since the last good connection.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// What comes after this end; `roll` is a number from 0 to 1, so that gates which lost a peer together do not come back
    /// together. A clean end counts as any other: a peer that closes at once would be asked without a pause.
    pub(super) fn next(&mut self, ended: &Ended, timing: &Timing, roll: f64) -> Next {
        let is_settled = ended.lived >= timing.settled;
        if is_settled {
            self.faults = 0;
        }
        let has_lasted = ended.has_heard && ended.lived >= timing.lasting;
        if is_settled || (has_lasted && !ended.error.is_malformed()) {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        if ended.error.is_final() {
            return Next::Rest(PeerState::Refused);
        }
        if matches!(ended.error, PeerError::Defect) {
            self.faults += 1;
            if self.faults >= FAULTS_MAX {
                return Next::Rest(PeerState::Parked);
            }
        }
        let pauses = Doubling { first: timing.pause, most: timing.pause_max };
        let wanted = ended.error.retry_after().min(timing.pause_max);
        Next::Wait(pauses.spread(self.failures, roll).max(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::super::stream::StreamError;
    use super::*;

    const TIMING: Timing = Timing::new(Duration::from_secs(45));

    fn ended(error: PeerError, has_heard: bool, seconds: u64) -> Ended {
        Ended { error, lived: Duration::from_secs(seconds), has_heard }
    }

    fn waits(patience: &mut Patience, ended: &Ended) -> f64 {
        match patience.next(ended, &TIMING, 1.0) {
            Next::Wait(pause) => pause.as_secs_f64(),
            Next::Rest(state) => panic!("it rests as {state:?}"),
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_are_never_given_up_also_where_the_peer_ends_cleanly() {
        let (mut patience, closed) = (Patience::default(), ended(PeerError::Closed, false, 0));
        let pauses: Vec<f64> = (0..8).map(|_| waits(&mut patience, &closed)).collect();
        assert_eq!(pauses, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        assert!((0..1000).all(|_| waits(&mut patience, &closed) <= 60.0));
        assert_eq!(patience.failures(), 1008);
        let half = patience.next(&closed, &TIMING, 0.0);
        assert_eq!(half, Next::Wait(Duration::from_secs(30)), "half of it is the roll of a die");
    }

    #[test]
    fn a_peer_that_was_heard_for_a_while_or_stayed_is_asked_again_soon() {
        let mut patience = Patience::default();
        let in_vain = ended(PeerError::Silent(Duration::ZERO), false, 0);
        assert_eq!([1.0, 2.0, 4.0], [(); 3].map(|()| waits(&mut patience, &in_vain)));
        let greeting = ended(PeerError::Closed, true, 9);
        assert_eq!([8.0, 16.0], [(); 2].map(|()| waits(&mut patience, &greeting)), "it greets and closes");
        assert_eq!(waits(&mut patience, &ended(PeerError::Closed, true, 10)).to_bits(), 1_f64.to_bits());
        assert_eq!([2.0, 4.0], [(); 2].map(|()| waits(&mut patience, &in_vain)));
        let stayed = ended(PeerError::Silent(Duration::ZERO), false, 60);
        assert_eq!(waits(&mut patience, &stayed).to_bits(), 1_f64.to_bits());
        let garbled = ended(PeerError::Stream(StreamError::NotText), true, 10);
        assert_eq!([2.0, 4.0], [(); 2].map(|()| waits(&mut patience, &garbled)), "it would say it again");
    }

    #[test]
    fn what_the_peer_wants_is_heeded_within_reason() {
        let busy = |seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            ended(PeerError::of_status(503, retry_after), false, 0)
        };
        let mut patience = Patience::default();
        assert_eq!([waits(&mut patience, &busy(7)), waits(&mut patience, &busy(1))], [7.0, 2.0]);
        assert_eq!(waits(&mut patience, &busy(86_400)).to_bits(), 60_f64.to_bits());
    }

    #[test]
    fn a_no_is_final_and_the_third_defect_in_a_row_is_the_last() {
        let no = ended(PeerError::No { status: 401 }, false, 0);
        assert_eq!(Patience::default().next(&no, &TIMING, 0.0), Next::Rest(PeerState::Refused));
        let (mut patience, fault) = (Patience::default(), ended(PeerError::Defect, true, 1));
        let is_parked = |patience: &mut Patience, ended: &Ended| {
            patience.next(ended, &TIMING, 0.0) == Next::Rest(PeerState::Parked)
        };
        assert!(!is_parked(&mut patience, &fault) && !is_parked(&mut patience, &fault));
        assert!(!is_parked(&mut patience, &ended(PeerError::Closed, true, 60)), "it was well for a while");
        assert!(!is_parked(&mut patience, &fault) && !is_parked(&mut patience, &fault));
        assert!(is_parked(&mut patience, &fault));
    }
}
