//! Who is at the operator's door: `tiny_http` hides the connections, and behind the guard they are not the callers' own. So
//! the guard numbers the callers and writes the number into the request that it passes on, where no caller writes anything.

use crate::http::message::Headers;
use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The field with a caller's number.
const FIELD: &str = "Tidegate-Caller";

/// All callers whose requests are being answered; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Callers(Arc<Room>);

#[derive(Debug, Default)]
struct Room {
    crowd: Mutex<Crowd>,
    /// Notified when somebody leaves.
    left: Condvar,
}

#[derive(Debug, Default)]
struct Crowd {
    last: u64,
    present: HashMap<u64, Arc<UnixStream>>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Caller {
    callers: Callers,
    number: u64,
}

impl Callers {
    /// One more, at the other end of `stream`.
    pub(super) fn enter(&self, stream: &Arc<UnixStream>) -> Caller {
        let mut crowd = self.lock();
        crowd.last += 1;
        let number = crowd.last;
        crowd.present.insert(number, Arc::clone(stream));
        Caller { callers: self.clone(), number }
    }

    /// The connection of the caller whose request has these fields, unless he has been given up.
    pub(super) fn find(&self, headers: &Headers) -> Option<Arc<UnixStream>> {
        let number = headers.get(FIELD).ok()??.parse().ok()?;
        self.lock().present.get(&number).cloned()
    }

    /// Waits until all have their answers, for `limit` at most.
    pub(super) fn await_departure(&self, limit: Duration) {
        let is_anybody_here = |crowd: &mut Crowd| !crowd.present.is_empty();
        // Who is still here then is cut off.
        drop(self.0.left.wait_timeout_while(self.lock(), limit, is_anybody_here));
    }

    fn lock(&self) -> MutexGuard<'_, Crowd> {
        self.0.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller {
    /// The line of a request's head that says who he is.
    pub(super) fn field(&self) -> String {
        format!("{FIELD}: {}\r\n", self.number)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.callers.lock().present.remove(&self.number);
        self.callers.0.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_found_by_his_field_until_he_goes() {
        let callers = Callers::default();
        let [first, second] = [(); 2].map(|()| Arc::new(UnixStream::pair().unwrap().0));
        let (one, other) = (callers.enter(&first), callers.enter(&second));
        let headers = |caller: &Caller| {
            let field = caller.field();
            let (name, value) = field.trim_end().split_once(": ").unwrap();
            [(name, value.as_bytes())].into_iter().collect::<Headers>()
        };
        let (of_one, of_other) = (headers(&one), headers(&other));
        assert!(Arc::ptr_eq(&callers.find(&of_one).unwrap(), &first));
        assert!(Arc::ptr_eq(&callers.find(&of_other).unwrap(), &second));
        drop(one);
        assert!(callers.find(&of_one).is_none() && callers.find(&of_other).is_some());
        assert!(callers.find(&Headers::new()).is_none());
        callers.await_departure(Duration::ZERO);
        std::thread::scope(|scope| {
            let leaving = scope.spawn(|| callers.await_departure(Duration::from_secs(600)));
            drop(other);
            leaving.join().unwrap();
        });
    }
}
