//! What this gate has to do with the server that all gates of its fleet tell of their changes.

use crate::config::FleetSettings;
use crate::http::app::App;
use crate::mirror::keeper::Keeper;
use crate::mirror::upstreams::Upstreams;
use crate::model::fleet::{FleetError, RepoKey, Version};
use crate::model::name::RepoName;
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
    upstreams: Upstreams,
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
    let (store, keeper, upstreams) = (app.store.clone(), app.keeper.clone(), app.road.upstreams().clone());
    let address = server.url().to_string();
    RedisSource::start(server, Box::new(Gate { store, keeper, upstreams, server: address }))
}

impl Gate {
    /// Every mirror, with the fleet's name for its repository.
    fn mirrors(&self) -> impl Iterator<Item = (RepoName, RepoKey)> {
        self.keeper.states().into_iter().filter_map(|state| {
            let place = self.upstreams.find(&state.row.repo)?;
            let key = RepoKey::of_upstream(&place.upstream.url, place.path);
            Some((state.row.repo.clone(), key))
        })
    }

    fn doubt(&self, repo: &RepoName) {
        self.upstreams.mirrors().doubt(repo);
    }
}

impl Home for Gate {
    fn own(&self) -> Result<Vec<Version>, String> {
        self.store.versions().own().map_err(|error| error.to_string())
    }

    /// A mirror of it is not fresh any more, and brought up to date for whoever reads it next.
    fn hear(&self, version: &Version) {
        if version.incarnation == *self.store.publisher() {
            return;
        }
        match self.store.versions().hear(version, Timestamp::now()) {
            Ok(true) => {
                self.mirrors().filter(|(_, key)| *key == version.repo).for_each(|(repo, _)| self.doubt(&repo))
            }
            Ok(false) => {}
            Err(error) => log::error!("{error}"),
        }
    }

    fn remember(&self, version: &Version) {
        log::warn!(
            "this gate has told of {} changes of {} and knows of fewer: its database was set back; it goes on counting from there",
            version.seq,
            version.repo
        );
        if let Err(error) = self.store.versions().hear(version, Timestamp::now()) {
            log::error!("{error}");
        }
    }

    fn doubt_all(&self) {
        self.mirrors().for_each(|(repo, _)| self.doubt(&repo));
    }

    fn epoch(&self) -> Result<Option<Epoch>, String> {
        let kept = self.store.epochs().of(&self.server).map_err(|error| error.to_string())?;
        Ok(kept.as_deref().and_then(Epoch::parse))
    }

    fn set_epoch(&self, epoch: &Epoch) -> Result<(), String> {
        self.store.epochs().set(&self.server, epoch.as_str()).map_err(|error| error.to_string())
    }
}
