//! Git as a tool: every argv and environment, the wire format, the places of repositories, the lanes of workers.

pub mod pool;
