//! Turns at the database for those who read what they missed.
//!
//! Everybody who comes back after a while reads thousands of events, and may come with hundreds of others, while pushes need
//! the database and the processor as well. So one at a time reads a page of them and looks what of it is for him, in the
//! order in which they ask.

use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Clones are one line of those who wait for their turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<Line>>);

#[derive(Debug, Default)]
struct Line {
    is_taken: bool,
    /// The first comes next.
    waiting: VecDeque<SyncSender<()>>,
}

/// A turn, which lasts until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Turns);

impl Turns {
    /// Waits for a turn: for all who came before, a page each.
    pub(super) fn take(&self) -> Turn {
        let mut line = self.lock();
        if std::mem::replace(&mut line.is_taken, true) {
            let (sender, mine) = sync_channel(1);
            line.waiting.push_back(sender);
            drop(line);
            // Whoever ends a turn gives it to the next, and no sender is dropped before.
            let _ = mine.recv();
        }
        Turn(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut line = self.0.lock();
        match line.waiting.pop_front() {
            // There is room for it, and whoever waits does so until it comes.
            Some(next) => drop(next.send(())),
            None => line.is_taken = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::thread;

    #[test]
    fn turns_are_taken_one_at_a_time_and_in_the_order_in_which_they_were_asked_for() {
        let (turns, order) = (Turns::default(), Arc::new(Mutex::new(Vec::new())));
        let first = turns.take();
        let others: Vec<_> = (0..8)
            .map(|number| {
                let (mine, order) = (turns.clone(), Arc::clone(&order));
                let take = move || {
                    let _turn = mine.take();
                    order.try_lock().expect("nobody else has a turn").push(number);
                };
                let other = thread::spawn("reader", take).unwrap();
                while turns.lock().waiting.len() <= number {
                    std::thread::yield_now();
                }
                other
            })
            .collect();
        assert!(order.lock().unwrap().is_empty(), "the turn is taken");
        drop(first);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(*order.lock().unwrap(), (0..8).collect::<Vec<_>>());
        assert!(!turns.lock().is_taken);
    }
}
