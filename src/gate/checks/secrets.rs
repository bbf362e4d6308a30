//! `secrets`: keys and tokens in the lines that commits add, and in all else that people write into a push: messages,
//! headers, names of files and refs.
//!
//! Two kinds of patterns: tokens whose makers gave them a form of their own, and values that an assignment calls a secret
//! and that look random. A finding shows the first few characters and never the rest, so that the record of a refused push
//! is no place where secrets are kept.

use super::Check;
use super::bench::{Bench, CheckError};
use super::contents::Kind;
use super::facts::{Change, Commit};
use super::findings::{Demand, Findings, Place};
use super::header;
use super::patch::Line;
use super::tag::Tag;
use super::wide;
use regex::bytes::{Captures, Regex, RegexSet, RegexSetBuilder};
use std::collections::HashMap;
use std::sync::LazyLock;

const FOUND: Demand = Demand {
    key: "checks.secrets",
    hint: "revoke it if it is real, and take it out of the commit that adds it: a later commit does not unsay it",
};

/// How many characters of a secret are shown, so that its owner knows which one it is.
const SHOWN: usize = 4;
/// The least randomness of a value, in bits a character, that is taken for a secret: words and paths have about 3, a
/// random one of letters and digits more than 3.7 at this length.
const RANDOM_BITS_MIN: f64 = 3.4;

/// A kind of secret. The group `secret` of its pattern, or the whole match, is what must not be shown.
struct Form {
    /// What it is, for people.
    name: &'static str,
    pattern: &'static str,
    /// Whether what matches may still be something else.
    doubt: Doubt,
}

/// How sure a match is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// Nothing else looks so.
    None,
    /// It may be a placeholder.
    Placeholder,
    /// It may be the password of an example.
    Password,
    /// It may be a word, a path or a name: it must look random as well.
    Word,
}

/// Every kind. Where a form begins as nothing else does it may stand in the middle of a word: what is coloured on a terminal
/// has a letter in front. The others would be found in any long base64.
#[rustfmt::skip]
const FORMS: &[Form] = &[
    Form { name: "a private key", doubt: Doubt::None,
        pattern: r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----" },
    Form { name: "a PuTTY private key", doubt: Doubt::None,
        pattern: r"PuTTY-User-Key-File-[23]: " },
    Form { name: "an age private key", doubt: Doubt::None,
        pattern: r"AGE-SECRET-KEY-1[A-Z0-9]{58}\b" },
    Form { name: "an AWS access key", doubt: Doubt::Placeholder,
        pattern: r"(?:AKIA|ASIA)[A-Z2-7]{16}\b" },
    Form { name: "an AWS secret key", doubt: Doubt::Word,
        pattern: r#"(?i)aws_?(?:sec(?:ret)?)?_?(?:access)?_?key(?:_?id)?["']?\s{0,5}(?:=|:|=>)\s{0,5}["']?(?P<secret>[a-z0-9/+]{40})(?:[^a-z0-9/+=]|$)"# },
    Form { name: "a GitHub token", doubt: Doubt::Placeholder,
        pattern: r"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})" },
    Form { name: "a GitLab token", doubt: Doubt::Placeholder,
        pattern: r"gl(?:pat|oas|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-[A-Za-z0-9_-]{20,255}" },
    Form { name: "a Slack token", doubt: Doubt::Placeholder,
        pattern: r"(?:xox[abeoprs]-(?:[A-Za-z0-9]+-){1,5}[A-Za-z0-9]{8,}|xapp-[0-9]-[A-Z0-9]+-[0-9]+-[a-z0-9]{32,})" },
    Form { name: "a Slack webhook", doubt: Doubt::Placeholder,
        pattern: r"hooks\.slack\.com/(?:services|workflows)/(?P<secret>[TA][A-Z0-9]{6,}/[A-Z0-9]{6,}/[A-Za-z0-9]{16,})" },
    Form { name: "a Google API key", doubt: Doubt::Placeholder,
        pattern: r"\bAIza[A-Za-z0-9_-]{35}\b" },
    Form { name: "a Google OAuth secret", doubt: Doubt::Placeholder,
        pattern: r"GOCSPX-[A-Za-z0-9_-]{28}\b" },
    Form { name: "a Stripe key", doubt: Doubt::Placeholder,
        pattern: r"[rs]k_live_[A-Za-z0-9]{20,255}" },
    Form { name: "an npm token", doubt: Doubt::Placeholder,
        pattern: r"npm_[A-Za-z0-9]{36}\b" },
    Form { name: "a PyPI token", doubt: Doubt::Placeholder,
        pattern: r"pypi-AgE[A-Za-z0-9_-]{50,}" },
    Form { name: "a crates.io token", doubt: Doubt::Word,
        pattern: r"\bcio[A-Za-z0-9]{32}\b" },
    Form { name: "a RubyGems key", doubt: Doubt::Placeholder,
        pattern: r"rubygems_[a-f0-9]{48}\b" },
    Form { name: "a Docker token", doubt: Doubt::Placeholder,
        pattern: r"dckr_(?:pat|oat)_[A-Za-z0-9_-]{27,}" },
    Form { name: "a DigitalOcean token", doubt: Doubt::Placeholder,
        pattern: r"do[opr]_v1_[a-f0-9]{64}\b" },
    Form { name: "a Vault token", doubt: Doubt::Placeholder,
        pattern: r"\bhv[sbr]\.[A-Za-z0-9_-]{24,}" },
    Form { name: "a Hugging Face token", doubt: Doubt::Placeholder,
        pattern: r"\bhf_[A-Za-z0-9]{34,}\b" },
    Form { name: "an Anthropic key", doubt: Doubt::Placeholder,
        pattern: r"sk-ant-[a-z0-9]+-[A-Za-z0-9_-]{32,}" },
    Form { name: "an OpenAI key", doubt: Doubt::Placeholder,
        pattern: r"\bsk-[A-Za-z0-9_-]{16,}T3BlbkFJ[A-Za-z0-9_-]{16,}" },
    Form { name: "a SendGrid key", doubt: Doubt::Placeholder,
        pattern: r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}\b" },
    Form { name: "a Telegram bot token", doubt: Doubt::Placeholder,
        pattern: r"\b[0-9]{8,10}:AA[A-Za-z0-9_-]{33}\b" },
    Form { name: "an Azure storage key", doubt: Doubt::Placeholder,
        pattern: r"(?i)\baccountkey=(?P<secret>[a-z0-9+/]{86}==)" },
    Form { name: "a signed JSON web token", doubt: Doubt::Placeholder,
        pattern: r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{16,}" },
    Form { name: "a token of a tidegate", doubt: Doubt::Placeholder,
        pattern: r"tg_[a-f0-9]{64}\b" },
    Form { name: "a password in a URL", doubt: Doubt::Password,
        pattern: r#"\b[a-z][a-z0-9+.-]{1,30}://[^\s/:@"'<>]{1,64}:(?P<secret>[^\s/:@"'<>$%{}*]{6,128})@[A-Za-z0-9\[]"# },
    Form { name: "a value that is called a secret", doubt: Doubt::Word,
        pattern: r#"(?i)(?:passw(?:or)?d|passphrase|secret|token|api_?-?key|auth_?-?key|access_?-?key|private_?-?key|client_?-?key|credential)s?(?:_?-?(?:key|id|value|string|base64|hex))?["'`]?\s{0,5}(?:=|:|:=|=>|,)\s{0,5}["'`](?P<secret>[a-z0-9_+/=.~@!#%^&*-]{16,200})["'`]"# },
];

/// What marks a value as no secret at all, in lower case.
const PLACEHOLDERS: [&str; 14] = [
    "example",
    "changeme",
    "change-me",
    "change_me",
    "placeholder",
    "dummy",
    "sample",
    "redacted",
    "insert",
    "replace",
    "yourtoken",
    "your-",
    "your_",
    "xxxx",
];

/// Tells at one look which patterns are worth a second one.
static SET: LazyLock<RegexSet> = LazyLock::new(|| {
    let patterns = FORMS.iter().map(|form| form.pattern);
    RegexSetBuilder::new(patterns)
        .unicode(false)
        .build()
        .expect("the patterns are constants, and a test compiles them")
});

static REGEXES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let compile = |form: &Form| regex::bytes::RegexBuilder::new(form.pattern).unicode(false).build();
    FORMS
        .iter()
        .map(|form| compile(form).expect("the patterns are constants, and a test compiles them"))
        .collect()
});

/// A secret in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hit {
    /// What it is.
    name: &'static str,
    /// Where it is, in bytes.
    start: usize,
    end: usize,
}

/// Every place is reported: whoever takes one out must know of the others.
#[derive(Default)]
pub(super) struct Secrets {
    findings: Findings,
}

/// `text` with every secret replaced by its first characters.
pub(super) fn redact(text: &str) -> String {
    let mut hits = hits(text.as_bytes());
    hits.sort_by_key(|hit| hit.start);
    let mut clean = String::new();
    let mut from = 0;
    for hit in
        hits.into_iter().filter(|hit| text.is_char_boundary(hit.start) && text.is_char_boundary(hit.end))
    {
        if hit.start >= from {
            clean.push_str(&text[from..hit.start]);
            clean.push_str(&shown(&text.as_bytes()[hit.start..hit.end]));
        }
        from = from.max(hit.end);
    }
    clean + &text[from..]
}

/// The first characters of a secret: a few, and never more than a quarter.
fn shown(secret: &[u8]) -> String {
    let length = SHOWN.min(secret.len() / 4);
    String::from_utf8_lossy(&secret[..length]).into_owned() + "…"
}

fn hits(text: &[u8]) -> Vec<Hit> {
    let candidates = SET.matches(text);
    candidates.iter().flat_map(|at| hits_of(&FORMS[at], &REGEXES[at], text)).collect()
}

fn hits_of<'t>(
    form: &'static Form,
    regex: &'static Regex,
    text: &'t [u8],
) -> impl Iterator<Item = Hit> + use<'t> {
    let hit = |captures: Captures<'t>| {
        let secret = captures.name("secret").or_else(|| captures.get(0))?;
        let is_one = match form.doubt {
            Doubt::None => true,
            Doubt::Placeholder => !is_placeholder(secret.as_bytes()),
            Doubt::Password => !is_placeholder(secret.as_bytes()) && !is_example(secret.as_bytes()),
            Doubt::Word => !is_placeholder(secret.as_bytes()) && is_random(secret.as_bytes()),
        };
        is_one.then(|| Hit { name: form.name, start: secret.start(), end: secret.end() })
    };
    regex.captures_iter(text).filter_map(hit)
}

/// Whether somebody who needs to show the form of a secret would write this.
fn is_placeholder(value: &[u8]) -> bool {
    let lower = String::from_utf8_lossy(value).to_ascii_lowercase();
    PLACEHOLDERS.iter().any(|word| lower.contains(word)) || bits_each(value) < 2.0
}

/// Whether a password is one that stands in every manual: a plain word, or one that says what it is.
fn is_example(password: &[u8]) -> bool {
    let lower = String::from_utf8_lossy(password).to_ascii_lowercase();
    password.iter().all(u8::is_ascii_lowercase) || ["passw", "secret"].iter().any(|word| lower.contains(word))
}

/// Whether a value looks as if dice had made it: letters and digits, and no order in them.
fn is_random(value: &[u8]) -> bool {
    let has = |is: fn(&u8) -> bool| value.iter().any(is);
    let has_both =
        has(u8::is_ascii_alphabetic) && value.iter().filter(|byte| byte.is_ascii_digit()).count() >= 2;
    // A path, a version or a sentence has parts, and each is a word or a number.
    let parts = value.split(|byte| matches!(byte, b'.' | b'-' | b'_' | b'/'));
    let is_words = parts.clone().count() > 2
        && parts
            .clone()
            .all(|part| part.iter().all(u8::is_ascii_alphabetic) || part.iter().all(u8::is_ascii_digit));
    has_both && !is_words && bits_each(value) >= RANDOM_BITS_MIN
}

/// How many bits a character tells on average, by how often each occurs (Shannon's entropy).
fn bits_each(value: &[u8]) -> f64 {
    let mut counts: HashMap<u8, f64> = HashMap::new();
    value.iter().for_each(|&byte| *counts.entry(byte).or_default() += 1.0);
    let all: f64 = counts.values().sum();
    counts.values().map(|count| count / all).map(|share| -share * share.log2()).sum()
}

impl Secrets {
    /// Answers whether there is a secret in it.
    fn judge(&mut self, place: Place<'_>, whose: &str, text: &[u8]) -> bool {
        let hits = hits(text);
        for hit in &hits {
            let secret = shown(&text[hit.start..hit.end]);
            self.findings.add(place, FOUND, format!("{whose} holds what looks like {}: {secret}", hit.name));
        }
        !hits.is_empty()
    }
}

impl Check for Secrets {
    fn begin(&mut self, bench: &Bench<'_>) -> Result<(), CheckError> {
        for update in bench.push.refs.iter().filter(|update| !update.new.is_zero()) {
            let place = Place { ref_name: Some(update.name.as_str()), ..Place::default() };
            self.judge(place, "the name of the ref", update.name.as_str().as_bytes());
        }
        Ok(())
    }

    fn wants_headers(&self) -> bool {
        true
    }

    fn header(&mut self, place: Place<'_>, header: &[u8]) {
        for line in header::lines(header).filter(|line| !line.is_armour()) {
            let whose = line.person().map(|person| format!("the {person}'s identity"));
            self.judge(place, whose.as_deref().unwrap_or("the header"), line.text);
        }
    }

    fn change(&mut self, place: Place<'_>, change: &Change) {
        if !change.after.is_nothing() {
            self.judge(place, "the name of the file", &change.path);
        }
    }

    fn commit(&mut self, place: Place<'_>, commit: &Commit) {
        if commit.is_ambiguous() {
            self.findings.add_ambiguous(place, FOUND.key, &commit.encoding);
        }
        self.judge(place, "the message", &commit.message);
    }

    fn tag(&mut self, place: Place<'_>, tag: &Tag) {
        self.judge(place, "the message of the tag", &tag.message);
    }

    fn line(&mut self, ref_name: Option<&str>, line: Line<'_>) {
        let place = Place { ref_name, commit: Some(line.commit), path: Some(line.path) };
        let whose = format!("line {}", line.number);
        if !self.judge(place, &whose, line.text)
            && let Some(text) = wide::squeezed(line.text)
        {
            self.judge(place, &whose, &text);
        }
    }

    fn outside_of_commits(&mut self, place: Place<'_>, kind: Kind) {
        self.findings.add_outside(place, FOUND.key, kind.word());
    }

    fn findings(self: Box<Self>) -> Findings {
        self.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples are put together here, so that no scanner takes this file for a leak.
    fn joined(parts: &[&str]) -> String {
        parts.concat()
    }

    const RANDOM: &str = "Zk3vQ8mT1xLr7WnB5cHy2JdP9sFgA4uE6iKo";

    fn names(text: &str) -> Vec<&'static str> {
        hits(text.as_bytes()).into_iter().map(|hit| hit.name).collect()
    }

    #[test]
    fn every_pattern_compiles() {
        assert_eq!(SET.len(), REGEXES.len());
    }

    #[test]
    fn tokens_are_known_by_their_form() {
        let cases = [
            (joined(&["-----BEGIN ", "OPENSSH PRIVATE KEY-----"]), "a private key"),
            (joined(&["-----BEGIN ", "PRIVATE KEY-----"]), "a private key"),
            (joined(&["-----BEGIN ", "PGP PRIVATE KEY BLOCK-----"]), "a private key"),
            (joined(&["id = AK", "IAQ3ZK7MTXLRWNB2CY"]), "an AWS access key"),
            (joined(&["aws_secret_access_key = ", RANDOM, "+/9z"]), "an AWS secret key"),
            (joined(&["gh", "p_", RANDOM]), "a GitHub token"),
            (joined(&["github", "_pat_", &RANDOM[..22], "_", RANDOM, &RANDOM[..23]]), "a GitHub token"),
            (joined(&["gl", "pat-", &RANDOM[..20]]), "a GitLab token"),
            (joined(&["xox", "b-123456789012-1234567890123-", &RANDOM[..24]]), "a Slack token"),
            (
                joined(&["https://hooks.slack", ".com/services/T0000AAAA/B0000AAAA/", &RANDOM[..24]]),
                "a Slack webhook",
            ),
            (joined(&["AI", "za", &RANDOM[..35]]), "a Google API key"),
            (joined(&["sk", "_live_", &RANDOM[..24]]), "a Stripe key"),
            (joined(&["npm", "_", RANDOM]), "an npm token"),
            (joined(&["SG", ".", &RANDOM[..22], ".", RANDOM, &RANDOM[..7]]), "a SendGrid key"),
            (
                joined(&["eyJhbGciOiJIUzI1NiJ9", ".eyJzdWIiOiIxMjM0NTY3ODkwIn0", ".", &RANDOM[..30]]),
                "a signed JSON web token",
            ),
            (joined(&["postgres://app:", "s3cr3tPa55", "@db.internal/app"]), "a password in a URL"),
            (joined(&["api_key = \"", RANDOM, "\""]), "a value that is called a secret"),
            (joined(&["\"clientSecret\": \"", &RANDOM[..24], "\","]), "a value that is called a secret"),
        ];
        for (text, name) in cases {
            assert!(names(&text).contains(&name), "{text}: {:?}", names(&text));
            assert!(names(&format!("{text}\r")).contains(&name), "{text} with CR");
        }
    }

    #[test]
    fn what_only_looks_like_a_secret_is_let_pass() {
        for text in [
            "AKIAIOSFODNN7EXAMPLE",
            "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "-----BEGIN PUBLIC KEY-----",
            "-----BEGIN CERTIFICATE-----",
            "password = os.environ[\"DATABASE_PASSWORD_2024\"]",
            "token: \"${{ secrets.GITHUB_TOKEN_V2 }}\"",
            "api_key = \"your-api-key-goes-here-1234\"",
            "secret: \"kubernetes.io/service-account-token\"",
            "password: \"correct horse battery staple 42\"",
            "token_path = \"/etc/tidegate/edge-2.token\"",
            "let token = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa11\"",
            "https://user:$PASSWORD@example.com/",
            "https://user:password@example.com/ or https://user:secret123@example.com/",
            "https://example.com:8080/path@2x.png",
            "git@github.com:acme/app.git",
            "sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"",
            "  \"integrity\": \"sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP==\"",
            "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
            "class=\"sk-fading-circle-container sk-circle\"",
        ] {
            assert!(names(text).is_empty(), "{text}: {:?}", names(text));
        }
    }

    #[test]
    fn a_secret_is_shown_by_its_first_characters_only() {
        let token = joined(&["gh", "p_", RANDOM]);
        assert_eq!(redact(&format!("a {token} b {token}")), "a ghp_… b ghp_…");
        assert_eq!(redact("nothing here ü"), "nothing here ü");
        assert_eq!(shown(b"abcdef"), "a…");
        let mut secrets = Secrets::default();
        secrets.judge(Place::default(), "line 3", format!("x = {token}").as_bytes());
        let found = secrets.findings.into_list();
        assert_eq!(found[0].message, "line 3 holds what looks like a GitHub token: ghp_…");
    }

    #[test]
    fn bytes_that_are_no_text_hide_nothing() {
        let mut text = vec![0xff, 0xfe, 0];
        text.extend(joined(&["gh", "p_", RANDOM]).bytes());
        text.push(0);
        assert_eq!(hits(&text).len(), 1);
    }
}
