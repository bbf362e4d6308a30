//! The two requests before every fetch of version 2, over and over on connections that stay.
//!
//! Each side is asked as often as it takes to measure it, and what is printed is of one request. A third side writes the
//! same bytes without a look at what is asked: nothing can be faster here, and what it costs is the kernel's and the
//! client's part.

use crate::keepalive::{answer, ask};
use crate::repository::{self, NAME};
use crate::server::{Contender, Server};
use crate::table::{Row, Sample, Wanted};
use crate::{Bench, Result, measure};
use std::fs;
use std::time::Duration;

/// Connections at a time.
const CONNECTIONS: usize = 8;

/// Requests of a sample on each of them, of the quick sides and of the other.
const QUICK: usize = 1500;
const SLOW: usize = 20;

/// Unmeasured ones before.
const WARM_UP: usize = 3;

/// The repository of many refs.
const MANY: &str = "many-refs.git";

/// How many refs it has.
const REFS: usize = 8000;

/// After this long a server trusts what it has read of a configuration.
const SETTLED: Duration = Duration::from_secs(3);

/// The rows of small requests.
pub(crate) fn rows(bench: &Bench) -> Result<()> {
    let info_refs = get(NAME);
    rows_of(bench, "GET info/refs, v2, kept alive", &info_refs, Wanted::Fast { cpu: 30.0, rate: 20.0 })?;
    if !bench.root.join(MANY).exists() {
        repository::install(&bench.root.join(NAME), &bench.root, MANY)?;
        repository::add_refs(&bench.root.join(MANY), REFS)?;
    }
    let ls_refs = post(MANY);
    rows_of(bench, "POST ls-refs of 8000 refs, kept alive", &ls_refs, Wanted::Fast { cpu: 20.0, rate: 15.0 })
}

fn rows_of(bench: &Bench, name: &str, request: &str, wanted: Wanted) -> Result<()> {
    std::thread::sleep(SETTLED);
    let (ours, theirs) = (bench.ours.start()?, bench.theirs.start()?);
    for server in [&ours, &theirs] {
        ask(server.address, request, 1, WARM_UP)?;
    }
    let bytes = bench.root.with_file_name("answer");
    fs::write(&bytes, answer(ours.address, request)?)?;
    let bare = Contender::bare(&bytes).start()?;
    let sample = |server: &Server, count: usize| -> Result<Sample> {
        let whole = measure(server, |server| ask(server.address, request, CONNECTIONS, count))?;
        let requests = u32::try_from(CONNECTIONS * count)?;
        Ok(Sample { wall: whole.wall / requests, cpu: whole.cpu.map(|cpu| cpu / requests) })
    };
    let row = |name: &str, wanted, other: &Server, count: usize| -> Result<()> {
        let row: Row<'_> = bench
            .row(name, wanted, |is_ours| if is_ours { sample(&ours, QUICK) } else { sample(other, count) })?;
        row.print();
        Ok(())
    };
    row(name, wanted, &theirs, SLOW)?;
    row("  the same, B = a bare loop", Wanted::Rate(0.8), &bare, QUICK)
}

fn get(repository: &str) -> String {
    format!(
        "GET /{repository}/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: speed\r\n\
         Git-Protocol: version=2\r\n\r\n"
    )
}

fn post(repository: &str) -> String {
    let arguments =
        ["peel", "symrefs", "unborn", "ref-prefix refs/heads/", "ref-prefix refs/tags/", "ref-prefix HEAD"];
    let packet = |line: &str| format!("{:04x}{line}\n", line.len() + 5);
    let capabilities = [packet("command=ls-refs"), packet("object-format=sha1")].concat();
    let body = format!("{capabilities}0001{}0000", arguments.map(packet).concat());
    format!(
        "POST /{repository}/git-upload-pack HTTP/1.1\r\nHost: speed\r\nGit-Protocol: version=2\r\n\
         Content-Type: application/x-git-upload-pack-request\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
