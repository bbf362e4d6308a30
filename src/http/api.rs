//! The API of held pushes, and nothing but its JSON: who may do what is `gate::decide`'s.

use super::app::App;
use super::form::Form;
use super::message::{FieldError, Headers, Response};
use super::refusal::Refusal;
use super::route::Asked;
use super::status::json;
use crate::gate::decide::{DecideError, Desk, Verb};
use crate::gate::diff::DiffError;
use crate::model::name::RepoName;
use crate::model::push::{Push, PushId, PushState, PushView};
use crate::store::pushes::{Filter, PAGE_MAX, Page};
use jiff::Timestamp;
use serde::Deserialize;

/// How many pushes a list has that is not asked for a number.
const PAGE_LEN: u32 = 50;
/// The parameters of a list.
const LIST: &[&str] = &["state", "repo", "user", "limit", "before"];

/// The body of a decision.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// Why, for the record.
    #[serde(default)]
    reason: Option<String>,
}

impl From<DecideError> for Refusal {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::NeedsCredential => Self::Credential,
            DecideError::Unknown(_) => Self::NotFound,
            DecideError::Denied(why) => Self::Forbidden(why.to_string().into()),
            DecideError::Reason(why) => Self::BadRequest(why.to_string().into()),
            DecideError::Conflict { state, .. } => Self::Conflict { state, why: error.to_string().into() },
            DecideError::Store(error) => Self::internal("deciding on a push", &error),
        }
    }
}

/// `GET pushes?state=&repo=&user=&limit=&before=`: the newest first; `next` is the next part's `before`.
pub fn pushes(app: &App, asked: &Asked<'_>) -> Result<Response, Refusal> {
    let page = list(app, asked)?;
    let views: Vec<PushView> = page.pushes.iter().map(PushView::brief).collect();
    Ok(json(&serde_json::json!({ "pushes": views, "next": page.next.map(PushId::get) })).uncached())
}

/// `GET pushes/ID`: everything about one push.
pub fn push(app: &App, asked: &Asked<'_>) -> Result<Response, Refusal> {
    let rules = app.rules.get();
    let view = desk(app, &rules).view(asked.caller, asked.push()?)?;
    Ok(json(&view).uncached())
}

/// `GET pushes/ID/diff`: text, in the bytes of whoever pushed it.
pub fn diff(app: &App, asked: &Asked<'_>) -> Result<Response, Refusal> {
    let text = make_diff(app, asked)?;
    Ok(Response::new(200)
        .with("Content-Type", "text/plain; charset=utf-8")
        .with("X-Content-Type-Options", "nosniff")
        .with("Content-Security-Policy", "default-src 'none'; sandbox")
        .uncached()
        .with_body(text))
}

/// `POST pushes/ID/VERB {"reason"}`: the push as it stands then.
///
/// A page of another site can send a form but, without our consent, neither JSON nor what its browser says of it:
/// so a browser's stored credential decides nothing for it.
pub fn decide(app: &App, asked: &Asked<'_>, verb: Verb) -> Result<Response, Refusal> {
    require_json(asked.headers)?;
    require_own_site(asked.headers)?;
    let wish: Wish = serde_json::from_slice(&asked.body).map_err(|error| {
        Refusal::BadRequest(format!("the body is not {{\"reason\": TEXT}}: {error}").into())
    })?;
    let view = carry_out(app, asked, verb, &wish.reason.unwrap_or_default())?;
    Ok(json(&view).uncached())
}

/// What a list was asked for.
pub(super) fn list(app: &App, asked: &Asked<'_>) -> Result<Page, Refusal> {
    let form = Form::parse(asked.query, LIST)?;
    let filter = Filter {
        state: form.read("state", PushState::parse)?,
        repo: form.read("repo", RepoName::parse)?,
        user: form.get("user").map(str::to_owned),
        limit: form.read("limit", limit)?.unwrap_or(PAGE_LEN),
        before: form.read("before", PushId::parse)?,
    };
    let rules = app.rules.get();
    Ok(desk(app, &rules).list(asked.caller, &filter)?)
}

/// Decides, now.
pub(super) fn carry_out(app: &App, asked: &Asked<'_>, verb: Verb, reason: &str) -> Result<PushView, Refusal> {
    let rules = app.rules.get();
    Ok(desk(app, &rules).decide(asked.caller, asked.push()?, verb, reason, Timestamp::now())?)
}

/// The diff of the push that was asked for.
pub(super) fn make_diff(app: &App, asked: &Asked<'_>) -> Result<Vec<u8>, Refusal> {
    let rules = app.rules.get();
    let push = desk(app, &rules).for_diff(asked.caller, asked.push()?)?;
    let differ = app.differ.get().ok_or(Refusal::Busy { at_door: false })?;
    differ.diff(&push).map_err(|error| no_diff(&push, &error))
}

fn no_diff(push: &Push, error: &DiffError) -> Refusal {
    match error {
        DiffError::NotKept | DiffError::NotYet => {
            Refusal::Conflict { state: push.state, why: error.to_string().into() }
        }
        DiffError::Busy => Refusal::Busy { at_door: false },
        DiffError::Git(_) => Refusal::internal("showing a push", error),
    }
}

pub(super) fn desk<'a>(app: &'a App, rules: &'a crate::model::access::Rules) -> Desk<'a> {
    Desk { store: &app.store, rules, upstreams: app.road.upstreams(), waiters: &app.waiters }
}

fn limit(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=PAGE_MAX).contains(number));
    number.ok_or_else(|| format!("write a number from 1 to {PAGE_MAX}"))
}

pub(super) fn require_json(headers: &Headers) -> Result<(), Refusal> {
    let field = headers.get("content-type").map_err(bad_field)?.unwrap_or_default();
    let kind = field.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Refusal::MediaType("send the body as Content-Type: application/json".into()))
    }
}

/// Browsers say which site a request comes from; other clients say nothing (Fetch Metadata, W3C).
pub(super) fn require_own_site(headers: &Headers) -> Result<(), Refusal> {
    match headers.get("sec-fetch-site").map_err(bad_field)? {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) => Err(Refusal::Forbidden("this request comes from another site".into())),
    }
}

fn bad_field(error: FieldError) -> Refusal {
    Refusal::BadRequest(error.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &str, value: &str) -> Headers {
        let mut headers = Headers::new();
        headers.push(name, value);
        headers
    }

    #[test]
    fn a_decision_is_json_and_comes_from_no_other_site() {
        for good in ["application/json", "Application/JSON; charset=utf-8"] {
            assert_eq!(require_json(&headers("Content-Type", good)), Ok(()));
        }
        for bad in ["text/plain", "application/x-www-form-urlencoded", "application/json2", ""] {
            let refused = require_json(&headers("Content-Type", bad));
            assert!(matches!(refused, Err(Refusal::MediaType(_))), "{bad}");
        }
        assert!(require_json(&Headers::new()).is_err());
        for good in ["same-origin", "none"] {
            assert_eq!(require_own_site(&headers("Sec-Fetch-Site", good)), Ok(()));
        }
        assert_eq!(require_own_site(&Headers::new()), Ok(()));
        for bad in ["cross-site", "same-site", "", "same-origin, none"] {
            assert!(require_own_site(&headers("Sec-Fetch-Site", bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wish_has_a_reason_or_nothing() {
        let wish = |text: &str| serde_json::from_str::<Wish>(text).map(|wish| wish.reason).ok();
        assert_eq!(wish("{}"), Some(None));
        assert_eq!(wish(r#"{"reason": "fine"}"#), Some(Some("fine".to_owned())));
        for bad in ["", "1", r#"{"reason": 1}"#, r#"{"reasons": "x"}"#, "{} {}"] {
            assert_eq!(wish(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_list_has_a_limit_of_its_own() {
        assert_eq!(limit("100"), Ok(100));
        for bad in ["0", "101", "-1", "x", "1e1"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
