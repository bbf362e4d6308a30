//! Who sends a request: the `Authorization` field, the login throttle and the users of the store.
//!
//! A credential that does not hold is an error even where none is needed: whoever sends one means to be somebody.

use crate::model::access::Caller;
use crate::model::secret::Secret;
use crate::model::throttle;
use crate::store::{Store, StoreError};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Base64 as RFC 7617 has it; clients that leave out the padding are understood.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a client shows to be somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A user name and, as the password, a token of that user (RFC 7617). An empty name is as good as a bearer.
    Basic {
        /// The name, as the client claims it.
        user: String,
        /// The token.
        token: Secret,
    },
    /// A token alone (RFC 6750).
    Bearer {
        /// The token.
        token: Secret,
    },
}

/// Why an `Authorization` field cannot be read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CredentialError {
    /// Neither Basic nor Bearer.
    #[error("the Authorization field is of no scheme that is known here: use Basic or Bearer")]
    Scheme,
    /// Not what the scheme says.
    #[error("the Authorization field is malformed: Basic takes the base64 of user:token, Bearer a token")]
    Malformed,
}

/// Why nobody is logged in.
#[derive(Debug, Error)]
pub enum LoginError {
    /// The field cannot be read.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// No such user, or not his token: the two are not told apart.
    #[error("user name or token is wrong")]
    Wrong {
        /// Who the client claims to be; Bearer claims nothing.
        user: Option<String>,
    },
    /// Too many wrong ones before; also a right one waits this long.
    #[error("too many failed logins: try again in {} seconds", seconds(*.0))]
    Throttled(Duration),
    /// Nobody can be logged in at the moment.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The login throttle, shared by all requests.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<throttle::Throttle>);

impl Throttle {
    fn lock(&self) -> MutexGuard<'_, throttle::Throttle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Credential {
    /// Reads the value of an `Authorization` field.
    ///
    /// # Errors
    /// When the scheme is another, or what follows is not of its form.
    pub fn parse(field: &str) -> Result<Self, CredentialError> {
        let (scheme, rest) = field.split_once(' ').ok_or(CredentialError::Scheme)?;
        let rest = rest.trim_matches(' ');
        if scheme.eq_ignore_ascii_case("basic") {
            return parse_basic(rest);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(CredentialError::Scheme);
        }
        let is_token = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic());
        if is_token {
            Ok(Self::Bearer { token: Secret::new(rest.to_owned()) })
        } else {
            Err(CredentialError::Malformed)
        }
    }

    /// Whose it is now; `None` where it does not hold, or no more.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn owner(&self, store: &Store) -> Result<Option<Caller>, StoreError> {
        let found = store.users().authenticate(self.user(), self.token().reveal(), Timestamp::now())?;
        Ok(found.map(|account| Caller::User { name: account.name, role: account.role }))
    }

    fn user(&self) -> Option<&str> {
        match self {
            Self::Basic { user, .. } => Some(user.as_str()).filter(|user| !user.is_empty()),
            Self::Bearer { .. } => None,
        }
    }

    fn token(&self) -> &Secret {
        match self {
            Self::Basic { token, .. } | Self::Bearer { token } => token,
        }
    }
}

fn parse_basic(encoded: &str) -> Result<Credential, CredentialError> {
    let decoded = BASE64.decode(encoded).map_err(|_| CredentialError::Malformed)?;
    let decoded = String::from_utf8(decoded).map_err(|_| CredentialError::Malformed)?;
    let (user, token) = decoded.split_once(':').ok_or(CredentialError::Malformed)?;
    if decoded.chars().any(char::is_control) {
        return Err(CredentialError::Malformed);
    }
    Ok(Credential::Basic { user: user.to_owned(), token: Secret::new(token.to_owned()) })
}

/// Who sends a request with this `Authorization` field from this address (`None`: a unix socket).
///
/// # Errors
/// When there is a credential and it does not hold, was tried too often, or cannot be checked.
pub fn log_in(
    store: &Store,
    throttle: &Throttle,
    field: Option<&str>,
    address: Option<IpAddr>,
) -> Result<Caller, LoginError> {
    let Some(field) = field else {
        return Ok(Caller::Anonymous);
    };
    let credential = Credential::parse(field)?;
    // Tokens without a name share one count for their address.
    let user = credential.user().unwrap_or_default();
    throttle.lock().check(address, user, Instant::now()).map_err(LoginError::Throttled)?;
    match credential.owner(store)? {
        Some(caller) => Ok(caller),
        None => {
            throttle.lock().note_failure(address, user, Instant::now());
            Err(LoginError::Wrong { user: credential.user().map(str::to_owned) })
        }
    }
}

/// Whole seconds, rounded up: after them the wait is over.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::name::UserName;
    use crate::model::role::Role;
    use crate::store::users::NewToken;
    use proptest::prelude::*;

    fn basic(pair: &str) -> String {
        format!("Basic {}", BASE64.encode(pair))
    }

    #[test]
    fn both_schemes_are_read_in_any_case() {
        let token = || Secret::new("to:ken".to_owned());
        let alice = Credential::Basic { user: "alice@example.com".to_owned(), token: token() };
        assert_eq!(Credential::parse(&basic("alice@example.com:to:ken")), Ok(alice.clone()));
        assert_eq!(Credential::parse("bASIC YWxpY2VAZXhhbXBsZS5jb206dG86a2Vu"), Ok(alice));
        assert_eq!(Credential::parse("BEARER  to:ken "), Ok(Credential::Bearer { token: token() }));
        assert_eq!(Credential::parse("Basic YTpiYw"), Credential::parse("Basic YTpiYw=="));
    }

    #[test]
    fn what_is_no_credential_is_told_and_nothing_of_it_repeated() {
        for field in ["", "Basic", "Negotiate YII=", "Digest username=x", "tg_secret"] {
            assert_eq!(Credential::parse(field), Err(CredentialError::Scheme), "{field:?}");
        }
        let binary = format!("Basic {}", BASE64.encode([0xff, b':', 0xfe]));
        for field in
            ["Basic ", "Basic !!!", "Bearer ", "Bearer a b", &basic("no colon"), &basic("a:b\nc"), &binary]
        {
            assert_eq!(Credential::parse(field), Err(CredentialError::Malformed), "{field:?}");
        }
        assert!(!format!("{:?}", Credential::parse("Bearer hunter2")).contains("hunter2"));
    }

    #[test]
    fn the_right_token_logs_in_and_the_eleventh_try_waits() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let token = NewToken { given: Some(Secret::new("correct horse".to_owned())), ..NewToken::default() };
        let name = UserName::parse("alice").unwrap();
        store.users().add(&name, Role::Pusher, &token, Timestamp::now()).unwrap();
        let throttle = Throttle::default();
        let log_in = |pair: &str| log_in(&store, &throttle, Some(&basic(pair)), None);
        let alice = Caller::User { name, role: Role::Pusher };
        assert_eq!(log_in("alice:correct horse").unwrap(), alice);
        assert_eq!(log_in(":correct horse").unwrap(), alice);
        for _ in 0..10 {
            assert!(matches!(log_in("alice:wrong"), Err(LoginError::Wrong { .. })));
        }
        let error = log_in("alice:correct horse").unwrap_err();
        assert!(matches!(error, LoginError::Throttled(wait) if wait <= Duration::from_secs(60)), "{error}");
        assert!(matches!(log_in("bob:correct horse"), Err(LoginError::Wrong { .. })));
        assert_eq!(super::log_in(&store, &throttle, None, None).unwrap(), Caller::Anonymous);
    }

    proptest! {
        #[test]
        fn any_field_is_a_credential_or_a_sentence(field in "\\PC{0,40}|(Basic|Bearer) [A-Za-z0-9+/= ]{0,40}") {
            let _ = Credential::parse(&field);
        }
    }
}
