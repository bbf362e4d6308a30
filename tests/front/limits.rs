//! Limits: clients that are slow, silent or many, and a process that has run out of descriptors.

use crate::support::{Client, HANGING, Stage, eventually, get, of_status, pattern, pause, raise};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tidegate::http::house::TurnedAway;
use tidegate::http::limits::FrontLimits;
use tidegate::http::writer::{PIECE, WriteError};
use tidegate::sys::net::Listener;
use tidegate::sys::stop::Level;

const SHORT: Duration = Duration::from_millis(400);

/// Sends a byte at a time until the connection ends.
fn dribble(client: &mut Client<TcpStream>, bytes: &[u8], every: Duration) {
    let began = Instant::now();
    for byte in bytes.iter().cycle() {
        let mut probe = [0; 1];
        client.stream.set_nonblocking(true).unwrap();
        let ended = client.stream.peek(&mut probe).is_ok();
        client.stream.set_nonblocking(false).unwrap();
        if ended || client.stream.write_all(&[*byte]).is_err() {
            break;
        }
        assert!(began.elapsed() < HANGING, "never cut");
        pause(every);
    }
}

#[test]
fn a_head_that_dribbles_is_cut_at_its_deadline_however_steadily_it_comes() {
    let stage = Stage::with(|limits| limits.head = SHORT);
    let began = Instant::now();
    let mut client = stage.connect();
    dribble(&mut client, get("/").as_bytes(), Duration::from_millis(100));
    assert!(began.elapsed() >= SHORT, "cut after {:?}", began.elapsed());
    assert_eq!(client.answer().status, 408);
    client.assert_ended();
    assert_eq!(stage.front().view().counters().turned_away(TurnedAway::SlowHead), 1);
}

#[test]
fn a_connection_that_says_nothing_is_closed_without_a_word() {
    let stage = Stage::with(|limits| limits.head = SHORT);
    let began = Instant::now();
    stage.connect().assert_ended();
    assert!(began.elapsed() >= SHORT);

    let stage = Stage::with(|limits| limits.idle = SHORT);
    let mut client = stage.connect();
    let began = Instant::now();
    client.send(get("/"));
    assert_eq!(client.answer().status, 200);
    client.assert_ended();
    assert!(began.elapsed() >= SHORT, "idle between requests is another limit");
}

#[test]
fn a_body_that_dribbles_or_stops_is_cut_and_a_steady_one_is_not() {
    let stage = Stage::with(|limits| {
        limits.min_rate = 2000;
        limits.min_rate_after = SHORT;
    });
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n";
    let mut slow = stage.connect();
    slow.send(head);
    dribble(&mut slow, b"x", Duration::from_millis(20));
    let answer = slow.answer();
    assert!(answer.status == 408 && answer.text().contains("min_rate"), "{answer:?}");

    let mut steady = stage.connect();
    steady.send(head);
    for _ in 0..20 {
        steady.send([b'x'; 1000]);
        pause(Duration::from_millis(30));
    }
    assert_eq!(steady.answer().status, 200);

    let stage = Stage::with(|limits| {
        limits.idle = SHORT;
        limits.min_rate = 0;
    });
    let mut silent = stage.connect();
    silent.send(head);
    let answer = silent.answer();
    assert!(answer.status == 408 && answer.text().contains("limits.idle"), "{answer:?}");
}

#[test]
fn a_reader_that_stops_or_creeps_is_cut() {
    let stage = Stage::with(|limits| limits.write_stall = SHORT);
    let mut stopped = stage.connect();
    stopped.send(get("/chunks?1000000000"));
    eventually("the stalled answer is cut", || stage.scene.writes() == [Err(WriteError::Stalled)]);

    let stage = Stage::with(|limits| {
        limits.min_rate = 100 << 20;
        limits.min_rate_after = SHORT;
    });
    let mut creeping = stage.connect();
    creeping.send(get("/known?1000000000"));
    let mut buffer = vec![0; 65_536];
    let began = Instant::now();
    while stage.scene.writes().is_empty() {
        assert!(began.elapsed() < HANGING, "never cut");
        let _ = creeping.stream.read(&mut buffer);
        pause(Duration::from_millis(10));
    }
    assert_eq!(stage.scene.writes(), [Err(WriteError::Stalled)]);
    stage.assert_serves();
}

#[test]
fn a_reader_that_was_too_slow_for_a_deadline_or_a_stop_still_gets_the_last_words() {
    for (request, why) in
        [("/last-words?100", WriteError::Deadline), ("/last-words?60000", WriteError::Stopped)]
    {
        let stage = Stage::new();
        let mut client = stage.connect();
        client.send(get(request));
        // What the kernel takes of an answer that nobody reads.
        let mut first = [0; 1];
        client.stream.peek(&mut first).unwrap();
        pause(SHORT);
        if why == WriteError::Stopped {
            stage.stop.raise(Level::Killing);
        }
        eventually("a piece is interrupted", || stage.scene.writes().first() == Some(&Err(why)));
        let answer = client.answer();
        let body = answer.body.strip_suffix(b"the last words").unwrap();
        assert!(answer.whole && !body.is_empty() && body.len().is_multiple_of(PIECE), "{} bytes", body.len());
        assert!(body.chunks(PIECE).all(|piece| piece == pattern(PIECE)));
        eventually("they are sent", || stage.scene.writes() == [Err(why), Ok(())]);
    }
}

#[test]
fn a_slow_producer_is_not_held_against_its_client() {
    let stage = Stage::with(|limits| {
        limits.idle = SHORT;
        limits.write_stall = SHORT;
        limits.min_rate_after = SHORT / 4;
    });
    let mut client = stage.connect();
    client.send(get("/hang"));
    pause(2 * SHORT);
    stage.scene.open();
    assert_eq!(client.answer().text(), "at last\n");
}

#[test]
fn two_hundred_dribbling_clients_keep_nobody_from_being_served() {
    let limit = Duration::from_secs(5);
    let stage = Stage::with(|limits| limits.head = limit);
    let mut crowd: Vec<_> = (0..200).map(|_| stage.connect()).collect();
    eventually("all are in", || stage.front().view().connections() >= 200);
    let mut slowest = Duration::ZERO;
    for byte in get("/").bytes().take(8) {
        for client in crowd.iter_mut().skip(50) {
            client.send([byte]);
        }
        let asked = Instant::now();
        stage.assert_serves();
        slowest = slowest.max(asked.elapsed());
        pause(Duration::from_millis(100));
    }
    assert!(slowest < limit, "one waited for {slowest:?}");
    eventually("all are cut", || stage.front().view().connections() == 0);
    drop(crowd);
}

#[test]
fn one_connection_too_many_is_told_so_at_once_and_the_next_one_served() {
    let stage = Stage::with(|limits| limits.connections = 4);
    let mut inside: Vec<_> = (0..4).map(|_| stage.connect()).collect();
    for client in &mut inside {
        client.send(get("/hang"));
    }
    eventually("the house is full", || stage.scene.seen("/hang") == 4);
    for turned_away in 1..200_u64 {
        let mut client = stage.connect();
        // Some ask before they look, some never do.
        if turned_away % 2 == 0 {
            let _ = client.stream.write_all(get("/").as_bytes());
        }
        let answer = client.answer();
        assert!(answer.status == 503 && answer.head.contains("Retry-After: "), "{answer:?}");
        assert_eq!(stage.front().view().counters().turned_away(TurnedAway::Full), turned_away);
        client.assert_ended();
    }
    stage.scene.open();
    let answers: Vec<_> = inside.iter_mut().map(Client::answer).collect();
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert!(answers.iter().any(|answer| answer.has("Connection: close")), "a full house keeps nobody");
    eventually("there is room", || stage.ask(get("/")).status == 200);
}

#[test]
fn running_out_of_descriptors_turns_clients_away_and_passes() {
    let other = OtherHalf::start();
    let connect = |patience: Duration| {
        let stream = TcpStream::connect(&other.address).unwrap();
        stream.set_read_timeout(Some(patience)).unwrap();
        stream
    };
    // It says nothing: with a request unread, the close would be a reset and could take the answer with it.
    let is_turned_away = |stream: &mut TcpStream| {
        let mut start = [0; 12];
        stream.read_exact(&mut start).is_ok() && start == *b"HTTP/1.1 503"
    };
    for _ in 0..3 {
        let mut inside = Vec::new();
        eventually("new clients are turned away", || {
            inside.push(connect(Duration::from_millis(100)));
            inside.last_mut().is_some_and(is_turned_away)
        });
        let before = cpu_ticks(other.child.id());
        for _ in 0..20 {
            assert!(is_turned_away(&mut connect(HANGING)), "and so is everyone after them");
        }
        pause(Duration::from_millis(300));
        assert!(cpu_ticks(other.child.id()) - before <= 10, "it spins");
        drop(inside);
        eventually("clients are served again", || {
            let mut client = connect(HANGING);
            let mut start = [0; 12];
            client.write_all(get("/").as_bytes()).is_ok()
                && client.read_exact(&mut start).is_ok()
                && start == *b"HTTP/1.1 200"
        });
    }
    other.end();
}

/// Processor time of a process in clock ticks (10 ms).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// This program once more, as a front with few descriptors that runs until its input ends.
struct OtherHalf {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    address: String,
}

impl OtherHalf {
    fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "there is no spawner in a test")]
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "limits::serve_with_few_descriptors", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut addresses = output
            .by_ref()
            .map_while(Result::ok)
            .filter_map(|line| line.split_once("listening on ").map(|(_, address)| address.to_owned()));
        let address = addresses.next().unwrap();
        Self { child, output, address }
    }

    /// Ends it and asks for its verdict.
    fn end(mut self) {
        drop(self.child.stdin.take());
        self.output.for_each(drop);
        #[expect(clippy::disallowed_methods, reason = "there is no reaper in a test")]
        let status = self.child.wait().unwrap();
        assert!(status.success());
    }
}

#[test]
#[ignore = "the other half of a test that runs it in a process of its own"]
fn serve_with_few_descriptors() {
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address().to_string();
    let limits = FrontLimits { head: 2 * HANGING, ..FrontLimits::default() };
    let (_, stop, front) = raise(vec![listener], limits, &[]);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 32, hard).unwrap();
    println!("listening on {address}");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    stop.raise(Level::Killing);
    assert_eq!(front.join(Instant::now() + HANGING).left, 0);
}

#[test]
fn connections_leave_no_descriptor_and_no_thread_behind() {
    let other = OtherHalf::start();
    let fds = Path::new("/proc").join(other.child.id().to_string()).join("fd");
    let status = Path::new("/proc").join(other.child.id().to_string()).join("status");
    let count = || (std::fs::read_dir(&fds).unwrap().count(), of_status(&status, "Threads:"));
    let before = count();
    for round in 0..200 {
        let mut client = Client::over(TcpStream::connect(&other.address).unwrap());
        match round % 4 {
            0 => client.send(get("/chunks?1000000")),
            1 => client.send("GET / HT"),
            2 => client.send("rubbish\r\n\r\n"),
            _ => client.send(get("/wait")),
        }
    }
    eventually("everything is given back", || count() == before);
    let crowd: Vec<_> = (0..60).map(|_| TcpStream::connect(&other.address).unwrap()).collect();
    drop(crowd);
    eventually("everything is given back again", || count() == before);
    other.end();
}
