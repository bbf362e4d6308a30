//! Taking into a mirror what a push has brought to its upstream, without fetching it from there.
//!
//! The packs lie in the staging repository, on the same volume, and move over by rename: the pack first and its index
//! last, since a git knows a pack by its index. Then the refs move, all of them in one step.

use super::bring::pointless;
use super::changes::Refs;
use super::error::LandError;
use super::refs::Stored;
use super::{Shared, litter};
use crate::git::layout::Repository;
use crate::git::tools::Tools;
use crate::model::oid::Oid;
use crate::model::push::RefUpdate;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the turn is waited for: whoever pushed waits, and a sync brings the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// What belongs to a pack, in the order of moving.
const PARTS: [&str; 3] = ["pack", "rev", "idx"];

/// See [`Mirrors::land`](super::Mirrors::land).
pub(super) fn land(
    shared: &Shared,
    repository: &Repository,
    objects: &Path,
    refs: &[RefUpdate],
    tools: &Tools<'_>,
) -> Result<(), LandError> {
    let git_dir = &repository.git_dir;
    let until = tools.asker.deadline.at.min(Instant::now() + PATIENCE);
    let turn = shared.turns.take(git_dir, until, || pointless(&tools.asker, tools.stop))?;
    if !turn.is_clean() {
        litter::clear(git_dir).map_err(failed_at("cleaning", git_dir))?;
    }
    let is_known = turn.refs().is_some();
    let stored = Stored::read(git_dir, &turn, tools)?;
    let mirrored = &shared.keeping(git_dir).refs;
    let refs: Vec<&RefUpdate> = refs.iter().filter(|it| mirrored.has(it.name.as_str())).collect();
    turn.set_clean(false);
    move_packs(&objects.join("pack"), &git_dir.join("objects/pack"))?;
    turn.set_landed(Instant::now());
    let present = stored.values();
    let left = left(&refs, &present)?;
    let landed = moved(Arc::new(present), left.into_iter());
    stored.replace(&landed, None, &turn, tools)?;
    turn.set_clean(true);
    // Those of a mirror that was not looked through are for the next sync to find.
    is_known.then(|| turn.set_refs(landed));
    Ok(())
}

/// The refs of a mirror in which these updates have landed.
pub(super) fn moved<'a>(mut known: Arc<Refs>, refs: impl Iterator<Item = &'a RefUpdate>) -> Arc<Refs> {
    let values = Arc::make_mut(&mut known);
    for update in refs {
        if update.new.is_zero() {
            values.remove(update.name.as_str());
        } else {
            values.insert(update.name.to_string(), update.new.clone());
        }
    }
    known
}

fn move_packs(from: &Path, to: &Path) -> Result<(), LandError> {
    let names = fs::read_dir(from).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<OsString>>>()
    });
    let names = names.map_err(failed_at("listing", from))?;
    for part in PARTS {
        let is_part = |name: &&OsString| {
            let name = Path::new(name);
            name.to_string_lossy().starts_with("pack-") && name.extension().is_some_and(|it| it == part)
        };
        for name in names.iter().filter(is_part) {
            fs::rename(from.join(name), to.join(name)).map_err(failed_at("moving a pack to", to))?;
        }
    }
    File::open(to).and_then(|dir| dir.sync_all()).map_err(failed_at("syncing", to))
}

/// Those of the updates that are left to be made where the refs have these values: one that is at its new value has landed.
fn left<'a>(updates: &[&'a RefUpdate], present: &Refs) -> Result<Vec<&'a RefUpdate>, LandError> {
    let value = |update: &RefUpdate| present.get(update.name.as_str()).cloned();
    let given = |oid: &Oid| (!oid.is_zero()).then(|| oid.clone());
    let left = updates.iter().copied().filter(|update| value(update) != given(&update.new));
    let left: Vec<&RefUpdate> = left.collect();
    let moved: Vec<_> = left.iter().filter(|update| value(update) != given(&update.old)).collect();
    if moved.is_empty() {
        return Ok(left);
    }
    Err(LandError::Moved(moved.iter().map(|update| update.name.clone()).collect()))
}

fn failed_at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LandError {
    let path = path.to_path_buf();
    move |source| LandError::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::push::RefName;

    fn oid(digit: u8) -> Oid {
        Oid::parse(&[digit; 40]).unwrap()
    }

    fn update(name: &str, old: u8, new: u8) -> RefUpdate {
        let name = RefName::parse(format!("refs/heads/{name}").as_bytes()).unwrap();
        RefUpdate { name, old: oid(old), new: oid(new) }
    }

    /// What the branches that have these values are when the updates have landed.
    fn landed(updates: &[RefUpdate], values: &[(&str, u8)]) -> Result<Refs, LandError> {
        let updates: Vec<&RefUpdate> = updates.iter().collect();
        let present = branches(values);
        let left = left(&updates, &present)?;
        Ok(Arc::unwrap_or_clone(moved(Arc::new(present), left.into_iter())))
    }

    fn branches(values: &[(&str, u8)]) -> Refs {
        values.iter().map(|(name, digit)| (format!("refs/heads/{name}"), oid(*digit))).collect()
    }

    #[test]
    fn each_ref_moves_from_its_old_value() {
        let updates = [
            update("topic", b'1', b'0'),
            update("topic/x", b'0', b'2'),
            update("gone", b'1', b'0'),
            update("main", b'1', b'2'),
            update("landed", b'1', b'2'),
        ];
        let values = [("topic", b'1'), ("gone", b'1'), ("main", b'1'), ("landed", b'2'), ("other", b'3')];
        let expected = [("topic/x", b'2'), ("main", b'2'), ("landed", b'2'), ("other", b'3')];
        assert_eq!(landed(&updates, &values).unwrap(), branches(&expected));
    }

    #[test]
    fn a_ref_that_others_moved_is_left_alone() {
        let error =
            landed(&[update("main", b'1', b'2'), update("b", b'0', b'2')], &[("main", b'3')]).unwrap_err();
        assert!(matches!(&error, LandError::Moved(names) if names.len() == 1), "{error}");
        assert!(landed(&[update("gone", b'1', b'0')], &[]).unwrap().is_empty(), "it has landed");
    }
}
