//! Which file the database is, so that a copy of a data directory is told from the directory itself.
//!
//! A copy has the name of a publisher who may live, and so has what was restored from a backup: what it tells has numbers that
//! others know already. Its next start takes a new name. A file is known by the time of its birth, which no program can set,
//! and by the machine. Its number (inode) is not looked at, since some file systems make that up at each mount; and what a
//! file system or a container does not say is not compared. Where the file is the same and what it holds is older, as in a
//! snapshot that was rolled back, nothing is found here.

use super::key::{Key, hex};
use super::{StoreError, begin};
use crate::model::fleet::{Incarnation, SEQ_MAX};
use crate::sys::{machine, random};
use rusqlite::{Connection, Transaction};
use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Home {
    /// When the file was made, in nanoseconds since 1970.
    born: Option<i64>,
    /// A keyed hash of the machine's identity.
    machine: Option<[u8; 32]>,
}

/// The name of this publisher from now on: a new one where the file at `path` is another one than at the last start, or where
/// there are no numbers left under the old one.
pub(super) fn settle(
    writer: &mut Connection,
    path: &Path,
    key: &Key,
    own: Incarnation,
) -> Result<Incarnation, StoreError> {
    let now = Home::of(path, key);
    let bytes = random::bytes::<16>().map_err(StoreError::Random)?;
    let settled = begin(writer).and_then(|db| {
        let renewed = settle_in(&db, &now, &own, bytes)?;
        db.commit()?;
        Ok(renewed)
    });
    let renewed = settled.map_err(StoreError::database("looking whether tidegate.db is where it was"))?;
    let Some((new, why)) = renewed else { return Ok(own) };
    log::warn!("{why}: this gate goes by the name {new} in its fleet from now on, and not by {own}");
    Ok(new)
}

fn settle_in(
    db: &Transaction<'_>,
    now: &Home,
    own: &Incarnation,
    bytes: [u8; 16],
) -> rusqlite::Result<Option<(Incarnation, &'static str)>> {
    let before = Home::last(db)?;
    let is_spent = "SELECT EXISTS (SELECT 1 FROM versions WHERE incarnation = ?1 AND seq >= ?2)";
    let is_spent: bool = db.query_row(is_spent, (own.as_str(), SEQ_MAX), |row| row.get(0))?;
    let why = if now.is_other_than(&before) {
        Some("the data directory is a copy, or was moved or restored")
    } else {
        is_spent.then_some("a repository has no number left for its next change")
    };
    let known = Home { born: now.born.or(before.born), machine: now.machine.or(before.machine) };
    if known != before {
        db.execute("UPDATE gate SET born = ?1, machine = ?2", (known.born, known.machine))?;
    }
    why.map(|why| Ok((renew(db, own, bytes)?, why))).transpose()
}

impl Home {
    fn of(path: &Path, key: &Key) -> Self {
        let born = fs::metadata(path).and_then(|found| found.created()).ok();
        let born = born.and_then(|born| i64::try_from(born.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok());
        let machine = machine::identity().map(|id| key.hash(&[b"machine\0", id.as_bytes()].concat()));
        // Some file systems say 0 for what they do not know.
        Self { born: born.filter(|born| *born > 0), machine }
    }

    fn last(db: &Connection) -> rusqlite::Result<Self> {
        db.query_row("SELECT born, machine FROM gate", (), |row| {
            Ok(Self { born: row.get(0)?, machine: row.get(1)? })
        })
    }

    fn is_other_than(&self, before: &Self) -> bool {
        let is_another_file = self.born.zip(before.born).is_some_and(|(now, before)| now != before);
        is_another_file || self.machine.zip(before.machine).is_some_and(|(now, before)| now != before)
    }
}

/// Takes a new name, and has said under it what was said last under the old one: so everybody is told that again who asks for
/// what this publisher has said.
fn renew(db: &Transaction<'_>, old: &Incarnation, bytes: [u8; 16]) -> rusqlite::Result<Incarnation> {
    let new = Incarnation::parse(&hex(&bytes)).expect("16 bytes are 32 hexadecimal digits");
    db.execute("UPDATE gate SET incarnation = ?1", [bytes])?;
    db.execute(
        "INSERT INTO versions (repo, incarnation, seq, digest, removed, at) \
         SELECT iif(repo LIKE ?1 || '/%', ?2 || substr(repo, length(?1) + 1), repo), ?2, 1, digest, 0, at \
         FROM versions WHERE incarnation = ?1 AND NOT removed",
        (old.as_str(), new.as_str()),
    )?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use crate::model::fleet::EventPattern;
    use crate::model::fleet::{EventName, RefDigest, RepoKey, SEQ_MAX, SinkName, Version};
    use crate::model::name::RepoName;
    use crate::store::Store;
    use crate::store::events::{Audience, Keeps, Subscription};
    use crate::store::tests::at;
    use crate::store::versions::Standing;
    use std::fs;
    use std::path::Path;

    /// Tells of a change of a repository of an upstream, and of a hosted one.
    fn change(store: &Store) -> [RepoKey; 2] {
        let digest = RefDigest::parse(&"a".repeat(64)).unwrap();
        let own = RepoName::parse("own").unwrap();
        let keys = [RepoKey::parse("https://forge/app").unwrap(), RepoKey::hosted(store.publisher(), &own)];
        for key in &keys {
            let intent = store.announce(&own, at(0)).unwrap();
            intent.moved(&Standing { repo: &own, key, digest: Some(&digest) }, at(1)).unwrap();
        }
        keys
    }

    fn own(store: &Store) -> Vec<(String, u64)> {
        store.versions().own().unwrap().into_iter().map(|own| (own.repo.to_string(), own.seq)).collect()
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
        for name in ["tidegate.db", "secret.key"] {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }

    #[test]
    fn a_copy_of_a_data_directory_is_another_publisher_that_has_said_the_same_and_the_directory_itself_stays()
    {
        let home = tempfile::tempdir().unwrap();
        let (data, backup, moved) = ["data", "backup", "moved"].map(|name| home.path().join(name)).into();
        let store = Store::open_to_tell(&data).unwrap();
        let name = store.publisher().clone();
        change(&store);
        change(&store);
        store.checkpoint().unwrap();
        copy(&data, &backup);
        drop(store);
        let store = Store::open_to_tell(&data).unwrap();
        assert_eq!((store.publisher(), own(&store)[1].1), (&name, 2));
        drop(store);
        fs::rename(&data, &moved).unwrap();
        assert_eq!(*Store::open_to_tell(&moved).unwrap().publisher(), name, "it is the same file");
        assert_eq!(*Store::open(&backup).unwrap().publisher(), name, "whoever looks changes nothing");
        let other = Store::open_to_tell(&backup).unwrap();
        let new = other.publisher().clone();
        assert_ne!(new, name);
        let mut said = own(&other);
        said.sort();
        let mut wanted = vec![(format!("{new}/own"), 1), ("https://forge/app".to_owned(), 1)];
        wanted.sort();
        assert_eq!(said, wanted);
        let both = other.versions().of(&RepoKey::parse("https://forge/app").unwrap()).unwrap();
        assert_eq!(both.len(), 2, "what the other one said stays heard");
        assert_eq!(change(&other)[1].as_str(), format!("{new}/own"));
        assert!(own(&other).iter().all(|(_, seq)| *seq == 2));
        drop(other);
        assert_eq!(*Store::open_to_tell(&backup).unwrap().publisher(), new, "once");
    }

    #[test]
    fn what_waits_for_a_sink_under_the_old_name_is_dropped_where_the_latest_is_told_again() {
        let home = tempfile::tempdir().unwrap();
        let (data, backup) = (home.path().join("data"), home.path().join("backup"));
        let sink = |name: &str, keeps| Subscription {
            sink: SinkName::parse(name).unwrap(),
            events: vec![EventPattern::parse("repo.*").unwrap()],
            keeps,
        };
        let sinks = vec![sink("latest", Keeps::Latest), sink("each", Keeps::Each)];
        let audience = Audience { node: String::new(), sinks };
        let store = Store::open_to_tell(&data).unwrap();
        store.set_audience(audience.clone()).unwrap();
        change(&store);
        change(&store);
        store.checkpoint().unwrap();
        copy(&data, &backup);
        let other = Store::open_to_tell(&backup).unwrap();
        other.set_audience(audience).unwrap();
        let depth = |sink: &str| {
            let depths = other.outbox().depths().unwrap();
            depths.iter().find(|depth| depth.sink.as_str() == sink).map_or(0, |depth| depth.rows)
        };
        assert_eq!((depth("latest"), depth("each")), (0, 4));
        change(&other);
        assert_eq!((depth("latest"), depth("each")), (2, 6));
        let row = other.outbox().oldest(&SinkName::parse("latest").unwrap(), &[]).unwrap().unwrap();
        assert_eq!((row.event, row.changes), (EventName::RepoVersion, Some((2, 2))));
    }

    #[test]
    fn who_has_no_number_left_takes_a_new_name_at_the_next_start() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open_to_tell(home.path()).unwrap();
        let (repo, incarnation) = (RepoKey::parse("https://forge/app").unwrap(), store.publisher().clone());
        let last =
            Version { repo, incarnation: incarnation.clone(), seq: SEQ_MAX, digest: None, is_removed: false };
        store.versions().hear(&last, false, at(0)).unwrap();
        drop(store);
        let store = Store::open_to_tell(home.path()).unwrap();
        assert_ne!(*store.publisher(), incarnation);
        assert_eq!(own(&store), [("https://forge/app".to_owned(), 1)]);
    }
}
