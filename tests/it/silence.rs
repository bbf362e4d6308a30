//! Upstreams that answer nobody: whoever asks for others, or pushes to them, notices nothing, and nothing is left behind.
//!
//! The upstream that lives is another gate. Beside their tables of upstreams the gates have default settings. In these tables
//! stands what the promise is about and no default is: a push needs approval, so the gate has a credential of its own to
//! forward it with, and whoever may read here may read.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::gate::{Gate, Setup};
use crate::support::http::{Wire, request};
use crate::support::place::{Place, token_of};
use crate::support::run::{Run, Running};
use crate::support::{HANG, SLACK, VOUCHED, eventually, pass, procfs, repo};

const BLACK_HOLES: usize = 40;
const REFUSING: usize = 10;
const UNKNOWN: usize = 10;
const ROUNDS: usize = 10;
/// More than may ask one server at a time.
const CLIENTS_EACH: usize = 3;

/// What a start may take beside dead upstreams, and a clone on top of twice its own time: a fifth of
/// the 10 s that one silent server costs who waits for it, and six times what either takes on a busy machine.
const PROMISED: Duration = Duration::from_secs(2);

/// A server that stands between the gate and its upstream, and falls silent: connections are made and nothing is said.
struct Valve {
    address: SocketAddr,
    is_silent: Arc<AtomicBool>,
}

impl Valve {
    /// Before `upstream`; silent for ever where there is none.
    fn new(upstream: Option<SocketAddr>) -> Valve {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let valve = Valve {
            address: listener.local_addr().unwrap(),
            is_silent: Arc::new(AtomicBool::new(upstream.is_none())),
        };
        let is_silent = Arc::clone(&valve.is_silent);
        thread::spawn(move || {
            let mut held: Vec<TcpStream> = Vec::new();
            for client in listener.incoming().map_while(Result::ok) {
                held.retain(is_open);
                match upstream {
                    Some(upstream) if !is_silent.load(Ordering::SeqCst) => {
                        let server = TcpStream::connect(upstream).unwrap();
                        pump(client.try_clone().unwrap(), server.try_clone().unwrap(), &is_silent);
                        pump(server, client, &is_silent);
                    }
                    Some(_) | None => held.push(client),
                }
            }
        });
        valve
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::SeqCst);
    }
}

/// Hands bytes on; what comes while it is silent is lost.
fn pump(mut from: TcpStream, mut to: TcpStream, is_silent: &Arc<AtomicBool>) {
    let is_silent = Arc::clone(is_silent);
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if !is_silent.load(Ordering::SeqCst) && to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
    });
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    // The request that nobody reads is no end.
    let mut buffer = [0; 4096];
    loop {
        match (&*stream).read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// A gate that lets `bot` push to the repositories `names`, each with some history.
fn upstream(place: &Place, names: &[String]) -> Gate {
    place.user("bot", "pusher");
    names.iter().for_each(|name| drop(repo::history(place, &format!("{name}.git"))));
    place.gate().start()
}

/// `[[upstream]]`, where whoever may read here may read, and the gate pushes as `bot`.
fn table(place: &Place, name: &str, url: &str) -> String {
    let token = place.work("token");
    fs::write(&token, token_of("bot")).unwrap();
    format!(
        "[[upstream]]\nname = {name:?}\nurl = {url:?}\ncredential = \"service\"\nusername = \"bot\"\n\
         token_file = {token:?}\naccess = \"public\"\ngate = {{ approval = \"required\" }}\n"
    )
}

/// With default settings, but for where it listens and what it serves: no limit, no worker, no deadline is set.
fn setup(place: &Place) -> Setup {
    place.user("alice", "pusher");
    place.gate()
}

fn approve(place: &Place, id: u64) -> Run {
    let (id, data) = (id.to_string(), place.data());
    place.tidegate(&["push", "approve", &id, "--data-dir", data.to_str().unwrap()], b"").ok()
}

/// A push, once it waits for approval.
fn waiting(mut push: Running) -> Running {
    eventually(HANG, "the push waits", || {
        assert!(push.is_running(), "it ended: {}", push.heard());
        push.heard().contains("waits for approval")
    });
    push
}

fn busy(gate: &Gate) -> f64 {
    gate.metric("tidegate_workers_busy", &[]) + gate.metric("tidegate_queue_depth", &[])
}

/// The threads of the gate, but those that answer the test's own questions.
fn threads(gate: &Gate) -> Vec<String> {
    let mut threads = procfs::threads(gate.pid());
    threads.retain(|name| name != "caller" && !name.starts_with("tiny"));
    threads.sort();
    threads
}

/// Its descriptors, but files, which the database opens when it needs them, and the unix sockets of who asks it here.
fn descriptors(gate: &Gate) -> Vec<String> {
    let open = procfs::descriptors(gate.pid());
    let unix = fs::read_to_string(format!("/proc/{}/net/unix", gate.pid())).unwrap();
    let is_unix = |what: &str| {
        let number = what.trim_start_matches("socket:[").trim_end_matches(']');
        unix.lines().any(|row| row.split_whitespace().nth(6) == Some(number))
    };
    let names = open.into_iter().map(|(_, what)| what.to_string_lossy().into_owned());
    names.filter(|name| !name.starts_with('/') && !is_unix(name)).collect()
}

/// Those that are sockets to others.
fn sockets(gate: &Gate) -> usize {
    descriptors(gate).iter().filter(|name| name.starts_with("socket:")).count()
}

/// Asks for `name` and does not wait for the answer.
fn begin_to_ask(gate: &Gate, name: &str) -> Wire {
    let mut wire = gate.wire();
    wire.send(request("GET", &format!("/{name}/info/refs?service=git-upload-pack"), &[], b""));
    wire
}

#[test]
fn sixty_dead_upstreams_delay_nobody_and_leave_nothing_behind() {
    let (there, here) = (Place::new(), Place::new());
    let names: Vec<String> = (0..=ROUNDS).map(|number| format!("app-{number}")).collect();
    let live = upstream(&there, &names);
    let holes: Vec<Valve> = (0..BLACK_HOLES).map(|_| Valve::new(None)).collect();
    let mut urls: Vec<String> = holes.iter().map(Valve::url).collect();
    // Nobody listens at the first ports of a machine.
    urls.extend((1..=REFUSING).map(|port| format!("http://127.0.0.1:{port}")));
    urls.extend((0..UNKNOWN).map(|number| format!("https://nobody-{number}.invalid")));
    let mut tables: String =
        (0..).zip(&urls).map(|(number, url)| table(&here, &format!("dead-{number}"), url)).collect();
    tables += &table(&here, "live", &format!("http://{}", live.address()));
    let start = Instant::now();
    let gate = setup(&here).tables(&tables).start();
    assert!(start.elapsed() < PROMISED, "it listened after {:?}", start.elapsed());

    let clone = |number: usize| {
        let url = gate.url(&format!("live/app-{number}"));
        here.client().try_clone(&[], &url, &here.work(&format!("clone-{number}"))).ok()
    };
    let own = clone(0).took;
    eventually(HANG, "nobody asks any more", || busy(&gate) == 0.0 && sockets(&gate) <= 2);
    let (before, had) = (threads(&gate), descriptors(&gate).len());

    for round in 1..=ROUNDS {
        let asking: Vec<Wire> = (0..urls.len() * CLIENTS_EACH)
            .map(|number| begin_to_ask(&gate, &format!("dead-{}/app", number % urls.len())))
            .collect();
        let took = clone(round).took;
        assert!(took < 2 * own + PROMISED, "round {round}: {took:?} instead of {own:?}");
        let work = here.client().at(&here.work(&format!("clone-{round}")));
        let tip = work.commit("a", b"a", "a");
        let target = gate.url_as("alice", &format!("live/app-{round}"));
        let push = work.begin(&["push", &target, "HEAD:refs/heads/next"]);
        let (push, id) = (waiting(push), u64::try_from(round).unwrap());
        let since = Instant::now();
        approve(&here, id);
        push.finish(HANG).ok();
        assert!(since.elapsed() < SLACK, "the forward took {:?}", since.elapsed());
        assert_eq!(there.client().at(&there.repo(&format!("app-{round}.git"))).oid("next"), tip);
        if round < ROUNDS {
            // The clients leave, whatever asks for them.
            drop(asking);
            continue;
        }
        for (number, mut wire) in asking.into_iter().enumerate() {
            let answer = wire.answer();
            assert!(answer.status >= 500, "dead-{}: {}", number % urls.len(), answer.text());
        }
    }
    eventually(HANG, "everything is as it was", || {
        busy(&gate) == 0.0
            && gate.descendants().is_empty()
            && threads(&gate) == before
            && descriptors(&gate).len() <= had
    });
    gate.stop();
}

#[test]
fn a_start_waits_for_none_of_the_upstreams_whose_mirrors_it_is_to_make() {
    let (there, here) = (Place::new(), Place::new());
    let live = upstream(&there, &["app".to_owned(), "other".to_owned(), "last".to_owned()]);
    let holes: Vec<Valve> = (0..BLACK_HOLES).map(|_| Valve::new(None)).collect();
    let urls = holes.iter().map(Valve::url).chain([format!("http://{}", live.address())]);
    let listed = "mirror.repos = [\"app\"]\n";
    let tables: String = (0..)
        .zip(urls)
        .map(|(number, url)| table(&here, &format!("forge-{number}"), &url) + listed)
        .collect();
    let start = Instant::now();
    let gate = setup(&here).tables(&tables).start();
    assert!(start.elapsed() < PROMISED, "it listened after {:?}", start.elapsed());
    let clone = |name: &str| {
        let url = gate.url(&format!("forge-{BLACK_HOLES}/{name}"));
        here.client().try_clone(&[], &url, &here.work(name)).ok().took
    };
    let (took, own) = (clone("other"), clone("last"));
    assert!(took < 2 * own + PROMISED, "{took:?} instead of {own:?}");
    let mirror = here.data().join(format!("mirrors/forge-{BLACK_HOLES}/app.git"));
    eventually(HANG, "what is listed of the one that lives is mirrored", || mirror.is_dir());
    gate.stop();
}

#[test]
fn an_approved_push_to_a_silent_upstream_is_put_off_without_a_worker() {
    let (there, here) = (Place::new(), Place::new());
    let live = upstream(&there, &["app".to_owned()]);
    let valve = Valve::new(Some(live.address()));
    let gate = setup(&here).tables(&table(&here, "forge", &valve.url())).start();
    let work = here.client().cloned(&[], &gate.url_as("alice", "forge/app"), &here.work("clone"));
    let tip = work.commit("a", b"a", "a");
    let push = waiting(work.begin(&["push", "origin", "HEAD:refs/heads/next"]));
    valve.set_silent(true);
    pass(VOUCHED);
    approve(&here, 1);
    eventually(HANG, "the forward is put off", || {
        assert!(gate.leaders("push").is_empty(), "a git speaks with nobody");
        assert_eq!(gate.metric("tidegate_workers_busy", &["lane=\"upstream\""]), 0.0);
        gate.log().has("push 1: forwarding -> approved")
    });
    let told = gate.log().lines("push 1: forwarding -> approved");
    assert!(told[0].contains("did not answer in time"), "{told:?}");
    valve.set_silent(false);
    push.finish(HANG).ok();
    assert_eq!(there.client().at(&there.repo("app.git")).oid("next"), tip);
}

#[test]
fn who_waits_for_a_silent_upstream_shares_its_silence_and_may_leave() {
    let (there, here) = (Place::new(), Place::new());
    there.user("bot", "pusher");
    let hole = Valve::new(None);
    let gate = setup(&here).tables(&table(&here, "hole", &hole.url())).start();
    let since = Instant::now();
    let mut asking: Vec<Wire> =
        (0..30).map(|number| begin_to_ask(&gate, &format!("hole/{number}"))).collect();
    eventually(HANG, "all ask", || {
        threads(&gate).iter().filter(|it| it.starts_with("request-")).count() >= 30
    });
    asking.truncate(20);
    eventually(SLACK / 3, "those who leave are not kept, but for the two that ask", || {
        threads(&gate).iter().filter(|it| it.starts_with("request-")).count() <= 22
    });
    for mut wire in asking {
        assert!(wire.answer().status >= 500);
    }
    // One by one in pairs it would have been 15 times that of one.
    assert!(since.elapsed() < 6 * Duration::from_secs(10), "{:?}", since.elapsed());
    // A repository that was not silent itself is asked; one that was, not again at once.
    begin_to_ask(&gate, "hole/again").answer();
    let again = Instant::now();
    begin_to_ask(&gate, "hole/again").answer();
    assert!(again.elapsed() < Duration::from_secs(5), "the silence is remembered: {:?}", again.elapsed());
}
