//! Refs with their values, and what a sync has to bring for them.
//!
//! `git fetch` moves no ref of a mirror and prunes none ([`super::refs`] does both), so that a reader never sees a part of a
//! change; and a web page that is answered with status 200 (a proxy's, a login), which git takes for an old server without a
//! single ref (measured with git 2.39 and 2.47), removes nothing: what goes is what the strictly read advertisement lacks.

use crate::model::oid::Oid;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Refs with their values.
pub(super) type Refs = BTreeMap<String, Oid>;

/// The values of those of `wanted` that are new or moved where `present` are there.
pub(super) fn coming<'a>(present: &Refs, wanted: &'a Refs) -> BTreeSet<&'a Oid> {
    wanted.iter().filter(|(name, oid)| present.get(*name) != Some(oid)).map(|(_, oid)| oid).collect()
}

/// Those of these refs for which `is_one`.
pub(super) fn those(refs: &Refs, is_one: impl Fn(&str) -> bool) -> Refs {
    refs.iter().filter(|(name, _)| is_one(name)).map(|(name, oid)| (name.clone(), oid.clone())).collect()
}

/// Whether one of `names` cannot be there together with `name`: it begins with that one and a slash, or the reverse.
pub(super) fn is_in_the_way<V>(name: &str, names: &BTreeMap<String, V>) -> bool {
    let below = format!("{name}/");
    let next = names.range::<str, _>((Bound::Included(below.as_str()), Bound::Unbounded)).next();
    let is_above = next.is_some_and(|(other, _)| other.starts_with(&below));
    let mut parents = name.match_indices('/').map(|(at, _)| &name[..at]);
    is_above || parents.any(|parent| names.contains_key(parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refs(list: &[(&str, u8)]) -> Refs {
        let oid = |digit: u8| Oid::parse(&[digit; 40]).unwrap();
        list.iter().map(|(name, digit)| (format!("refs/heads/{name}"), oid(*digit))).collect()
    }

    #[test]
    fn what_is_new_or_moved_comes() {
        let present = refs(&[("same", b'1'), ("moved", b'1'), ("gone", b'3')]);
        let wanted = refs(&[("same", b'1'), ("moved", b'2'), ("new", b'2')]);
        let two = Oid::parse(&[b'2'; 40]).unwrap();
        assert_eq!(coming(&present, &wanted), [&two].into());
        assert!(coming(&present, &present).is_empty());
    }

    #[test]
    fn names_that_cannot_be_beside_each_other_are_found_from_both_sides() {
        let is = |name: &str, others: &[&str]| {
            let others: Vec<(&str, u8)> = others.iter().map(|name| (*name, b'1')).collect();
            is_in_the_way(&format!("refs/heads/{name}"), &refs(&others))
        };
        assert!(is("topic", &["topic/x"]) && is("a/b/c", &["a"]) && is("topic", &["topic-x", "topic/x"]));
        assert!(!is("topic", &["topic", "topic-x", "topic.x/y", "x/topic"]));
    }
}
