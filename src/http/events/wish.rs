//! What a client wants: which events, and from where on.

use crate::http::form::Form;
use crate::http::message::Headers;
use crate::http::refusal::Refusal;
use crate::model::fleet::{EventPattern, FleetError, Notice, parse_event_id};
use crate::model::name::RepoName;
use crate::store::{Store, StoreError};

/// The parameters of a stream.
const PARAMETERS: &[&str] = &["events", "repo", "last_event_id"];

/// The most patterns of a stream: more than there are kinds of events. Each event is held against all of them.
const PATTERNS_MAX: usize = 32;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// Which events.
    pub(super) filter: Filter,
    /// The id of the last event that the client has had, as it says.
    pub(super) last: Option<String>,
}

/// Which events are wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filter {
    events: Vec<EventPattern>,
    repo: Option<RepoName>,
}

/// Where a stream begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// The number of the last event before it.
    pub(super) number: i64,
    /// Why it does not go on where the client was.
    pub(super) lost: Option<Lost>,
}

/// Why a stream cannot go on where it, or an earlier one, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The id is another publisher's.
    Foreign,
    /// There was no such event, or this is no id.
    Unknown,
    /// What came after that event is not kept any more.
    Expired,
}

impl Wish {
    /// Reads the query and the header fields. `Last-Event-ID`, which a browser sends when it comes back to the same
    /// address, goes before what stands in that address.
    ///
    /// # Errors
    /// 400 for what is not understood.
    pub(super) fn read(query: &str, headers: &Headers) -> Result<Self, Refusal> {
        let form = Form::parse(query, PARAMETERS)?;
        let field = headers.get("last-event-id");
        let field = field.map_err(|error| Refusal::BadRequest(error.to_string().into()))?;
        let last = field.map(str::trim).filter(|id| !id.is_empty()).or_else(|| form.get("last_event_id"));
        let filter = Filter {
            events: form.read("events", patterns)?.unwrap_or_else(|| vec![EventPattern::every()]),
            repo: form.read("repo", RepoName::parse)?,
        };
        Ok(Self { filter, last: last.map(str::to_owned) })
    }
}

fn patterns(text: &str) -> Result<Vec<EventPattern>, String> {
    let words: Vec<&str> = text.split(',').map(str::trim).collect();
    if words.len() > PATTERNS_MAX {
        return Err(format!("has more than {PATTERNS_MAX} patterns"));
    }
    let read =
        |word: &str| EventPattern::parse(word).map_err(|error: FleetError| format!("{word:?} {error}"));
    words.into_iter().map(read).collect()
}

impl Filter {
    /// Whether this event is one of them.
    pub(super) fn wants(&self, notice: &Notice) -> bool {
        self.repo.as_ref().is_none_or(|repo| *repo == notice.repo)
            && self.events.iter().any(|pattern| pattern.matches(notice.event))
    }
}

impl Start {
    /// After the event whose id is `last`, as far as that can be; without one from now on.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) fn find(store: &Store, last: Option<&str>) -> Result<Self, StoreError> {
        let newest = store.bus().newest();
        let lost = |lost| Ok(Self { number: newest, lost: Some(lost) });
        let Some(last) = last else { return Ok(Self { number: newest, lost: None }) };
        let Some((incarnation, number)) = parse_event_id(last) else { return lost(Lost::Unknown) };
        if incarnation != *store.publisher() {
            return lost(Lost::Foreign);
        }
        if number > newest || !store.events().may_have_had(number)? {
            return lost(Lost::Unknown);
        }
        match store.events().has_all_after(number)? {
            true => Ok(Self { number, lost: None }),
            false => lost(Lost::Expired),
        }
    }
}

impl Lost {
    /// The word for it in a `reset`.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
        }
    }

    /// A sentence for people.
    pub(super) const fn sentence(self) -> &'static str {
        match self {
            Self::Foreign => {
                "the last event that you name is another gate's, or of an earlier life of this one's data"
            }
            Self::Unknown => "there was no event of the id that you name",
            Self::Expired => "some of the events after the last one that you had are not kept any more",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fleet::EventName;

    fn notice(event: &str, repo: &str) -> Notice {
        Notice {
            number: 1,
            event: EventName::parse(event).unwrap(),
            repo: RepoName::parse(repo).unwrap(),
            pusher: None,
            body: "{}".into(),
        }
    }

    fn read(query: &str, field: Option<&str>) -> Result<Wish, Refusal> {
        Wish::read(query, &field.map(|id| ("Last-Event-ID", id)).into_iter().collect())
    }

    #[test]
    fn events_are_chosen_by_pattern_and_repository() {
        let all = read("", None).unwrap().filter;
        assert!(all.wants(&notice("push.received", "a")) && all.wants(&notice("repo.removed", "b")));
        let some = read("events=push.*%2Crepo.version&repo=team%2Fa", None).unwrap().filter;
        assert!(
            some.wants(&notice("push.expired", "team/a")) && some.wants(&notice("repo.version", "team/a"))
        );
        assert!(
            !some.wants(&notice("repo.removed", "team/a")) && !some.wants(&notice("push.expired", "team/b"))
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let many = format!("events={}", ["push.*"; PATTERNS_MAX + 1].join(","));
        for query in
            ["events=push", "events=push.*,", "events=hello", "repo=../x", "since=1", "repo=a&repo=b", &many]
        {
            assert!(matches!(read(query, None), Err(Refusal::BadRequest(_))), "{query}");
        }
        let twice: Headers = [("Last-Event-ID", "a"), ("last-event-id", "b")].into_iter().collect();
        assert!(matches!(Wish::read("", &twice), Err(Refusal::BadRequest(_))));
    }

    #[test]
    fn the_field_that_a_browser_sends_goes_before_its_address() {
        let last = |query, field| read(query, field).unwrap().last;
        assert_eq!(last("last_event_id=x-1", None).as_deref(), Some("x-1"));
        assert_eq!(last("last_event_id=x-1", Some("x-2")).as_deref(), Some("x-2"));
        assert_eq!(last("last_event_id=x-1", Some("")).as_deref(), Some("x-1"));
        assert_eq!((last("", None), last("last_event_id=", Some(" "))), (None, None));
    }
}
