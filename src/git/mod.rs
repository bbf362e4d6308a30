//! Git as a tool: every argv and environment, the wire format, the places of repositories, the lanes of workers.
//!
//! | for | rooms |
//! |---|---|
//! | starting git | [`command`], [`held`], [`upstream`], [`credential_file`], [`inspect`], [`service`], [`version`], [`ask`], [`upkeep`], `repack`, [`tools`], [`pool`] |
//! | the wire | [`pktline`], [`sideband`], [`push_request`], [`push_wire`], [`fetch_request`], [`wants`], [`recipe`], [`report`], [`advertisement`], [`push_advertisement`], [`capabilities`], [`ls_refs`] |
//! | what git answers | [`learned`], [`responses`], [`push_answer`], [`porcelain`], [`transport_fault`] |
//! | repositories on disk | [`layout`], [`object_format`], [`pack_index`], [`settings`], [`head`], `ref_format`, [`packed_refs`], `stamps`, [`generation`], [`refs_cache`], [`lease`], [`footprint`], [`reach`], [`leftovers`], [`survey`] |
//!
//! Nothing here knows HTTP; only [`ask`] and [`upkeep`] start processes, through `supervise`.

pub mod advertisement;
pub mod ask;
pub mod capabilities;
pub mod command;
pub mod credential_file;
pub mod fetch_request;
pub mod footprint;
pub mod generation;
pub mod head;
pub mod held;
pub mod inspect;
pub mod layout;
pub mod learned;
pub mod lease;
pub mod leftovers;
pub mod ls_refs;
pub mod object_format;
mod occupants;
pub mod pack_index;
pub mod packed_refs;
pub mod pktline;
pub mod pool;
pub mod porcelain;
pub mod push_advertisement;
pub mod push_answer;
pub mod push_request;
pub mod push_wire;
pub mod reach;
pub mod recipe;
mod ref_format;
mod ref_locks;
pub mod refs_cache;
pub mod remark;
mod repack;
pub mod report;
pub mod responses;
pub mod service;
pub mod settings;
mod settings_cache;
pub mod sideband;
mod stamps;
pub mod survey;
pub mod tools;
mod traces;
pub mod transport_fault;
pub mod upkeep;
pub mod upstream;
pub mod version;
pub mod wants;
