//! `application/x-www-form-urlencoded`, as queries and forms have it, read strictly; and the tokens of our own forms.

use super::refusal::Refusal;
use crate::model::access::Caller;
use crate::model::push::PushId;
use crate::sys::random;
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;
use std::fmt;
use std::io;

/// How long a form may be looked at before it is sent: a working day.
const FORM_LIFE: SignedDuration = SignedDuration::from_hours(12);

/// The key under which this life of the gate makes forms. A token binds a form to who was shown it, to the push, and to
/// the time: another site cannot make one, and one that leaked ends.
pub struct FormKey([u8; 32]);

/// Named values, each of a name that was expected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form(Vec<(&'static str, String)>);

impl Form {
    /// Reads `text`. Empty values are as good as none.
    ///
    /// # Errors
    /// 400 for a name that is not among `names`, a name that stands twice, a broken escape, or bytes that are not
    /// UTF-8: what is not understood could have been a filter.
    pub fn parse(text: &str, names: &[&'static str]) -> Result<Self, Refusal> {
        let mut form = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = *names.iter().find(|known| **known == name).ok_or_else(|| {
                bad(format!("there is no parameter {name:?} here: there are {}", names.join(", ")))
            })?;
            if form.0.iter().any(|(known, _)| *known == name) {
                return Err(bad(format!("the parameter {name} stands twice")));
            }
            let value = decode(value).ok_or_else(|| bad(format!("the parameter {name} is badly encoded")))?;
            form.0.push((name, value));
        }
        Ok(form)
    }

    /// The value of that name, unless it is missing or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The value of that name as `read` understands it.
    ///
    /// # Errors
    /// 400 with the sentence of `read`.
    pub fn read<T, E: ToString>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Refusal> {
        let value = self.get(name).map(read).transpose();
        value.map_err(|error| bad(format!("{name}: {}", error.to_string())))
    }
}

impl fmt::Debug for FormKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FormKey(<sensitive>)")
    }
}

impl FormKey {
    /// A new key.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn new() -> io::Result<Self> {
        random::bytes().map(Self)
    }

    /// The token of a form that `caller` is shown `now`.
    #[must_use]
    pub fn token(&self, caller: &Caller, push: PushId, now: Timestamp) -> String {
        let second = now.as_second();
        let tag = self.mac(caller, push, second).finalize().into_bytes();
        tag.iter().fold(format!("{second}."), |text, byte| format!("{text}{byte:02x}"))
    }

    /// Whether `token` is that of a form that `caller` was shown, not long before `now`.
    #[must_use]
    pub fn holds(&self, token: &str, caller: &Caller, push: PushId, now: Timestamp) -> bool {
        let Some((second, tag)) = token.split_once('.') else { return false };
        let (Ok(second), Some(tag)) = (second.parse::<i64>(), unhex(tag)) else { return false };
        let age = now.as_second().saturating_sub(second);
        let is_fresh = (0..FORM_LIFE.as_secs()).contains(&age);
        is_fresh && self.mac(caller, push, second).verify_slice(&tag).is_ok()
    }

    fn mac(&self, caller: &Caller, push: PushId, second: i64) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        // No user's name has a space, so no two forms have one text.
        mac.update(format!("{} {push} {second}", caller.name().unwrap_or_default()).as_bytes());
        mac
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(16 * digit(*pair.first()?)? + digit(*pair.get(1)?)?)).collect()
}

fn bad(why: String) -> Refusal {
    Refusal::BadRequest(why.into())
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => 16 * digit(bytes.next()?)? + digit(bytes.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_empty_ones_are_none() {
        let form = Form::parse("repo=a%2Fb.c+d&user=&&state=p%C3%BC", &["state", "repo", "user"]).unwrap();
        assert_eq!((form.get("repo"), form.get("user")), (Some("a/b.c d"), None));
        assert_eq!(form.get("state"), Some("pü"));
        let number = form.read("state", |text| text.parse::<u32>());
        assert!(matches!(number, Err(Refusal::BadRequest(_))));
        assert_eq!(form.read("user", |text| text.parse::<u32>()), Ok(None));
    }

    #[test]
    fn a_token_is_of_one_caller_one_push_and_one_day() {
        let (key, other) = (FormKey::new().unwrap(), FormKey::new().unwrap());
        let user = |name| Caller::User {
            name: crate::model::name::UserName::parse(name).unwrap(),
            role: crate::model::role::Role::Reviewer,
        };
        let (id, now) = (PushId::new(7).unwrap(), Timestamp::from_second(1_800_000_000).unwrap());
        let token = key.token(&user("alice"), id, now);
        assert!(key.holds(&token, &user("alice"), id, now + SignedDuration::from_hours(11)));
        assert!(!key.holds(&token, &user("alice"), id, now + SignedDuration::from_hours(13)));
        assert!(!key.holds(&token, &user("alice"), id, now - SignedDuration::from_secs(1)));
        assert!(!key.holds(&token, &user("bob"), id, now));
        assert!(!key.holds(&token, &user("alice"), PushId::new(8).unwrap(), now));
        assert!(!other.holds(&token, &user("alice"), id, now));
        for bad in ["", ".", "1800000000.", "1800000000.zz", "x.00", &token[..token.len() - 2]] {
            assert!(!key.holds(bad, &user("alice"), id, now), "{bad}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in ["other=1", "a=1&a=2", "a=%", "a=%4", "a=%zz", "a=%+1", "a=%ff", "%61=1", "A=1"] {
            assert!(matches!(Form::parse(text, &["a"]), Err(Refusal::BadRequest(_))), "{text}");
        }
    }
}
