//! The gate: a push is stored, checked, decided, forwarded, and only then reported.
//!
//! | for | rooms |
//! |---|---|
//! | the objects while they wait | [`staging`] |
//! | what a push is checked for, and in which view | [`checks`], [`view`] |
//! | what people may do to a push and see of it | [`decide`], [`sight`] |
//! | what they read before they decide | [`diff`], [`differ`], `new_commits` |
//! | how whoever waits learns of a decision | [`waiters`] |
//! | the way on | [`forward`], [`destination`], `goal`, `kept` |
//! | what a changed repository needs afterwards | [`maintenance`] |
//! | what the settings name and is not there | [`needed_files`] |
//! | the steps of a record, in their order | [`road`], `checking`, `onward`, `settle` |
//! | what time and a start bring about | `rounds` |
//!
//! Objects enter a served repository only by a forward that its own git accepts; what is refused before is thrown away
//! with its staging repository. Nothing here knows HTTP.

pub mod changes;
mod checking;
pub mod checks;
pub mod decide;
pub mod destination;
pub mod diff;
pub mod differ;
pub mod forward;
mod goal;
mod kept;
pub mod maintenance;
pub mod needed_files;
mod new_commits;
mod onward;
pub mod road;
mod rounds;
mod settle;
pub mod sight;
pub mod staging;
pub mod view;
pub mod waiters;
