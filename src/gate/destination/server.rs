//! A repository of an upstream that is a server.

use super::{ANSWER_MAX, Destination, Parcel, leased};
use crate::git::credential_file::CredentialFile;
use crate::git::held::Update;
use crate::git::tools::Tools;
use crate::git::transport_fault::TransportFault;
use crate::git::upstream::{Reaching, UpstreamPush};
use crate::mirror::{Mirrors, Remote, Side};
use crate::model::oid::Oid;
use crate::model::upstream::UpstreamUrl;
use crate::supervise::Outcome;
use std::collections::BTreeMap;

/// The repository, and what is shown there. Whatever a killed push leaves is the server's to clean.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// The way to it.
    pub mirrors: &'a Mirrors,
    /// The upstream.
    pub remote: Remote<'a>,
    /// The repository's path there.
    pub path: &'a str,
    /// Its address, as it was recorded.
    pub url: &'a UpstreamUrl,
    /// The service that is asked for its refs: many a server lets everybody read, and asks who pushes even for the refs.
    pub side: Side,
}

impl Destination for Server<'_> {
    fn values(&self, tools: &Tools<'_>, names: &[&str]) -> Result<BTreeMap<String, Oid>, String> {
        let Self { mirrors, remote, path, side, .. } = self;
        let seen = mirrors.ask(remote, path, *side, tools.git, &tools.asker);
        let mut refs = seen.map_err(|error| error.to_string())?.refs;
        Ok(names.iter().filter_map(|name| refs.remove_entry(*name)).collect())
    }

    fn push(&self, tools: &Tools<'_>, parcel: &Parcel<'_>) -> Result<(Outcome, Vec<u8>), String> {
        let updates: Vec<Update<'_>> = parcel.updates.iter().map(|update| leased(update)).collect();
        let file = self.remote.credential.map(|it| CredentialFile::of(it, &self.url.origin())).transpose();
        let file = file.map_err(|error| format!("keeping a credential: {error}"))?;
        let to =
            Reaching { url: self.url, credential: file.as_ref(), authorities: self.mirrors.authorities() };
        let Parcel { from, options, .. } = *parcel;
        let invocation = tools.git.push_upstream(&UpstreamPush { from, to, updates: &updates, options });
        let spec = tools.spec(invocation, format!("push {}", self.url));
        let mut child = tools.asker.reaper.spawn(spec).map_err(|error| error.to_string())?;
        file.iter().for_each(|file| child.hold(file.hold()));
        Ok(child.collect(ANSWER_MAX, None))
    }

    fn is_passing(&self, stderr: &str) -> bool {
        TransportFault::find(stderr).is_some_and(|fault| fault.is_passing())
    }

    /// Whose server it is, they know.
    fn conceal(&self, words: &str) -> String {
        words.to_owned()
    }
}
