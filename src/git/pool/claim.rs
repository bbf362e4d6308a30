//! What a job brings to the queue: on whose account it is, and who waits for it.

use crate::model::name::RepoName;
use crate::model::upstream::Origin;
use std::net::IpAddr;

/// On whose account a job holds a worker: shares are counted by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Account {
    /// The client's.
    Address(IpAddr),
    /// That of the upstream that is spoken with.
    Origin(Origin),
    /// That of the repository whose objects are packed.
    Repository(RepoName),
}

/// Who waits for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A push that was approved: it has the reserved workers of a lane, and its own share on an account.
    Forward,
    /// A client.
    Demand,
    /// Nobody; it goes behind the others until it has waited for long.
    Schedule,
}

/// A job's place among others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// A job without an account counts as that of somebody who has no other.
    pub account: Option<Account>,
    /// Who waits for it.
    pub class: Class,
    /// Whether it was let in before it came, so that no queue is too full for it.
    pub is_expected: bool,
}

/// How many are expected to come with jobs that need a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coming {
    /// On the account of whoever asks.
    pub own: usize,
    /// On all accounts.
    pub all: usize,
}

impl Class {
    /// Every class, in the order in which people are shown them.
    pub const ALL: [Self; 3] = [Self::Forward, Self::Demand, Self::Schedule];

    /// The name in metrics and in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Demand => "demand",
            Self::Schedule => "schedule",
        }
    }
}

impl Claim {
    /// Of whoever asks at this address; nobody knows whose job it is where there is none.
    #[must_use]
    pub fn of_client(address: Option<IpAddr>) -> Self {
        Self { account: address.map(Account::Address), class: Class::Demand, is_expected: false }
    }

    /// Of a pack of this repository.
    #[must_use]
    pub const fn of_repository(repo: RepoName, is_expected: bool) -> Self {
        Self { account: Some(Account::Repository(repo)), class: Class::Demand, is_expected }
    }

    /// Of work with this upstream.
    #[must_use]
    pub const fn on(origin: Origin, class: Class) -> Self {
        Self { account: Some(Account::Origin(origin)), class, is_expected: false }
    }
}
