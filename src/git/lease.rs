//! shim
#[derive(Debug, Default)]
pub struct Leases;
