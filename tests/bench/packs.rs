//! Many who ask for the same pack, many who ask for different ones, and the first who asks for one.
//!
//! Two measures beside the opponent: a bare loop that sends the same bytes out of a file, which nothing can beat that goes
//! through a socket, and git itself without a server.

use crate::client::{Answer, exchange, packets, post_to};
use crate::repository::{self, NAME, ask};
use crate::server::{Contender, Server};
use crate::table::{self, Sample, Wanted};
use crate::{Bench, Result, measure};
use nix::sys::resource::{UsageWho, getrusage};
use socket2::SockRef;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Shallow fetches of one sample, as a pipeline makes them.
const SHALLOW: usize = 40;

/// Whole fetches of one sample.
const WHOLE: usize = 16;

/// Clients at the same time.
const PARALLEL: usize = 4;

/// Rounds before anything is measured: an answer is kept from the second on.
const WARM_UP: usize = 3;

/// Different fetches under load.
const DISTINCT: usize = 300;

/// What they are fetched from: a copy that allows filters, so that one takes tens of milliseconds, not seconds.
const LOADED: &str = "loaded.git";

/// A refused client comes again after this long.
const PAUSE: Duration = Duration::from_millis(100);

/// A gate whose queue of packs is short.
const SHORT_QUEUE: &str = "[git]\nqueue = 8";

/// What git's own clone asks for.
const WORDS: [&str; 4] = ["thin-pack", "no-progress", "include-tag", "ofs-delta"];

/// The rows about many who ask for the same.
pub(crate) fn rows(bench: &Bench) -> Result<()> {
    let repository = bench.root.join(NAME);
    let tip = ask(&repository, &["rev-parse", "HEAD"])?;
    let shallow = fetch(&[&WORDS[..], &["deepen 1"]].concat(), &[tip]);
    let whole = fetch(&WORDS, &repository::tips(&repository)?);
    identical(
        bench,
        &format!("{SHALLOW} x fetch --depth=1, {PARALLEL} at once"),
        SHALLOW,
        &shallow,
        (30.0, 30.0),
    )?;
    identical(bench, &format!("{WHOLE} x whole fetch, {PARALLEL} at once"), WHOLE, &whole, (20.0, 10.0))
}

/// The lines about more than the gate can do at once.
pub(crate) fn load(bench: &Bench) -> Result<()> {
    repository::install(&bench.root.join(NAME), &bench.root, LOADED)?;
    ask(&bench.root.join(LOADED), &["config", "uploadpack.allowFilter", "true"])?;
    [(3, ""), (20, SHORT_QUEUE)].into_iter().try_for_each(|(times, keys)| distinct(bench, times, keys))
}

/// The body of a fetch of version 2.
fn fetch(arguments: &[&str], wants: &[String]) -> String {
    let wants: Vec<String> = wants.iter().map(|want| format!("want {want}")).collect();
    let wants: Vec<&str> = wants.iter().map(String::as_str).collect();
    let (head, arguments) = (packets(&["command=fetch", "object-format=sha1"]), packets(arguments));
    format!("{head}0001{arguments}{}{}0000", packets(&wants), packets(&["done"]))
}

/// The same fetch over and over: against the opponent, and against the bare loop.
fn identical(bench: &Bench, name: &str, count: usize, body: &str, least: (f64, f64)) -> Result<()> {
    let (ours, theirs) = (bench.ours.start()?, bench.theirs.start()?);
    let request = |server: &Server| post_to(&server.path_of(NAME), "git-upload-pack", body);
    for server in [&ours, &theirs] {
        (0..WARM_UP).try_for_each(|_| many(server.address, &request(server), PARALLEL, PARALLEL))?;
    }
    let work = |server: &Server| many(server.address, &request(server), count, PARALLEL);
    let wanted = Wanted::Fast { cpu: least.0, rate: least.1 };
    bench.row(name, wanted, |is_ours| measure(if is_ours { &ours } else { &theirs }, work))?.print();
    let loop_of_same = Loop::start(exchange(ours.address, &request(&ours))?)?;
    let row = bench.row("  the same, B = bare sendfile", Wanted::Rate(0.8), |is_ours| {
        let address = if is_ours { ours.address } else { loop_of_same.address };
        let begun = Instant::now();
        many(address, &request(&ours), count, PARALLEL)?;
        Ok(Sample { wall: begun.elapsed(), cpu: None })
    })?;
    row.print();
    Ok(())
}

/// Sends one request `count` times, `parallel` at once, and drops what comes.
fn many(address: SocketAddr, request: &str, count: usize, parallel: usize) -> Result<()> {
    let left = AtomicUsize::new(count);
    let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    let client = || -> std::result::Result<(), String> {
        while take() {
            let answer = exchange(address, request).map_err(|error| error.to_string())?;
            if answer.status != 200 {
                return Err(format!("status {}", answer.status));
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..parallel).map(|_| scope.spawn(client)).collect();
        clients.into_iter().try_for_each(|it| it.join().map_err(|_| "a client panicked".to_owned())?)
    })?;
    Ok(())
}

/// A server that sends one file to whoever comes, whatever he asks.
struct Loop {
    address: SocketAddr,
}

impl Loop {
    /// Serves as many bytes as `answer` had, until the benchmark ends.
    fn start(answer: Answer) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let mut file = tempfile::tempfile()?;
        file.write_all(&vec![b'x'; answer.length])?;
        file.rewind()?;
        thread::spawn(move || {
            thread::scope(|scope| {
                for client in listener.incoming().flatten() {
                    let file = &file;
                    scope.spawn(move || send(client, file, answer.length));
                }
            });
        });
        Ok(Self { address })
    }
}

fn send(mut client: TcpStream, file: &File, length: usize) -> io::Result<()> {
    let mut request = vec![0; 1 << 16];
    let _ = client.read(&mut request)?;
    client.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes())?;
    let mut at = 0;
    while let Some(left) = NonZeroUsize::new(length - at) {
        match SockRef::from(&client).sendfile(file, at, Some(left))? {
            0 => break,
            sent => at += sent,
        }
    }
    client.shutdown(Shutdown::Write)
}

/// The first fetch of a server that has listed its refs, as before any fetch, and `git upload-pack` with the same request.
pub(crate) fn cold(bench: &Bench) -> Result<()> {
    let repository = bench.root.join(NAME);
    let body = &fetch(&WORDS, &repository::tips(&repository)?);
    let row = bench.row("cold fetch, B = git upload-pack", Wanted::Both(1.05), |is_ours| {
        if is_ours {
            let server = bench.ours.start()?;
            for _ in 0..WARM_UP {
                bench.client.info_refs(&server, NAME, 2)?;
                bench.client.ls_refs(&server)?;
            }
            return measure(&server, |server| {
                let request = post_to(&server.path_of(NAME), "git-upload-pack", body);
                many(server.address, &request, 1, 1)
            });
        }
        let mut input = tempfile::tempfile()?;
        input.write_all(body.as_bytes())?;
        input.rewind()?;
        let mut command = Command::new("git");
        // As the server runs it: one thread a pack.
        command.args(["-c", "pack.threads=1", "-c", "pack.windowMemory=100m"]);
        command.args(["upload-pack", "--stateless-rpc"]).arg(&repository).env("GIT_PROTOCOL", "version=2");
        let (before, begun) = (children()?, Instant::now());
        let mut child = command.stdin(input).stdout(Stdio::piped()).spawn()?;
        let mut output = child.stdout.take().ok_or("no output")?;
        io::copy(&mut output, &mut io::sink())?;
        let status = child.wait()?;
        let wall = begun.elapsed();
        if !status.success() {
            return Err(format!("git upload-pack: {status}").into());
        }
        Ok(Sample { wall, cpu: Some(children()?.saturating_sub(before)) })
    })?;
    row.print();
    Ok(())
}

/// CPU of all children that have been waited for.
fn children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec().cast_unsigned(), 0)
            + Duration::from_micros(time.tv_usec().cast_unsigned())
    };
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

/// What became of one visit.
struct Visit {
    took: Duration,
    end: End,
}

enum End {
    Served,
    Refused,
    Failed(u16),
}

/// Shallow fetches of different commits by `times` as many clients as there are cores, each of which comes again when it is
/// refused.
fn distinct(bench: &Bench, times: usize, keys: &'static str) -> Result<()> {
    let server = Contender::tuned(&bench.root, &bench.binary, keys).start()?;
    let list = ask(&bench.root.join(LOADED), &["rev-list", "HEAD", &format!("--max-count={DISTINCT}")])?;
    let left: Mutex<Vec<String>> = Mutex::new(list.lines().map(str::to_owned).collect());
    let visits = Mutex::new(Vec::new());
    let clients = times * thread::available_parallelism()?.get();
    let (before, begun) = (server.memory()?, Instant::now());
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let next = || left.lock().ok().and_then(|mut left| left.pop());
                while let Some(oid) = next() {
                    while let Ok(visit) = visit(&server, &oid) {
                        let is_refused = matches!(visit.end, End::Refused);
                        visits.lock().map(|mut visits| visits.push((begun.elapsed(), visit))).ok();
                        if !is_refused {
                            break;
                        }
                        thread::sleep(PAUSE);
                    }
                }
            });
        }
    });
    let took = begun.elapsed();
    report(times, clients, &visits.into_inner()?, took);
    println!("  RSS before {before}, after {}", server.memory()?);
    Ok(())
}

/// A clone's requests without the list of refs: the door, and the fetch.
fn visit(server: &Server, oid: &str) -> Result<Visit> {
    let begun = Instant::now();
    let door = format!(
        "GET {}/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: speed\r\nConnection: close\r\n\
         Git-Protocol: version=2\r\n\r\n",
        server.path_of(LOADED)
    );
    let status = exchange(server.address, &door)?.status;
    if status != 200 {
        let end = if status == 429 { End::Refused } else { End::Failed(status) };
        return Ok(Visit { took: begun.elapsed(), end });
    }
    let body = fetch(&["no-progress", "ofs-delta", "deepen 1", "filter blob:none"], &[oid.to_owned()]);
    let status =
        exchange(server.address, &post_to(&server.path_of(LOADED), "git-upload-pack", &body))?.status;
    let end = if status == 200 { End::Served } else { End::Failed(status) };
    Ok(Visit { took: begun.elapsed(), end })
}

fn report(times: usize, clients: usize, visits: &[(Duration, Visit)], took: Duration) {
    let is_served = |visit: &Visit| matches!(visit.end, End::Served);
    let third = took / 3;
    let thirds = [1, 2, 3].map(|part| {
        let within = |at: &Duration| *at > third * (part - 1) && *at <= third * part;
        visits.iter().filter(|(at, visit)| within(at) && is_served(visit)).count()
    });
    let served = visits.iter().filter(|(_, visit)| is_served(visit)).count();
    let failed: Vec<u16> = visits
        .iter()
        .filter_map(|(_, visit)| if let End::Failed(status) = visit.end { Some(status) } else { None })
        .collect();
    let refusals: Vec<Duration> = visits
        .iter()
        .filter(|(_, visit)| matches!(visit.end, End::Refused))
        .map(|(_, visit)| visit.took)
        .collect();
    println!(
        "\n{DISTINCT} distinct fetches --depth=1 --filter=blob:none, {clients} clients ({times} x the cores): {served} served in {}, \
         in thirds of the time {thirds:?}, failed {failed:?}",
        table::time(took)
    );
    println!(
        "  refused {} times at the door, median {}, slowest {}; wanted: none failed, refusals within 50 ms",
        refusals.len(),
        table::time(table::median(&refusals)),
        table::time(refusals.iter().max().copied().unwrap_or_default())
    );
}
