//! Which branch HEAD of a mirror names. A clone checks that branch out.

use crate::model::oid::Oid;
use std::collections::BTreeMap;

/// What is taken where upstream names no branch, in this order.
const USUAL: [&str; 2] = ["refs/heads/main", "refs/heads/master"];

/// The branch that HEAD of a mirror with these `refs` has to name: the one that upstream's names, else the `present` one if
/// that is there, else a usual name, else the first branch. `None` without a branch: then HEAD stays as it is.
pub(super) fn choose<'a>(
    refs: &'a BTreeMap<String, Oid>,
    upstream: Option<&'a str>,
    present: Option<&'a str>,
) -> Option<&'a str> {
    let is_there = |name: &&str| name.starts_with("refs/heads/") && refs.contains_key(*name);
    let first = refs.keys().map(String::as_str).find(is_there);
    let wanted = upstream.into_iter().chain(present).chain(USUAL);
    wanted.into_iter().find(is_there).or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_decides_and_otherwise_what_is_there() {
        let refs = |names: &[&str]| -> BTreeMap<String, Oid> {
            names.iter().map(|name| ((*name).to_owned(), Oid::parse(&[b'1'; 40]).unwrap())).collect()
        };
        let all = refs(&["refs/heads/dev", "refs/heads/main", "refs/heads/master", "refs/tags/a"]);
        assert_eq!(choose(&all, Some("refs/heads/dev"), Some("refs/heads/main")), Some("refs/heads/dev"));
        assert_eq!(choose(&all, Some("refs/heads/gone"), Some("refs/heads/dev")), Some("refs/heads/dev"));
        assert_eq!(choose(&all, Some("refs/tags/a"), None), Some("refs/heads/main"));
        assert_eq!(
            choose(&refs(&["refs/heads/master", "refs/heads/a"]), None, None),
            Some("refs/heads/master")
        );
        assert_eq!(choose(&refs(&["refs/heads/b", "refs/heads/a"]), None, None), Some("refs/heads/a"));
        assert_eq!(choose(&refs(&["refs/tags/a"]), None, Some("refs/heads/main")), None);
    }
}
