//! What the gate itself shows: the token of a service, the login for a proxy, what webhooks are signed with. Each is one line of a file, and is read each
//! time, since it is replaced by replacing the file.

use crate::model::credential::UpstreamCredential;
use crate::model::secret::Secret;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The key of the file of a service's token.
pub const TOKEN_FILE: &str = "token_file";

/// The key of the file of a webhook's secret.
pub const SECRET_FILE: &str = "secret_file";

/// The key of the file of a proxy's login.
pub const PROXY_AUTH_FILE: &str = "proxy_auth_file";

/// The key of the file of the password for Redis.
pub const REDIS_PASSWORD_FILE: &str = "redis_password_file";

/// A secret that cannot be read.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("reading the {key} {}: {source}", path.display())]
    Unreadable {
        /// What names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing is in it, or more than one line.
    #[error("the {key} {} has to hold {what} on one line, and nothing else", path.display())]
    NotOneLine {
        /// What names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What it is for.
        what: &'static str,
    },
}

/// The token in the file at `path`.
///
/// # Errors
/// When it cannot be read, or is not one line.
pub fn read_token(path: &Path) -> Result<Secret, SecretError> {
    read(TOKEN_FILE, "the token", path)
}

/// The secret of a webhook in the file at `path`.
///
/// # Errors
/// When it cannot be read, or is not one line.
pub fn read_webhook_secret(path: &Path) -> Result<Secret, SecretError> {
    read(SECRET_FILE, "the secret", path)
}

/// The password for Redis in the file at `path`.
///
/// # Errors
/// When it cannot be read, or is not one line.
pub fn read_password(path: &Path) -> Result<Secret, SecretError> {
    read(REDIS_PASSWORD_FILE, "the password", path)
}

/// The login in the file at `path`: `USER:PASSWORD`.
///
/// # Errors
/// When it cannot be read, or is not one line of this form.
pub fn read_login(path: &Path) -> Result<UpstreamCredential, SecretError> {
    let (key, what) = (PROXY_AUTH_FILE, "USER:PASSWORD");
    let line = read(key, what, path)?;
    let (username, password) = line.reveal().split_once(':').ok_or_else(|| SecretError::NotOneLine {
        key,
        path: path.to_path_buf(),
        what,
    })?;
    Ok(UpstreamCredential { username: username.to_owned(), secret: Secret::new(password.to_owned()) })
}

fn read(key: &'static str, what: &'static str, path: &Path) -> Result<Secret, SecretError> {
    let text = fs::read_to_string(path).map_err(|source| SecretError::Unreadable {
        key,
        path: path.to_path_buf(),
        source,
    })?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.chars().any(char::is_control) {
        return Err(SecretError::NotOneLine { key, path: path.to_path_buf(), what });
    }
    Ok(Secret::new(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line_and_nothing_of_it_is_told() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("token");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            read_token(&path)
        };
        assert_eq!(read("s3cret\n").unwrap().reveal(), "s3cret");
        assert_eq!(read("s3cret\r\n").unwrap().reveal(), "s3cret");
        assert_eq!(read("two words").unwrap().reveal(), "two words");
        for text in ["", "\n", "s3cret\nmore", "s3\tcret"] {
            let error = read(text).unwrap_err();
            assert!(matches!(error, SecretError::NotOneLine { .. }), "{text:?}");
            assert!(!format!("{error} {error:?}").contains("s3"));
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(read_token(&path), Err(SecretError::Unreadable { .. })));
    }

    #[test]
    fn a_login_is_a_user_and_a_password_that_may_have_colons() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("login");
        fs::write(&path, "bot:s3:cret\n").unwrap();
        let login = read_login(&path).unwrap();
        assert_eq!((login.username.as_str(), login.secret.reveal()), ("bot", "s3:cret"));
        fs::write(&path, "s3cret\n").unwrap();
        let error = read_login(&path).unwrap_err().to_string();
        assert!(error.starts_with("the proxy_auth_file /") && !error.contains("s3cret"), "{error}");
    }
}
