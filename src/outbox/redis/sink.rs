//! Tells the server of changes, one at a time.
//!
//! The connection is kept. One that has ended meanwhile, as servers end idle ones, is replaced at once; whatever else goes
//! wrong is tried again after a pause: a change may be applied any number of times. All of a delivery takes 25 s at most,
//! and ends with the gate.

use super::connection::Connection;
use super::pauses::Pauses;
use super::script::{self, Applied, Epoch};
use super::{RedisError, Server};
use crate::model::fleet::{EventName, EventPattern, FleetError, NoticeBody, SinkName, Version};
use crate::model::outbox::REDIS;
use crate::outbox::{Delivered, Limits, Publisher, Sink};
use crate::store::events::{Keeps, Subscription};
use crate::store::outbox::Row;

/// What it is told: changes of refs, and nothing of pushes.
const EVENTS: &str = "repo.*";

const DOING: &str = "publishing a version";

/// The way to tell a server of changes.
#[derive(Debug)]
pub struct RedisSink {
    server: Server,
    kept: Option<Connection>,
    pauses: Pauses,
}

impl RedisSink {
    /// Tells this server.
    #[must_use]
    pub fn new(server: Server) -> Self {
        Self { server, kept: None, pauses: Pauses::default() }
    }

    /// As the outbox takes it.
    ///
    /// # Errors
    /// Never: what it is called, and what it is told, are as they have to be.
    pub fn publisher(server: Server) -> Result<Publisher, FleetError> {
        let subscription = Subscription {
            sink: SinkName::parse(REDIS)?,
            events: vec![EventPattern::parse(EVENTS)?],
            keeps: Keeps::Latest,
        };
        Ok(Publisher { subscription, sink: Box::new(Self::new(server)) })
    }

    /// Tells of a change, with its event: a JSON object on one line.
    ///
    /// # Errors
    /// See [`RedisError`]; the change may have been applied even so.
    pub fn publish(
        &mut self,
        version: &Version,
        event: &str,
        limits: &Limits<'_>,
    ) -> Result<Applied, RedisError> {
        if let Some(kept) = self.kept.take() {
            match self.publish_over(kept, version, event) {
                Err(error) if error.is_broken() => {
                    log::debug!("redis: the connection that was kept has ended: {error}");
                }
                outcome => return outcome,
            }
        }
        let connection = self.server.connect(limits.stop)?;
        self.publish_over(connection, version, event)
    }

    /// Keeps the connection if all is well with it.
    fn publish_over(
        &mut self,
        mut connection: Connection,
        version: &Version,
        event: &str,
    ) -> Result<Applied, RedisError> {
        let epoch = Epoch::new().map_err(|source| RedisError::Broken { doing: DOING, source })?;
        let answer = connection.ask(&script::apply(version, event, &epoch, self.server.url()), DOING)?;
        let applied = script::read_applied(&answer, DOING)?;
        self.kept = Some(connection);
        Ok(applied)
    }
}

impl Sink for RedisSink {
    fn deliver(&mut self, row: &Row, limits: &Limits<'_>) -> Delivered {
        let Some(version) = version_of(row) else {
            return Delivered::GivenUp("the event is not that of a change".to_owned());
        };
        match self.publish(&version, &row.body, limits) {
            Ok(applied) => {
                self.pauses = Pauses::default();
                let Applied { version, is_news, .. } = applied;
                log::debug!("redis: {} is at version {version}, news={is_news}", row.repo);
                Delivered::Acknowledged
            }
            Err(error) if error.is_of_one_key() => Delivered::Held(error.to_string()),
            Err(error) => Delivered::Again { why: error.to_string(), after: Some(self.pauses.next()) },
        }
    }
}

/// The change that a row stands for: its last one.
fn version_of(row: &Row) -> Option<Version> {
    let (_, seq) = row.changes?;
    let body: NoticeBody = serde_json::from_str(&row.body).ok()?;
    let is_removed = row.event == EventName::RepoRemoved;
    Some(Version {
        repo: row.repo.clone(),
        incarnation: body.incarnation,
        seq,
        digest: body.digest,
        is_removed,
    })
}
