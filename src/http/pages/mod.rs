//! The pages of held pushes, for browsers: a list, and one page for each push with forms to decide on it.
//!
//! They are made here as a whole and hold no script. Whatever did not stand in this program goes through [`Html::text`].
//! A browser sends its stored credential with whatever another site makes it send: so a form counts only when it comes
//! from a page of ours, which the browser says (`Sec-Fetch-Site`, or `Origin` where it is too old for that), and
//! when it has the token that this caller was shown for this push.

mod html;
mod list;
mod push;

use super::api;
use super::app::App;
use super::form::Form;
use super::message::{FieldError, Headers, Response};
use super::refusal::Refusal;
use super::route::Asked;
use crate::gate::decide::Verb;
use crate::model::access::Caller;
use crate::model::push::PushView;
use crate::model::text::plain;
use html::Html;
use jiff::Timestamp;

/// The fields of the forms.
const FIELDS: &[&str] = &["token", "reason"];

/// `/-/style.css`: how pages look.
pub fn style(_: &App) -> Response {
    Response::new(200)
        .with("Content-Type", "text/css; charset=utf-8")
        .with("X-Content-Type-Options", "nosniff")
        .with_body(include_str!("style.css"))
}

/// `/`: leads to the list, for those who have only the address of the gate.
pub fn front_door(_: &App) -> Response {
    let html = Html::begin("Start", &Caller::Anonymous);
    let page = html.raw("<h1>Tidegate</h1>\n<p><a href=\"/-/\">Held pushes</a></p>\n").finish();
    Response { status: 302, ..page }.with("Location", "/-/")
}

/// `/-/`: the list, with the API's parameters.
pub fn list(app: &App, asked: &Asked<'_>) -> Result<Response, Refusal> {
    let page = api::list(app, asked)?;
    let pushes = page.pushes.iter().map(PushView::brief).collect();
    let html = list::table(Html::begin("Pushes", asked.caller).raw("<h1>Pushes</h1>\n"), pushes);
    let html = match page.next {
        Some(next) => list::older(html, asked.query, next),
        None => html,
    };
    Ok(html.finish())
}

/// `/-/pushes/ID`: everything about one push, and what the caller may do to it.
pub fn push(app: &App, asked: &Asked<'_>) -> Result<Response, Refusal> {
    let (id, rules) = (asked.push()?, app.rules.get());
    let desk = api::desk(app, &rules);
    let view = desk.view(asked.caller, id)?;
    let verbs = desk.open_to(asked.caller, id)?;
    let token = app.forms.token(asked.caller, id, Timestamp::now());
    let diff = api::make_diff(app, asked)
        .map(|diff| plain(&String::from_utf8_lossy(&diff)))
        .map_err(|refusal| refusal.sentence().into_owned());
    let title = format!("Push {id}: {}", view.state);
    let html = Html::begin(&title, asked.caller).raw("<h1>Push ").text(id.to_string()).raw(" ");
    let html = push::facts(html.badge(&view.state).raw("</h1>\n"), &view);
    let html = push::decisions(html, id, verbs, &token);
    let html = push::checks(html, view.checks.as_deref().unwrap_or_default());
    let html = push::events(html, &view);
    Ok(push::changes(html, id, diff.as_deref().map_err(String::as_str)).finish())
}

/// `POST /-/pushes/ID/VERB` from such a form: back to the page.
pub fn decide(app: &App, asked: &Asked<'_>, verb: Verb) -> Result<Response, Refusal> {
    require_own_page(asked.headers, app.settings.public_url.as_deref())?;
    let body = str::from_utf8(&asked.body).map_err(|_| Refusal::BadRequest("the form is not text".into()))?;
    let form = Form::parse(body, FIELDS)?;
    let (id, token) = (asked.push()?, form.get("token").unwrap_or_default());
    if !app.forms.holds(token, asked.caller, id, Timestamp::now()) {
        return Err(Refusal::Forbidden("this form is too old or not yours: load the page again".into()));
    }
    // Browsers end lines in a form with CR LF.
    let reason = form.get("reason").unwrap_or_default().replace("\r\n", "\n");
    api::carry_out(app, asked, verb, &reason)?;
    Ok(Response::new(303).with("Location", format!("/-/pushes/{id}")).uncached())
}

fn require_own_page(headers: &Headers, public_url: Option<&str>) -> Result<(), Refusal> {
    let field =
        |name| headers.get(name).map_err(|error: FieldError| Refusal::BadRequest(error.to_string().into()));
    let is_ours = match (field("sec-fetch-site")?, field("origin")?) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => is_own_origin(origin, field("host")?, public_url),
        (None, None) => false,
    };
    if is_ours {
        Ok(())
    } else {
        Err(Refusal::Forbidden("this form does not come from a page of this gate".into()))
    }
}

/// Whether `origin` is ours: that of `public_url`, or the host that was asked, by either scheme, since TLS may end at
/// a proxy.
fn is_own_origin(origin: &str, host: Option<&str>, public_url: Option<&str>) -> bool {
    let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    let is_host = rest.is_some_and(|rest| host.is_some_and(|host| host.eq_ignore_ascii_case(rest)));
    is_host || public_url.is_some_and(|url| origin_of(url) == origin)
}

/// The scheme, host and port at the beginning of a URL.
fn origin_of(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + "://".len());
    let end = url[start..].find('/').map_or(url.len(), |at| start + at);
    &url[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_counts_only_from_a_page_of_ours() {
        let ask = |fields: &[(&str, &str)]| {
            let mut headers = Headers::new();
            fields.iter().for_each(|(name, value)| headers.push(*name, *value));
            require_own_page(&headers, Some("https://git.example.com/gate")).is_ok()
        };
        let host = ("Host", "gate:8418");
        assert!(ask(&[host, ("Sec-Fetch-Site", "same-origin")]));
        assert!(ask(&[host, ("Origin", "http://gate:8418")]));
        assert!(ask(&[host, ("Origin", "https://git.example.com")]));
        for bad in [
            &[host][..],
            &[host, ("Origin", "null")],
            &[host, ("Origin", "http://gate:8419")],
            &[host, ("Origin", "http://gate")],
            &[host, ("Origin", "https://git.example.com.evil.org")],
            &[host, ("Sec-Fetch-Site", "same-site"), ("Origin", "http://gate:8418")],
            &[host, ("Sec-Fetch-Site", "none")],
            &[("Origin", "gate:8418"), host],
        ] {
            assert!(!ask(bad), "{bad:?}");
        }
    }
}
