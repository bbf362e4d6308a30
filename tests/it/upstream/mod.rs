//! Pushes to, and clones of, the repositories of upstreams: a server (nginx before `git http-backend`) and a directory.

#[cfg(feature = "fault-points")]
#[path = "../../gate_hold/fates.rs"]
mod fates;
#[cfg(feature = "fault-points")]
mod faults;
mod forgetting;
mod gits;
mod killing;
mod leaving;
mod passthrough;
mod reading;
mod refs;
mod road;
mod secrets;
mod shapes;
mod stage;
mod trouble;
mod ways;
