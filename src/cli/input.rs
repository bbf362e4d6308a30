//! What a command reads from its standard input.

use super::CliError;
use crate::model::secret::Secret;
use std::io::{self, BufRead, ErrorKind};

/// The most that is read from standard input: more than the longest token.
const BYTES_MAX: u64 = 4096;

/// A token: the first line of standard input, without its end.
///
/// # Errors
/// When there is none, or it cannot be read.
pub(super) fn token() -> Result<Secret, CliError> {
    read_line(io::stdin().lock()).map_err(CliError::Input)
}

fn read_line(input: impl BufRead) -> io::Result<Secret> {
    let mut line = String::new();
    input.take(BYTES_MAX).read_line(&mut line)?;
    let token = line.strip_suffix('\n').unwrap_or(&line);
    let token = token.strip_suffix('\r').unwrap_or(token);
    if token.is_empty() {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "there is none"));
    }
    Ok(Secret::new(token.to_owned()))
}
