//! Lists of tables: each table becomes an entry, key by key, and every problem is noted with its place.

use super::Draft;
use super::file::{Source, later, section_form, written};
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
    /// The sections that it has; a key in one is set by its dotted name.
    const SECTIONS: &'static [&'static str] = &[];
    /// What it becomes.
    type Done;

    /// Sets the key `name`, or says what is allowed. `None`: there is no such key.
    fn set(&mut self, name: &str, written: &Written) -> Option<Result<(), String>>;

    /// What contradicts itself in it: the key, and a sentence.
    fn objection(&self) -> Option<Fault> {
        None
    }

    /// The keys of one of its sections, for people.
    fn names_in(_section: &str) -> Option<String> {
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
    set_all(draft, source, &mut entry, "", table);
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

/// Sets every key of `table`, which is the entry itself or, where `section` is not empty, a section of it.
fn set_all<E: Entry>(
    draft: &mut Draft,
    source: &Source<'_>,
    entry: &mut E,
    section: &str,
    table: &DeTable<'_>,
) {
    for (name, value) in table {
        let dotted = if section.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{section}.{}", name.get_ref())
        };
        let path = format!("{}.{dotted}", E::PATH);
        if E::SECTIONS.contains(&dotted.as_str()) {
            match value.get_ref().as_table() {
                Some(table) => set_all(draft, source, entry, &dotted, table),
                None => draft.problem(source.place(name.span()), path.as_str(), section_form(&path)),
            }
            continue;
        }
        match entry.set(&dotted, &written(value.get_ref())) {
            Some(Ok(())) => {}
            Some(Err(why)) => draft.problem(source.place(value.span()), path, why),
            None => {
                let why = later(&path).unwrap_or_else(|| unknown::<E>(section));
                draft.problem(source.place(name.span()), path, why);
            }
        }
    }
}

fn unknown<E: Entry>(section: &str) -> String {
    match E::names_in(section) {
        Some(names) => format!("is no key: those of [{}.{section}] are {names}", E::PATH),
        None => format!("is no key of {}: the keys are {}", E::NOUN, E::NAMES),
    }
}
