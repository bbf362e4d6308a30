//! What has to change in a mirror, and in which order.
//!
//! `git fetch --prune` is not used. Two things were measured with git 2.39 and 2.47:
//!
//! * Where a branch `topic` gave way to `topic/x`, or the other way round, an atomic fetch that prunes fails, and so does
//!   every later one: what is gone stands in the way of what is new. So what is in the way goes first.
//! * A web page that is answered with status 200 (a proxy's, a login) is taken for an old server without a single ref, the
//!   fetch succeeds, and pruning would remove every branch. So we remove what the strictly read advertisement lacks.

use crate::model::oid::Oid;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Refs with their values.
pub(super) type Refs = BTreeMap<String, Oid>;

/// The difference between a mirror and its upstream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes<'a> {
    /// Gone refs whose names are in the way of new ones.
    pub(super) blocking: Vec<(&'a str, &'a Oid)>,
    /// The other gone refs.
    pub(super) gone: Vec<(&'a str, &'a Oid)>,
    /// New and moved refs.
    pub(super) coming: Vec<&'a str>,
}

impl<'a> Changes<'a> {
    /// What makes `present` like `wanted`.
    pub(super) fn between(present: &'a Refs, wanted: &'a Refs) -> Self {
        let coming = wanted.iter().filter(|(name, oid)| present.get(*name) != Some(oid));
        let gone = present.iter().filter(|(name, _)| !wanted.contains_key(*name));
        let gone = gone.map(|(name, oid)| (name.as_str(), oid));
        let (blocking, gone) = gone.partition(|(name, _)| is_in_the_way(name, wanted));
        Self { blocking, gone, coming: coming.map(|(name, _)| name.as_str()).collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocking.is_empty() && self.gone.is_empty() && self.coming.is_empty()
    }
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

/// A transaction for `git update-ref -z --stdin`, in pieces.
#[derive(Debug, Default)]
pub(super) struct Script(Vec<u8>);

impl Script {
    /// Only the deletion of these refs, each at its value.
    pub(super) fn deleting(refs: &[(&str, &Oid)]) -> Self {
        let mut script = Self::default();
        refs.iter().for_each(|(name, old)| script.delete(name, old));
        script
    }

    pub(super) fn delete(&mut self, name: &str, old: &Oid) {
        self.0.extend(format!("delete {name}\0{old}\0").bytes());
    }

    pub(super) fn create(&mut self, name: &str, new: &Oid) {
        self.0.extend(format!("create {name}\0{new}\0").bytes());
    }

    pub(super) fn update(&mut self, name: &str, old: &Oid, new: &Oid) {
        self.0.extend(format!("update {name}\0{new}\0{old}\0").bytes());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refs(list: &[(&str, u8)]) -> Refs {
        let oid = |digit: u8| Oid::parse(&[digit; 40]).unwrap();
        list.iter().map(|(name, digit)| (format!("refs/heads/{name}"), oid(*digit))).collect()
    }

    fn blocking(present: &[(&str, u8)], wanted: &[(&str, u8)]) -> Vec<String> {
        let (present, wanted) = (refs(present), refs(wanted));
        let changes = Changes::between(&present, &wanted);
        changes.blocking.iter().map(|(name, _)| name.replace("refs/heads/", "")).collect()
    }

    #[test]
    fn what_differs_comes_or_goes() {
        let present = refs(&[("same", b'1'), ("moved", b'1'), ("gone", b'1')]);
        let wanted = refs(&[("same", b'1'), ("moved", b'2'), ("new", b'1')]);
        let changes = Changes::between(&present, &wanted);
        assert_eq!(changes.coming, ["refs/heads/moved", "refs/heads/new"]);
        assert_eq!(changes.gone.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["refs/heads/gone"]);
        assert!(changes.blocking.is_empty() && !changes.is_empty());
        assert!(Changes::between(&present, &present).is_empty());
    }

    #[test]
    fn gone_refs_in_the_way_of_new_ones_are_found_on_both_sides() {
        assert_eq!(blocking(&[("topic", b'1')], &[("topic/x", b'1')]), ["topic"]);
        assert_eq!(blocking(&[("a/b/c", b'1'), ("a/d", b'1')], &[("a", b'1')]), ["a/b/c", "a/d"]);
        assert!(
            blocking(&[("topic", b'1')], &[("topic-x", b'1'), ("topic.x/y", b'1'), ("x/topic", b'1')])
                .is_empty()
        );
        assert_eq!(blocking(&[("topic", b'1')], &[("topic-x", b'1'), ("topic/x", b'1')]), ["topic"]);
    }
}
