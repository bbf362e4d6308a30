//! Who may read and push what: rules over repository names, the first that matches decides.
//!
//! A verdict is made from the name alone, before the disk is looked at, so it is the same whether the
//! repository exists or not.

use crate::model::name::{NameError, RepoName, UserName, is_segment_byte};
use crate::model::role::{Role, RoleError};
use globset::{Glob, GlobBuilder, GlobMatcher};
use std::fmt;
use thiserror::Error;

/// The longest pattern, in bytes: as much as the longest repository name.
const PATTERN_BYTES_MAX: usize = 1024;
/// What a pattern may hold beside the characters of repository names. `!` and `^` are missing because a negated
/// class would match a slash.
const PATTERN_MARKS: &[u8] = b"/*?[]{},";
/// How a role is written where users are listed.
const ROLE_PREFIX: &str = "role:";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody we know: the request carried no credential.
    Anonymous,
    /// A user whose token was checked.
    User {
        /// His name, as the database has it.
        name: UserName,
        /// His role.
        role: Role,
    },
    /// The operator, through the socket in the data directory that only the gate's own uid can open.
    Local,
    /// Somebody with a credential for an upstream, which is for the upstream to judge.
    Guest {
        /// What distinguishes him from others there.
        name: String,
        /// How he calls himself.
        claimed: Option<String>,
    },
}

impl Caller {
    /// The user's name, for whoever has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::User { name, .. } => Some(name.as_str()),
            Self::Guest { name, .. } => Some(name),
            Self::Anonymous | Self::Local => None,
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Fetch and clone.
    Read,
    /// Push. Whoever pushes is shown the refs, so this contains [`Right::Read`].
    Push,
}

/// The answer to a caller who asks for a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on; only now may the answer depend on what is on disk.
    Allowed,
    /// 401: a credential could help, and none was given.
    NeedsCredential,
    /// 404: this caller does not learn whether the repository exists.
    Hidden,
    /// 403: the caller may read, but not push.
    Forbidden,
}

/// Who may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Everybody, without a credential.
    Anyone,
    /// Every user, whatever his role.
    Users,
    /// Nobody.
    Nobody,
}

/// Who may push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushers {
    /// Everybody, without a credential.
    Anyone,
    /// Every user who is pusher or above.
    Users,
    /// Nobody.
    Nobody,
    /// Those who are listed, and nobody else.
    Listed(Vec<Grantee>),
}

/// One entry of a list of pushers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grantee {
    /// The user of this name, whatever his role.
    User(UserName),
    /// Every user of this role or above.
    Role(Role),
}

/// A glob over canonical repository names: `*` and `?` stay within a segment, `**` crosses them, `{a,b}`
/// chooses.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    matcher: GlobMatcher,
}

/// What holds for the repositories that a pattern matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which repositories.
    pub repos: Pattern,
    /// Who may read them.
    pub read: Readers,
    /// Who may push to them.
    pub push: Pushers,
    /// Who may approve his own pushes to them.
    pub self_certify: Vec<Grantee>,
}

/// All rules in their order, and what holds where none matches: anyone reads, users push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    rules: Vec<Rule>,
    default_push: Pushers,
}

/// Why a part of a rule cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RuleError {
    /// Neither a text nor a list of texts.
    #[error("must be a text in quotes")]
    NotText,
    /// Something other than a word where readers stand; perhaps a list, as pushers have it.
    #[error("must be \"anyone\", \"users\" or \"nobody\": readers are not listed one by one")]
    ReadWord,
    /// A word where only a list is taken.
    #[error("must be a list such as [\"alice\", \"role:reviewer\"]")]
    NotAList,
    /// Not one of the three words.
    #[error("{0:?} is not allowed here: write \"anyone\", \"users\" or \"nobody\"")]
    Word(String),
    /// Not one of the three words, and not a list.
    #[error(
        "{0:?} is not allowed here: write \"anyone\", \"users\", \"nobody\", or a list such as [\"alice\", \"role:pusher\"]"
    )]
    PushWord(String),
    /// A word where a name belongs: it would be taken for a user who is called that.
    #[error("{0:?} stands for itself and is not listed: write push = {0:?}")]
    WordInList(String),
    /// A list of nobody.
    #[error("the list is empty: write \"nobody\"")]
    EmptyList,
    /// Not a user's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Not a role.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// A pattern that is empty, too long, or could never match a canonical name.
    #[error(
        "{0:?} is no pattern for repositories: write their names without leading or trailing slash and without .git, \
         with * and ? within a segment, ** across segments, and {{a,b}} for a choice"
    )]
    Pattern(String),
}

impl Rules {
    /// Rules in the order in which they are tried. `default_push` is who pushes where none matches.
    #[must_use]
    pub fn new(rules: Vec<Rule>, default_push: Pushers) -> Self {
        Self { rules, default_push }
    }

    /// The rules in their order.
    #[must_use]
    pub fn list(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether `caller` has `right` on `repo`.
    #[must_use]
    pub fn judge(&self, repo: &RepoName, right: Right, caller: &Caller) -> Verdict {
        let rule = self.rules.iter().find(|rule| rule.repos.matches(repo));
        let (read, push) = match rule {
            Some(rule) => (rule.read, &rule.push),
            None => (Readers::Anyone, &self.default_push),
        };
        match caller {
            Caller::Local => Verdict::Allowed,
            Caller::Anonymous => judge_anonymous(read, push, right),
            Caller::User { name, role } => judge_user(read, push, right, name, *role),
            Caller::Guest { .. } => judge_guest(read, push, right),
        }
    }
}

impl Rules {
    /// Whether the user may approve his own push to `repo`: only a rule that names him says so.
    #[must_use]
    pub fn may_self_certify(&self, repo: &RepoName, name: &UserName, role: Role) -> bool {
        let rule = self.rules.iter().find(|rule| rule.repos.matches(repo));
        rule.is_some_and(|rule| rule.self_certify.iter().any(|grantee| grantee.covers(name, role)))
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::new(Vec::new(), Pushers::Users)
    }
}

/// A challenge is sent only where a credential could change the answer.
fn judge_anonymous(read: Readers, push: &Pushers, right: Right) -> Verdict {
    match (read, right) {
        (Readers::Nobody, Right::Read | Right::Push) => Verdict::Hidden,
        (Readers::Users, Right::Read | Right::Push) => Verdict::NeedsCredential,
        (Readers::Anyone, Right::Read) => Verdict::Allowed,
        (Readers::Anyone, Right::Push) => match push {
            Pushers::Anyone => Verdict::Allowed,
            Pushers::Users | Pushers::Listed(_) => Verdict::NeedsCredential,
            Pushers::Nobody => Verdict::Forbidden,
        },
    }
}

fn judge_user(read: Readers, push: &Pushers, right: Right, name: &UserName, role: Role) -> Verdict {
    match (read, right) {
        (Readers::Nobody, Right::Read | Right::Push) => Verdict::Hidden,
        (Readers::Anyone | Readers::Users, Right::Read) => Verdict::Allowed,
        (Readers::Anyone | Readers::Users, Right::Push) if push.admit(name, role) => Verdict::Allowed,
        (Readers::Anyone | Readers::Users, Right::Push) => Verdict::Forbidden,
    }
}

/// Rules can shut an upstream's repository; whom they would have to know for more, they do not know.
fn judge_guest(read: Readers, push: &Pushers, right: Right) -> Verdict {
    match (read, right) {
        (Readers::Nobody, Right::Read | Right::Push) => Verdict::Hidden,
        (Readers::Anyone | Readers::Users, Right::Read) => Verdict::Allowed,
        (Readers::Anyone | Readers::Users, Right::Push) => match push {
            Pushers::Anyone | Pushers::Users => Verdict::Allowed,
            Pushers::Nobody | Pushers::Listed(_) => Verdict::Forbidden,
        },
    }
}

impl Readers {
    /// Reads one of the three words.
    ///
    /// # Errors
    /// For any other word.
    pub fn parse(word: &str) -> Result<Self, RuleError> {
        match word {
            "anyone" => Ok(Self::Anyone),
            "users" => Ok(Self::Users),
            "nobody" => Ok(Self::Nobody),
            _ => Err(RuleError::Word(word.to_owned())),
        }
    }

    /// The word for it in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Users => "users",
            Self::Nobody => "nobody",
        }
    }
}

impl Pushers {
    /// Reads one of the three words.
    ///
    /// # Errors
    /// For any other word, users' names included: those stand in a list.
    pub fn parse(word: &str) -> Result<Self, RuleError> {
        match Readers::parse(word) {
            Ok(Readers::Anyone) => Ok(Self::Anyone),
            Ok(Readers::Users) => Ok(Self::Users),
            Ok(Readers::Nobody) => Ok(Self::Nobody),
            Err(_) => Err(RuleError::PushWord(word.to_owned())),
        }
    }

    /// Reads a list of users and roles.
    ///
    /// # Errors
    /// When it is empty, or an entry is neither a user's name nor `role:NAME`.
    pub fn parse_list<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, RuleError> {
        let list = entries.into_iter().map(Grantee::parse).collect::<Result<Vec<_>, _>>()?;
        if list.is_empty() { Err(RuleError::EmptyList) } else { Ok(Self::Listed(list)) }
    }

    /// Whether `caller` is one of them. The operator always is.
    #[must_use]
    pub fn admits(&self, caller: &Caller) -> bool {
        match caller {
            Caller::Local => true,
            Caller::Anonymous => *self == Self::Anyone,
            Caller::User { name, role } => self.admit(name, *role),
            Caller::Guest { .. } => matches!(self, Self::Anyone | Self::Users),
        }
    }

    fn admit(&self, name: &UserName, role: Role) -> bool {
        match self {
            Self::Anyone => true,
            Self::Users => role >= Role::Pusher,
            Self::Nobody => false,
            Self::Listed(list) => list.iter().any(|grantee| grantee.covers(name, role)),
        }
    }
}

impl Grantee {
    fn covers(&self, name: &UserName, role: Role) -> bool {
        match self {
            Self::User(listed) => listed.is_spelling_of(name.as_str()),
            Self::Role(least) => role >= *least,
        }
    }

    fn parse(entry: &str) -> Result<Self, RuleError> {
        if let Some(role) = entry.strip_prefix(ROLE_PREFIX) {
            return Ok(Self::Role(Role::parse(role)?));
        }
        if Readers::parse(entry).is_ok() {
            return Err(RuleError::WordInList(entry.to_owned()));
        }
        Ok(Self::User(UserName::parse(entry)?))
    }
}

impl fmt::Display for Grantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => name.fmt(f),
            Self::Role(role) => write!(f, "{ROLE_PREFIX}{role}"),
        }
    }
}

impl Pattern {
    /// Reads a glob.
    ///
    /// Names are matched in their canonical form, so a pattern that asks for `.git`, for a leading slash or for
    /// a character that no name has would silently never match; it is refused instead.
    ///
    /// # Errors
    /// When the glob is malformed or can match no name.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let bad = || RuleError::Pattern(text.to_owned());
        let alphabet = text.bytes().all(|byte| is_segment_byte(byte) || PATTERN_MARKS.contains(&byte));
        let slashes = text.starts_with('/') || text.ends_with('/') || text.contains("//");
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX || !alphabet || slashes || asks_for_suffix(text)
        {
            return Err(bad());
        }
        let glob = glob(text).map_err(|_| bad())?;
        Ok(Self { text: text.to_owned(), matcher: glob.compile_matcher() })
    }

    /// Whether `repo` is one of those that are meant.
    #[must_use]
    pub fn matches(&self, repo: &RepoName) -> bool {
        self.matcher.is_match(repo.as_str())
    }

    /// Whether the repository at `path`, a part of a canonical name, is one of those that are meant.
    #[must_use]
    pub fn matches_path(&self, path: &str) -> bool {
        self.matcher.is_match(path)
    }

    /// The one path that is meant, where nothing in the pattern chooses.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        let chooses = self.text.bytes().any(|byte| PATTERN_MARKS.contains(&byte) && byte != b'/');
        (!chooses).then_some(self.text.as_str())
    }

    /// Whether a name that begins with the segment `folder` and goes on may match. Where that is not plain, it may.
    #[must_use]
    pub fn may_match_below(&self, folder: &str) -> bool {
        let (first, goes_on) =
            self.text.split_once('/').map_or((self.text.as_str(), false), |(first, _)| (first, true));
        let is_one_segment = !first.contains('[')
            && !first.contains("**")
            && first.matches('{').count() == first.matches('}').count();
        if is_one_segment {
            let first = glob(first).map(|glob| glob.compile_matcher().is_match(folder));
            return goes_on && first.unwrap_or(true);
        }
        // Classes, choices and ** may hold a slash. What stands before them is certain.
        let certain = &self.text[..self.text.find(['*', '?', '[', '{']).unwrap_or(self.text.len())];
        let below = format!("{folder}/");
        below.starts_with(certain) || certain.starts_with(&below)
    }

    /// Whether it is plain that `other` matches nothing beyond what this one matches: it is the same, or this is `**`.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.text == "**" || self == other
    }

    /// The glob as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn glob(text: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(text).literal_separator(true).build()
}

/// Whether a segment of the pattern, or a choice in it, ends in `.git`, as no segment of a canonical name does.
fn asks_for_suffix(text: &str) -> bool {
    text.split(['/', ',', '}']).any(|part| part.ends_with(".git"))
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn repo(name: &str) -> RepoName {
        RepoName::parse(name).unwrap()
    }

    fn user(name: &str, role: Role) -> Caller {
        Caller::User { name: UserName::parse(name).unwrap(), role }
    }

    fn rule(repos: &str, read: &str, push: Pushers) -> Rule {
        Rule {
            repos: Pattern::parse(repos).unwrap(),
            read: Readers::parse(read).unwrap(),
            push,
            self_certify: Vec::new(),
        }
    }

    #[test]
    fn rules_can_shut_a_guest_out_and_never_take_him_for_a_user() {
        let guest = Caller::Guest { name: "forge:1f2e".into(), claimed: Some("alice".into()) };
        let judge = |read, push, right| {
            let rule = Rule { repos: Pattern::parse("**").unwrap(), read, push, self_certify: Vec::new() };
            Rules::new(vec![rule], Pushers::Users).judge(&repo("forge/app"), right, &guest)
        };
        let alice = Pushers::parse_list(["alice", "role:reader"]).unwrap();
        for push in [Pushers::Anyone, Pushers::Users] {
            assert_eq!(judge(Readers::Users, push, Right::Push), Verdict::Allowed);
        }
        for push in [alice.clone(), Pushers::Nobody] {
            assert_eq!(judge(Readers::Anyone, push.clone(), Right::Push), Verdict::Forbidden);
            assert_eq!(judge(Readers::Nobody, push, Right::Read), Verdict::Hidden);
        }
        assert!(!alice.admits(&guest) && Pushers::Users.admits(&guest));
    }

    #[test]
    fn a_pattern_may_match_below_a_folder_unless_it_plainly_cannot() {
        for may in [
            "**", "gh/**", "gh/a", "g*/a", "*/*", "{gh,x}/*", "{gh/a,b}", "g[h]/a", "gh[.-0]a", "g**", "?h/*",
        ] {
            assert!(Pattern::parse(may).unwrap().may_match_below("gh"), "{may}");
        }
        for cannot in [
            "gh", "*", "g*", "?h", "{gh,x}", "x/**", "ghx/**", "gh2/a", "x*/a", "{a,b}/**", "x[a]/b", "g?x/a",
        ] {
            assert!(!Pattern::parse(cannot).unwrap().may_match_below("gh"), "{cannot}");
        }
    }

    #[test]
    fn without_rules_anyone_reads_and_pushers_push() {
        let rules = Rules::default();
        let app = repo("app");
        assert_eq!(rules.judge(&app, Right::Read, &Caller::Anonymous), Verdict::Allowed);
        assert_eq!(rules.judge(&app, Right::Push, &Caller::Anonymous), Verdict::NeedsCredential);
        assert_eq!(rules.judge(&app, Right::Push, &user("r", Role::Reader)), Verdict::Forbidden);
        for role in [Role::Pusher, Role::Reviewer, Role::Admin] {
            assert_eq!(rules.judge(&app, Right::Push, &user("p", role)), Verdict::Allowed);
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = Rules::new(
            vec![
                rule("secret/open", "anyone", Pushers::Nobody),
                rule("secret/**", "users", Pushers::parse_list(["alice", "role:reviewer"]).unwrap()),
                rule("**", "nobody", Pushers::Anyone),
            ],
            Pushers::Users,
        );
        let judge = |name: &str, right, caller: &Caller| rules.judge(&repo(name), right, caller);
        let (alice, bob) = (user("alice", Role::Reader), user("bob", Role::Pusher));
        assert_eq!(judge("secret/open", Right::Read, &Caller::Anonymous), Verdict::Allowed);
        assert_eq!(judge("secret/open", Right::Push, &Caller::Anonymous), Verdict::Forbidden);
        assert_eq!(judge("secret/a/b", Right::Read, &Caller::Anonymous), Verdict::NeedsCredential);
        assert_eq!(judge("secret/a/b.git", Right::Push, &Caller::Anonymous), Verdict::NeedsCredential);
        assert_eq!(judge("secret/a", Right::Push, &alice), Verdict::Allowed);
        assert_eq!(judge("secret/a", Right::Push, &user("Alice", Role::Reader)), Verdict::Allowed);
        assert_eq!(judge("secret/a", Right::Push, &bob), Verdict::Forbidden);
        assert_eq!(judge("secret/a", Right::Push, &user("rev", Role::Admin)), Verdict::Allowed);
        assert_eq!(judge("other", Right::Read, &Caller::Anonymous), Verdict::Hidden);
        assert_eq!(judge("other", Right::Push, &user("root", Role::Admin)), Verdict::Hidden);
        assert_eq!(judge("other", Right::Push, &Caller::Local), Verdict::Allowed);
    }

    #[test]
    fn globs_stop_at_slashes_unless_they_are_double() {
        let cases: [(&str, &[&str], &[&str]); 8] = [
            ("*", &["a", "a.b"], &["a/b"]),
            ("**", &["a", "a/b/c"], &[]),
            ("secret/**", &["secret/a", "secret/a/b"], &["secret", "secrets/a", "x/secret/a"]),
            ("secret/*", &["secret/a"], &["secret/a/b"]),
            ("**/app", &["app", "x/app", "x/y/app"], &["x/apple", "xapp"]),
            ("acme/{app,lib}-*", &["acme/app-1", "acme/lib-x"], &["acme/doc-1", "acme/app-1/x"]),
            ("v?", &["v1"], &["v", "v12"]),
            ("r[0-9]", &["r7"], &["rx"]),
        ];
        for (text, inside, outside) in cases {
            let pattern = Pattern::parse(text).unwrap();
            assert!(inside.iter().all(|name| pattern.matches(&repo(name))), "{text}");
            assert!(!outside.iter().any(|name| pattern.matches(&repo(name))), "{text}");
        }
    }

    #[test]
    fn a_pattern_that_could_never_match_is_refused() {
        for text in [
            "",
            "/a",
            "a/",
            "a//b",
            "a.git",
            "secret/*.git",
            "{a.git,b}",
            "a b",
            "[!a]",
            "[^a]",
            "{a",
            "a\\*",
            "é",
        ] {
            assert_eq!(Pattern::parse(text), Err(RuleError::Pattern(text.to_owned())), "{text:?}");
        }
        assert!(Pattern::parse(&"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn unknown_words_and_ambiguous_lists_are_refused() {
        assert!(Readers::parse("everyone").is_err());
        assert!(Readers::parse("").is_err());
        assert!(Pushers::parse("alice").is_err());
        assert_eq!(Pushers::parse_list([]), Err(RuleError::EmptyList));
        assert_eq!(Pushers::parse_list(["users"]), Err(RuleError::WordInList("users".into())));
        assert!(matches!(Pushers::parse_list(["role:owner"]), Err(RuleError::Role(_))));
        assert!(matches!(Pushers::parse_list(["a:b"]), Err(RuleError::Name(_))));
    }

    proptest! {
        #[test]
        fn what_matches_below_a_folder_may_match_there(
            text in "[gh*?/{},.a\\[\\]-]{1,10}",
            name in "(gh|g|h)/[gha./-]{0,5}",
        ) {
            if let (Ok(pattern), Ok(name)) = (Pattern::parse(&text), RepoName::parse(&name)) {
                let (folder, _) = name.upstream_split().unwrap();
                prop_assert!(!pattern.matches(&name) || pattern.may_match_below(folder), "{text} {name}");
            }
        }
    }

    proptest! {
        #[test]
        fn whoever_may_push_may_read_and_a_user_is_never_asked_for_a_credential(
            read in 0usize..3, push in 0usize..4, role in 0usize..4, listed: bool,
        ) {
            let read = [Readers::Anyone, Readers::Users, Readers::Nobody][read];
            let list = Pushers::Listed(vec![Grantee::User(UserName::parse("alice").unwrap())]);
            let push = [Pushers::Anyone, Pushers::Users, Pushers::Nobody, list][push].clone();
            let rules = Rules::new(vec![Rule { repos: Pattern::parse("**").unwrap(), read, push, self_certify: Vec::new() }], Pushers::Nobody);
            let caller = user(if listed { "alice" } else { "bob" }, Role::ALL[role]);
            for caller in [caller, Caller::Anonymous] {
                let may_read = rules.judge(&repo("a/b"), Right::Read, &caller);
                let may_push = rules.judge(&repo("a/b"), Right::Push, &caller);
                if may_push == Verdict::Allowed || may_push == Verdict::Forbidden {
                    prop_assert_eq!(may_read, Verdict::Allowed);
                }
                if caller != Caller::Anonymous {
                    prop_assert!(may_read != Verdict::NeedsCredential && may_push != Verdict::NeedsCredential);
                }
            }
        }

        #[test]
        fn any_text_is_a_pattern_or_a_sentence(text in "\\PC{0,20}|[a-z*?{},\\[\\]/.-]{0,30}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                let _ = pattern.matches(&repo("a/b"));
            }
        }
    }
}
