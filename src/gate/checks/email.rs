//! `identity-email`: the addresses of authors, committers and taggers.

use super::Check;
use super::facts::Commit;
use super::findings::{Demand, Findings, Place};
use super::header;
use super::tag::Tag;
use crate::config::checks::EmailSettings;

const DOMAINS: Demand = Demand {
    key: "checks.email.domains",
    hint: "set user.email to an address at an allowed domain and amend (git commit --amend --reset-author)",
};
const LOCAL: Demand = Demand {
    key: "checks.email.block_local",
    hint: "set user.email to your own address and amend (git commit --amend --reset-author)",
};

/// An address counts as it stands in the commit: no mailmap is looked at.
pub(super) struct Email<'a> {
    settings: &'a EmailSettings,
    findings: Findings,
}

impl<'a> Email<'a> {
    pub(super) fn new(settings: &'a EmailSettings) -> Self {
        Self { settings, findings: Findings::default() }
    }

    fn judge(&mut self, place: Place<'_>, whose: &str, address: &[u8]) {
        let shown = String::from_utf8_lossy(address);
        let (local, domain) = match address.iter().rposition(|&byte| byte == b'@') {
            Some(at) => (&address[..at], &address[at + 1..]),
            None => (address, &b""[..]),
        };
        let settings = self.settings;
        if !settings.domains.is_empty() && !settings.domains.iter().any(|allowed| allowed.matches(domain)) {
            let message = format!("the {whose}'s address <{shown}> is not at an allowed domain");
            self.findings.add(place, DOMAINS, message);
        }
        if let Some(glob) = settings.block_local.iter().find(|glob| glob.matches(local)) {
            let message = format!("the {whose}'s address <{shown}> is blocked by \"{glob}\"");
            self.findings.add(place, LOCAL, message);
        }
    }
}

impl Check for Email<'_> {
    fn wants_headers(&self) -> bool {
        true
    }

    /// With more than one pair of brackets each reader takes another part for the address.
    fn header(&mut self, place: Place<'_>, header: &[u8]) {
        let demand = if self.settings.domains.is_empty() { LOCAL } else { DOMAINS };
        for line in header::lines(header) {
            let has_one = |bracket| line.text.iter().filter(|&&byte| byte == bracket).count() == 1;
            if let Some(whose) = line.person().filter(|_| !(has_one(b'<') && has_one(b'>'))) {
                let message = format!("the {whose}'s identity does not hold exactly one address");
                self.findings.add(place, demand, message);
            }
        }
    }

    fn commit(&mut self, place: Place<'_>, commit: &Commit) {
        // Git converts the whole commit, so the addresses are as doubtful as the message.
        if commit.is_ambiguous() {
            return self.findings.add_ambiguous(place, DOMAINS.key, &commit.encoding);
        }
        self.judge(place, "author", &commit.author);
        if commit.committer != commit.author {
            self.judge(place, "committer", &commit.committer);
        }
    }

    fn tag(&mut self, place: Place<'_>, tag: &Tag) {
        self.judge(place, "tagger", tag.tagger.as_deref().unwrap_or_default());
    }

    fn findings(self: Box<Self>) -> Findings {
        self.findings
    }
}
