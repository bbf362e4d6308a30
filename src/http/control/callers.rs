//! Who is at the operator's door: `tiny_http` hides the connections, and behind the guard they are not the callers' own. So
//! the guard numbers the callers and writes the number into the request that it passes on, where no caller writes anything.

use crate::http::message::Headers;
use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The field with a caller's number.
const FIELD: &str = "Tidegate-Caller";

/// All callers whose requests are being answered; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Callers(Arc<Mutex<Crowd>>);

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

    fn lock(&self) -> MutexGuard<'_, Crowd> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    }
}
