//! The sinks of the configuration.

use super::webhook::Webhook;
use super::{OutboxError, Publisher};
use crate::config::{Settings, WebhookSettings};
use crate::store::Store;

/// All of them, with what each is to be told.
///
/// # Errors
/// When what is known of one cannot be read.
pub fn publishers(settings: &Settings, store: &Store) -> Result<Vec<Publisher>, OutboxError> {
    let open = |webhook: &WebhookSettings| Ok(Webhook::open(webhook.clone(), store)?.publisher());
    settings.webhooks.iter().map(open).collect()
}
