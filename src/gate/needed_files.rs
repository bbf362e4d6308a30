//! Files that the settings name and a gate does without until it needs them: what is wrong with them now is worth a
//! warning, since they may come later.

use crate::client::secrets::{SecretError, read_login, read_token, read_webhook_secret};
use crate::config::{ChecksSettings, Settings};
use crate::model::upstream::UpstreamUrl;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The bits of a mode that let everybody read a file, or others than the owner change it.
const OPEN: u32 = 0o026;

/// The bits of a mode that let somebody start a program.
const EXECUTABLE: u32 = 0o111;

/// A sentence for each file or directory that is not as it should be.
#[must_use]
pub fn doubts(settings: &Settings) -> Vec<String> {
    let secrets = settings.upstreams.iter().flat_map(|upstream| {
        let token = upstream.service.as_ref().map(|service| service.token_file.as_path());
        let token = token.and_then(|path| doubt(path, read_token(path).err()));
        let login = upstream.route.proxy_auth_file();
        let login = login.and_then(|path| doubt(path, read_login(path).err()));
        token.into_iter().chain(login).map(|why| format!("{}: {why}", upstream.name))
    });
    let directories = settings.upstreams.iter().filter_map(|upstream| match &upstream.url {
        UpstreamUrl::Directory(path) if !path.is_dir() => {
            let name = &upstream.name;
            Some(format!("{name}: upstream.url: there is no directory {} on this machine", path.display()))
        }
        UpstreamUrl::Directory(_) | UpstreamUrl::Http(_) => None,
    });
    let webhooks = settings.webhooks.iter().filter_map(|webhook| {
        let why = doubt(&webhook.secret_file, read_webhook_secret(&webhook.secret_file).err())?;
        Some(format!("{}: {why}", webhook.name))
    });
    directories.chain(secrets).chain(webhooks).chain(doubts_of_checks(&settings.checks)).collect()
}

fn doubt(path: &Path, unread: Option<SecretError>) -> Option<String> {
    unread.map(|error| error.to_string()).or_else(|| open_to_others(path))
}

/// The same for what is checked alone.
#[must_use]
pub fn doubts_of_checks(checks: &ChecksSettings) -> Vec<String> {
    let signers = checks.signature.allowed_signers.as_deref().and_then(|path| {
        let why = fs::File::open(path).err()?;
        Some(format!("checks.signature.allowed_signers: {}: {why}", path.display()))
    });
    let commands = checks.commands.iter().filter_map(|command| {
        let why = not_a_program(Path::new(command.argv.first()?))?;
        Some(format!("checks.command {}: {why}", command.name))
    });
    signers.into_iter().chain(commands).collect()
}

/// What is wrong with the mode of a file that holds a secret.
#[must_use]
pub fn open_to_others(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.mode() & 0o7777;
    (mode & OPEN != 0)
        .then(|| format!("{} is open to other users (mode {mode:o}): chmod g-w,o-rwx", path.display()))
}

fn not_a_program(path: &Path) -> Option<String> {
    let shown = path.display();
    match fs::metadata(path) {
        Err(error) => Some(format!("{shown}: {error}")),
        Ok(found) if !found.is_file() || found.mode() & EXECUTABLE == 0 => {
            Some(format!("{shown} is no program that can be started"))
        }
        Ok(_) => None,
    }
}
