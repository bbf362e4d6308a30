//! Listeners against a far side that the test itself plays, byte by byte.

mod ending;
mod far;

use super::*;
use crate::model::fleet::{Incarnation, RepoKey};
use crate::model::upstream::UpstreamUrl;
use crossbeam::channel::{Receiver, Sender, unbounded};
use far::{Far, HANG, Talk};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What an ear is told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Version(Version),
    Missed,
}

/// Passes on what it is told; panics of the versions of `broken`.
struct Recorder(Sender<Told>);

impl Ear for Recorder {
    fn own(&self) -> &Incarnation {
        static OWN: LazyLock<Incarnation> = LazyLock::new(|| Incarnation::parse(&"0f".repeat(16)).unwrap());
        &OWN
    }

    fn hear(&self, _: &PeerSettings, version: &Version) {
        assert_ne!(version.repo.as_str(), "https://forge/broken", "on purpose");
        self.0.send(Told::Version(version.clone())).unwrap();
    }

    fn missed(&self) {
        self.0.send(Told::Missed).unwrap();
    }
}

/// Listeners, and what they hear.
struct Scene {
    peers: Peers,
    told: Receiver<Told>,
    home: TempDir,
}

impl Scene {
    fn new(timing: Timing) -> Scene {
        let (sender, told) = unbounded();
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "s3cret\n").unwrap();
        Scene { peers: Peers::new(Arc::new(Recorder(sender)), timing).unwrap(), told, home }
    }

    fn peer(&self, name: &str, at: SocketAddr) -> PeerSettings {
        let UpstreamUrl::Http(url) = UpstreamUrl::parse(&format!("http://{at}")).unwrap() else { panic!() };
        let (name, token_file) = (PeerName::parse(name).unwrap(), self.home.path().join("token"));
        PeerSettings { name, url, token_file, ca_file: None }
    }

    #[track_caller]
    fn hears(&self) -> Told {
        self.told.recv_timeout(HANG).expect("nothing is heard")
    }

    /// Waits until anything may have been missed, which is said in time while there are signs of life.
    #[track_caller]
    fn doubts(&self, talk: &mut Talk) {
        far::eventually("everything is doubted", || {
            talk.say(": alive\n\n");
            self.told.try_recv() == Ok(Told::Missed)
        });
    }

    fn view(&self, name: &str) -> PeerView {
        self.peers.views().into_iter().find(|view| view.name == name).unwrap()
    }

    #[track_caller]
    fn await_state(&self, name: &str, state: PeerState) -> PeerView {
        far::eventually(&format!("{name} is {state:?}"), || self.view(name).state == state.as_str());
        self.view(name)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.peers.close();
        self.peers.join();
    }
}

/// With pauses that nobody notices.
const QUICK: Timing = Timing {
    idle: Duration::from_secs(600),
    pause: Duration::from_millis(2),
    pause_max: Duration::from_millis(20),
    lasting: Duration::from_secs(600),
    settled: Duration::from_secs(600),
};

/// With pauses that nobody lives to see the end of.
const PATIENT: Timing =
    Timing { pause: Duration::from_secs(600), pause_max: Duration::from_secs(600), ..QUICK };

fn incarnation() -> String {
    "0a".repeat(16)
}

/// How the gate of that name greets.
fn hello(incarnation: &str) -> String {
    format!("event: hello\ndata: {{\"incarnation\":\"{incarnation}\"}}\n\n")
}

/// As a gate writes it.
fn event(number: u64, repo: &str, seq: u64) -> String {
    let by = incarnation();
    let body = format!(
        "{{\"id\":\"{by}-{number}\",\"event\":\"repo.version\",\"at\":\"2026-01-01T00:00:00.000Z\",\"node\":\"n\",\
         \"incarnation\":\"{by}\",\"repo\":\"{repo}\",\"name\":\"forge/app\",\"seq\":{seq},\"digest\":null,\"later\":1}}"
    );
    format!("event: repo.version\nid: {by}-{number}\ndata: {body}\n\n")
}

fn version(repo: &str, seq: u64) -> Told {
    let (repo, incarnation) = (RepoKey::parse(repo).unwrap(), Incarnation::parse(&incarnation()).unwrap());
    Told::Version(Version { repo, incarnation, seq, digest: None, is_removed: false })
}

const APP: &str = "https://forge/app";

/// Threads of this process that are called so.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let comm = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    tasks.filter_map(comm).filter(|comm| comm.trim_end().starts_with(name)).count()
}

#[test]
fn what_a_peer_tells_is_passed_on_and_goes_on_where_it_broke_off() {
    let (scene, far) = (Scene::new(QUICK), Far::new());
    scene.peers.follow(&[scene.peer("resume", far.address())]);
    let mut talk = far.accept();
    assert!(talk.head.starts_with("GET /-/events?events=repo.* HTTP/1.1\r\n"), "{}", talk.head);
    assert_eq!(talk.field("authorization"), Some("Bearer s3cret"));
    assert_eq!((talk.field("accept"), talk.field("last-event-id")), (Some("text/event-stream"), None));
    talk.stream();
    assert_eq!(scene.hears(), Told::Missed, "nobody knows what was before");
    talk.say(": alive\n\n");
    talk.say(&hello(&incarnation()));
    talk.say(&event(7, APP, 3));
    assert_eq!(scene.hears(), version(APP, 3));
    let view = scene.await_state("resume", PeerState::Listening);
    assert!(view.connected.is_some() && view.error.is_none());
    talk.say(&event(8, APP, 0));
    talk.say(&event(8, APP, 1 << 53));
    // What is no news about a repository, or none of this version's, is passed over.
    let other = format!("id: {}-9\ndata: {{}}\n\n", incarnation());
    talk.say(&format!("event: push.received\n{other}event: novelty\n{other}event: repo.version\n{other}"));
    talk.say(&format!("event: repo.removed{}", &event(10, APP, 4)["event: repo.version".len()..]));
    let Told::Version(removed) = scene.hears() else { panic!() };
    assert!(removed.is_removed && removed.seq == 4);
    drop(talk);
    let mut talk = far.accept();
    let last = format!("{}-10", incarnation());
    assert_eq!(talk.field("last-event-id"), Some(last.as_str()));
    assert_eq!(scene.view("resume").last_event_id, Some(last));
    talk.greet();
    talk.say(&event(11, APP, 5));
    assert_eq!(scene.hears(), version(APP, 5), "nothing was missed");
    talk.say("event: reset\ndata: {}\n\n");
    scene.doubts(&mut talk);
}

#[test]
fn thirty_one_clean_ends_and_it_still_listens() {
    let (scene, far) = (Scene::new(QUICK), Far::new());
    scene.peers.follow(&[scene.peer("again", far.address())]);
    for _ in 0..31 {
        let mut talk = far.accept();
        talk.greet();
        talk.end();
    }
    let mut talk = far.accept();
    talk.greet();
    talk.say(&event(1, APP, 1));
    far::eventually("it is heard", || scene.hears() == version(APP, 1));
}

#[test]
fn a_peer_that_greets_and_closes_is_asked_less_and_less_often() {
    let pause = Duration::from_millis(40);
    let timing = Timing { pause, pause_max: Duration::from_millis(160), ..QUICK };
    let (scene, far) = (Scene::new(timing), Far::new());
    scene.peers.follow(&[scene.peer("closing", far.address())]);
    let mut talk = far.accept();
    talk.greet();
    let mut before = Instant::now();
    talk.end();
    for least in [20, 40, 80, 80, 80] {
        let mut talk = far.accept();
        let passed = before.elapsed();
        assert!(passed >= Duration::from_millis(least), "asked again after {passed:?}, at least {least} ms");
        talk.greet();
        before = Instant::now();
        talk.end();
    }
    far::eventually("the last end is noted", || scene.view("closing").retries == 6);
    let view = scene.view("closing");
    assert_eq!(view.error.as_deref(), Some("it has ended the stream"));
    assert_eq!(view.connected, None);
}

#[test]
fn a_peer_that_says_again_and_again_that_much_was_missed_is_heeded_less_and_less_often_and_not_forgotten() {
    let (scene, far) = (Scene::new(PATIENT), Far::new());
    scene.peers.follow(&[scene.peer("resetting", far.address())]);
    let mut talk = far.accept();
    talk.greet();
    for _ in 0..100 {
        talk.say("event: reset\ndata: {}\n\n");
    }
    talk.say(&event(1, APP, 1));
    assert_eq!([scene.hears(), scene.hears()], [Told::Missed, version(APP, 1)]);
    scene.peers.follow(&[]);
    assert_eq!(scene.hears(), Told::Missed, "what was put off");
}

#[test]
fn a_no_is_final_until_the_settings_are_read_again() {
    let (scene, far) = (Scene::new(QUICK), Far::new());
    let peer = scene.peer("refused", far.address());
    scene.peers.follow(std::slice::from_ref(&peer));
    far.accept().answer("401 Unauthorized\r\nContent-Length: 0");
    let view = scene.await_state("refused", PeerState::Refused);
    assert_eq!(view.error.as_deref(), Some("it answers 401: it does not know the token in token_file"));
    far::eventually("the thread ends", || threads("peer-refused") == 0);
    std::fs::write(scene.home.path().join("token"), "another\n").unwrap();
    scene.peers.follow(std::slice::from_ref(&peer));
    let mut talk = far.accept();
    assert_eq!(talk.field("authorization"), Some("Bearer another"));
    talk.greet();
    scene.await_state("refused", PeerState::Listening);
    // One that listens goes on as it is.
    scene.peers.follow(&[peer]);
    talk.say(&event(1, APP, 1));
    assert_eq!([scene.hears(), scene.hears()], [Told::Missed, version(APP, 1)]);
}

#[test]
fn a_listener_that_waits_asks_at_once_when_the_settings_are_read_again_and_goes_on_where_it_was() {
    let (scene, far) = (Scene::new(PATIENT), Far::new());
    let peer = scene.peer("hurried", far.address());
    scene.peers.follow(std::slice::from_ref(&peer));
    let mut talk = far.accept();
    talk.greet();
    talk.say(&event(7, APP, 3));
    assert_eq!([scene.hears(), scene.hears()], [Told::Missed, version(APP, 3)]);
    talk.end();
    scene.await_state("hurried", PeerState::Waiting);
    scene.peers.follow(std::slice::from_ref(&peer));
    let mut talk = far.accept();
    assert_eq!(talk.field("last-event-id"), Some(format!("{}-7", incarnation()).as_str()));
    talk.greet();
    talk.say(&event(8, APP, 4));
    assert_eq!(scene.hears(), version(APP, 4), "nothing was missed");
}

#[test]
fn what_may_pass_is_tried_again() {
    let (scene, far) = (Scene::new(QUICK), Far::new());
    scene.peers.follow(&[scene.peer("passing", far.address())]);
    let elsewhere = Far::new();
    let redirect = format!("307 x\r\nLocation: http://{}/-/events\r\nContent-Length: 0", elsewhere.address());
    let answers = [
        ("503 Service Unavailable\r\nContent-Length: 0", "it answers 503"),
        ("429 Too Many\r\nRetry-After: 0\r\nContent-Length: 0", "it answers 429"),
        (
            "200 OK\r\nContent-Type: text/html\r\nContent-Length: 0",
            "it answers with \"text/html\" and not with events",
        ),
        (redirect.as_str(), "it answers 307: redirects are not followed"),
        ("no HTTP", "it does not answer in HTTP"),
    ];
    for (answer, why) in answers {
        far.accept().answer(answer);
        far::eventually(why, || scene.view("passing").error.is_some_and(|error| error.starts_with(why)));
    }
    let mut talk = far.accept();
    talk.stream();
    scene.await_state("passing", PeerState::Listening);
    assert!(elsewhere.is_unvisited());
}

#[test]
fn what_is_no_stream_of_events_ends_it_and_is_not_asked_for_again() {
    let (scene, far) = (Scene::new(QUICK), Far::new());
    scene.peers.follow(&[scene.peer("garbled", far.address())]);
    let mut talk = far.accept();
    talk.greet();
    talk.say(&event(1, APP, 1));
    assert_eq!([scene.hears(), scene.hears()], [Told::Missed, version(APP, 1)]);
    talk.say(&"x".repeat(stream::LINE_MAX + 1));
    let mut talk = far.accept();
    assert_eq!(talk.field("last-event-id"), None);
    let error = scene.view("garbled").error.unwrap();
    assert!(error.starts_with("a line of its events has more than 65536 bytes"), "{error}");
    talk.stream();
    scene.doubts(&mut talk);
}

#[test]
fn a_peer_is_believed_of_what_it_did_itself_and_nothing_before_it_says_who_it_is() {
    let (scene, far) = (Scene::new(QUICK), Far::new());
    scene.peers.follow(&[scene.peer("liar", far.address())]);
    let mut talk = far.accept();
    talk.stream();
    talk.say(&event(1, APP, 1));
    talk.say(&hello(&"0b".repeat(16)));
    talk.say(&event(2, APP, 2));
    let own = event(3, APP, 3).replace(&incarnation(), &"0b".repeat(16));
    talk.say(&own);
    assert_eq!(scene.hears(), Told::Missed);
    let Told::Version(heard) = scene.hears() else { panic!() };
    assert_eq!((heard.incarnation.as_str(), heard.seq), ("0b".repeat(16).as_str(), 3));
    talk.say("event: hello\ndata: {}\n\n");
    talk.await_end();
    far::eventually("it is told", || {
        scene.view("liar").error.is_some_and(|why| why.contains("which gate it is"))
    });
}

#[test]
fn of_two_that_go_by_one_name_and_of_one_that_goes_by_ours_nothing_is_heard() {
    let (scene, far, twin, mirror) = (Scene::new(QUICK), Far::new(), Far::new(), Far::new());
    let peers = [("first", &far), ("twin", &twin), ("mirror", &mirror)];
    let peers = peers.map(|(name, far)| scene.peer(name, far.address()));
    scene.peers.follow(&peers[..1]);
    let mut first = far.accept();
    first.greet();
    first.say(&event(1, APP, 1));
    assert_eq!([scene.hears(), scene.hears()], [Told::Missed, version(APP, 1)]);
    scene.peers.follow(&peers);
    for (name, far, words) in [
        ("twin", &twin, "it goes by the name of peer first in the fleet"),
        ("mirror", &mirror, "it goes by this gate's own name in the fleet"),
    ] {
        for _ in 0..2 {
            let mut talk = far.accept();
            talk.stream();
            let by = if name == "twin" { incarnation() } else { "0f".repeat(16) };
            talk.say(&format!("{}{}", hello(&by), event(9, APP, 1 << 50).replace(&incarnation(), &by)));
            talk.await_end();
            far::eventually(words, || scene.view(name).error.is_some_and(|why| why.starts_with(words)));
        }
        assert!(scene.view(name).retries > 0, "it is asked less and less often");
    }
    first.say(&event(2, APP, 2));
    let heard = (0..).map(|_| scene.hears()).find(|told| *told != Told::Missed);
    assert_eq!(heard, Some(version(APP, 2)));
    // When the first has left, the other is believed.
    scene.peers.follow(&peers[1..]);
    first.await_end();
    let mut talk = twin.accept();
    talk.greet();
    talk.say(&event(3, APP, 3));
    far::eventually("it is heard", || scene.hears() == version(APP, 3));
}

#[test]
fn a_defect_costs_a_connection_and_the_third_in_a_row_parks_the_listener() {
    let (scene, far, other) = (Scene::new(QUICK), Far::new(), Far::new());
    let peers = [scene.peer("defect", far.address()), scene.peer("sound", other.address())];
    scene.peers.follow(&peers);
    let mut sound = other.accept();
    sound.stream();
    let other_name = "0b".repeat(16);
    sound.say(&hello(&other_name));
    for _ in 0..3 {
        let mut talk = far.accept();
        talk.greet();
        talk.say(&event(1, "https://forge/broken", 1));
        talk.await_end();
    }
    let view = scene.await_state("defect", PeerState::Parked);
    assert!(view.error.unwrap().starts_with("listening to it failed within this gate"));
    far::eventually("the thread ends", || threads("peer-defect") == 0);
    assert_eq!((scene.peers.count(PeerState::Parked), scene.peers.count(PeerState::Listening)), (1, 1));
    scene.peers.follow(&peers);
    let mut talk = far.accept();
    talk.stream();
    scene.await_state("defect", PeerState::Listening);
    sound.say(&event(1, APP, 1).replace(&incarnation(), &other_name));
    let is_of_other = |told| matches!(told, Told::Version(heard) if heard.incarnation.as_str() == other_name);
    far::eventually("the other one hears", || is_of_other(scene.hears()));
}

#[test]
fn a_token_that_cannot_be_read_is_waited_for() {
    let (scene, far) = (Scene::new(QUICK), Far::new());
    let token = scene.home.path().join("token");
    std::fs::remove_file(&token).unwrap();
    scene.peers.follow(&[scene.peer("token", far.address())]);
    let view = scene.await_state("token", PeerState::Waiting);
    assert!(view.error.unwrap().starts_with("reading the token_file /"));
    assert!(far.is_unvisited());
    let beside = Path::new(&token).with_extension("new");
    std::fs::write(&beside, "late\n").unwrap();
    std::fs::rename(&beside, &token).unwrap();
    assert_eq!(far.accept().field("authorization"), Some("Bearer late"));
}
