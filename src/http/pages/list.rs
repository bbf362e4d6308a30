//! The list of pushes.

use super::html::Html;
use crate::model::push::{PushId, PushView};

/// The most refs of a push that stand in a row.
const REFS_SHOWN: usize = 2;

/// The table, the newest first.
pub(super) fn table(html: Html, pushes: Vec<PushView>) -> Html {
    if pushes.is_empty() {
        return html.raw("<p class=\"none\">There are no such pushes.</p>\n");
    }
    html.raw("<table class=\"list\">\n<tr><th>Push</th><th>State</th><th>Repository</th><th>Refs</th>")
        .raw("<th>Pusher</th><th>Received</th></tr>\n")
        .each(pushes, row)
        .raw("</table>\n")
}

/// The link to the next part, with the filters of this one.
pub(super) fn older(html: Html, query: &str, next: PushId) -> Html {
    let kept = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("before="));
    html.raw("<p><a href=\"?")
        .each(kept, |html, pair| html.text(pair).raw("&amp;"))
        .raw("before=")
        .text(next.to_string())
        .raw("\">Older</a></p>\n")
}

fn row(html: Html, push: PushView) -> Html {
    let id = push.id.to_string();
    let more = push.refs.len().saturating_sub(REFS_SHOWN);
    html.raw("<tr><td><a href=\"/-/pushes/")
        .text(&id)
        .raw("\">")
        .text(&id)
        .raw("</a></td><td>")
        .badge(&push.state)
        // A name is made of what may stand in a query as it is.
        .raw("</td><td><a href=\"/-/?repo=")
        .text(&push.repo)
        .raw("\">")
        .text(&push.repo)
        .raw("</a></td><td>")
        .each(push.refs.iter().take(REFS_SHOWN), |html, update| html.text(&update.name).raw("<br>"))
        .each((more > 0).then_some(more), |html, more| html.text(format!("and {more} more")))
        .raw("</td><td>")
        .text(push.pusher.name)
        .raw("</td><td>")
        .time(&push.created)
        .raw("</td></tr>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_to_older_ones_keeps_the_filters_as_text() {
        let page = older(Html::default(), "user=\"><b>&before=9&repo=a", PushId::new(3).unwrap());
        let expected = "<p><a href=\"?user=&quot;&gt;&lt;b&gt;&amp;repo=a&amp;before=3\">Older</a></p>\n";
        assert_eq!(page.as_str(), expected);
    }

    #[test]
    fn a_list_without_a_push_says_so() {
        assert!(table(Html::default(), Vec::new()).as_str().contains("no such pushes"));
    }
}
