//! Processes: the only room that starts, signals and waits for them.
//!
//! A [`Spec`] says what to run; [`Reaper::spawn`] starts it in a process group of its own and answers a [`Child`]. Whoever
//! holds the child reads its pipes and ends it one way: [`Child::finish`] when it is expected to exit by itself,
//! [`Child::end`] when it must go. Both come back when the group is empty, with an [`Outcome`]; dropping a child ends it
//! too. No child lives without a [`Deadline`].
//!
//! One thread, the reaper, owns every wait. One read-write lock, the *gate*, orders it against everybody else; all its
//! sections are in `jobs`:
//!
//! | side | section | why |
//! |---|---|---|
//! | read | start a process and register it | a child that dies at once finds its job; std's own wait for a failed exec is not stolen |
//! | read | look whether a process is still an unreaped child of ours, and signal it | its number cannot pass to another in between |
//! | write | look up a zombie, kill what is left of its group, wait for it, hand its status over | the zombie pins both numbers until the group has been signalled |
//!
//! Whatever leaves its group comes to us when its parent ends, because this process is PID 1 or a child subreaper. It
//! carries the marks of its job in its environment ([`Mark`]) and is ended with the job, or by the orphan pass.
//!
//! This room never runs a shell, never uses `pre_exec` (it turns `posix_spawn` into a plain fork of a threaded process)
//! nor a parent-death signal (it fires when the spawning *thread* ends), and never waits for a number that the reaper
//! has not seen as a zombie.

mod bell;
mod child;
mod counts;
mod job;
mod jobs;
mod mark;
mod orphans;
mod outcome;
mod reaper;
mod silence;
mod spec;
mod survivors;
mod sweep;
mod tail;
mod wait;

pub use child::{Child, Ear, KILL_CAP};
pub use counts::Counters;
pub use job::{Phase, Running};
pub use mark::Mark;
pub use outcome::{Deadline, Exit, Outcome, Usage, Why};
pub use reaper::Reaper;
pub use spec::{Input, SpawnError, Spec};
pub use survivors::{Survivors, end_survivors};
