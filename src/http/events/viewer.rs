//! Who follows a stream, and what he may know of.
//!
//! A stream lasts, and rights do not: whose token it is, is asked anew at each event and each heartbeat, and who may know
//! of an event is decided with the rules of that moment.

use super::stream::End;
use super::streams::Dropped;
use crate::gate::sight::Sight;
use crate::http::auth::Credential;
use crate::model::access::Caller;
use crate::model::fleet::{Notice, RepoKey};
use crate::model::name::UserName;
use crate::model::push::{Actor, Pusher, PusherView};
use crate::store::Store;
use serde::Deserialize;

/// Who follows a stream.
#[derive(Debug)]
pub struct Viewer {
    credential: Credential,
    caller: Caller,
}

/// What the body of an event says of where it comes from.
#[derive(Debug, Deserialize)]
struct Origin {
    repo: RepoKey,
    #[serde(default)]
    push: Option<PushOrigin>,
}

#[derive(Debug, Deserialize)]
struct PushOrigin {
    pusher: PusherView,
}

impl Viewer {
    /// Whoever has logged in with this credential, which is shown to the store again and again.
    #[must_use]
    pub const fn new(credential: Credential, caller: Caller) -> Self {
        Self { credential, caller }
    }

    /// His name, for whoever has one.
    pub(super) const fn user(&self) -> Option<&UserName> {
        match &self.caller {
            Caller::User { name, .. } => Some(name),
            Caller::Anonymous | Caller::Local | Caller::Guest { .. } => None,
        }
    }

    /// Asks who he is now.
    ///
    /// # Errors
    /// [`Dropped::Revoked`] when the token holds no more; [`End::Failed`] when that cannot be found out.
    pub(super) fn renew(&mut self, store: &Store) -> Result<(), End> {
        self.caller = self.credential.owner(store)?.ok_or(End::Dropped(Dropped::Revoked))?;
        Ok(())
    }

    /// Whether he may know of this event. What its body does not say clearly is said to nobody who needs it to be so.
    pub(super) fn may_know(&self, sight: Sight<'_>, notice: &Notice) -> bool {
        let origin = || serde_json::from_str::<Origin>(&notice.body).ok();
        let is_upstream = || origin().is_none_or(|origin| origin.repo.as_hosted().is_none());
        let is_own = |user: &UserName| {
            let pusher = origin().and_then(|origin| origin.push).map(|push| push.pusher);
            pusher.is_some_and(|pusher| is_that_of(pusher, user))
        };
        sight.may_know(&self.caller, &notice.repo, is_upstream, is_own)
    }
}

fn is_that_of(pusher: PusherView, user: &UserName) -> bool {
    let PusherView { name, verified, claimed } = pusher;
    Pusher { name, verified, claimed }.is(&Actor::User(user.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::upstreams::Upstreams;
    use crate::mirror::{MirrorSettings, Mirrors};
    use crate::model::access::{Pushers, Rules};
    use crate::model::fleet::EventName;
    use crate::model::name::RepoName;
    use crate::model::role::Role;
    use crate::sys::stop::Stop;
    use serde_json::json;

    /// Who of alice, bob and the reviewer rita may know of an event with this body, where no upstream is configured.
    fn knowing(body: &str) -> Vec<&'static str> {
        let home = tempfile::tempdir().unwrap();
        let mirrors = Mirrors::open(home.path(), MirrorSettings::default(), &Stop::new().unwrap()).unwrap();
        let upstreams = Upstreams::new(Vec::new(), mirrors, false);
        let rules = Rules::new(Vec::new(), Pushers::Users);
        let repo = RepoName::parse("forge/app").unwrap();
        let event = EventName::RepoVersion;
        let notice = Notice { number: 1, event, repo, pusher: None, body: body.into() };
        let may_know = |name: &str, role| {
            let credential = Credential::parse("Bearer x").unwrap();
            let name = UserName::parse(name).unwrap();
            let viewer = Viewer::new(credential, Caller::User { name, role });
            viewer.may_know(Sight { rules: &rules, upstreams: &upstreams }, &notice)
        };
        let people = [("alice", Role::Pusher), ("bob", Role::Pusher), ("rita", Role::Reviewer)];
        people.into_iter().filter(|(name, role)| may_know(name, *role)).map(|(name, _)| name).collect()
    }

    fn body(key: &str, pusher: Option<bool>) -> String {
        let mut body = json!({ "repo": key, "name": "forge/app", "later": [1] });
        if let Some(verified) = pusher {
            body["push"] = json!({ "pusher": { "name": "Alice", "verified": verified, "claimed": null } });
        }
        body.to_string()
    }

    #[test]
    fn an_upstream_that_is_configured_no_more_is_known_to_reviewers_and_to_pushers_of_their_own() {
        let beyond = "https://forge.example/app";
        assert_eq!(knowing(&body(beyond, None)), ["rita"]);
        assert_eq!(knowing(&body(beyond, Some(true))), ["alice", "rita"]);
        assert_eq!(knowing(&body(beyond, Some(false))), ["rita"], "a name is no proof");
        let hosted = format!("{}/forge/app", "0a".repeat(16));
        assert_eq!(knowing(&body(&hosted, None)), ["alice", "bob", "rita"], "a repository of our own");
    }

    #[test]
    fn what_cannot_be_read_is_said_to_nobody_who_needs_it_to_be_read() {
        for bad in ["", "{}", "[]", r#"{"repo": 7}"#, r#"{"repo": ""}"#] {
            assert_eq!(knowing(bad), ["rita"], "{bad}");
        }
    }
}
