//! The file of the authorities that are trusted about an upstream.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use ureq::tls::{Certificate, PemItem, parse_pem};

/// The certificates in a PEM file. What else is in it, such as a key, is passed over.
///
/// # Errors
/// When it cannot be read, is no PEM, or has no certificate. The error names the file.
pub fn read_authorities(file: &Path) -> io::Result<Vec<Certificate<'static>>> {
    let named = |kind, why: &dyn fmt::Display| {
        io::Error::new(kind, format!("the certificates in {}: {why}", file.display()))
    };
    let pem = fs::read(file).map_err(|error| named(error.kind(), &error))?;
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(error) => Some(Err(named(ErrorKind::InvalidData, &error))),
        })
        .collect::<io::Result<_>>()?;
    if certificates.is_empty() {
        return Err(named(ErrorKind::InvalidData, &"there is none"));
    }
    Ok(certificates)
}
