//! What a fetch wants to be sent, and which objects a server gives that it does not advertise.

use crate::model::oid::Oid;
use std::collections::BTreeSet;
use std::ffi::OsString;

/// How many objects and refs of one request are kept, each about 100 bytes. Whoever wants more clones all that is advertised.
pub const WANTS_MAX: usize = 20_000;

/// What one request wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// The objects.
    pub oids: BTreeSet<Oid>,
    /// The refs that are wanted by their names (`want-ref` of gitprotocol-v2(5)).
    pub refs: BTreeSet<String>,
    /// Whether there were more than [`WANTS_MAX`], so that some are left out.
    pub is_cut: bool,
}

impl Wants {
    /// Takes in a line without its end, if it names something wanted.
    pub(crate) fn take(&mut self, line: &[u8]) {
        let is_full = self.oids.len() + self.refs.len() >= WANTS_MAX;
        if let Some(rest) = line.strip_prefix(b"want ") {
            let oid = rest
                .split(|byte| matches!(byte, b' ' | 0))
                .next()
                .and_then(Oid::parse)
                .filter(|oid| !oid.is_zero());
            self.keep(oid, is_full, |wants| &mut wants.oids);
        } else if let Some(name) = line.strip_prefix(b"want-ref ") {
            self.keep(str::from_utf8(name).ok().map(str::to_owned), is_full, |wants| &mut wants.refs);
        }
    }

    /// What cannot be read is git's to refuse.
    fn keep<T: Ord>(&mut self, wanted: Option<T>, is_full: bool, set: fn(&mut Self) -> &mut BTreeSet<T>) {
        let Some(wanted) = wanted else { return };
        match is_full {
            true => self.is_cut |= !set(self).contains(&wanted),
            false => drop(set(self).insert(wanted)),
        }
    }
}

/// Which objects beside those that it advertises a server says to give, where git asks before it wants them: in versions 0
/// and 1 of the protocol (gitprotocol-capabilities(5)). In version 2 nobody asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Unadvertised {
    /// The values of refs that it does not show.
    pub tips: bool,
    /// Whatever its refs reach.
    pub reachable: bool,
}

impl Unadvertised {
    /// Takes in a capability, if it is one of these.
    pub(crate) fn take(&mut self, word: &[u8]) {
        self.tips |= word == b"allow-tip-sha1-in-want";
        self.reachable |= word == b"allow-reachable-sha1-in-want";
    }

    /// How a git that serves a mirror is told to do the same. It says what its upstream says. When it serves, it takes
    /// everything that it has for reachable where upstream has hidden refs or others that are not mirrored: it got the
    /// object from there.
    pub(crate) fn settings(self, advertise: bool) -> Vec<(&'static str, OsString)> {
        let rows = [
            ("uploadpack.allowTipSHA1InWant", self.tips),
            ("uploadpack.allowReachableSHA1InWant", self.reachable),
            ("uploadpack.allowAnySHA1InWant", self.reachable && !advertise),
        ];
        rows.into_iter().filter(|(_, is_so)| *is_so).map(|(key, _)| (key, "true".into())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn oid(number: usize) -> Oid {
        Oid::parse(format!("{:040x}", number + 1).as_bytes()).unwrap()
    }

    fn wants(lines: &[&[u8]]) -> Wants {
        let mut wants = Wants::default();
        lines.iter().for_each(|line| wants.take(line));
        wants
    }

    #[test]
    fn objects_and_refs_are_found_with_whatever_follows_them() {
        let one = oid(1);
        let long = "A".repeat(64);
        let lines = [
            format!("want {one} side-band agent=x"),
            format!("want {one}"),
            format!("want {long}\0ofs-delta"),
            "want-ref refs/heads/a".to_owned(),
            format!("have {}", oid(2)),
            "want main".to_owned(),
            "want ".to_owned(),
        ];
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        let found = wants(&lines);
        let oids = [one, Oid::parse(long.as_bytes()).unwrap()];
        assert_eq!(found.oids, BTreeSet::from(oids));
        assert_eq!(found.refs, BTreeSet::from(["refs/heads/a".to_owned()]));
        assert!(!found.is_cut);
    }

    #[test]
    fn more_than_the_most_are_left_out_and_said_to_be() {
        let mut found = Wants::default();
        let mut take = |number: usize| {
            found.take(format!("want {}", oid(number)).as_bytes());
            (found.oids.len(), found.is_cut)
        };
        assert!((0..WANTS_MAX).all(|number| take(number) == (number + 1, false)));
        assert_eq!(take(0), (WANTS_MAX, false), "one that is known is no further one");
        assert_eq!(take(WANTS_MAX), (WANTS_MAX, true));
    }

    #[test]
    fn a_mirror_says_what_its_upstream_says_and_no_more() {
        let keys = |words: &[&[u8]], advertise| {
            let mut unadvertised = Unadvertised::default();
            words.iter().for_each(|word| unadvertised.take(word));
            unadvertised.settings(advertise).into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        let (tip, reachable) = (&b"allow-tip-sha1-in-want"[..], &b"allow-reachable-sha1-in-want"[..]);
        assert!(keys(&[b"allow-tip", b"side-band"], true).is_empty() && keys(&[], false).is_empty());
        assert_eq!(keys(&[tip], false), ["uploadpack.allowTipSHA1InWant"]);
        assert_eq!(keys(&[reachable], true), ["uploadpack.allowReachableSHA1InWant"]);
        assert!(keys(&[reachable], false).contains(&"uploadpack.allowAnySHA1InWant"));
    }

    proptest! {
        #[test]
        fn every_object_that_is_named_is_found_and_no_other(
            numbers in proptest::collection::btree_set(0_usize..1000, 0..30),
            noise in proptest::collection::vec("(have|deepen|filter|want-) [0-9a-f]{0,40}", 0..9),
        ) {
            let named = numbers.iter().map(|number| format!("want {}", oid(*number)));
            let lines: Vec<String> = named.chain(noise).collect();
            let found = wants(&lines.iter().map(|line| line.as_bytes()).collect::<Vec<_>>());
            prop_assert_eq!(found.oids, numbers.into_iter().map(oid).collect());
        }

        #[test]
        fn no_bytes_make_it_panic(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..9)) {
            let mut found = Wants::default();
            for line in lines {
                found.take(&line);
                found.take(&[b"want ", line.as_slice()].concat());
            }
        }
    }
}
