//! What time and a start bring about: due pushes are forwarded or expire, orphans end, what nobody needs is removed.
//!
//! Every round looks at records only and may be made at any time and twice.

use super::road::Road;
use crate::model::push::{CancelCause, OnDisconnect, Push, PushState};
use crate::store::StoreError;
use crate::store::pushes::{Filter, PAGE_MAX};
use jiff::{SignedDuration, Timestamp};
use std::time::Instant;

/// How old a record must be before nobody's waiting for it means that its session is dead: between the record and the
/// wait of its session lie milliseconds.
const ORPHAN_AGE: SignedDuration = SignedDuration::from_secs(10);

/// How often one round prunes records: other jobs and other writers wait for no more than some thousands.
const PRUNINGS_MAX: usize = 10;

impl Road {
    /// Before anything is served: every record that an earlier life of the gate left open is taken over or closed.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub fn recover(&self) -> Result<(), StoreError> {
        for push in self.parts().store.pushes().open_elsewhere(self.parts().store.boot())? {
            match push.state {
                // The target is asked by the first round.
                PushState::Forwarding => {
                    self.adopt(&push, Some(Timestamp::now()), "its forward was interrupted");
                }
                PushState::Approved => self.adopt(&push, None, "the gate has started again"),
                PushState::Pending if push.on_disconnect == OnDisconnect::Keep => {
                    self.adopt(&push, None, "the gate has started again");
                }
                PushState::Received | PushState::Checking | PushState::Pending => {
                    self.abandon(&push, CancelCause::Orphaned, "the gate has ended meanwhile: push again");
                }
                PushState::Forwarded
                | PushState::Blocked
                | PushState::Rejected
                | PushState::Canceled
                | PushState::Expired
                | PushState::Stale
                | PushState::Failed => {}
            }
        }
        Ok(())
    }

    /// Approved pushes whose time has come, and forwards of which nothing was heard or nothing could be written down.
    ///
    /// # Errors
    /// A sentence for the log.
    pub fn forward_due(&self) -> Result<(), String> {
        let is_due = |push: &Push| {
            matches!(push.state, PushState::Approved | PushState::Forwarding) && !self.is_unsettled(push.id)
        };
        let due = self.due(is_due)?.into_iter().map(|push| push.id);
        due.chain(self.unsettled().due(Instant::now())).for_each(|id| self.send_off(id, None));
        Ok(())
    }

    /// Pushes that nobody decided on in time, and failed ones that may not be retried any longer.
    ///
    /// # Errors
    /// A sentence for the log.
    pub fn expire_due(&self) -> Result<(), String> {
        let waits = [PushState::Received, PushState::Checking, PushState::Pending];
        for push in self.due(|push| waits.contains(&push.state))? {
            self.expire(&push);
            self.parts().waiters.notify(push.id);
        }
        for push in self.due(|push| push.state == PushState::Failed)? {
            self.parts()
                .store
                .pushes()
                .release(push.id, Timestamp::now())
                .map_err(|error| error.to_string())?;
            self.tidy(push.id);
        }
        Ok(())
    }

    /// Pushes that wait for a decision while nobody waits for them, though somebody should.
    ///
    /// # Errors
    /// A sentence for the log.
    pub fn close_orphans(&self) -> Result<(), String> {
        let old = Timestamp::now().saturating_sub(ORPHAN_AGE).unwrap_or(Timestamp::MIN);
        for state in [PushState::Received, PushState::Checking, PushState::Pending] {
            let mut filter = Filter { state: Some(state), limit: PAGE_MAX, ..Filter::default() };
            loop {
                let page = self.parts().store.pushes().list(&filter).map_err(|error| error.to_string())?;
                let orphans = page.pushes.iter().filter(|push| push.updated < old && self.is_orphan(push));
                orphans.for_each(|push| {
                    self.abandon(push, CancelCause::Orphaned, "nobody waits for it any more")
                });
                filter.before = page.next;
                if page.next.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Staging repositories that nobody needs.
    ///
    /// # Errors
    /// A sentence for the log.
    pub fn sweep_held(&self) -> Result<(), String> {
        let held = self.parts().held.list();
        held.map_err(|error| format!("listing the staging repositories: {error}"))?
            .into_iter()
            .for_each(|id| self.tidy(id));
        Ok(())
    }

    /// The records of pushes that ended longer ago than they are kept.
    ///
    /// # Errors
    /// A sentence for the log.
    pub fn prune_records(&self) -> Result<(), String> {
        let Some(keep) = self.parts().gate.keep_records else { return Ok(()) };
        let keep = SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX);
        let before = Timestamp::now().saturating_sub(keep).unwrap_or(Timestamp::MIN);
        let mut pruned = 0;
        for _ in 0..PRUNINGS_MAX {
            match self.parts().store.pushes().prune(before).map_err(|error| error.to_string())? {
                0 => break,
                count => pruned += count,
            }
        }
        if pruned > 0 {
            log::info!("the records of {pruned} pushes are removed (gate.keep_records)");
        }
        Ok(())
    }

    fn is_orphan(&self, push: &Push) -> bool {
        let has_session = push.owner.session.is_some();
        has_session && !self.parts().waiters.is_awaited(push.id) && !self.is_under_way(push.id)
    }

    fn due(&self, is_wanted: impl Fn(&Push) -> bool) -> Result<Vec<Push>, String> {
        let due = self.parts().store.pushes().due(Timestamp::now()).map_err(|error| error.to_string())?;
        Ok(due.into_iter().filter(is_wanted).collect())
    }
}
