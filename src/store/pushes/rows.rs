//! The rows of push records: every statement, and the way between rows and nouns.

use super::{Answer, Filter, Step};
use crate::model::check::{CheckResult, Verdict};
use crate::model::name::RepoName;
use crate::model::oid::Oid;
use crate::model::push::{
    Actor, Decision, Event, NewPush, OnDisconnect, Owner, Push, PushEvent, PushId, PushState, Pusher,
    RefAnswer, RefName, RefUpdate, RefUpdates, Ruling, Target,
};
use crate::model::text::{clip, sanitize_lines};
use crate::store::StoreError;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Params, Row, ToSql, named_params};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Why the first event of a record happened.
pub(super) const RECEIVED: &str = "the push was received";
/// The longest reason of an event, in bytes: a paragraph.
const WHY_BYTES_MAX: usize = 4096;
/// The most words of a target that are kept, in bytes: what hooks print is theirs to bound, what is stored ours.
const WORDS_BYTES_MAX: usize = 16 * 1024;
/// How an accepted ref is written.
const ACCEPTED: &str = "ok";
/// What the words about a refused ref follow.
const REFUSED: &str = "ng ";
/// What `pushes.target_kind` is for a directory.
const HOSTED: &str = "hosted";
/// What it is for a URL.
const UPSTREAM: &str = "upstream";
/// Which records are open.
pub(super) const IS_OPEN: &str = "state IN ('received', 'checking', 'pending', 'approved', 'forwarding')";
/// The columns that [`read_push`] reads.
const COLUMNS: &str = "SELECT id, state, repo, target_kind, target, pusher, verified, claimed, options, \
     on_disconnect, created, updated, deadline, owner_boot, owner_session, attempts, message, upstream FROM pushes";

/// An event that is to be added.
pub(super) struct NewEvent<'a> {
    pub(super) cause: Option<(PushState, Event)>,
    pub(super) to: PushState,
    pub(super) actor: &'a Actor,
    pub(super) why: &'a str,
}

pub(super) fn insert(db: &Connection, push: &NewPush, now: Timestamp) -> Result<PushId, StoreError> {
    const DOING: &str = "recording a push";
    let (kind, target) = match &push.target {
        Target::Hosted { directory } => (HOSTED, directory.as_os_str().as_bytes()),
        Target::Upstream { url } => (UPSTREAM, url.as_bytes()),
    };
    let inserted = db.execute(
        "INSERT INTO pushes (state, repo, target_kind, target, pusher, verified, claimed, options, on_disconnect,
                             created, updated, deadline, owner_boot, owner_session, message)
         VALUES (:state, :repo, :kind, :target, :pusher, :verified, :claimed, :options, :on_disconnect,
                 :now, :now, :deadline, :boot, :session, :message)",
        named_params! {
            ":state": PushState::Received.as_str(),
            ":repo": push.repo.as_str(),
            ":kind": kind,
            ":target": target,
            ":pusher": push.pusher.name,
            ":verified": push.pusher.verified,
            ":claimed": push.pusher.claimed,
            ":options": serde_json::Value::from(push.options.as_slice()).to_string(),
            ":on_disconnect": push.on_disconnect.as_str(),
            ":now": now.as_millisecond(),
            ":deadline": push.deadline.as_millisecond(),
            ":boot": push.owner.boot,
            ":session": push.owner.session,
            ":message": RECEIVED,
        },
    );
    inserted.map_err(StoreError::database(DOING))?;
    let id = push_id(db.last_insert_rowid())?;
    insert_refs(db, id, &push.refs).map_err(StoreError::database(DOING))?;
    Ok(id)
}

fn insert_refs(db: &Connection, id: PushId, refs: &RefUpdates) -> rusqlite::Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO push_refs (push_id, position, name, old, new) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for (position, update) in (0_i64..).zip(refs.iter()) {
        insert.execute((
            id.get(),
            position,
            update.name.as_str(),
            update.old.as_str(),
            update.new.as_str(),
        ))?;
    }
    Ok(())
}

/// Moves a record to `to` if it stands and belongs where the caller believes; answers whether it did.
pub(super) fn compare_and_set(
    db: &Connection,
    id: PushId,
    step: &Step<'_>,
    to: PushState,
    owners: Option<(&Owner, &Owner)>,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let may_have_deadline = to.is_open() || (to == PushState::Failed && step.expected.is_approved());
    let deadline = step.deadline.filter(|_| may_have_deadline).map(Timestamp::as_millisecond);
    let message = (step.event != Event::Adopted).then(|| clip(&sanitize_lines(step.why), WHY_BYTES_MAX));
    let upstream = step.answer.map(|answer| clip(&sanitize_lines(&answer.words), WORDS_BYTES_MAX));
    let (from, new) = owners.unzip();
    let mut update = db
        .prepare_cached(
            "UPDATE pushes SET
                state = :to,
                updated = :now,
                deadline = CASE WHEN :is_open THEN coalesce(:deadline, deadline) ELSE :deadline END,
                attempts = CASE WHEN :begins THEN attempts + 1 WHEN :retries THEN 0 ELSE attempts END,
                message = coalesce(:message, message),
                upstream = coalesce(:upstream, upstream),
                owner_boot = CASE WHEN :adopts THEN :boot ELSE owner_boot END,
                owner_session = CASE WHEN :adopts THEN :session ELSE owner_session END
             WHERE id = :id AND state = :expected
                AND (NOT :adopts OR (owner_boot = :from_boot AND owner_session IS :from_session))
                AND (NOT :retries OR deadline > :now)",
        )
        .map_err(StoreError::database("moving a push"))?;
    let changed = update.execute(named_params! {
        ":id": id.get(),
        ":expected": step.expected.as_str(),
        ":to": to.as_str(),
        ":now": now.as_millisecond(),
        ":is_open": to.is_open(),
        ":deadline": deadline,
        ":begins": step.event == Event::ForwardBegan,
        ":retries": step.event == Event::Retried,
        ":message": message,
        ":upstream": upstream,
        ":adopts": owners.is_some(),
        ":boot": new.map(|owner| &owner.boot),
        ":session": new.and_then(|owner| owner.session),
        ":from_boot": from.map(|owner| &owner.boot),
        ":from_session": from.and_then(|owner| owner.session),
    });
    Ok(changed.map_err(StoreError::database("moving a push"))? == 1)
}

/// Adds to what happened; answers the event's number.
pub(super) fn add_event(
    db: &Connection,
    id: PushId,
    event: &NewEvent<'_>,
    now: Timestamp,
) -> Result<i64, StoreError> {
    let inserted = db.execute(
        "INSERT INTO push_events (push_id, at, actor, event, from_state, to_state, why)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        (
            id.get(),
            now.as_millisecond(),
            event.actor.to_string(),
            event.cause.map(|(_, event)| event.as_str()),
            event.cause.map(|(from, _)| from.as_str()),
            event.to.as_str(),
            clip(&sanitize_lines(event.why), WHY_BYTES_MAX),
        ),
    );
    inserted.map_err(StoreError::database("noting what happened to a push"))?;
    Ok(db.last_insert_rowid())
}

pub(super) fn keep_answers(db: &Connection, id: PushId, answer: &Answer) -> Result<(), StoreError> {
    const DOING: &str = "keeping what a target answered";
    let mut update = db
        .prepare_cached("UPDATE push_refs SET answer = ?3 WHERE push_id = ?1 AND name = ?2")
        .map_err(StoreError::database(DOING))?;
    for (name, answer) in &answer.refs {
        let text = match answer {
            RefAnswer::Accepted => ACCEPTED.to_owned(),
            RefAnswer::Refused(words) => REFUSED.to_owned() + &clip(&sanitize_lines(words), WHY_BYTES_MAX),
        };
        update.execute((id.get(), name.as_str(), text)).map_err(StoreError::database(DOING))?;
    }
    Ok(())
}

pub(super) fn insert_decision(db: &Connection, id: PushId, decision: &Decision) -> Result<(), StoreError> {
    let inserted = db.execute(
        "INSERT INTO decisions (push_id, ruling, by, reason, is_override, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (
            id.get(),
            decision.ruling.as_str(),
            decision.by.to_string(),
            &decision.reason,
            decision.is_override,
            decision.at.as_millisecond(),
        ),
    );
    inserted.map(drop).map_err(StoreError::database("recording a decision"))
}

pub(super) fn replace_checks(db: &Connection, id: PushId, results: &[CheckResult]) -> Result<(), StoreError> {
    const DOING: &str = "keeping what checks found";
    db.execute("DELETE FROM checks WHERE push_id = ?1", [id.get()]).map_err(StoreError::database(DOING))?;
    for (position, result) in (0_i64..).zip(results) {
        let findings =
            serde_json::to_string(&result.findings).expect("findings are texts, which JSON can hold");
        let inserted = db.execute(
            "INSERT INTO checks (push_id, position, name, verdict, findings, ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (
                id.get(),
                position,
                &result.name,
                result.verdict.as_str(),
                findings,
                i64::try_from(result.ms).unwrap_or(i64::MAX),
            ),
        );
        inserted.map_err(StoreError::database(DOING))?;
    }
    Ok(())
}

pub(super) fn release(db: &Connection, id: PushId, now: Timestamp) -> Result<bool, StoreError> {
    let released = db.execute(
        "UPDATE pushes SET deadline = NULL WHERE id = ?1 AND state = ?2 AND deadline <= ?3",
        (id.get(), PushState::Failed.as_str(), now.as_millisecond()),
    );
    Ok(released.map_err(StoreError::database("letting go of a failed push"))? == 1)
}

/// Only what has ended, and may not be retried any more, has no deadline.
pub(super) fn prune(db: &Connection, before: Timestamp, most: u32) -> Result<usize, StoreError> {
    db.execute(
        "DELETE FROM pushes WHERE id IN
            (SELECT id FROM pushes WHERE deadline IS NULL AND updated < ?1 ORDER BY updated LIMIT ?2)",
        (before.as_millisecond(), most),
    )
    .map_err(StoreError::database("removing old pushes"))
}

pub(super) fn state(db: &Connection, id: PushId) -> Result<Option<PushState>, StoreError> {
    let word: Option<String> = db
        .query_row("SELECT state FROM pushes WHERE id = ?1", [id.get()], |row| row.get(0))
        .optional()
        .map_err(StoreError::database("reading the state of a push"))?;
    word.map(|word| push_state(&word)).transpose()
}

/// How many records are open.
pub(super) fn open_count(db: &Connection) -> Result<usize, StoreError> {
    let query = format!("SELECT count(*) FROM pushes WHERE {IS_OPEN}");
    let count: u32 =
        db.query_row(&query, (), |row| row.get(0)).map_err(StoreError::database("counting open pushes"))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// How many records stand in each open state that has any.
pub(super) fn open_states(db: &Connection) -> Result<BTreeMap<PushState, u64>, StoreError> {
    let query = format!("SELECT state, count(*) FROM pushes WHERE {IS_OPEN} GROUP BY state");
    let read = |db: &Connection| -> rusqlite::Result<Vec<(String, u32)>> {
        db.prepare_cached(&query)?.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    };
    let rows = read(db).map_err(StoreError::database("counting open pushes"))?;
    let known = |(state, count): (String, u32)| {
        let state = PushState::parse(&state).map_err(|_| StoreError::Damaged("the state of a push"))?;
        Ok((state, count.into()))
    };
    rows.into_iter().map(known).collect()
}

pub(super) fn push(db: &Connection, id: PushId) -> Result<Option<Push>, StoreError> {
    Ok(pushes(db, "WHERE id = ?1", [id.get()])?.pop())
}

pub(super) fn open_elsewhere(db: &Connection, boot: &str) -> Result<Vec<Push>, StoreError> {
    pushes(db, &format!("WHERE {IS_OPEN} AND owner_boot <> ?1 ORDER BY id"), [boot])
}

pub(super) fn open_of(db: &Connection, repo: &RepoName) -> Result<Option<Push>, StoreError> {
    let tail = format!("WHERE {IS_OPEN} AND repo = ?1 ORDER BY id LIMIT 1");
    Ok(pushes(db, &tail, [repo.as_str()])?.pop())
}

pub(super) fn due(db: &Connection, now: Timestamp, most: u32) -> Result<Vec<Push>, StoreError> {
    pushes(db, "WHERE deadline <= ?1 ORDER BY deadline, id LIMIT ?2", (now.as_millisecond(), most))
}

pub(super) fn list(db: &Connection, filter: &Filter, most: u32) -> Result<Vec<Push>, StoreError> {
    let state = filter.state.map(PushState::as_str);
    let repo = filter.repo.as_ref().map(RepoName::as_str);
    let before = filter.before.map(PushId::get);
    // Only the conditions that are asked for stand in the statement, so that each finds its index.
    let candidates: [(&str, &str, Option<&dyn ToSql>); 4] = [
        ("state = :state", ":state", state.as_ref().map(|value| value as _)),
        ("repo = :repo", ":repo", repo.as_ref().map(|value| value as _)),
        ("pusher = :pusher", ":pusher", filter.user.as_ref().map(|value| value as _)),
        ("id < :before", ":before", before.as_ref().map(|value| value as _)),
    ];
    let mut conditions = vec!["TRUE"];
    let mut values: Vec<(&str, &dyn ToSql)> = vec![(":most", &most)];
    for (condition, name, value) in candidates {
        if let Some(value) = value {
            conditions.push(condition);
            values.push((name, value));
        }
    }
    let tail = format!("WHERE {} ORDER BY id DESC LIMIT :most", conditions.join(" AND "));
    pushes(db, &tail, values.as_slice())
}

/// The records that the end of a statement chooses, with their refs and decisions.
fn pushes(db: &Connection, tail: &str, params: impl Params) -> Result<Vec<Push>, StoreError> {
    const DOING: &str = "reading pushes";
    let mut query = db.prepare_cached(&format!("{COLUMNS} {tail}")).map_err(StoreError::database(DOING))?;
    let rows = query.query_map(params, read_push).map_err(StoreError::database(DOING))?;
    rows.map(|row| row.map_err(StoreError::database(DOING))?.complete(db)).collect()
}

/// A row of `pushes`, its words not yet understood.
struct PushRow {
    id: i64,
    state: String,
    repo: String,
    target_kind: String,
    target: Vec<u8>,
    pusher: Pusher,
    options: String,
    on_disconnect: String,
    created: i64,
    updated: i64,
    deadline: Option<i64>,
    owner: Owner,
    attempts: u32,
    message: String,
    upstream: Option<String>,
}

fn read_push(row: &Row<'_>) -> rusqlite::Result<PushRow> {
    Ok(PushRow {
        id: row.get("id")?,
        state: row.get("state")?,
        repo: row.get("repo")?,
        target_kind: row.get("target_kind")?,
        target: row.get("target")?,
        pusher: Pusher {
            name: row.get("pusher")?,
            verified: row.get("verified")?,
            claimed: row.get("claimed")?,
        },
        options: row.get("options")?,
        on_disconnect: row.get("on_disconnect")?,
        created: row.get("created")?,
        updated: row.get("updated")?,
        deadline: row.get("deadline")?,
        owner: Owner { boot: row.get("owner_boot")?, session: row.get("owner_session")? },
        attempts: row.get("attempts")?,
        message: row.get("message")?,
        upstream: row.get("upstream")?,
    })
}

impl PushRow {
    fn complete(self, db: &Connection) -> Result<Push, StoreError> {
        let id = push_id(self.id)?;
        let (refs, answers) = refs(db, id)?;
        Ok(Push {
            id,
            state: push_state(&self.state)?,
            repo: RepoName::parse(&self.repo).map_err(|_| StoreError::Damaged("the repository of a push"))?,
            target: target(&self.target_kind, &self.target)?,
            pusher: self.pusher,
            refs,
            answers,
            options: serde_json::from_str(&self.options)
                .map_err(|_| StoreError::Damaged("the options of a push"))?,
            on_disconnect: OnDisconnect::parse(&self.on_disconnect)
                .ok_or(StoreError::Damaged("what a lost client means to a push"))?,
            created: time(self.created)?,
            updated: time(self.updated)?,
            deadline: self.deadline.map(time).transpose()?,
            owner: self.owner,
            attempts: self.attempts,
            message: self.message,
            upstream: self.upstream,
            decision: decision(db, id)?,
        })
    }
}

fn refs(db: &Connection, id: PushId) -> Result<(RefUpdates, Vec<Option<RefAnswer>>), StoreError> {
    let columns = "SELECT name, old, new, answer FROM push_refs WHERE push_id = ?1 ORDER BY position";
    let rows: Vec<(String, String, String, Option<String>)> =
        all(db, columns, id, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let damaged = || StoreError::Damaged("a ref of a push");
    let (mut updates, mut answers) = (Vec::new(), Vec::new());
    for (name, old, new, answer) in rows {
        updates.push(RefUpdate {
            name: RefName::parse(name.as_bytes()).map_err(|_| damaged())?,
            old: Oid::parse(old.as_bytes()).ok_or_else(damaged)?,
            new: Oid::parse(new.as_bytes()).ok_or_else(damaged)?,
        });
        answers.push(answer.as_deref().map(ref_answer).transpose()?);
    }
    Ok((RefUpdates::new(updates).map_err(|_| damaged())?, answers))
}

fn ref_answer(text: &str) -> Result<RefAnswer, StoreError> {
    match text.strip_prefix(REFUSED) {
        Some(words) => Ok(RefAnswer::Refused(words.to_owned())),
        None if text == ACCEPTED => Ok(RefAnswer::Accepted),
        None => Err(StoreError::Damaged("the answer about a ref of a push")),
    }
}

fn decision(db: &Connection, id: PushId) -> Result<Option<Decision>, StoreError> {
    let columns = "SELECT ruling, by, reason, is_override, at FROM decisions WHERE push_id = ?1";
    let rows: Vec<(String, String, String, bool, i64)> =
        all(db, columns, id, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?;
    let read = |(ruling, by, reason, is_override, at): (String, String, String, bool, i64)| {
        Ok(Decision {
            ruling: Ruling::parse(&ruling).ok_or(StoreError::Damaged("a decision"))?,
            by: actor(&by)?,
            reason,
            is_override,
            at: time(at)?,
        })
    };
    rows.into_iter().next().map(read).transpose()
}

pub(super) fn events(db: &Connection, id: PushId) -> Result<Vec<PushEvent>, StoreError> {
    type Columns = (i64, i64, String, Option<String>, Option<String>, String, String);
    let columns = "SELECT id, at, actor, event, from_state, to_state, why FROM push_events
                   WHERE push_id = ?1 ORDER BY id";
    let rows: Vec<Columns> = all(db, columns, id, |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
    })?;
    rows.into_iter()
        .map(|(number, at, by, event, from, to, why)| {
            Ok(PushEvent {
                number,
                at: time(at)?,
                actor: actor(&by)?,
                cause: cause(from.as_deref(), event.as_deref())?,
                to: push_state(&to)?,
                why,
            })
        })
        .collect()
}

fn cause(from: Option<&str>, event: Option<&str>) -> Result<Option<(PushState, Event)>, StoreError> {
    let damaged = || StoreError::Damaged("an event of a push");
    match (from, event) {
        (None, None) => Ok(None),
        (Some(from), Some(event)) => Ok(Some((push_state(from)?, Event::parse(event).ok_or_else(damaged)?))),
        (Some(_), None) | (None, Some(_)) => Err(damaged()),
    }
}

pub(super) fn checks(db: &Connection, id: PushId) -> Result<Vec<CheckResult>, StoreError> {
    let columns = "SELECT name, verdict, findings, ms FROM checks WHERE push_id = ?1 ORDER BY position";
    let rows: Vec<(String, String, String, i64)> =
        all(db, columns, id, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let damaged = || StoreError::Damaged("what a check found");
    rows.into_iter()
        .map(|(name, verdict, findings, ms)| {
            Ok(CheckResult {
                name,
                verdict: Verdict::parse(&verdict).ok_or_else(damaged)?,
                findings: serde_json::from_str(&findings).map_err(|_| damaged())?,
                ms: u64::try_from(ms).map_err(|_| damaged())?,
            })
        })
        .collect()
}

/// Every row that belongs to a push.
fn all<T>(
    db: &Connection,
    statement: &str,
    id: PushId,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let rows = db
        .prepare_cached(statement)
        .and_then(|mut query| query.query_map([id.get()], read)?.collect::<rusqlite::Result<Vec<T>>>());
    rows.map_err(StoreError::database("reading what belongs to a push"))
}

fn push_id(number: i64) -> Result<PushId, StoreError> {
    PushId::new(number).ok_or(StoreError::Damaged("the number of a push"))
}

fn push_state(word: &str) -> Result<PushState, StoreError> {
    PushState::parse(word).map_err(|_| StoreError::Damaged("the state of a push"))
}

fn target(kind: &str, bytes: &[u8]) -> Result<Target, StoreError> {
    let damaged = || StoreError::Damaged("the target of a push");
    match kind {
        HOSTED => Ok(Target::Hosted { directory: OsStr::from_bytes(bytes).into() }),
        UPSTREAM => Ok(Target::Upstream { url: str::from_utf8(bytes).map_err(|_| damaged())?.to_owned() }),
        _ => Err(damaged()),
    }
}

fn actor(text: &str) -> Result<Actor, StoreError> {
    Actor::parse(text).ok_or(StoreError::Damaged("who acted on a push"))
}

fn time(millis: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(millis).map_err(|_| StoreError::Damaged("a time"))
}
