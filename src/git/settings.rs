//! shim
use crate::git::command::{Git, Service};
use crate::git::layout::Repository;
use crate::supervise::{Deadline, Reaper};
#[derive(Debug)]
pub struct SettingsCache;
#[derive(Debug)]
pub struct RepositorySettings;
impl SettingsCache {
    pub fn new(_: Git, _: Reaper) -> Self {
        Self
    }
    pub fn of(&self, _: &Repository, _: Deadline) -> std::io::Result<RepositorySettings> {
        Ok(RepositorySettings)
    }
}
impl RepositorySettings {
    pub fn offers(&self, _: Service) -> bool {
        true
    }
}
