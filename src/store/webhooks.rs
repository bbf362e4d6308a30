//! Webhooks that wanted nothing any more, so that a new life of the gate does not begin anew with them.

use super::{Store, StoreError};
use crate::model::fleet::SinkName;
use crate::model::webhook::WebhookUrl;
use jiff::Timestamp;
use rusqlite::OptionalExtension;

/// The rows of webhooks in a store.
#[derive(Clone, Copy, Debug)]
pub struct WebhookRows<'a>(&'a Store);

impl Store {
    /// The rows of webhooks.
    #[must_use]
    pub fn webhooks(&self) -> WebhookRows<'_> {
        WebhookRows(self)
    }
}

impl WebhookRows<'_> {
    /// Why this webhook wants nothing any more, if it has said so at this address.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn disabled(&self, name: &SinkName, url: &WebhookUrl) -> Result<Option<String>, StoreError> {
        self.0.read("looking for a disabled webhook", |db| {
            let mut why =
                db.prepare_cached("SELECT why FROM disabled_webhooks WHERE name = ?1 AND url = ?2")?;
            why.query_row((name.as_str(), url.digest()), |row| row.get(0)).optional()
        })
    }

    /// It is told again, whatever it has said.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn enable(&self, name: &SinkName) -> Result<(), StoreError> {
        const DOING: &str = "noting that a webhook is told again";
        self.0.write(DOING, |db| {
            let gone = db.execute("DELETE FROM disabled_webhooks WHERE name = ?1", [name.as_str()]);
            gone.map(drop).map_err(StoreError::database(DOING))
        })
    }

    /// It has said so.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn disable(
        &self,
        name: &SinkName,
        url: &WebhookUrl,
        why: &str,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        const DOING: &str = "noting that a webhook is disabled";
        self.0.write(DOING, |db| {
            let put = "INSERT OR REPLACE INTO disabled_webhooks (name, url, why, at) VALUES (?1, ?2, ?3, ?4)";
            let values = (name.as_str(), url.digest(), why, at.as_millisecond());
            db.execute(put, values).map(drop).map_err(StoreError::database(DOING))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, fresh};
    use super::*;

    #[test]
    fn a_webhook_stays_disabled_until_it_has_another_address() {
        let (place, store) = fresh();
        let (chat, other) = (SinkName::parse("chat").unwrap(), SinkName::parse("other").unwrap());
        let url = |text| WebhookUrl::parse(text).unwrap();
        let (old, new) = (url("https://a.example/s3cret"), url("https://a.example/new"));
        assert_eq!(store.webhooks().disabled(&chat, &old).unwrap(), None);
        store.webhooks().disable(&chat, &old, "it is gone", at(5)).unwrap();
        drop(store);
        let store = Store::open(&place.path().join("data")).unwrap();
        let why = |name, url| store.webhooks().disabled(name, url).unwrap();
        assert_eq!(why(&chat, &old).as_deref(), Some("it is gone"));
        assert_eq!((why(&chat, &new), why(&other, &old)), (None, None));
        store.webhooks().disable(&chat, &new, "that one, too", at(6)).unwrap();
        assert_eq!((why(&chat, &new).as_deref(), why(&chat, &old)), (Some("that one, too"), None));
        store.webhooks().enable(&chat).unwrap();
        assert_eq!(why(&chat, &new), None);
    }
}
