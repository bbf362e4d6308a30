//! Lists of tables: each table becomes an entry, key by key, and every problem is noted with its place.

use super::Draft;
use super::file::{Source, written};
use super::keys::Written;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// An entry in the making.
pub(super) trait Entry: Default {
    /// The dotted path of the list.
    const PATH: &'static str;
    /// What an entry is, for people.
    const NOUN: &'static str;
    /// Its keys, for people.
    const NAMES: &'static str;
    /// What it becomes.
    type Done;

    /// Sets the key `name`, or says what is allowed. `None`: there is no such key.
    fn set(&mut self, name: &str, written: &Written) -> Option<Result<(), String>>;

    /// What contradicts itself in it: the key, and a sentence.
    fn objection(&self) -> Option<Fault> {
        None
    }

    /// The entry.
    ///
    /// # Errors
    /// When a key that it needs was not set.
    fn finish(self) -> Result<Self::Done, Fault>;
}

/// A key of an entry that is missing or does not go with the others.
#[derive(Debug)]
pub(super) struct Fault {
    /// Its name.
    pub(super) name: &'static str,
    /// A sentence.
    pub(super) why: &'static str,
}

/// Reads the list of tables `value`, each with its place; what is wrong with an entry is noted, and the entry left out.
pub(super) fn read<E: Entry>(
    draft: &mut Draft,
    source: &Source<'_>,
    value: &Spanned<DeValue<'_>>,
) -> Vec<(String, E::Done)> {
    let why = || format!("is a list of tables: write [[{}]] above each", E::PATH);
    let Some(list) = value.get_ref().as_array() else {
        draft.problem(source.place(value.span()), E::PATH, why());
        return Vec::new();
    };
    let mut done = Vec::new();
    for entry in list.iter() {
        match entry.get_ref().as_table() {
            Some(table) => done.extend(read_one::<E>(draft, source, entry, table)),
            None => draft.problem(source.place(entry.span()), E::PATH, why()),
        }
    }
    done
}

fn read_one<E: Entry>(
    draft: &mut Draft,
    source: &Source<'_>,
    whole: &Spanned<DeValue<'_>>,
    table: &DeTable<'_>,
) -> Option<(String, E::Done)> {
    let mut entry = E::default();
    for (name, value) in table {
        let path = format!("{}.{}", E::PATH, name.get_ref());
        match entry.set(name.get_ref(), &written(value.get_ref())) {
            Some(Ok(())) => {}
            Some(Err(why)) => draft.problem(source.place(value.span()), path, why),
            None => {
                let why = format!("is no key of {}: the keys are {}", E::NOUN, E::NAMES);
                draft.problem(source.place(name.span()), path, why);
            }
        }
    }
    let place = source.place(whole.span());
    if let Some(fault) = entry.objection() {
        draft.problem(place.clone(), format!("{}.{}", E::PATH, fault.name), fault.why);
    }
    match entry.finish() {
        Ok(done) => Some((place, done)),
        // It is there and wrong, which was said above.
        Err(fault) if table.contains_key(fault.name) => None,
        Err(fault) => {
            draft.problem(place, format!("{}.{}", E::PATH, fault.name), fault.why);
            None
        }
    }
}
