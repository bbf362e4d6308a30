//! What this gate has to do with the server that all gates of its fleet tell of their changes.

use crate::config::FleetSettings;
use crate::http::app::App;
use crate::mirror::keeper::{Heard, Keeper};
use crate::model::fleet::{FleetError, Version};
use crate::outbox::Publisher;
use crate::outbox::redis::sink::RedisSink;
use crate::outbox::redis::source::{Home, RedisSource};
use crate::outbox::redis::{Epoch, Server};
use crate::store::Store;
use jiff::Timestamp;
use std::io;

/// The gate as one who listens.
#[derive(Debug)]
struct Gate {
    store: Store,
    keeper: Keeper,
    /// The address of the server.
    server: String,
}

/// The server of the settings, and this gate's way to tell it of changes.
pub(super) fn server(settings: &FleetSettings) -> io::Result<Option<(Server, Publisher)>> {
    let Some(server) = Server::of(settings)? else { return Ok(None) };
    let publisher = RedisSink::publisher(server.clone());
    Ok(Some((server, publisher.map_err(|error: FleetError| io::Error::other(error))?)))
}

/// Starts to hear what others tell the server.
pub(super) fn listen(server: Server, app: &App) -> io::Result<RedisSource> {
    let (store, keeper) = (app.store.clone(), app.keeper.clone());
    let address = server.url().to_string();
    RedisSource::start(server, Box::new(Gate { store, keeper, server: address }))
}

impl Home for Gate {
    fn own(&self) -> Result<Vec<Version>, String> {
        self.store.versions().own().map_err(|error| error.to_string())
    }

    fn hear(&self, version: &Version) {
        self.keeper.hear(&Heard { version, origin: None });
    }

    fn is_outdone(&self, version: &Version) -> bool {
        let hear = || self.store.versions().hear(version, false, Timestamp::now());
        version.incarnation == *self.store.publisher()
            && hear().inspect_err(|error| log::error!("{error}")).unwrap_or(false)
    }

    fn remember(&self, version: &Version) {
        log::warn!(
            "this gate has told of more changes of {} than it knows of: its database was set back; it goes on counting from {}",
            version.repo,
            version.seq
        );
        if let Err(error) = self.store.versions().hear(version, false, Timestamp::now()) {
            log::error!("{error}");
        }
    }

    fn doubt_all(&self) {
        self.keeper.doubt_all();
    }

    fn epoch(&self) -> Result<Option<Epoch>, String> {
        let kept = self.store.epochs().of(&self.server).map_err(|error| error.to_string())?;
        Ok(kept.as_deref().and_then(Epoch::parse))
    }

    fn set_epoch(&self, epoch: &Epoch) -> Result<(), String> {
        self.store.epochs().set(&self.server, epoch.as_str()).map_err(|error| error.to_string())
    }
}
