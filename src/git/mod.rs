//! Git as a tool: every argv and environment, the wire format, the places of repositories, the lanes of workers.

pub mod command;
pub mod fetch_request;
pub mod layout;
pub mod oid;
pub mod pktline;
pub mod pool;
pub mod push_request;
pub mod report;
pub mod service;
pub mod settings;
pub mod sideband;
pub mod version;
