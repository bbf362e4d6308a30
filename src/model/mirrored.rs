//! Which refs of an upstream its mirror has, in patterns like those of git's refspecs (git-fetch(1)): a full name, or the
//! start of names with a `*` at its end.

use super::push::RefName;
use std::fmt;

/// Where a gate may have refs of its own, which no mirror takes from an upstream.
pub const OWN: &str = "refs/tidegate/";

/// One pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefPattern(String);

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefPatternError {
    /// Not in the form.
    #[error(
        "is no pattern of refs: write a full name such as \"refs/heads/main\", or the start of names and one * at the \
             end, such as \"refs/heads/*\""
    )]
    Malformed,
    /// Below [`OWN`].
    #[error("are refs of the gate's own: an upstream's are not taken")]
    Own,
}

/// The patterns of a mirror; a ref is in it that one of them has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirroredRefs(Vec<RefPattern>);

impl RefPattern {
    /// Takes a pattern as it is written.
    ///
    /// # Errors
    /// See [`RefPatternError`].
    pub fn parse(text: &str) -> Result<Self, RefPatternError> {
        // One name that the pattern has shows whether names that begin so can be.
        let example = text.strip_suffix('*').map_or_else(|| text.to_owned(), |start| format!("{start}x/x"));
        if !text.starts_with("refs/") || RefName::parse(example.as_bytes()).is_err() {
            return Err(RefPatternError::Malformed);
        }
        if text.starts_with(OWN) { Err(RefPatternError::Own) } else { Ok(Self(text.to_owned())) }
    }

    /// The pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The one name that it has, if it has no more.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        if self.0.ends_with('*') { None } else { Some(&self.0) }
    }

    fn has(&self, name: &str) -> bool {
        self.0.strip_suffix('*').map_or(self.0 == name, |start| name.starts_with(start))
    }

    /// Whether it has all that `other` has.
    fn covers(&self, other: &Self) -> bool {
        match other.0.strip_suffix('*') {
            Some(start) => self.name().is_none() && self.has(start),
            None => self.has(&other.0),
        }
    }
}

impl MirroredRefs {
    /// Of these patterns. One that another one covers says nothing, and is left out.
    #[must_use]
    pub fn of(patterns: Vec<RefPattern>) -> Self {
        let mut kept: Vec<RefPattern> = Vec::new();
        for pattern in patterns {
            if !kept.iter().any(|known| known.covers(&pattern)) {
                kept.retain(|known| !pattern.covers(known));
                kept.push(pattern);
            }
        }
        Self(kept)
    }

    /// The patterns.
    #[must_use]
    pub fn patterns(&self) -> &[RefPattern] {
        &self.0
    }

    /// Whether a ref of this name is mirrored.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        !name.starts_with(OWN) && self.0.iter().any(|pattern| pattern.has(name))
    }
}

impl Default for MirroredRefs {
    /// Branches and tags: an upstream may have a ref for every change that was ever proposed.
    fn default() -> Self {
        Self(["refs/heads/*", "refs/tags/*"].map(|text| RefPattern(text.to_owned())).into())
    }
}

impl fmt::Display for MirroredRefs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns: Vec<&str> = self.0.iter().map(RefPattern::as_str).collect();
        f.write_str(&patterns.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(patterns: &[&str]) -> MirroredRefs {
        MirroredRefs::of(patterns.iter().map(|text| RefPattern::parse(text).unwrap()).collect())
    }

    #[test]
    fn branches_and_tags_are_mirrored_by_default_and_nothing_else() {
        for (name, expected) in [
            ("refs/heads/a", true),
            ("refs/tags/a/b", true),
            ("refs/pull/1/head", false),
            ("refs/heads", false),
            ("refs/headstone/a", false),
        ] {
            assert_eq!(MirroredRefs::default().has(name), expected, "{name}");
        }
    }

    #[test]
    fn a_pattern_is_a_name_or_the_start_of_names() {
        let refs = of(&["refs/heads/main", "refs/heads/release-*", "refs/changes/*"]);
        for (name, expected) in [
            ("refs/heads/main", true),
            ("refs/heads/main/x", false),
            ("refs/heads/release-1", true),
            ("refs/heads/release-1/a", true),
            ("refs/heads/release", false),
            ("refs/changes/01/1/1", true),
            ("refs/tags/v1", false),
        ] {
            assert_eq!(refs.has(name), expected, "{name}");
        }
        assert!(of(&["refs/*"]).has("refs/notes/x") && !of(&["refs/*"]).has("refs/tidegate/x"));
    }

    #[test]
    fn what_is_no_pattern_is_refused_and_so_are_refs_of_the_gate() {
        for text in [
            "",
            "*",
            "a",
            "refs",
            "refs/",
            "refs/main",
            "/refs/heads/*",
            "refs/heads/",
            "refs/heads/*/x",
            "refs/heads/**",
            "refs/*/main",
            "+refs/heads/*",
            "refs/heads/*:refs/x/*",
            "^refs/heads/*",
            "refs/heads/a b",
            "refs/heads/../x",
            "refs/heads//*",
            "refs/he\u{7}ads/*",
            "heads/*",
        ] {
            assert_eq!(RefPattern::parse(text), Err(RefPatternError::Malformed), "{text:?}");
        }
        for text in ["refs/tidegate/*", "refs/tidegate/x"] {
            assert_eq!(RefPattern::parse(text), Err(RefPatternError::Own), "{text:?}");
        }
    }

    #[test]
    fn what_is_written_twice_counts_once() {
        let plain = of(&["refs/heads/*", "refs/tags/*"]);
        assert_eq!(of(&["refs/heads/*", "refs/heads/*", "refs/tags/*"]), plain);
        assert_eq!(
            of(&["refs/heads/a", "refs/heads/b*", "refs/heads/*", "refs/tags/*", "refs/tags/v*"]),
            plain
        );
        assert_eq!(
            of(&["refs/heads/*", "refs/tags/*", "refs/heads/a"]).to_string(),
            "refs/heads/*, refs/tags/*"
        );
        assert_eq!(of(&["refs/heads/a", "refs/heads/a*"]).patterns().len(), 1);
    }
}
