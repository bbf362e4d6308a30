//! Taking into a mirror what a push has brought to its upstream, without fetching it from there.
//!
//! The packs lie in the staging repository, on the same volume, and move over by rename: the pack first and its index
//! last, since a git knows a pack by its index. Then the refs move, in a transaction; those that have to go so that
//! others can come, in one of their own before it.

use super::bring::{pointless, run, script_file};
use super::changes::{Refs, Script, is_in_the_way};
use super::error::LandError;
use super::turns::Turn;
use super::{Shared, litter};
use crate::git::ask;
use crate::git::layout::Repository;
use crate::git::tools::Tools;
use crate::model::oid::Oid;
use crate::model::push::RefUpdate;
use std::collections::BTreeMap;
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
    let known = turn.refs();
    turn.set_clean(false);
    move_packs(&objects.join("pack"), &git_dir.join("objects/pack"))?;
    let landing = Landing { shared, git_dir, turn: &turn, tools };
    turn.set_landed(Instant::now());
    let mirrored = &shared.keeping(git_dir).refs;
    let refs: Vec<&RefUpdate> = refs.iter().filter(|it| mirrored.has(it.name.as_str())).collect();
    landing.move_refs(&refs, known.as_deref())?;
    turn.set_clean(true);
    known.into_iter().for_each(|known| turn.set_refs(moved(known, refs.iter().copied())));
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

struct Landing<'a> {
    shared: &'a Shared,
    git_dir: &'a Path,
    turn: &'a Turn,
    tools: &'a Tools<'a>,
}

impl Landing<'_> {
    /// Moves them, where `known` are the values before, if they are known without asking.
    fn move_refs(&self, refs: &[&RefUpdate], known: Option<&Refs>) -> Result<(), LandError> {
        let scripts = match known {
            Some(values) => scripts(refs, values)?,
            None => {
                let names: Vec<&str> = refs.iter().map(|update| update.name.as_str()).collect();
                scripts(refs, &ask::ref_values(self.tools.git, self.git_dir, &names, &self.tools.asker)?)?
            }
        };
        for script in scripts.into_iter().filter(|script| !script.is_empty()) {
            let stdin = script_file(self.shared.places.tmp(), &script)
                .map_err(failed_at("writing a list of refs for", self.git_dir))?;
            let what = format!("update-ref {}", self.git_dir.display());
            let mut spec = self.tools.spec(self.tools.git.move_refs(self.git_dir), what);
            spec.stdin = stdin;
            let outcome = run(spec, self.turn, self.tools)?;
            if !outcome.is_success() {
                return Err(LandError::Git { what: "update-ref", outcome: Box::new(outcome) });
            }
        }
        Ok(())
    }
}

/// The two transactions that move the refs which have the values `values`: what is in the way of others, and the rest. One
/// that is at its new value has landed.
fn scripts(refs: &[&RefUpdate], values: &BTreeMap<String, Oid>) -> Result<[Script; 2], LandError> {
    let value = |update: &RefUpdate| values.get(update.name.as_str());
    let given = |oid: &Oid| (!oid.is_zero()).then(|| oid.clone());
    let pending: Vec<&RefUpdate> =
        refs.iter().copied().filter(|update| value(update).cloned() != given(&update.new)).collect();
    let moved: Vec<_> =
        pending.iter().filter(|update| value(update).cloned() != given(&update.old)).collect();
    if !moved.is_empty() {
        return Err(LandError::Moved(moved.iter().map(|update| update.name.clone()).collect()));
    }
    let coming: BTreeMap<String, ()> =
        pending.iter().filter(|it| !it.new.is_zero()).map(|it| (it.name.to_string(), ())).collect();
    let [mut first, mut rest] = [Script::default(), Script::default()];
    for update in pending {
        let name = update.name.as_str();
        match (update.old.is_zero(), update.new.is_zero()) {
            (_, true) if is_in_the_way(name, &coming) => first.delete(name, &update.old),
            (_, true) => rest.delete(name, &update.old),
            (true, false) => rest.create(name, &update.new),
            (false, false) => rest.update(name, &update.old, &update.new),
        }
    }
    Ok([first, rest])
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

    fn written(updates: &[RefUpdate], values: &[(&str, u8)]) -> Result<[String; 2], LandError> {
        let values = values.iter().map(|(name, digit)| (format!("refs/heads/{name}"), oid(*digit))).collect();
        let updates: Vec<&RefUpdate> = updates.iter().collect();
        let scripts = scripts(&updates, &values)?;
        Ok(scripts.map(|script| {
            let text = String::from_utf8(script.bytes().to_vec()).unwrap();
            text.replace("refs/heads/", "")
                .replace('\0', " ")
                .replace(&"0".repeat(39), "")
                .replace(&"1".repeat(39), "")
                .replace(&"2".repeat(39), "")
        }))
    }

    #[test]
    fn each_ref_moves_from_its_old_value_and_what_is_in_the_way_goes_first() {
        let updates = [
            update("topic", b'1', b'0'),
            update("topic/x", b'0', b'2'),
            update("gone", b'1', b'0'),
            update("main", b'1', b'2'),
            update("landed", b'1', b'2'),
        ];
        let values = [("topic", b'1'), ("gone", b'1'), ("main", b'1'), ("landed", b'2')];
        let [first, rest] = written(&updates, &values).unwrap();
        assert_eq!(first, "delete topic 1 ");
        assert_eq!(rest, "create topic/x 2 delete gone 1 update main 2 1 ");
    }

    #[test]
    fn a_ref_that_others_moved_is_left_alone() {
        let error =
            written(&[update("main", b'1', b'2'), update("b", b'0', b'2')], &[("main", b'3')]).unwrap_err();
        assert!(matches!(&error, LandError::Moved(names) if names.len() == 1), "{error}");
        assert_eq!(written(&[update("gone", b'1', b'0')], &[]).unwrap(), ["", ""], "it has landed");
    }
}
