//! The parts of the page of one push.

use super::html::Html;
use crate::gate::decide::Verb;
use crate::model::check::{CheckResult, Verdict};
use crate::model::push::{PushId, PushView, RefKind, RefView, TargetView};
use crate::model::text::clip;

/// The most of a diff that stands on a page, in bytes; the API has all of it.
const DIFF_SHOWN_MAX: usize = 512 << 10;

/// What is known about it, as a table.
pub(super) fn facts(html: Html, push: &PushView) -> Html {
    let html = html
        .raw("<table class=\"facts\">\n")
        .fact_text("Repository", &push.repo)
        .each(upstream(&push.target), |html, url| html.fact_text("Goes to", url))
        .fact_text("Pusher", pusher(push))
        .each(&push.refs, ref_row)
        .each(&push.options, |html, option| html.fact_text("Option", option))
        .fact("Received", |html| html.time(&push.created))
        .each(&push.deadline, |html, deadline| html.fact("Until", |html| html.time(deadline)))
        .fact_text("Message", &push.message)
        .each(push.upstream.as_ref().filter(|words| !words.is_empty()), |html, words| {
            html.fact("Repository's words", |html| html.raw("<pre>").text(words).raw("</pre>"))
        });
    let html = html.each(&push.decision, |html, decision| {
        let past = if decision.is_override { ", past the rules" } else { "" };
        let reason =
            if decision.reason.is_empty() { String::new() } else { format!(": {}", decision.reason) };
        html.fact_text("Decision", format!("{} by {}{past}{reason}", decision.verdict, decision.by))
    });
    html.raw("</table>\n")
}

fn upstream(target: &TargetView) -> Option<&str> {
    match target {
        TargetView::Hosted => None,
        TargetView::Upstream { url } => Some(url),
    }
}

fn pusher(push: &PushView) -> String {
    let pusher = &push.pusher;
    let verified = if pusher.verified { "" } else { " (unverified)" };
    let claimed = pusher.claimed.as_ref().map(|name| format!(", who says to be {name}")).unwrap_or_default();
    format!("{}{verified}{claimed}", pusher.name)
}

fn ref_row(html: Html, update: &RefView) -> Html {
    html.fact("Ref", |html| {
        let html = html.text(&update.name).raw("<br><code>");
        let html = match update.kind {
            RefKind::Create => html.raw("new, at ").text(&update.new),
            RefKind::Delete => html.raw("deleted, was at ").text(&update.old),
            RefKind::Update => html.text(&update.old).raw(" → ").text(&update.new),
        };
        let html = html.raw("</code>");
        match update.accepted {
            None => html,
            Some(true) => html.raw("<br>accepted"),
            Some(false) => html.raw("<br>refused ").text(update.refusal.as_deref().unwrap_or_default()),
        }
    })
}

/// The forms of what the caller may do to it.
pub(super) fn decisions(html: Html, id: PushId, verbs: Vec<Verb>, token: &str) -> Html {
    if verbs.is_empty() {
        return html;
    }
    html.raw("<div class=\"forms\">\n").each(verbs, |html, verb| form(html, id, verb, token)).raw("</div>\n")
}

fn form(html: Html, id: PushId, verb: Verb, token: &str) -> Html {
    let (label, reason) = match verb {
        Verb::Approve => ("Approve", "placeholder=\"Reason\""),
        Verb::Reject => ("Reject", "placeholder=\"Reason, for the pusher\" required"),
        Verb::Cancel => ("Cancel", "placeholder=\"Reason\""),
        Verb::Retry => ("Retry", "placeholder=\"Reason\""),
    };
    html.raw("<form method=\"post\" action=\"/-/pushes/")
        .text(id.to_string())
        .raw("/")
        .raw(verb.as_str())
        .raw("\"><input type=\"hidden\" name=\"token\" value=\"")
        .text(token)
        .raw("\"><input name=\"reason\" aria-label=\"Reason\" maxlength=\"1000\" ")
        .raw(reason)
        .raw("> <button class=\"")
        .raw(verb.as_str())
        .raw("\">")
        .raw(label)
        .raw("</button></form>\n")
}

/// What the checks found, first what is in the way.
pub(super) fn checks(html: Html, checks: &[CheckResult]) -> Html {
    if checks.is_empty() {
        return html;
    }
    let (passed, others): (Vec<_>, Vec<_>) =
        checks.iter().partition(|check| check.verdict == Verdict::Pass && check.findings.is_empty());
    html.raw("<h2>Checks</h2>\n<table class=\"facts\">\n")
        .each(others.into_iter().chain(passed), check_row)
        .raw("</table>\n")
}

fn check_row(html: Html, check: &CheckResult) -> Html {
    let html = html.raw("<tr><th>").text(&check.name).raw("</th><td>").badge(check.verdict.as_str());
    let html = html.each(&check.findings, |html, finding| {
        html.raw("<p>")
            .each(&finding.ref_name, |html, name| html.text(name).raw(" "))
            .each(&finding.commit, |html, commit| html.raw("<code>").text(commit).raw("</code> "))
            .each(&finding.path, |html, path| html.raw("<code>").text(path).raw("</code> "))
            .text(&finding.message)
            .raw("<br><small>")
            .text(finding.advice())
            .raw("</small></p>")
    });
    html.raw("</td></tr>\n")
}

/// What happened to it, the oldest first.
pub(super) fn events(html: Html, push: &PushView) -> Html {
    html.raw("<h2>Events</h2>\n<table>\n")
        .each(push.events.iter().flatten(), |html, event| {
            html.raw("<tr><td>")
                .time(&event.at)
                .raw("</td><td>")
                .badge(&event.to)
                .raw("</td><td>")
                .text(&event.actor)
                .raw("</td><td>")
                .text(&event.why)
                .raw("</td></tr>\n")
        })
        .raw("</table>\n")
}

/// What it changes, in git's words and colours; or why that is not shown.
pub(super) fn changes(html: Html, id: PushId, diff: Result<&str, &str>) -> Html {
    let html = html.raw("<h2>Changes</h2>\n");
    match diff {
        Err(why) => html.raw("<p class=\"none\">").text(why).raw("</p>\n"),
        Ok(diff) => {
            let html = if diff.len() > DIFF_SHOWN_MAX { beginning(html, id, diff.len()) } else { html };
            let diff = clip(diff, DIFF_SHOWN_MAX);
            let mut is_within = false;
            let classed = diff.lines().map(|line| (class(line, &mut is_within), line));
            html.raw("<pre class=\"diff\">").each(classed, diff_line).raw("</pre>\n")
        }
    }
}

/// Nobody takes the beginning of the changes for all of them.
fn beginning(html: Html, id: PushId, bytes: usize) -> Html {
    html.raw("<p class=\"none\">This is only the beginning: the first ")
        .text(DIFF_SHOWN_MAX.to_string())
        .raw(" of ")
        .text(bytes.to_string())
        .raw(" bytes. <a href=\"/-/api/v1/pushes/")
        .text(id.to_string())
        .raw("/diff\">All of it</a></p>\n")
}

fn diff_line(html: Html, (class, line): (&'static str, &str)) -> Html {
    if class.is_empty() {
        return html.text(line).raw("\n");
    }
    html.raw("<span class=\"").raw(class).raw("\">").text(line).raw("\n</span>")
}

/// What kind of line it is. Only within a hunk does a plus or a minus say that the line came or went.
fn class(line: &str, is_within: &mut bool) -> &'static str {
    if line.starts_with("diff --git ") {
        *is_within = false;
        return "file";
    }
    if line.starts_with("@@ ") {
        *is_within = true;
        return "hunk";
    }
    match line.as_bytes().first() {
        Some(b'+') if *is_within => "add",
        Some(b'-') if *is_within => "del",
        Some(_) | None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_diff_are_told_apart_and_stay_text() {
        let diff = " a | 2 +-\ndiff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1,2 +1 @@ x\n--- was\n+<b>\n same\ndiff --git a/b b/b\n--- a/b\n";
        let id = PushId::new(7).unwrap();
        let page = changes(Html::default(), id, Ok(diff));
        let expected = "<h2>Changes</h2>\n<pre class=\"diff\"> a | 2 +-\n\
                        <span class=\"file\">diff --git a/a b/a\n</span>--- a/a\n+++ b/a\n\
                        <span class=\"hunk\">@@ -1,2 +1 @@ x\n</span><span class=\"del\">--- was\n</span>\
                        <span class=\"add\">+&lt;b&gt;\n</span> same\n\
                        <span class=\"file\">diff --git a/b b/b\n</span>--- a/b\n</pre>\n";
        assert_eq!(page.as_str(), expected);
    }
}
