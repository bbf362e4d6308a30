//! What HEAD of a mirror names. A clone checks that out.

use super::changes::Refs;
use crate::git::head::Head;
use crate::model::oid::Oid;

/// What is taken where upstream names no branch, in this order.
const USUAL: [&str; 2] = ["refs/heads/main", "refs/heads/master"];

/// What HEAD of a mirror with these `refs` has to name: what upstream's names, if that branch is there, or if that commit is
/// as far as `has_commit` knows; else the branch that the `present` one names, if it is there; else one of a usual name; else
/// the first one. `None` without a branch: then HEAD stays as it is, unless it names a commit.
pub(super) fn choose(
    refs: &Refs,
    upstream: Option<&Head>,
    present: Option<&Head>,
    has_commit: impl FnOnce(&Oid) -> bool,
) -> Option<Head> {
    if let Some(Head::Detached(oid)) = upstream
        && has_commit(oid)
    {
        return upstream.cloned();
    }
    let is_there = |name: &&str| name.starts_with("refs/heads/") && refs.contains_key(*name);
    let first = refs.keys().map(String::as_str).find(is_there);
    let wanted = [upstream, present].into_iter().flatten().filter_map(branch_of).chain(USUAL);
    match wanted.into_iter().find(is_there).or(first) {
        Some(name) => Some(Head::Branch(name.to_owned())),
        None => matches!(present, Some(Head::Detached(_))).then(|| Head::Branch(USUAL[0].to_owned())),
    }
}

fn branch_of(head: &Head) -> Option<&str> {
    match head {
        Head::Branch(name) => Some(name),
        Head::Detached(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oid() -> Oid {
        Oid::parse(&[b'1'; 40]).unwrap()
    }

    fn refs(names: &[&str]) -> Refs {
        names.iter().map(|name| ((*name).to_owned(), oid())).collect()
    }

    fn chosen(refs: &Refs, upstream: Option<&str>, present: Option<&str>) -> Option<String> {
        let [upstream, present] =
            [upstream, present].map(|name| name.map(|name| Head::Branch(name.to_owned())));
        let head = choose(refs, upstream.as_ref(), present.as_ref(), |_| unreachable!())?;
        branch_of(&head).map(str::to_owned)
    }

    #[test]
    fn upstream_decides_and_otherwise_what_is_there() {
        let all = refs(&["refs/heads/dev", "refs/heads/main", "refs/heads/master", "refs/tags/a"]);
        let of = |refs: &[&str], upstream, present| chosen(&self::refs(refs), upstream, present);
        let (dev, main) = (Some("refs/heads/dev"), Some("refs/heads/main"));
        assert_eq!(chosen(&all, dev, main).as_deref(), dev);
        assert_eq!(chosen(&all, Some("refs/heads/gone"), dev).as_deref(), dev);
        assert_eq!(chosen(&all, Some("refs/tags/a"), None).as_deref(), main);
        assert_eq!(
            of(&["refs/heads/master", "refs/heads/a"], None, None).as_deref(),
            Some("refs/heads/master")
        );
        assert_eq!(of(&["refs/heads/b", "refs/heads/a"], None, None).as_deref(), Some("refs/heads/a"));
        assert_eq!(of(&["refs/tags/a"], None, main), None);
    }

    #[test]
    fn a_commit_is_named_where_it_is_there_and_no_longer_than_upstream_names_it() {
        let (all, detached) = (refs(&["refs/heads/dev"]), Head::Detached(oid()));
        assert_eq!(choose(&all, Some(&detached), None, |_| true), Some(detached.clone()));
        let dev = Head::branch("refs/heads/dev");
        assert_eq!(choose(&all, Some(&detached), Some(&detached), |_| false), dev);
        assert_eq!(choose(&all, None, Some(&detached), |_| true), dev);
        assert_eq!(choose(&Refs::new(), None, Some(&detached), |_| true), Head::branch("refs/heads/main"));
    }
}
