//! Puts a request's body into a file, so that git gets its whole input at once and a slow client holds no worker.
//!
//! The file has no name: a memfd while it is small, else an unlinked file under the directory for temporary files. It
//! vanishes with its last descriptor, also when this process is killed. A body that came as gzip is inflated on the
//! way, in small steps: both its length on the wire and its inflated length are bounded before a byte is kept.

use crate::http::body::BodyError;
use crate::http::budget::{Budget, Share};
use crate::http::exchange::Exchange;
use crate::http::message::{FieldError, Headers};
use flate2::bufread::GzDecoder;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;

/// Bodies up to this many bytes stay in memory: negotiations and most pushes do.
pub const MEMORY_MAX: u64 = 1 << 20;

/// How many bytes are stored on disk between two looks at its free space: a thousand bodies at once write no more than
/// the usual floor of a GiB between them before they notice.
const LOOK_EVERY: u64 = 1 << 20;

/// Bytes moved per step.
const STEP: usize = 64 << 10;

/// Where bodies are kept, and what all of them together may take.
#[derive(Clone, Debug)]
pub struct Room<'a> {
    /// The directory for temporary files.
    pub tmp: PathBuf,
    /// Bytes of its volume that must stay free.
    pub floor: u64,
    /// How many bytes of the volume of a directory are free.
    pub free: fn(&Path) -> io::Result<u64>,
    /// What bodies of this kind share; `None` when nothing but the disk bounds their sum.
    pub budget: Option<&'a Arc<Budget>>,
}

/// A body in a file.
#[derive(Debug)]
pub struct Spooled {
    /// The body, inflated; the position is at its start.
    pub file: File,
    /// Its length in bytes.
    pub len: u64,
    /// Its length on the wire, before inflation and without the framing of chunks.
    pub wire_len: u64,
    /// What it has of the budget of its kind.
    pub share: Option<Share>,
}

/// Why a body could not be spooled. The request cannot be served; what was kept of it is gone.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// The body did not come whole.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// It is longer on the wire than allowed.
    #[error("the request's body is longer than the {limit} bytes that are allowed on the wire")]
    WireTooLong {
        /// The limit in bytes.
        limit: u64,
    },
    /// It is longer than allowed after inflation.
    #[error("the request's body is longer than the {limit} bytes that are allowed after inflation")]
    TooLong {
        /// The limit in bytes.
        limit: u64,
    },
    /// It is encoded in a way that is not understood.
    #[error("the content encoding {0:?} is not understood: send gzip, or none")]
    Encoding(String),
    /// The field with the encoding is repeated or not text.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// It says that it is gzip and is not, or not exactly one member of it.
    #[error("the request's body is not one gzip member: {0}")]
    Gzip(String),
    /// It is not what the service understands.
    #[error("{0}")]
    Form(String),
    /// Bodies of its kind take all that they may take together.
    #[error("the bodies of other requests take all the space that there is for them")]
    BudgetSpent,
    /// There is no room for it.
    #[error("no room is left for a request's body in {}: free space there", .0.display())]
    DiskFull(PathBuf),
    /// Storing it failed for another reason.
    #[error("cannot store a request's body in {}: {source}", dir.display())]
    Storage {
        /// The directory for temporary files.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SpoolError {
    /// The status of an answer that tells the client.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Body(error) => error.status(),
            Self::WireTooLong { .. } | Self::TooLong { .. } => 413,
            Self::Encoding(_) => 415,
            Self::Field(_) | Self::Gzip(_) | Self::Form(_) => 400,
            Self::BudgetSpent => 503,
            Self::DiskFull(_) => 507,
            Self::Storage { .. } => 500,
        }
    }
}

/// A body that was not spooled, and the start of it where its length is all that was wrong with it.
#[derive(Debug)]
pub struct Unspooled {
    /// What was wrong.
    pub error: SpoolError,
    /// The bytes of a body up to what was too much; the position is at their start.
    pub head: Option<File>,
}

/// Refuses a body whose announced length exceeds `wire_max`, before the client has sent it.
///
/// # Errors
/// [`SpoolError::WireTooLong`].
pub fn check_announced(exchange: &Exchange, wire_max: u64) -> Result<(), SpoolError> {
    match exchange.announced() {
        Some(length) if length > wire_max => Err(SpoolError::WireTooLong { limit: wire_max }),
        Some(_) | None => Ok(()),
    }
}

/// Reads the body of `exchange` to its end into a file, which is on disk when it is not small.
///
/// # Errors
/// See [`SpoolError`]. The bytes that came before a limit (of a full disk: the first MiB of them) are handed back with its error, and the rest waits to be read.
pub fn spool(
    exchange: &mut Exchange,
    room: &Room<'_>,
    wire_max: u64,
    inflated_max: u64,
) -> Result<Spooled, Unspooled> {
    spool_checked(exchange, room, wire_max, inflated_max, read_all)
}

/// As [`spool`], with `check` reading the body while it comes: where it fails, nothing more is read and kept. It must
/// read to the end of a body that it accepts.
///
/// # Errors
/// As [`spool`], and [`SpoolError::Form`] with what `check` says.
pub fn spool_checked(
    exchange: &mut Exchange,
    room: &Room<'_>,
    wire_max: u64,
    inflated_max: u64,
    check: impl FnOnce(&mut dyn Read) -> Result<(), String>,
) -> Result<Spooled, Unspooled> {
    let bare = |error| Unspooled { error, head: None };
    let encoding = Encoding::of(&exchange.request().headers).map_err(bare)?;
    let announced = exchange.announced();
    let large = announced.is_some_and(|len| len.min(inflated_max) > MEMORY_MAX);
    let mut store = Store::new(room, inflated_max, large).map_err(bare)?;
    let mut read = 0;
    let wire =
        Metered { read: |buffer: &mut [u8]| exchange.read_body(buffer), count: &mut read, limit: wire_max };
    let kept = match encoding {
        Encoding::Identity => copy(wire, &mut store, check),
        Encoding::Gzip => inflate(wire, &mut store, check),
    };
    if matches!(kept, Err(SpoolError::DiskFull(_))) {
        store.give_back();
    }
    let finished = store.finish(read).map_err(bare);
    match kept {
        Ok(()) => finished,
        Err(
            error @ (SpoolError::WireTooLong { .. } | SpoolError::TooLong { .. } | SpoolError::DiskFull(_)),
        ) => Err(Unspooled { error, head: finished.ok().map(|spooled| spooled.file) }),
        Err(error) => Err(bare(error)),
    }
}

/// How a body is encoded. The names must be exact: a reader that guesses sees another body than its neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
}

impl Encoding {
    fn of(headers: &Headers) -> Result<Self, SpoolError> {
        match headers.get("content-encoding")? {
            None => Ok(Self::Identity),
            Some("gzip" | "x-gzip") => Ok(Self::Gzip),
            Some(other) => Err(SpoolError::Encoding(other.to_owned())),
        }
    }
}

/// Passes the body through `check` into `store`. What goes wrong on the way ends the check too, and counts more.
fn copy<F>(from: impl Read, store: &mut Store<'_>, check: F) -> Result<(), SpoolError>
where
    F: FnOnce(&mut dyn Read) -> Result<(), String>,
{
    let mut kept = Kept { from, store, fault: None };
    let checked = check(&mut kept);
    match kept.fault {
        Some(fault) => Err(fault),
        None => checked.map_err(SpoolError::Form),
    }
}

/// The check of a body that may be anything.
fn read_all(body: &mut dyn Read) -> Result<(), String> {
    let mut buffer = vec![0; STEP];
    loop {
        match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// A body that is stored as it is read. The reader gets an error of no meaning: the fault itself stays here.
struct Kept<'a, 'b, R> {
    from: R,
    store: &'a mut Store<'b>,
    fault: Option<SpoolError>,
}

impl<R: Read> Kept<'_, '_, R> {
    fn fail(&mut self, fault: SpoolError) -> io::Error {
        self.fault = Some(fault);
        io::Error::other("the body cannot be spooled")
    }
}

impl<R: Read> Read for Kept<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.from.read(buffer) {
            Ok(count) => match self.store.append(&buffer[..count]) {
                Ok(()) => Ok(count),
                Err(fault) => Err(self.fail(fault)),
            },
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => Err(self.fail(of_read(error))),
        }
    }
}

/// One member and nothing behind it: a second one would be read by some and not by others.
fn inflate<F>(from: impl Read, store: &mut Store<'_>, check: F) -> Result<(), SpoolError>
where
    F: FnOnce(&mut dyn Read) -> Result<(), String>,
{
    let mut decoder = GzDecoder::new(BufReader::with_capacity(STEP, from));
    copy(&mut decoder, store, check)?;
    let mut rest = decoder.into_inner();
    match rest.fill_buf() {
        Ok([]) => Ok(()),
        Ok(_) => Err(SpoolError::Gzip("bytes follow it".to_owned())),
        Err(error) => Err(of_read(error)),
    }
}

/// A read fails with an error of ours, or with one of the inflation.
fn of_read(error: io::Error) -> SpoolError {
    match error.downcast::<SpoolError>() {
        Ok(ours) => ours,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            SpoolError::Gzip("it is cut short".to_owned())
        }
        Err(error) => SpoolError::Gzip(error.to_string()),
    }
}

/// A body as a reader, with its limit. Errors of ours travel inside `io::Error` (see [`of_read`]).
struct Metered<'a, R> {
    read: R,
    count: &'a mut u64,
    limit: u64,
}

impl<R: FnMut(&mut [u8]) -> Result<usize, BodyError>> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (self.read)(buffer).map_err(|error| io::Error::other(SpoolError::Body(error)))?;
        *self.count += count as u64;
        match *self.count > self.limit {
            true => Err(io::Error::other(SpoolError::WireTooLong { limit: self.limit })),
            false => Ok(count),
        }
    }
}

/// The file that grows.
struct Store<'a> {
    tmp: &'a Path,
    floor: u64,
    free: fn(&Path) -> io::Result<u64>,
    /// The length on disk at which the free space is looked at again.
    look_at: u64,
    limit: u64,
    file: File,
    len: u64,
    in_memory: bool,
    share: Option<Share>,
}

impl<'a> Store<'a> {
    fn new(room: &'a Room<'_>, limit: u64, large: bool) -> Result<Self, SpoolError> {
        let Room { tmp, floor, free, budget } = room;
        // A kernel may be set to refuse memfds; then the disk has to do.
        let memory = if large { None } else { memfd_create(c"tidegate-body", MFdFlags::MFD_CLOEXEC).ok() };
        let in_memory = memory.is_some();
        let file = match memory {
            Some(fd) => File::from(fd),
            None => tempfile::tempfile_in(tmp).map_err(|error| storage(tmp, error))?,
        };
        let share = budget.map(Share::of);
        Ok(Self {
            tmp,
            floor: *floor,
            free: *free,
            look_at: MEMORY_MAX,
            limit,
            file,
            len: 0,
            in_memory,
            share,
        })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        let len = self.len + bytes.len() as u64;
        if len > self.limit {
            return Err(SpoolError::TooLong { limit: self.limit });
        }
        if self.share.as_mut().is_some_and(|share| !share.reach(len)) {
            return Err(SpoolError::BudgetSpent);
        }
        let is_on_disk = !self.in_memory || len > MEMORY_MAX;
        if is_on_disk && len > self.look_at {
            self.look()?;
            self.look_at = len + LOOK_EVERY;
        }
        if self.in_memory && is_on_disk {
            self.move_to_disk().map_err(|error| storage(self.tmp, error))?;
        }
        self.file.write_all(bytes).map_err(|error| storage(self.tmp, error))?;
        self.len = len;
        Ok(())
    }

    /// Leaves the floor to what runs already: a body that was let in may be larger than what was free then.
    fn look(&self) -> Result<(), SpoolError> {
        let free = (self.free)(self.tmp).map_err(|error| storage(self.tmp, error))?;
        if free < self.floor {
            let tmp = self.tmp.display();
            log::error!("{tmp}: {free} bytes are free, fewer than disk_floor: a request is refused");
            return Err(SpoolError::DiskFull(self.tmp.to_owned()));
        }
        Ok(())
    }

    /// Keeps no more than a refusal needs. A file that cannot be made shorter goes with its descriptor.
    fn give_back(&mut self) {
        if self.len > MEMORY_MAX && self.file.set_len(MEMORY_MAX).is_ok() {
            self.len = MEMORY_MAX;
        }
    }

    fn move_to_disk(&mut self) -> io::Result<()> {
        let mut file = tempfile::tempfile_in(self.tmp)?;
        self.file.rewind()?;
        io::copy(&mut self.file, &mut file)?;
        self.file = file;
        self.in_memory = false;
        Ok(())
    }

    fn finish(mut self, wire_len: u64) -> Result<Spooled, SpoolError> {
        self.file.rewind().map_err(|error| storage(self.tmp, error))?;
        Ok(Spooled { file: self.file, len: self.len, wire_len, share: self.share })
    }
}

fn storage(tmp: &Path, source: io::Error) -> SpoolError {
    let dir = tmp.to_owned();
    if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        return SpoolError::DiskFull(dir);
    }
    SpoolError::Storage { dir, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::cell::Cell;

    const WIRE_MAX: u64 = 4 << 20;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Room without a budget or a floor.
    fn room(tmp: &Path) -> Room<'static> {
        Room { tmp: tmp.to_owned(), floor: 0, free: |_| Ok(0), budget: None }
    }

    /// A body that arrives in pieces of `step` bytes.
    fn pieces(wire: &[u8], step: usize) -> impl FnMut(&mut [u8]) -> Result<usize, BodyError> {
        let mut rest = wire.to_vec();
        move |buffer| {
            let count = rest.len().min(step).min(buffer.len());
            let piece: Vec<u8> = rest.drain(..count).collect();
            buffer[..count].copy_from_slice(&piece);
            Ok(count)
        }
    }

    fn keep(wire: &[u8], step: usize, limit: u64, encoding: Encoding) -> Result<(Vec<u8>, bool), SpoolError> {
        let tmp = tempfile::tempdir().unwrap();
        let room = room(tmp.path());
        let mut store = Store::new(&room, limit, false)?;
        let mut count = 0;
        let from = Metered { read: pieces(wire, step), count: &mut count, limit: WIRE_MAX };
        match encoding {
            Encoding::Identity => copy(from, &mut store, read_all)?,
            Encoding::Gzip => inflate(from, &mut store, read_all)?,
        }
        assert_eq!(count, wire.len() as u64);
        let in_memory = store.in_memory;
        let Spooled { mut file, len, .. } = store.finish(count)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(len, bytes.len() as u64);
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0, "the file has no name");
        Ok((bytes, in_memory))
    }

    fn gunzip(wire: &[u8]) -> Result<Vec<u8>, SpoolError> {
        keep(wire, STEP, WIRE_MAX, Encoding::Gzip).map(|(bytes, _)| bytes)
    }

    #[test]
    fn a_small_body_stays_in_memory_and_a_large_one_moves_to_the_disk_whole() {
        let large: Vec<u8> = (0..3 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
        let (kept, in_memory) = keep(&large, 10_000, WIRE_MAX, Encoding::Identity).unwrap();
        assert!(kept == large && !in_memory);
        let (kept, in_memory) = keep(&large[..1 << 20], STEP, WIRE_MAX, Encoding::Identity).unwrap();
        assert!(kept == large[..1 << 20] && in_memory);
    }

    #[test]
    fn exactly_one_gzip_member_is_taken() {
        let one = gzip(b"hello");
        assert_eq!(gunzip(&one).unwrap(), b"hello");
        let is_bad = |wire: &[u8]| matches!(gunzip(wire), Err(SpoolError::Gzip(_)));
        assert!(is_bad(&[one.clone(), one.clone()].concat()), "two members");
        assert!(is_bad(&[one.as_slice(), b"x"].concat()), "rubbish behind it");
        assert!(is_bad(b""), "nothing");
        assert!(is_bad(b"hello"), "not gzip");
        for end in 1..one.len() {
            assert!(is_bad(&one[..end]), "cut at {end}");
        }
        let mut corrupt = one.clone();
        let at = corrupt.len() - 5;
        corrupt[at] ^= 1;
        assert!(is_bad(&corrupt), "a wrong checksum");
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit_and_not_after_it() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000);
        let kept = keep(&bomb, STEP, 2 << 20, Encoding::Gzip);
        assert!(matches!(kept, Err(SpoolError::TooLong { limit }) if limit == 2 << 20));
    }

    #[test]
    fn the_wire_has_a_limit_of_its_own() {
        let mut endless = |buffer: &mut [u8]| {
            buffer.fill(0);
            Ok(buffer.len())
        };
        let tmp = tempfile::tempdir().unwrap();
        let room = room(tmp.path());
        let mut store = Store::new(&room, u64::MAX, false).unwrap();
        let mut count = 0;
        let from = Metered { read: &mut endless, count: &mut count, limit: 100_000 };
        assert!(matches!(copy(from, &mut store, read_all), Err(SpoolError::WireTooLong { limit: 100_000 })));
    }

    #[test]
    fn a_check_that_fails_ends_the_body_there() {
        let tmp = tempfile::tempdir().unwrap();
        let room = room(tmp.path());
        let mut store = Store::new(&room, WIRE_MAX, false).unwrap();
        let of_four = |body: &mut dyn Read| {
            body.read_exact(&mut [0; 4]).unwrap();
            Err("no".to_owned())
        };
        let refused = inflate(&gzip(&[0; 1000])[..], &mut store, of_four).unwrap_err();
        assert_eq!((refused.status(), refused.to_string()), (400, "no".to_owned()));
        assert_eq!(store.len, 4);
        let cut = inflate(&gzip(b"hello")[..12], &mut store, read_all).unwrap_err();
        assert!(matches!(cut, SpoolError::Gzip(_)), "a fault of the body counts more than its check: {cut}");
    }

    #[test]
    fn a_disk_that_fills_while_a_body_comes_ends_it_at_the_floor() {
        thread_local!(static FREE: Cell<u64> = const { Cell::new(12 << 20) });
        let free = |_: &Path| Ok(FREE.replace(FREE.get() - (1 << 20)));
        let tmp = tempfile::tempdir().unwrap();
        let room = Room { floor: 10 << 20, free, ..room(tmp.path()) };
        let mut small = Store::new(&room, u64::MAX, false).unwrap();
        copy(&[0; 1 << 20][..], &mut small, read_all).expect("memory is not the disk");
        let mut store = Store::new(&room, u64::MAX, true).unwrap();
        let full = copy(io::repeat(0), &mut store, read_all).unwrap_err();
        assert!(matches!(&full, SpoolError::DiskFull(dir) if dir == tmp.path()), "{full}");
        assert!((4 << 20..5 << 20).contains(&store.len), "looked at after each MiB: {}", store.len);
        store.give_back();
        assert_eq!(store.finish(0).unwrap().file.metadata().unwrap().len(), MEMORY_MAX);
    }

    #[test]
    fn bodies_take_no_more_than_their_budget_together_and_give_it_back() {
        let tmp = tempfile::tempdir().unwrap();
        let budget = Budget::new(3 << 20);
        let room = Room { budget: Some(&budget), ..room(tmp.path()) };
        let bomb = gzip(&vec![0; 2 << 20]);
        let keep = || {
            let mut store = Store::new(&room, WIRE_MAX, false)?;
            inflate(&bomb[..], &mut store, read_all)?;
            store.finish(0)
        };
        let first = keep().unwrap();
        let refused = keep().unwrap_err();
        assert!(matches!(refused, SpoolError::BudgetSpent), "{refused}");
        let mut rest = Share::of(&budget);
        assert!(rest.reach(1 << 20), "what was refused holds nothing");
        copy(&[0; 64 << 10][..], &mut Store::new(&room, WIRE_MAX, false).unwrap(), read_all)
            .expect("an ordinary negotiation goes on");
        drop(first);
        keep().expect("there is room again");
    }

    #[test]
    fn only_the_exact_names_of_gzip_are_understood() {
        let of = |value: &str| Encoding::of(&Headers::from_iter([("Content-Encoding", value)]));
        assert!(matches!(of("gzip"), Ok(Encoding::Gzip)) && matches!(of("x-gzip"), Ok(Encoding::Gzip)));
        for other in ["GZIP", "gzip, gzip", "deflate", "br", "identity", "", "gzip;q=1"] {
            assert!(matches!(of(other), Err(SpoolError::Encoding(_))), "{other}");
        }
        assert!(matches!(Encoding::of(&Headers::new()), Ok(Encoding::Identity)));
    }

    #[test]
    fn a_full_disk_is_told_apart_from_other_trouble() {
        let full = storage(Path::new("/tmp"), io::Error::from_raw_os_error(nix::libc::ENOSPC));
        assert_eq!((full.status(), matches!(full, SpoolError::DiskFull(_))), (507, true));
        assert_eq!(storage(Path::new("/tmp"), io::Error::from_raw_os_error(nix::libc::EIO)).status(), 500);
        assert!(matches!(
            Store::new(&room(Path::new("/nowhere/at/all")), 1, true),
            Err(SpoolError::Storage { .. })
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_compressed_comes_out_however_it_arrives(
            body in proptest::collection::vec(any::<u8>(), 0..20_000), step in 1_usize..5_000
        ) {
            prop_assert_eq!(&keep(&gzip(&body), step, WIRE_MAX, Encoding::Gzip).unwrap().0, &body);
            prop_assert_eq!(&keep(&body, step, WIRE_MAX, Encoding::Identity).unwrap().0, &body);
        }

        #[test]
        fn no_input_makes_the_inflation_panic(wire in proptest::collection::vec(any::<u8>(), 0..500)) {
            let _ = gunzip(&[&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], wire.as_slice()].concat());
        }
    }
}
