//! The pages of held pushes, for browsers: a list, and one page for each push with forms to decide on it.
//!
//! They are made here as a whole and hold no script. Whatever did not stand in this file goes through [`Html::text`].
//! A browser sends its stored credential with whatever another site makes it send: so a form counts only when it comes
//! from a page of ours, which the browser says (`Sec-Fetch-Site`, or `Origin` where it is too old for that), and
//! when it has the token that this caller was shown for this push.

use super::api;
use super::app::App;
use super::form::Form;
use super::message::{FieldError, Headers, Response};
use super::refusal::Refusal;
use super::route::Asked;
use crate::gate::decide::Verb;
use crate::model::check::CheckResult;
use crate::model::push::{PushId, PushView, RefView, TargetView};
use crate::model::text::{clip, plain};
use jiff::Timestamp;

/// What a page may do in a browser: nothing but look as the style says and send forms to us.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'";
/// The most of a diff that stands on a page, in bytes; the API has all of it.
const DIFF_SHOWN_MAX: usize = 512 << 10;
/// The fields of the forms.
const FIELDS: &[&str] = &["token", "reason"];

/// A page in the making.
#[derive(Debug, Default)]
struct Html(String);

impl Html {
    /// Markup of ours.
    fn raw(mut self, markup: &'static str) -> Self {
        self.0.push_str(markup);
        self
    }

    /// Text of anybody: it means itself, within elements and within quoted attributes.
    fn text(mut self, text: impl AsRef<str>) -> Self {
        for c in text.as_ref().chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => self.0.push(c),
            }
        }
        self
    }

    /// Everything in `rows`, one after the other.
    fn each<T>(self, rows: impl IntoIterator<Item = T>, row: impl Fn(Self, T) -> Self) -> Self {
        rows.into_iter().fold(self, row)
    }

    fn fact(self, name: &'static str, value: impl AsRef<str>) -> Self {
        self.raw("<tr><th>").raw(name).raw("</th><td>").text(value).raw("</td></tr>\n")
    }

    fn finish(self) -> Response {
        let page = self.raw("</body>\n</html>\n").0;
        Response::new(200)
            .with("Content-Type", "text/html; charset=utf-8")
            .with("Content-Security-Policy", POLICY)
            .with("X-Content-Type-Options", "nosniff")
            .with("Referrer-Policy", "same-origin")
            .uncached()
            .with_body(page)
    }
}

/// `/-/style.css`: how pages look.
pub fn style(_: &App) -> Response {
    Response::new(200)
        .with("Content-Type", "text/css; charset=utf-8")
        .with("X-Content-Type-Options", "nosniff")
        .with_body(include_str!("style.css"))
}

/// `/-/`: the list, with the API's parameters.
pub fn list(app: &App, asked: &Asked<'_>) -> Result<Response, Refusal> {
    let page = api::list(app, asked)?;
    let html = begin("Pushes")
        .raw("<table><tr><th>Push</th><th>State</th><th>Repository</th><th>Pusher</th><th>Received</th></tr>\n")
        .each(page.pushes.iter().map(PushView::brief), list_row)
        .raw("</table>\n");
    let html = match page.next {
        Some(next) => older(html, asked.query, next),
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
    let diff = match api::make_diff(app, asked) {
        Ok(diff) => clip(&plain(&String::from_utf8_lossy(&diff)), DIFF_SHOWN_MAX),
        Err(refusal) => refusal.sentence().into_owned(),
    };
    let html = begin(&format!("Push {id}: {}", view.state));
    let html = facts(html, &view).each(verbs, |html, verb| decision_form(html, id, verb, &token));
    let html = checks(html, view.checks.as_deref().unwrap_or_default());
    Ok(events(html, &view).raw("<h2>Changes</h2>\n<pre>").text(diff).raw("</pre>\n").finish())
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

fn begin(title: &str) -> Html {
    Html::default()
        .raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>")
        .text(title)
        .raw(" · Tidegate</title><meta name=\"viewport\" content=\"width=device-width\">")
        .raw("<link rel=\"stylesheet\" href=\"/-/style.css\"></head>\n<body>\n<p><a href=\"/-/\">All pushes</a></p>\n<h1>")
        .text(title)
        .raw("</h1>\n")
}

fn list_row(html: Html, push: PushView) -> Html {
    let id = push.id.to_string();
    html.raw("<tr><td><a href=\"/-/pushes/")
        .text(&id)
        .raw("\">")
        .text(&id)
        .raw("</a></td><td>")
        .text(push.state)
        .raw("</td><td>")
        .text(push.repo)
        .raw("</td><td>")
        .text(push.pusher.name)
        .raw("</td><td>")
        .text(push.created)
        .raw("</td></tr>\n")
}

/// The link to the next part, with the filters of this one.
fn older(html: Html, query: &str, next: PushId) -> Html {
    let kept = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("before="));
    html.raw("<p><a href=\"?")
        .each(kept, |html, pair| html.text(pair).raw("&amp;"))
        .raw("before=")
        .text(next.to_string())
        .raw("\">Older</a></p>\n")
}

fn facts(html: Html, push: &PushView) -> Html {
    let verified = if push.pusher.verified { "" } else { " (unverified)" };
    let html = html
        .raw("<table>\n")
        .fact("Repository", &push.repo)
        .each(upstream(&push.target), |html, url| html.fact("Goes to", url))
        .fact("Pusher", format!("{}{verified}", push.pusher.name))
        .fact("Received", &push.created)
        .fact("Message", &push.message)
        .each(&push.deadline, |html, deadline| html.fact("Until", deadline))
        .each(&push.refs, ref_row)
        .each(&push.options, |html, option| html.fact("Option", option))
        .each(&push.upstream, |html, words| html.fact("Repository's words", words));
    let html = html.each(&push.decision, |html, decision| {
        let past = if decision.is_override { ", past the rules" } else { "" };
        html.fact("Decision", format!("{} by {}{past}: {}", decision.verdict, decision.by, decision.reason))
    });
    html.raw("</table>\n")
}

fn upstream(target: &TargetView) -> Option<&str> {
    match target {
        TargetView::Hosted => None,
        TargetView::Upstream { url } => Some(url),
    }
}

fn ref_row(html: Html, update: &RefView) -> Html {
    html.raw("<tr><th>Ref</th><td>")
        .text(&update.name)
        .raw("<br><code>")
        .text(&update.old)
        .raw("</code> → <code>")
        .text(&update.new)
        .raw("</code></td></tr>\n")
}

fn decision_form(html: Html, id: PushId, verb: Verb, token: &str) -> Html {
    let reason = match verb {
        Verb::Reject => "<input name=\"reason\" maxlength=\"1000\" placeholder=\"Reason\" required> ",
        Verb::Approve | Verb::Cancel | Verb::Retry => {
            "<input name=\"reason\" maxlength=\"1000\" placeholder=\"Reason\"> "
        }
    };
    html.raw("<form method=\"post\" action=\"/-/pushes/")
        .text(id.to_string())
        .raw("/")
        .raw(verb.as_str())
        .raw("\"><input type=\"hidden\" name=\"token\" value=\"")
        .text(token)
        .raw("\">")
        .raw(reason)
        .raw("<button>")
        .raw(verb.as_str())
        .raw("</button></form>\n")
}

fn checks(html: Html, checks: &[CheckResult]) -> Html {
    html.raw("<h2>Checks</h2>\n<table>\n").each(checks, check_row).raw("</table>\n")
}

fn check_row(html: Html, check: &CheckResult) -> Html {
    let html = html.raw("<tr><th>").text(&check.name).raw("</th><td>").raw(check.verdict.as_str());
    let html = html.each(&check.findings, |html, finding| {
        html.raw("<p>")
            .each(&finding.ref_name, |html, name| html.text(name).raw(" "))
            .each(&finding.commit, |html, commit| html.raw("<code>").text(commit).raw("</code> "))
            .each(&finding.path, |html, path| html.raw("<code>").text(path).raw("</code> "))
            .text(&finding.message)
            .raw("<br>")
            .text(finding.advice())
            .raw("</p>")
    });
    html.raw("</td></tr>\n")
}

fn events(html: Html, push: &PushView) -> Html {
    html.raw("<h2>Events</h2>\n<table>\n")
        .each(push.events.iter().flatten(), |html, event| {
            html.raw("<tr><td>")
                .text(&event.at)
                .raw("</td><td>")
                .text(&event.to)
                .raw("</td><td>")
                .text(&event.actor)
                .raw("</td><td>")
                .text(&event.why)
                .raw("</td></tr>\n")
        })
        .raw("</table>\n")
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
    fn text_means_itself() {
        let html = Html::default().text("<b a='x'>\"&amp;").0;
        assert_eq!(html, "&lt;b a=&#39;x&#39;&gt;&quot;&amp;amp;");
        let page = older(Html::default(), "user=\"><b>&before=9&repo=a", PushId::new(3).unwrap()).0;
        assert_eq!(page, "<p><a href=\"?user=&quot;&gt;&lt;b&gt;&amp;repo=a&amp;before=3\">Older</a></p>\n");
    }

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
