//! Supervision, driven in-process against a git that misbehaves and real kernel facts.
//!
//! A test binary of its own: the reaper takes every status of the process, so nothing that waits by itself may run beside
//! it. For the same reason the tests take turns. What must be alone in a process (PID 1, the stop, a violent end) runs in
//! this binary again, as a *life*: an ignored test that is named on the command line.

#![expect(clippy::unwrap_used, reason = "in a test a failed unwrap is the verdict")]
#![expect(clippy::print_stdout, reason = "seeds and reasons for skipping are for whoever reads a failure")]

#[path = "it/support/fake.rs"]
mod fake;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use tidegate::supervise::{
    Child, Deadline, Exit, Input, Mark, Phase, Reaper, Spec, Survivors, Why, end_survivors,
};
use tidegate::sys::poll::{self, Interest};
use tidegate::sys::procfs::{self, Stat, State};
use tidegate::sys::signals::{Order, Signals};
use tidegate::sys::thread::spawn as named_thread;
use tidegate::sys::{limits, signals};

/// The grace of every child here: also on a machine that is busy, who dies at SIGTERM is dead before it is over.
const GRACE: Duration = Duration::from_secs(1);

/// How long past deadline and grace an end may take: milliseconds, on a machine that has nothing else to do.
const SLACK: Duration = Duration::from_secs(5);

/// When a test that waits for something that ought to happen gives up.
const HANG: Duration = Duration::from_secs(20);

/// One reaper for the process, and the turn of one test.
struct Rig {
    reaper: Reaper,
    mark_file: &'static File,
    _turn: MutexGuard<'static, ()>,
}

fn rig() -> Rig {
    static TURN: Mutex<()> = Mutex::new(());
    static STARTED: OnceLock<(Reaper, File)> = OnceLock::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (reaper, mark_file) = STARTED.get_or_init(|| {
        fake::fake_git();
        signals::normalise().unwrap();
        limits::forbid_core_dumps().unwrap();
        let file = tempfile::tempfile().unwrap();
        (Reaper::start(Mark::of(&file).unwrap()).unwrap(), file)
    });
    Rig { reaper: reaper.clone(), mark_file, _turn: turn }
}

impl Rig {
    /// Runs the fake git with these words and a deadline far away.
    fn run(&self, words: &str) -> Child {
        self.reaper.spawn(spec(words, HANG)).unwrap()
    }

    /// The same, and waits until it says `ready`.
    fn run_ready(&self, words: &str, limit: Duration) -> Child {
        let mut child = self.reaper.spawn(spec(&format!("{words} ready"), limit)).unwrap();
        assert_eq!(read_until(&mut child, b"ready\n"), b"ready\n", "{words}");
        child
    }
}

fn spec(words: &str, limit: Duration) -> Spec {
    let mut args: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
    args[0] = format!("@{}", words.split_whitespace().next().unwrap()).into();
    Spec {
        what: words.to_owned(),
        lane: "read",
        program: fake::fake_git().to_owned(),
        args,
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: None,
        stdin: Input::Null,
        deadline: Deadline::starting(Instant::now(), limit, "read_deadline"),
        grace: GRACE,
        memory: None,
        is_background: false,
    }
}

/// Reads stdout until it holds `end` or has ended.
fn read_until(child: &mut Child, end: &[u8]) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while !all.ends_with(end) || end.is_empty() {
        match child.read_stdout(&mut buffer) {
            Ok(0) => break,
            Ok(length) => all.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let stdout = child.stdout_fd().map(|fd| (fd, Interest::Read));
                let stderr = child.stderr_fd().map(|fd| (fd, Interest::Read));
                poll::wait([stdout, stderr, Some((child.exited_fd(), Interest::Read))], Some(HANG)).unwrap();
                child.drain_stderr();
            }
            Err(error) => panic!("{error}"),
        }
    }
    all
}

/// Looks every few milliseconds, for facts that send no event.
fn eventually(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !holds() {
        if Instant::now() > end {
            return false;
        }
        thread::park_timeout(Duration::from_millis(5));
    }
    true
}

/// Every living process that carries the mark of `file`.
fn marked(file: &File) -> Vec<Pid> {
    let value = mark_value(file);
    let is_marked = |pid: &Pid| {
        let environ = procfs::environ(*pid).unwrap_or_default();
        procfs::variable(&environ, "TIDEGATE_DATA") == Some(value.as_bytes())
    };
    procfs::processes().unwrap().into_iter().filter(is_marked).filter(|pid| is_alive(*pid)).collect()
}

fn mark_value(file: &File) -> String {
    use std::os::unix::fs::MetadataExt;
    let facts = file.metadata().unwrap();
    format!("{}:{}", facts.dev(), facts.ino())
}

fn is_alive(pid: Pid) -> bool {
    Stat::of(pid).is_ok_and(|stat| stat.state != State::Zombie)
}

/// xorshift64*: the choice of codes can be repeated from the printed seed.
struct Random(u64);

impl Random {
    fn new(test: &str) -> Self {
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let seed = u64::from(std::process::id()) << 32 | u64::from(clock.subsec_nanos()) | 1;
        println!("{test}: seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }
}

#[test]
fn ten_thousand_codes_are_as_written_beside_orphans_and_starts_that_fail() {
    const THREADS: usize = 4;
    const RUNS: usize = 2_500;
    let rig = rig();
    let (before, descriptors) = (rig.reaper.counters(), procfs::descriptor_count().unwrap());
    let mut random = Random::new("codes");
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let codes: Vec<u64> = (0..RUNS).map(|_| random.below(256)).collect();
            scope.spawn(|| codes.into_iter().for_each(|code| run_beside_orphans(&rig.reaper, code)));
        }
    });
    let runs = u64::try_from(THREADS * RUNS).unwrap();
    assert!(eventually(HANG, || rig.reaper.counters().orphans_reaped >= before.orphans_reaped + runs));
    let after = rig.reaper.counters();
    assert_eq!((after.spawned - before.spawned, after.reaped - before.reaped), (runs, runs));
    assert_eq!((after.lost, after.leaked_total), (before.lost, before.leaked_total));
    assert!(rig.reaper.is_alive() && rig.reaper.is_alive());
    assert_clean(&rig, descriptors);
}

/// One run with this code that leaves an orphan in its group and, every other time, one outside of it; and one start of a
/// program that does not exist, whose wait std does by itself.
fn run_beside_orphans(reaper: &Reaper, code: u64) {
    let child = reaper.spawn(spec(&format!("orphans {} {code}", 1 + code % 2), HANG)).unwrap();
    let outcome = child.finish();
    assert_eq!(outcome.exit, Exit::Code(i32::try_from(code).unwrap()), "{outcome:?}");
    assert_eq!((outcome.ended, outcome.leaked), (None, false));
    let mut missing = spec("exit 0", HANG);
    missing.program = "/nowhere/git".into();
    let error = reaper.spawn(missing).unwrap_err();
    assert!(error.is_missing() && !error.is_busy(), "{error}");
}

/// Nothing of ours lives, nothing is a zombie, no descriptor is left.
fn assert_clean(rig: &Rig, descriptors: usize) {
    assert!(eventually(SLACK, || marked(rig.mark_file).is_empty()), "left: {:?}", marked(rig.mark_file));
    assert!(eventually(SLACK, || rig.reaper.counters().zombies == 0), "zombies are left");
    assert_eq!(rig.reaper.children().len(), 0, "jobs are left");
    // The reaper lets go of a job a moment after it has told the job's owner.
    let count = || procfs::descriptor_count().unwrap();
    assert!(eventually(SLACK, || count() == descriptors), "{descriptors} descriptors became {}", count());
}

#[test]
fn every_misbehaviour_ends_by_deadline_and_grace() {
    const LIMIT: Duration = Duration::from_secs(1);
    let deadline = Some(Why::Deadline);
    let table = [
        ("hang", Exit::Signal(15), deadline),
        ("ignore", Exit::Signal(9), deadline),
        ("stop", Exit::Signal(15), deadline),
        ("escape", Exit::Signal(15), deadline),
        ("escape-stubborn", Exit::Signal(15), deadline),
        ("close-stdout", Exit::Signal(15), deadline),
        ("hold", Exit::Code(0), None),
    ];
    let rig = rig();
    let descriptors = procfs::descriptor_count().unwrap();
    for (words, exit, ended) in table {
        let outcome = rig.run_ready(words, LIMIT).finish();
        assert_eq!(
            (outcome.exit, outcome.ended, outcome.leaked),
            (exit, ended, false),
            "{words}: {outcome:?}"
        );
        assert!(outcome.wall < LIMIT + GRACE + SLACK, "{words}: {outcome:?}");
        assert_eq!(outcome.deadline.name, "read_deadline");
        assert_eq!(marked(rig.mark_file), [], "{words}: processes are left");
    }
    assert_clean(&rig, descriptors);
}

#[test]
fn a_deadline_holds_when_the_owner_does_not_look_at_the_clock() {
    let rig = rig();
    let mut child = rig.run_ready("ignore", Duration::from_millis(100));
    let ended = eventually(3 * GRACE + SLACK, || {
        rig.reaper.sweep_orphans(GRACE);
        !is_alive(Pid::from_raw(child.pid()))
    });
    assert!(ended);
    assert_eq!(read_until(&mut child, b""), b"");
    let outcome = child.finish();
    assert_eq!((outcome.exit, outcome.ended), (Exit::Signal(9), Some(Why::Deadline)));
}

#[test]
fn a_flood_of_errors_blocks_nobody_and_its_end_is_kept() {
    let rig = rig();
    let endless = rig.reaper.spawn(spec("flood", Duration::from_millis(200))).unwrap().finish();
    assert_eq!((endless.exit, endless.ended), (Exit::Signal(15), Some(Why::Deadline)));
    assert!(endless.wall < Duration::from_millis(200) + GRACE + SLACK);
    let mut child = rig.run("flood 1000");
    assert_eq!(read_until(&mut child, b""), b"done\n");
    let outcome = child.finish();
    assert!(outcome.is_success(), "{outcome:?}");
    assert!(outcome.stderr.starts_with('…') && outcome.stderr.ends_with("y\nfatal: the last line"));
}

#[test]
fn a_descendant_that_holds_stdout_keeps_nobody_waiting() {
    let rig = rig();
    for words in ["hold ready", "hold-escaped ready"] {
        let mut child = rig.run(words);
        let started = Instant::now();
        assert_eq!(read_until(&mut child, b""), b"ready\n", "{words}");
        let outcome = child.finish();
        assert!(outcome.is_success(), "{words}: {outcome:?}");
        assert!(started.elapsed() < SLACK, "{words}: {:?}", started.elapsed());
    }
    sweep_until_none_is_left(&rig);
}

#[test]
fn what_escaped_from_a_clean_exit_is_told_to_go_and_then_killed() {
    let rig = rig();
    let before = rig.reaper.counters();
    for words in ["escape-exit", "escape-stubborn-exit"] {
        assert!(rig.run(words).finish().is_success());
    }
    // What has just been executed has no environment for a moment.
    assert!(
        eventually(SLACK, || marked(rig.mark_file).len() == 2),
        "a clean exit is not held up by what escaped"
    );
    rig.reaper.sweep_orphans(GRACE);
    assert!(eventually(SLACK, || marked(rig.mark_file).len() == 1), "SIGTERM comes first");
    sweep_until_none_is_left(&rig);
    let after = rig.reaper.counters();
    assert_eq!(after.orphans_ended - before.orphans_ended, 2);
}

#[test]
fn what_escaped_from_a_job_in_flight_is_left_to_its_job() {
    let rig = rig();
    let child = rig.run_ready("escape", HANG);
    (0..3).for_each(|_| rig.reaper.sweep_orphans(Duration::ZERO));
    assert!(eventually(SLACK, || marked(rig.mark_file).len() == 2), "an orphan is ended whose job goes on");
    let outcome = child.end(Why::ClientGone);
    assert_eq!((outcome.ended, outcome.leaked), (Some(Why::ClientGone), false));
    assert_eq!(marked(rig.mark_file), []);
}

fn sweep_until_none_is_left(rig: &Rig) {
    let swept = eventually(GRACE + SLACK, || {
        rig.reaper.sweep_orphans(GRACE);
        marked(rig.mark_file).is_empty()
    });
    assert!(swept, "left: {:?}", marked(rig.mark_file));
}

#[test]
fn members_have_their_grace_also_when_the_leader_goes_at_once() {
    let rig = rig();
    let outcome = rig.run_ready("careful 100", HANG).end(Why::ClientGone);
    assert_eq!((outcome.exit, outcome.stderr.as_str()), (Exit::Signal(15), "cleaned"), "{outcome:?}");
    let outcome = rig.run_ready("careful 10000", HANG).end(Why::ClientGone);
    assert_eq!((outcome.exit, outcome.stderr.as_str()), (Exit::Signal(15), ""), "{outcome:?}");
    assert!(outcome.wall < GRACE + SLACK, "{outcome:?}");
    assert_eq!(marked(rig.mark_file), []);
}

/// Says when it is dropped.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn guard() -> (Box<Guard>, Arc<AtomicBool>) {
    let dropped = Arc::new(AtomicBool::new(false));
    (Box::new(Guard(Arc::clone(&dropped))), dropped)
}

#[test]
fn a_dropped_child_is_ended_and_what_it_held_is_released_after() {
    let rig = rig();
    let descriptors = procfs::descriptor_count().unwrap();
    let mut child = rig.run_ready("ignore", HANG);
    let (held, is_released) = guard();
    child.hold(held);
    let panicked = thread::scope(|scope| {
        let owner = scope.spawn(move || {
            let _child = child;
            std::panic::resume_unwind(Box::new("an owner that fails"));
        });
        owner.join().is_err()
    });
    assert!(panicked && is_released.load(Ordering::SeqCst));
    assert_clean(&rig, descriptors);
}

#[test]
fn a_group_that_survives_sigkill_is_leaked_and_keeps_what_it_held_until_it_goes() {
    let rig = rig();
    let (before, descriptors) = (rig.reaper.counters(), procfs::descriptor_count().unwrap());
    let mut child = rig.run_ready("hang", HANG);
    // A dead process that is being debugged is seen by its debugger only: as good as one that does not die.
    let debugger = rig.run_ready(&format!("trace {}", child.pid()), HANG);
    let (held, is_released) = guard();
    child.hold(held);
    let started = Instant::now();
    let outcome = child.end(Why::ClientGone);
    assert!(outcome.leaked && !outcome.is_success(), "{outcome:?}");
    assert_eq!(outcome.exit, Exit::Stuck);
    assert!(started.elapsed() < GRACE + tidegate::supervise::KILL_CAP + SLACK, "the worker is freed");
    rig.reaper.sweep_orphans(GRACE);
    let counters = rig.reaper.counters();
    assert_eq!((counters.leaked, counters.leaked_total - before.leaked_total), (1, 1));
    let shown = rig.reaper.children().into_iter().find(|job| job.leaked).unwrap();
    assert_eq!(shown.phase, Phase::Killed);
    assert!(!is_released.load(Ordering::SeqCst));

    assert!(!debugger.end(Why::Internal).leaked);
    let released = eventually(SLACK, || {
        rig.reaper.sweep_orphans(GRACE);
        is_released.load(Ordering::SeqCst)
    });
    assert!(released && rig.reaper.counters().leaked == 0);
    assert_clean(&rig, descriptors);
}

#[test]
fn a_child_sees_nothing_of_us() {
    let rig = rig();
    let _open = File::open("/dev/null").unwrap();
    let mut clean = spec("hang ready", HANG);
    clean.memory = Some(1 << 33);
    clean.cwd = Some("/usr".into());
    let mut child = rig.reaper.spawn(clean).unwrap();
    read_until(&mut child, b"ready\n");
    let of = |file: &str| format!("/proc/{}/{file}", child.pid());
    let text = |file: &str| fs::read_to_string(of(file)).unwrap();

    let environ = text("environ");
    let mut names: Vec<_> =
        environ.split_terminator('\0').map(|entry| entry.split('=').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["PATH", "TIDEGATE_DATA", "TIDEGATE_JOB"]);
    let mut descriptors: Vec<_> =
        fs::read_dir(of("fd")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    descriptors.sort_unstable();
    assert_eq!(descriptors, ["0", "1", "2"]);
    let limits = text("limits");
    let limit = |name: &str| {
        limits.lines().find_map(|line| line.strip_prefix(name)).unwrap().split_whitespace().next().unwrap()
    };
    assert_eq!((limit("Max core file size"), limit("Max address space")), ("0", "8589934592"));
    assert_eq!(text("oom_score_adj").trim().parse().ok(), limits::oom_score_of_children());
    assert_eq!(fs::read_link(of("cwd")).unwrap(), Path::new("/usr"));
    let stat = Stat::of(Pid::from_raw(child.pid())).unwrap();
    assert_eq!((stat.group, stat.parent), (stat.pid, Pid::this()));
    assert!(child.end(Why::Internal).ended.is_some());
}

/// What a program that changes nothing says of its own signals.
#[test]
fn no_signal_is_blocked_or_ignored_in_a_child() {
    let rig = rig();
    let mut grep = spec("exit 0", HANG);
    grep.program = "/bin/grep".into();
    grep.args = vec!["^S[ih][gd]".into(), "/proc/self/status".into()];
    let (outcome, output) = rig.reaper.spawn(grep).unwrap().collect(4096, None);
    assert!(outcome.is_success());
    let text = String::from_utf8(output).unwrap();
    for name in ["SigPnd", "ShdPnd", "SigBlk", "SigIgn"] {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        let set = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        // The C library's posix_spawn ignores its two private signals, 32 and 33, in every child.
        let private = if name == "SigIgn" { 0b11 << 31 } else { 0 };
        assert_eq!(set & !private, 0, "{line}");
    }
}

#[test]
fn a_helper_is_collected_within_its_limit_and_ended_beyond() {
    let rig = rig();
    let descriptors = procfs::descriptor_count().unwrap();
    let (outcome, output) = rig.run("pour 1024").collect(1 << 20, None);
    assert!(outcome.is_success() && output.len() == 1 << 20, "{outcome:?}");
    let (outcome, output) = rig.run("pour 1024").collect((1 << 20) - 1, None);
    assert_eq!(outcome.ended, Some(Why::Overflow));
    assert!(output.len() < 1 << 20);
    let late = rig.reaper.spawn(spec("hang", Duration::from_millis(100))).unwrap();
    assert_eq!(late.collect(1, None).0.ended, Some(Why::Deadline));
    assert_clean(&rig, descriptors);
}

#[test]
fn a_helper_ends_with_its_client() {
    let rig = rig();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = rig.run("hang");
    let started = Instant::now();
    drop(theirs);
    let (outcome, _) = child.collect(1, Some(ours.as_fd()));
    assert_eq!(outcome.ended, Some(Why::ClientGone));
    assert!(started.elapsed() < SLACK);
}

#[test]
fn a_file_or_a_pipe_is_read_as_standard_input() {
    use std::io::Seek;
    let rig = rig();
    let cat = |stdin| {
        let mut spec = spec("exit 0", HANG);
        (spec.program, spec.args, spec.stdin) = ("/bin/cat".into(), Vec::new(), stdin);
        rig.reaper.spawn(spec).unwrap()
    };
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"a spooled body").unwrap();
    file.rewind().unwrap();
    assert_eq!(cat(Input::File(file)).collect(100, None).1, b"a spooled body");
    assert_eq!(cat(Input::Null).collect(100, None).1, b"");
    let mut child = cat(Input::Pipe);
    let mut stdin = File::from(child.take_stdin().unwrap());
    stdin.write_all(b"through a pipe").unwrap();
    drop(stdin);
    assert_eq!(child.collect(100, None).1, b"through a pipe");
}

#[test]
fn running_out_of_descriptors_is_a_shortage_and_passes() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let rig = rig();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 6, hard).unwrap();
    let refused = rig.reaper.spawn(spec("exit 0", HANG));
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    let error = refused.unwrap_err();
    assert!(error.is_busy() && !error.is_missing(), "{error}");
    assert!(rig.run("exit 0").finish().is_success());
}

#[test]
fn what_cannot_be_started_says_what_is_missing() {
    let rig = rig();
    let start = |program: &str, cwd: Option<&str>| {
        let mut spec = spec("exit 0", HANG);
        (spec.program, spec.cwd) = (program.into(), cwd.map(PathBuf::from));
        rig.reaper.spawn(spec).unwrap_err()
    };
    assert!(start("/nowhere/git", None).is_missing());
    assert!(start("git-that-is-in-no-path", None).is_missing());
    let program = fake::fake_git().to_str().unwrap();
    assert!(start(program, Some("/nowhere")).to_string().contains("no directory /nowhere"));
    let not_executable = start("/etc/passwd", None);
    assert!(!not_executable.is_missing() && !not_executable.is_busy(), "{not_executable}");
}

#[test]
fn a_stolen_status_is_an_internal_error_and_no_hang() {
    use nix::sys::wait::waitpid;
    let rig = rig();
    let before = rig.reaper.counters().lost;
    let stolen = (0..1_000).any(|_| {
        let child = rig.run_ready("hang", HANG);
        let pid = Pid::from_raw(child.pid());
        let thief = named_thread("thief", move || waitpid(pid, None)).unwrap();
        assert!(eventually(SLACK, || procfs::thread_count().unwrap() > 3));
        kill(pid, Signal::SIGKILL).unwrap();
        let is_stolen = thief.join().unwrap().is_ok();
        rig.reaper.sweep_orphans(GRACE);
        let outcome = child.finish();
        assert_eq!(outcome.exit, if is_stolen { Exit::Lost } else { Exit::Signal(9) });
        assert!(outcome.wall < HANG / 2, "{outcome:?}");
        is_stolen
    });
    assert!(stolen && rig.reaper.counters().lost == before + 1);
}

#[test]
fn a_storm_of_clients_that_leave_leaves_nothing() {
    let rig = rig();
    let descriptors = procfs::descriptor_count().unwrap();
    let mut random = Random::new("storm");
    let words = ["hang", "escape", "orphans 3 0", "close-stdout", "stop", "pour 100000", "flood"];
    thread::scope(|scope| {
        for _ in 0..8 {
            let choices: Vec<_> =
                (0..60).map(|_| (words[index(&mut random, words.len())], random.below(2_000))).collect();
            let rig = &rig;
            scope.spawn(move || {
                for (words, micros) in choices {
                    let child = rig.run(words);
                    thread::park_timeout(Duration::from_micros(micros));
                    let outcome = child.end(Why::ClientGone);
                    assert!(!outcome.leaked && outcome.exit != Exit::Lost, "{words}: {outcome:?}");
                    assert!(outcome.wall < GRACE + SLACK, "{words}: {outcome:?}");
                }
            });
        }
    });
    sweep_until_none_is_left(&rig);
    assert_clean(&rig, descriptors);
}

fn index(random: &mut Random, length: usize) -> usize {
    usize::try_from(random.below(u64::try_from(length).unwrap())).unwrap()
}

/// Runs the ignored test `name` of this binary as a program of its own, in `directory`, behind `wrapper`.
fn live(rig: &Rig, name: &str, directory: &Path, wrapper: &[&str]) -> Child {
    let own = std::env::current_exe().unwrap();
    let mut line: Vec<OsString> = wrapper.iter().map(OsString::from).collect();
    line.push(own.into());
    line.extend(["--ignored", "--exact", "--nocapture", name].map(OsString::from));
    let mut spec = spec("exit 0", 6 * HANG);
    spec.what = name.to_owned();
    spec.program = which(line.remove(0));
    spec.args = line;
    spec.cwd = Some(directory.to_owned());
    rig.reaper.spawn(spec).unwrap()
}

/// The command in front of a life that is to be PID 1.
fn namespace() -> Vec<&'static str> {
    let mut command = vec!["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    if !Uid::effective().is_root() {
        command.extend(["--user", "--map-root-user"]);
    }
    command
}

fn which(program: OsString) -> PathBuf {
    let places = ["", "/usr/bin", "/bin", "/usr/sbin"].map(|place| Path::new(place).join(&program));
    places.into_iter().find(|path| path.is_file()).unwrap_or_else(|| program.into())
}

/// The reaper of a life, with the mark of the file `lock` in its directory.
fn life() -> Reaper {
    signals::normalise().unwrap();
    Reaper::start(Mark::of(&File::create("lock").unwrap()).unwrap()).unwrap()
}

fn say(word: &str) {
    println!("{word}");
    io::stdout().flush().unwrap();
}

#[test]
fn survivors_of_a_violent_end_are_ended_at_the_next_start() {
    let rig = rig();
    let descriptors = procfs::descriptor_count().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut life = live(&rig, "life_that_is_killed", directory.path(), &[]);
    read_until(&mut life, b"ready\n");
    assert_eq!(life.finish().exit, Exit::Signal(9));
    let lock = File::open(directory.path().join("lock")).unwrap();
    let left = marked(&lock).len();
    assert!(left >= 5, "only {left} survived, so there is nothing to show");

    let started = Instant::now();
    let survivors = end_survivors(&Mark::of(&lock).unwrap(), GRACE).unwrap();
    assert_eq!(survivors, Survivors { found: left, left: 0 });
    assert!(started.elapsed() < GRACE + SLACK);
    assert_eq!(marked(&lock), []);
    assert_eq!(end_survivors(&Mark::of(&lock).unwrap(), GRACE).unwrap(), Survivors::default());
    drop(lock);
    assert_clean(&rig, descriptors);
}

#[test]
#[ignore = "a life that another test starts"]
fn life_that_is_killed() {
    let reaper = life();
    for words in ["hang", "ignore", "stop", "escape-stubborn"] {
        let mut child = reaper.spawn(spec(&format!("{words} ready"), HANG)).unwrap();
        read_until(&mut child, b"ready\n");
        std::mem::forget(child);
    }
    say("ready");
    kill(Pid::this(), Signal::SIGKILL).unwrap();
}

#[test]
fn a_stop_ends_every_group_and_starts_nothing_more() {
    let rig = rig();
    let directory = tempfile::tempdir().unwrap();
    let (outcome, output) = live(&rig, "life_that_stops", directory.path(), &[]).collect(1 << 20, None);
    assert!(outcome.is_success(), "{}", String::from_utf8_lossy(&output));
    assert_eq!(marked(&File::open(directory.path().join("lock")).unwrap()), []);
}

#[test]
#[ignore = "a life that another test starts"]
fn life_that_stops() {
    let reaper = life();
    assert!(reaper.spawn(spec("escape-stubborn-exit", HANG)).unwrap().finish().is_success());
    let owners = ["hang", "ignore", "stop", "escape-stubborn", "careful 50"].map(|words| {
        let mut child = reaper.spawn(spec(&format!("{words} ready"), HANG)).unwrap();
        read_until(&mut child, b"ready\n");
        named_thread(words, move || child.finish()).unwrap()
    });
    let started = Instant::now();
    assert_eq!(reaper.end_all(GRACE, Duration::from_secs(5)), 0);
    assert!(started.elapsed() < GRACE + SLACK, "{:?}", started.elapsed());
    for owner in owners {
        let outcome = owner.join().unwrap();
        assert_eq!((outcome.ended, outcome.leaked), (Some(Why::Stopping), false), "{outcome:?}");
    }
    assert!(reaper.spawn(spec("exit 0", HANG)).unwrap_err().is_stopping());
    assert_eq!((reaper.children().len(), reaper.end_all(GRACE, GRACE)), (0, 0));
}

#[test]
fn as_pid_1_every_foreign_orphan_is_reaped_and_no_living_stranger_is_touched() {
    let rig = rig();
    let directory = tempfile::tempdir().unwrap();
    let mut unshare = live(&rig, "life_as_pid_1", directory.path(), &namespace());
    let output = read_until(&mut unshare, b"ready\n");
    if !output.ends_with(b"ready\n") {
        println!("skipped: no PID namespace can be made here: {}", unshare.finish().stderr);
        return;
    }
    let pid_1 = child_of(Pid::from_raw(unshare.pid()));
    // A foreign shell in the container: its orphans come to PID 1, without a start of ours that would wake the reaper.
    let foreign = "cd \"$0\"; mkfifo up; setsid sh -c 'echo > up; exec sleep 1000' > /dev/null 2>&1 & \
                   for i in $(seq 100); do (sleep 0.01 &) ; done; read up < up";
    let mut shell = spec("exit 0", HANG);
    shell.program = which("nsenter".into());
    shell.args = ["--target", &pid_1.to_string(), "--pid", "--mount"].map(OsString::from).into();
    if !Uid::effective().is_root() {
        shell.args.extend(["--user", "--preserve-credentials"].map(OsString::from));
    }
    shell.args.extend(["sh", "-c", foreign].map(OsString::from));
    // Entering the namespace leaves the working directory behind.
    shell.args.push(directory.path().into());
    let outcome = rig.reaper.spawn(shell).unwrap().finish();
    assert!(outcome.is_success(), "{outcome:?}");
    let is_settled = || children_of(pid_1).into_iter().map(|stat| stat.state).eq([State::Alive]);
    assert!(eventually(HANG, is_settled), "{:?}", children_of(pid_1));

    kill(pid_1, Signal::SIGTERM).unwrap();
    let report = read_until(&mut unshare, b"");
    let outcome = unshare.finish();
    let report = String::from_utf8_lossy(&report);
    assert!(outcome.exit == Exit::Code(0), "{outcome:?}: {report}");
    let reaped: u64 = report.lines().find_map(|line| line.strip_prefix("orphans ")).unwrap().parse().unwrap();
    assert!(reaped >= 100, "{report}");
}

/// The only child of a process that is not ours.
fn child_of(parent: Pid) -> Pid {
    children_of(parent)[0].pid
}

fn children_of(parent: Pid) -> Vec<Stat> {
    let stats = procfs::processes().unwrap().into_iter().filter_map(|pid| Stat::of(pid).ok());
    stats.filter(|stat| stat.parent == parent).collect()
}

#[test]
#[ignore = "a life that another test starts"]
fn life_as_pid_1() {
    assert_eq!(Pid::this().as_raw(), 1);
    let signals = Signals::install().unwrap();
    let reaper = life();
    let sweeps = || {
        reaper.sweep_orphans(GRACE);
        signals.take() == Some(Order::Terminate)
    };
    say("ready");
    assert!(eventually(HANG, sweeps), "PID 1 hears SIGTERM");
    assert_eq!(procfs::children().unwrap().len(), 1, "the stranger lives");
    say(&format!("orphans {}", reaper.counters().orphans_reaped));
    // The same code path as anywhere else.
    let child = reaper.spawn(spec("escape-stubborn", GRACE)).unwrap();
    let outcome = child.finish();
    assert_eq!((outcome.exit, outcome.ended, outcome.leaked), (Exit::Signal(15), Some(Why::Deadline), false));
    assert_eq!(procfs::children().unwrap().len(), 1, "and nothing else");
    assert_eq!(reaper.end_all(GRACE, GRACE), 0);
}

#[test]
fn numbers_that_come_round_every_second_confuse_nobody() {
    let rig = rig();
    let directory = tempfile::tempdir().unwrap();
    let (outcome, output) =
        live(&rig, "life_among_few_numbers", directory.path(), &namespace()).collect(1 << 20, None);
    let output = String::from_utf8_lossy(&output);
    if let Some(reason) = output.lines().find(|line| line.starts_with("skipped")) {
        println!("{reason}");
    } else if output.is_empty() {
        println!("skipped: no PID namespace can be made here: {}", outcome.stderr);
    } else {
        assert!(outcome.is_success(), "{outcome:?}: {output}");
    }
}

#[test]
#[ignore = "a life that another test starts"]
fn life_among_few_numbers() {
    // The highest process number belongs to the PID namespace since Linux 6.14, and to the machine before.
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6), Some(14)) {
        return say("skipped: this kernel has no PID limit of a namespace");
    }
    // The first 300 are given out once, so it is the last hundred that come round.
    fs::write("/proc/sys/kernel/pid_max", "400").unwrap();
    let reaper = life();
    let mut random = Random::new("few numbers");
    thread::scope(|scope| {
        for _ in 0..3 {
            let codes: Vec<u64> = (0..500).map(|_| random.below(256)).collect();
            scope.spawn(|| codes.into_iter().for_each(|code| run_beside_orphans(&reaper, code)));
        }
    });
    let counters = reaper.counters();
    assert_eq!((counters.spawned, counters.reaped, counters.lost, counters.leaked_total), (1500, 1500, 0, 0));
}

/// Run by hand: `cargo test --release --test supervise -- --ignored --exact what_a_run_costs --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_a_run_costs() {
    const RUNS: u32 = 2_000;
    let plain = time(RUNS, || assert!(plain_run()));
    let rig = rig();
    let supervised = time(RUNS, || {
        let mut spec = spec("exit 0", HANG);
        (spec.program, spec.args) = ("/bin/true".into(), Vec::new());
        assert!(rig.reaper.spawn(spec).unwrap().finish().is_success());
    });
    println!("/bin/true: plain {plain:?}, supervised {supervised:?} a run");
    let ended = time(200, || assert!(!rig.run("hang").end(Why::ClientGone).leaked));
    println!("a child that is ended: {ended:?}");
    let poured = time(3, || assert_eq!(drain(rig.run(&format!("pour {}", 1 << 20))), 1 << 30));
    println!("1 GiB through stdout: {poured:?}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "what the supervised run is compared with, before the reaper starts"
)]
fn plain_run() -> bool {
    use std::process::{Command, Stdio};
    let mut command = Command::new("/bin/true");
    command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap()
        .status
        .success()
}

fn drain(mut child: Child) -> usize {
    let (mut total, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match child.read_stdout(&mut buffer) {
            Ok(0) => break,
            Ok(length) => total += length,
            Err(_) => drop(poll::wait([child.stdout_fd().map(|fd| (fd, Interest::Read))], None)),
        }
    }
    assert!(child.finish().is_success());
    total
}

/// The mean of `runs`.
fn time(runs: u32, mut run: impl FnMut()) -> Duration {
    let started = Instant::now();
    (0..runs).for_each(|_| run());
    started.elapsed() / runs
}
