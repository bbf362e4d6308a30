//! `blobs`: files that are too large, or of a kind that is not wanted.

use super::Check;
use super::contents::{Kind, Object};
use super::facts::Change;
use super::findings::{Demand, Findings, Place};
use crate::config::checks::BlobSettings;
use crate::model::filetype::FileType;
use crate::model::units::format_size;
use std::collections::HashMap;

/// Files that are remembered until it is known where they are: far more than findings are kept.
const REMEMBERED_MAX: usize = 10_000;

const SIZE: Demand = Demand {
    key: "checks.blobs.size_max",
    hint: "take the file out of the commit that adds it; large files belong elsewhere (git lfs, a package store)",
};
const TYPE: Demand =
    Demand { key: "checks.blobs.block_types", hint: "take the file out of the commit that adds it" };

/// Files are judged as objects, each once, and named by the first commit and path where they turn up.
pub(super) struct Blobs<'a> {
    settings: &'a BlobSettings,
    objections: HashMap<String, Vec<Objection>>,
    unnamed: u64,
    findings: Findings,
}

/// What is wrong with a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Objection {
    Size(u64),
    Type(FileType),
}

impl<'a> Blobs<'a> {
    pub(super) fn new(settings: &'a BlobSettings) -> Self {
        Self { settings, objections: HashMap::new(), unnamed: 0, findings: Findings::default() }
    }

    fn object_to(&mut self, object: &Object, objection: Objection) {
        let oid = object.oid.as_str();
        if self.objections.len() < REMEMBERED_MAX || self.objections.contains_key(oid) {
            self.objections.entry(oid.to_owned()).or_default().push(objection);
        } else {
            self.unnamed += 1;
        }
    }

    fn report(&mut self, place: Place<'_>, what: &str, objection: Objection) {
        match objection {
            Objection::Size(size) => {
                let most = format_size(self.settings.size_max.unwrap_or_default());
                let message = format!("{what} has {size} bytes, and at most {most} are taken");
                self.findings.add(place, SIZE, message);
            }
            Objection::Type(kind) => {
                self.findings.add(place, TYPE, format!("{what} is of the blocked kind \"{kind}\""));
            }
        }
    }
}

impl Check for Blobs<'_> {
    fn object(&mut self, object: &Object) {
        let most = self.settings.size_max.unwrap_or(u64::MAX);
        if object.kind == Kind::Blob && object.size > most {
            self.object_to(object, Objection::Size(object.size));
        }
    }

    fn wants_heads(&self) -> bool {
        !self.settings.block_types.is_empty()
    }

    fn head(&mut self, object: &Object, head: &[u8]) {
        if let Some(kind) = self.settings.block_types.iter().find(|kind| kind.is_of(head)) {
            self.object_to(object, Objection::Type(*kind));
        }
    }

    fn change(&mut self, place: Place<'_>, change: &Change) {
        let Some(blob) = change.after.blob() else { return };
        for objection in self.objections.remove(blob.as_str()).unwrap_or_default() {
            self.report(place, "the file", objection);
        }
    }

    /// What turned up in no commit is named by its id: a tag may point to a file or a tree.
    fn findings(mut self: Box<Self>) -> Findings {
        let mut left: Vec<_> = std::mem::take(&mut self.objections).into_iter().collect();
        left.sort_by(|one, other| one.0.cmp(&other.0));
        for (oid, objections) in left {
            for objection in objections {
                self.report(Place::default(), &format!("the object {oid}"), objection);
            }
        }
        if self.unnamed > 0 {
            let message = format!("… and {} files that are not listed", self.unnamed);
            let demand = if self.settings.size_max.is_some() { SIZE } else { TYPE };
            self.findings.add(Place::default(), demand, message);
        }
        self.findings
    }
}
