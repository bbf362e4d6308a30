//! Work that waits for an upstream and not for a client: who does it, told what.

use crate::support::{LONG, Site, gits, reaper};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use tidegate::git::pool::{Class, Kind, Lane, Size};
use tidegate::mirror::{Approach, Question, Side};
use tidegate::model::route::Route;
use tidegate::model::upstream::UpstreamUrl;

/// What came of a job: the name of its thread, and what it was told.
type Told = (String, Result<usize, String>);

struct Way {
    approach: Approach,
    sender: Sender<Told>,
    told: Receiver<Told>,
}

fn lane(kind: Kind) -> Lane {
    Lane::start(kind, Size { workers: 1, queue: 1 }).unwrap().0
}

impl Way {
    fn to(site: &Site) -> Self {
        let (sender, told) = channel();
        let approach = Approach {
            mirrors: site.mirrors.clone(),
            git: site.git.clone(),
            reaper: reaper().clone(),
            grace: Duration::from_secs(1),
            probes: lane(Kind::Probe),
            lane: lane(Kind::Upstream),
        };
        Self { approach, sender, told }
    }

    fn send(&self, url: &str) {
        let url = UpstreamUrl::parse(url).unwrap();
        let (path, route) = ("team/app".to_owned(), Route::default());
        let question = Question { url, path, side: Side::Fetch, route, credential: None };
        let sender = self.sender.clone();
        self.approach.send(question, Class::Schedule, move |answer| {
            let thread = std::thread::current().name().unwrap().to_owned();
            let told = answer.map(|seen| seen.refs.len()).map_err(|error| error.to_string());
            sender.send((thread, told)).unwrap();
        });
    }

    fn told(&self) -> Told {
        self.told.recv_timeout(LONG).unwrap()
    }
}

#[track_caller]
fn assert_told(told: Told, thread: &str, words: &str) {
    assert!(told.0 == thread && format!("{:?}", told.1).contains(words), "{told:?}, not {thread} {words}");
}

#[test]
fn a_worker_has_what_the_upstream_said_and_no_worker_is_told_of_silence() {
    let site = Site::new(&gits()[0]);
    let way = Way::to(&site);
    way.send(&site.server.open());
    assert_told(way.told(), "upstream-1", "Ok(3)");
    way.send(&format!("{}", site.path("srv").display()));
    assert_told(way.told(), "upstream-1", "Ok(3)");
    way.send(&site.server.at("401"));
    assert_told(way.told(), "upstream-1", "wants a credential");
    way.send("http://127.0.0.1:1");
    assert_told(way.told(), "probe-1", "cannot be reached");
}

#[test]
fn every_job_runs_once_though_nobody_is_free_for_it() {
    let site = Site::new(&gits()[0]);
    let way = Way::to(&site);
    let (hold, held) = channel::<()>();
    let occupied = way.approach.lane.submit(move || held.recv()).unwrap();
    // One waits in the queue of one, and there is no room for another.
    for _ in 0..2 {
        way.send(&site.server.open());
    }
    assert_told(way.told(), "probe-1", "the queue is full");
    drop(hold);
    assert_told(way.told(), "upstream-1", "Ok(3)");
    drop(occupied);

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    way.send(&url);
    let (_connection, _) = silent.accept().unwrap();
    for number in 1..=3 {
        way.send(&format!("{url}/{number}"));
    }
    let here = std::thread::current().name().unwrap().to_owned();
    assert_told(way.told(), &here, "the queue is full");
}
