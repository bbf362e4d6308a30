//! The look at webhooks: whether each server can be reached, without an event being sent, and whether its secret can be read.

use super::{Finding, Patient};
use crate::client::secrets::{SECRET_FILE, read_webhook_secret};
use crate::config::WebhookSettings;
use crate::gate::needed_files::open_to_others;
use crate::outbox::webhook::reach;
use std::time::Instant;

/// Each webhook in its turn.
pub(super) fn look_at_webhooks(patient: &Patient<'_>) -> Vec<Finding> {
    patient.settings.webhooks.iter().flat_map(look_at).collect()
}

fn look_at(webhook: &WebhookSettings) -> [Finding; 2] {
    let WebhookSettings { name, url, secret_file, .. } = webhook;
    let begun = Instant::now();
    let reached = match reach(webhook) {
        Ok(status) => {
            let time = begun.elapsed().as_millis();
            Finding::Good(format!("{name}: {url} answers after {time} ms with status {status}"))
        }
        Err(unreached) => Finding::of_unreached(&unreached, &format!("{name}: ")),
    };
    let secret = match (read_webhook_secret(secret_file), open_to_others(secret_file)) {
        (Err(error), _) => Finding::Bad(format!("{name}: {error}")),
        (Ok(_), Some(why)) => Finding::Doubtful(format!("{name}: the {SECRET_FILE} {why}")),
        (Ok(_), None) => {
            Finding::Good(format!("{name}: the {SECRET_FILE} {} can be read", secret_file.display()))
        }
    };
    [reached, secret]
}
