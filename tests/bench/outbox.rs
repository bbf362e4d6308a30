//! Pushes through a gate that has much to tell to a slow receiver, against pushes through one that tells nobody.
//!
//! Both gates are ours, before the opponent as their upstream, each with a repository of its own there.

use crate::client::Pusher;
use crate::repository::{self, NAME, ask};
use crate::server::{Contender, Server};
use crate::table::Wanted;
use crate::{Bench, Result, measure};
use rusqlite::Connection;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// The repositories at the upstream: of the gate that tells, and of the other.
const TOLD: [&str; 2] = ["told.git", "untold.git"];

/// Events that wait when the pushes begin. The receiver takes some of them meanwhile, and more come.
const WAITING: u32 = 10_000;

/// How long the receiver takes for each.
const SLOWNESS: Duration = Duration::from_millis(100);

/// Rows of the outbox as a gate makes them, all for the webhook.
const FILL: &str = "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?1) \
    INSERT INTO outbox (sink, repo, event, delivery, made, body) \
    SELECT 'slow', 'https://forge.example/app', 'mirror.synced', lower(hex(randomblob(16))), \
           unixepoch() * 1000, json_object('event', 'mirror.synced', 'filling', hex(zeroblob(200))) FROM number";

/// The row about them.
pub(crate) fn rows(bench: &Bench) -> Result<()> {
    let upstream = bench.theirs.start()?;
    for name in TOLD {
        repository::install(&bench.root.join(NAME), &bench.root, name)?;
    }
    let pusher = Pusher::prepare(&bench.client, &bench.root.join(NAME))?;
    let silent = gate(bench, &upstream, "", TOLD[1])?;
    let telling = gate(bench, &upstream, &webhook(bench)?, TOLD[0])?;
    let database = Connection::open(telling.data_dir().join("tidegate.db"))?;
    database.busy_timeout(Duration::from_secs(30))?;
    database.execute(FILL, [WAITING])?;
    let sample = |is_telling: bool| {
        let (server, name) = if is_telling { (&telling, TOLD[0]) } else { (&silent, TOLD[1]) };
        let updates = pusher.commit(1)?;
        measure(server, |server| pusher.push(&server.url_of(name), &updates))
    };
    sample(true)?;
    sample(false)?;
    bench.row(&format!("push, {WAITING} events wait"), Wanted::Wall(1.5), sample)?.print();
    let left: u32 = database.query_row("SELECT count(*) FROM outbox", (), |row| row.get(0))?;
    println!(
        "  of two gates: A tells a receiver that takes 10 events a second, and {left} still wait; B tells nobody"
    );
    Ok(())
}

/// A gate that has a mirror of `repository`.
fn gate(bench: &Bench, upstream: &Server, tables: &str, repository: &str) -> Result<Server> {
    let keys = format!("gate.approval = \"auto\"\n{tables}");
    let gate = Contender::gate(&bench.binary, upstream.address, keys).start()?;
    ask(&bench.root, &["ls-remote", "-q", &gate.url_of(repository)])?;
    Ok(gate)
}

/// The table of a webhook to a receiver that is slow, and there as long as the benchmark.
fn webhook(bench: &Bench) -> Result<String> {
    let secret = bench.root.with_file_name("secret");
    fs::write(&secret, "a secret of the benchmark")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || listener.incoming().flatten().for_each(take_slowly));
    Ok(format!(
        "[[webhook]]\nname = \"slow\"\nurl = \"http://{address}/\"\nsecret_file = {secret:?}\nallow_private = true\n"
    ))
}

/// Takes one event after the other, each as one piece of what a connection brings: they are smaller than a packet.
fn take_slowly(mut stream: TcpStream) {
    let mut event = [0; 64 << 10];
    while stream.read(&mut event).is_ok_and(|length| length > 0) {
        thread::sleep(SLOWNESS);
        if stream.write_all(b"HTTP/1.1 204 Taken\r\n\r\n").is_err() {
            return;
        }
    }
}
