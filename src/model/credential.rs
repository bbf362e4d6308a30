//! What a gate shows to an upstream to be let in.

use crate::model::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A user name and a password or token, for one origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamCredential {
    /// The name; no `:` in it, which ends it on the wire.
    pub username: String,
    /// The password or token.
    pub secret: Secret,
}

impl UpstreamCredential {
    /// The value of the field `Authorization` (RFC 7617). It has no line break, whatever the two parts hold.
    #[must_use]
    pub fn authorization(&self) -> Secret {
        let pair = format!("{}:{}", self.username, self.secret.reveal());
        Secret::new(format!("Basic {}", STANDARD.encode(pair)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_that_of_the_standard_and_nothing_prints_the_secret() {
        let credential = UpstreamCredential {
            username: "Aladdin".to_owned(),
            secret: Secret::new("open sesame".to_owned()),
        };
        let value = credential.authorization();
        assert_eq!(value.reveal(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let printed = format!("{credential:?} {value:?}");
        assert!(!printed.contains("sesame") && !printed.contains("QWxh"), "{printed}");
    }
}
