//! A page in the making. Whatever did not stand in this program goes through [`Html::text`].

use crate::http::message::Response;
use crate::model::access::Caller;

/// What a page may do in a browser: nothing but look as the style says and send forms to us.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'";

/// Text of markup, from its beginning on.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// A page with this title, for this caller.
    pub(super) fn begin(title: &str, caller: &Caller) -> Self {
        Self::default()
            .raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>")
            .text(title)
            .raw(" · Tidegate</title><meta name=\"viewport\" content=\"width=device-width\">")
            .raw("<link rel=\"stylesheet\" href=\"/-/style.css\"></head>\n<body>\n")
            .raw("<header><a href=\"/-/\">Tidegate</a><nav><a href=\"/-/?state=pending\">Waiting</a> ")
            .raw("<a href=\"/-/\">All pushes</a></nav><span>")
            .text(caller.name().unwrap_or_default())
            .raw("</span></header>\n<main>\n")
    }

    /// Markup of ours.
    pub(super) fn raw(mut self, markup: &'static str) -> Self {
        self.0.push_str(markup);
        self
    }

    /// Text of anybody: it means itself, within elements and within quoted attributes.
    pub(super) fn text(mut self, text: impl AsRef<str>) -> Self {
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
    pub(super) fn each<T>(self, rows: impl IntoIterator<Item = T>, row: impl Fn(Self, T) -> Self) -> Self {
        rows.into_iter().fold(self, row)
    }

    /// A row of a table of facts.
    pub(super) fn fact(self, name: &'static str, value: impl FnOnce(Self) -> Self) -> Self {
        value(self.raw("<tr><th>").raw(name).raw("</th><td>")).raw("</td></tr>\n")
    }

    /// Such a row whose value is text.
    pub(super) fn fact_text(self, name: &'static str, value: impl AsRef<str>) -> Self {
        self.fact(name, |html| html.text(value))
    }

    /// A word that says how something stands, in its colour.
    pub(super) fn badge(self, word: &str) -> Self {
        self.raw("<b class=\"badge ").text(word).raw("\">").text(word).raw("</b>")
    }

    /// A time (RFC 3339, in UTC), to the second.
    pub(super) fn time(self, at: &str) -> Self {
        let (day, time) = at.split_once('T').unwrap_or((at, ""));
        let second = time.split(['.', 'Z']).next().unwrap_or_default();
        self.raw("<time datetime=\"").text(at).raw("\">").text(day).raw(" ").text(second).raw(" UTC</time>")
    }

    /// The whole page, as an answer.
    pub(super) fn finish(self) -> Response {
        let page = self.raw("</main>\n</body>\n</html>\n").0;
        Response::new(200)
            .with("Content-Type", "text/html; charset=utf-8")
            .with("Content-Security-Policy", POLICY)
            .with("X-Content-Type-Options", "nosniff")
            .with("Referrer-Policy", "same-origin")
            .uncached()
            .with_body(page)
    }

    /// What there is of it.
    #[cfg(test)]
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_means_itself() {
        let html = Html::default().text("<b a='x'>\"&amp;").0;
        assert_eq!(html, "&lt;b a=&#39;x&#39;&gt;&quot;&amp;amp;");
    }

    #[test]
    fn a_time_is_shown_to_the_second_and_kept_in_full() {
        let html = Html::default().time("2026-11-21T11:40:53.856Z").0;
        assert_eq!(html, "<time datetime=\"2026-11-21T11:40:53.856Z\">2026-11-21 11:40:53 UTC</time>");
    }
}
