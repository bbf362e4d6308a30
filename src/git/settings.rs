//! What a hosted repository's own configuration says to the server, with the meanings of `git http-backend`.
//!
//! Git reads the configuration (includes and all), we read its list: `ORIGIN NUL KEY LF VALUE NUL`, without LF and value
//! for a key that merely stands there. The last of several values counts.

use crate::git::object_format::ObjectFormat;
use crate::git::service::Service;
pub use crate::git::settings_cache::{SettingsCache, Stamped};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How the keys begin of all settings that git heeds when it advertises to clients that push: hidden refs, capabilities,
/// the refs of borrowed objects. Some of them do not matter there.
const SHAPING: [&[u8]; 4] = [b"receive.", b"transfer.", b"repack.", b"core.alternaterefs"];

/// The digest of all settings of a repository: two repositories with equal ones are treated alike by git, as far as that is
/// a matter of settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SettingsDigest([u8; 32]);

/// The settings that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepositorySettings {
    /// `http.uploadpack`.
    upload_pack: Option<bool>,
    /// `http.receivepack`.
    receive_pack: Option<bool>,
    /// `receive.autogc`.
    autogc: Option<bool>,
    /// `maintenance.auto`.
    maintenance: Option<bool>,
    /// `gc.auto` is zero or less: the collection of garbage by itself is off.
    gc_is_off: bool,
    /// `extensions.objectFormat`.
    object_format: ObjectFormat,
    /// Something is set that changes what git advertises to clients that push.
    shapes_advertisement: bool,
    /// Something is set that changes where git keeps refs, or that is not known to leave them alone.
    moves_refs: bool,
    /// Of every key with its value.
    digest: SettingsDigest,
}

/// A value that git would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Neither true nor false.
    #[error(
        "the repository's setting {key} is {value:?}, which is neither true nor false: correct its configuration"
    )]
    NotBoolean {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// Not a number.
    #[error("the repository's setting {key} is {value:?}, which is no number: correct its configuration")]
    NotNumber {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A hash that this version does not know.
    #[error("the repository's setting extensions.objectFormat is {value:?}: only sha1 and sha256 are served")]
    UnknownHash {
        /// Its value.
        value: String,
    },
    /// The list does not have its form.
    #[error("the list of settings ends in the middle of an entry")]
    Torn,
}

impl RepositorySettings {
    /// Whether a service may be used. The settings can only narrow what the rules allow: a service that is not mentioned
    /// is offered, since whoever comes so far has been allowed by a rule.
    #[must_use]
    pub fn serves(&self, service: Service) -> bool {
        match service {
            Service::UploadPack => self.upload_pack,
            Service::ReceivePack => self.receive_pack,
        }
        .unwrap_or(true)
    }

    /// Whether maintenance follows a push, as `git receive-pack` would start it.
    #[must_use]
    pub fn maintains(&self) -> bool {
        self.autogc.unwrap_or(true) && self.maintenance.unwrap_or(true) && !self.gc_is_off
    }

    /// Which hash names the repository's objects.
    #[must_use]
    pub const fn object_format(&self) -> ObjectFormat {
        self.object_format
    }

    /// Whether a setting may change what git advertises to clients that push.
    #[must_use]
    pub const fn shapes_advertisement(&self) -> bool {
        self.shapes_advertisement
    }

    /// Whether git keeps the refs of the repository in files of their own and `packed-refs`, as gitrepository-layout(5) has
    /// it, and nowhere else.
    #[must_use]
    pub const fn keeps_refs_in_files(&self) -> bool {
        !self.moves_refs
    }

    /// The digest of all that is set.
    #[must_use]
    pub const fn digest(&self) -> SettingsDigest {
        self.digest
    }

    fn set(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), SettingError> {
        self.moves_refs |= key.strip_prefix(b"extensions.").is_some_and(|name| moves_refs(name, value));
        self.shapes_advertisement |= SHAPING.iter().any(|start| key.starts_with(start));
        match key {
            b"http.uploadpack" => self.upload_pack = Some(boolean("http.uploadpack", value)?),
            b"http.receivepack" => self.receive_pack = Some(boolean("http.receivepack", value)?),
            b"receive.autogc" => self.autogc = Some(boolean("receive.autogc", value)?),
            b"maintenance.auto" => self.maintenance = Some(boolean("maintenance.auto", value)?),
            b"gc.auto" => self.gc_is_off = number("gc.auto", value)? <= 0,
            b"extensions.objectformat" => self.object_format = object_format(value)?,
            _ => {}
        }
        Ok(())
    }
}

/// A list of settings, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// What it says.
    pub settings: RepositorySettings,
    /// The files that it depends on, whether they are there or not; `None` when that depends on more than files.
    pub files: Option<BTreeSet<PathBuf>>,
}

impl Listing {
    /// Reads the answer of [`crate::git::command::Git::list_settings`].
    ///
    /// # Errors
    /// When git would refuse one of the values that matter, or the form is wrong.
    pub fn parse(list: &[u8]) -> Result<Self, SettingError> {
        let mut listing = Self { settings: RepositorySettings::default(), files: Some(BTreeSet::new()) };
        let mut parts = list.strip_suffix(b"\0").unwrap_or(list).split(|&byte| byte == 0);
        if list.is_empty() {
            return Ok(listing);
        }
        let mut digest = Sha256::new();
        while let Some(origin) = parts.next() {
            let entry = parts.next().ok_or(SettingError::Torn)?;
            let (key, value) = match entry.iter().position(|&byte| byte == b'\n') {
                Some(end) => (&entry[..end], Some(&entry[end + 1..])),
                None => (entry, None),
            };
            listing.depend_on(origin, key, value);
            listing.settings.set(key, value)?;
            digest.update(entry);
            digest.update(b"\0");
        }
        listing.settings.digest = SettingsDigest(digest.finalize().into());
        Ok(listing)
    }

    /// Every origin is a file to watch, and so is every file that is included, also while it is missing. An include under a
    /// condition depends on more (the branch, other settings), a path from a home on whose it is.
    fn depend_on(&mut self, origin: &[u8], key: &[u8], value: Option<&[u8]>) {
        let origin = origin.strip_prefix(b"file:").map(path).filter(|path| path.is_absolute());
        let included = match (key, &origin, value) {
            (b"include.path", Some(origin), Some(value)) => include(origin, value),
            (b"include.path", _, _) => None,
            (key, _, _) if key.starts_with(b"includeif.") => None,
            (_, Some(origin), _) => Some(origin.to_path_buf()),
            (_, None, _) => None,
        };
        match (&mut self.files, origin, included) {
            (Some(files), Some(origin), Some(included)) => files.extend([origin.to_path_buf(), included]),
            (files, _, _) => *files = None,
        }
    }
}

/// Whether the extension `name` may mean that refs are elsewhere than where they always were; one of a git newer than this may.
fn moves_refs(name: &[u8], value: Option<&[u8]>) -> bool {
    match name {
        b"objectformat" | b"noop" | b"noop-v1" | b"preciousobjects" | b"partialclone" => false,
        b"refstorage" => value != Some(b"files"),
        _ => true,
    }
}

/// The file that an include names: relative paths start at the file that names them.
fn include(origin: &Path, value: &[u8]) -> Option<PathBuf> {
    let is_plain = !value.starts_with(b"~") && !value.starts_with(b"%(");
    is_plain.then(|| origin.parent().unwrap_or(origin).join(path(value)))
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// A boolean as git reads it: words, a number, an empty value for false, a bare key for true.
fn boolean(key: &'static str, value: Option<&[u8]>) -> Result<bool, SettingError> {
    let Some(value) = value else { return Ok(true) };
    match value.to_ascii_lowercase().as_slice() {
        b"true" | b"yes" | b"on" => Ok(true),
        b"false" | b"no" | b"off" | b"" => Ok(false),
        _ => parse_number(value)
            .map(|number| number != 0)
            .ok_or_else(|| SettingError::NotBoolean { key, value: shown(value) }),
    }
}

fn object_format(value: Option<&[u8]>) -> Result<ObjectFormat, SettingError> {
    let value = value.unwrap_or_default();
    let format = str::from_utf8(value).ok().and_then(ObjectFormat::parse);
    format.ok_or_else(|| SettingError::UnknownHash { value: shown(value) })
}

fn number(key: &'static str, value: Option<&[u8]>) -> Result<i64, SettingError> {
    let value = value.unwrap_or_default();
    parse_number(value).ok_or_else(|| SettingError::NotNumber { key, value: shown(value) })
}

/// A decimal number with an optional `k`, `m` or `g`.
fn parse_number(value: &[u8]) -> Option<i64> {
    let text = str::from_utf8(value).ok()?.trim_start();
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1 << 10),
        b'm' | b'M' => (&text[..text.len() - 1], 1 << 20),
        b'g' | b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<i64>().ok()?.checked_mul(unit)
}

fn shown(value: &[u8]) -> String {
    String::from_utf8_lossy(&value[..value.len().min(60)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list from `/srv/a/config`.
    fn list(entries: &[(&str, Option<&str>)]) -> Vec<u8> {
        let entry = |(key, value): &(&str, Option<&str>)| match value {
            Some(value) => format!("file:/srv/a/config\0{key}\n{value}\0"),
            None => format!("file:/srv/a/config\0{key}\0"),
        };
        entries.iter().map(entry).collect::<String>().into_bytes()
    }

    fn settings(entries: &[(&str, Option<&str>)]) -> RepositorySettings {
        Listing::parse(&list(entries)).unwrap().settings
    }

    #[test]
    fn without_settings_both_services_are_offered() {
        let settings = settings(&[]);
        assert!(Service::ALL.into_iter().all(|service| settings.serves(service)));
        assert!(settings.maintains());
    }

    #[test]
    fn values_are_those_that_git_knows_and_the_last_one_counts() {
        let push = |value| settings(&[("http.receivepack", value)]).serves(Service::ReceivePack);
        for yes in [None, Some("true"), Some("YES"), Some("on"), Some("1"), Some("-1"), Some("1k")] {
            assert!(push(yes), "{yes:?}");
        }
        for no in [Some(""), Some("false"), Some("No"), Some("off"), Some("0")] {
            assert!(!push(no), "{no:?}");
        }
        let both = settings(&[("http.uploadpack", Some("false")), ("http.uploadpack", Some("true"))]);
        assert!(both.serves(Service::UploadPack));
        let off = settings(&[("http.receivepack", Some("false"))]);
        assert!(!off.serves(Service::ReceivePack));
    }

    #[test]
    fn a_value_that_git_would_refuse_is_refused() {
        for value in ["maybe", "1x", "truth"] {
            let error = Listing::parse(&list(&[("http.uploadpack", Some(value))])).unwrap_err();
            assert!(matches!(error, SettingError::NotBoolean { key: "http.uploadpack", .. }), "{value}");
        }
        assert!(matches!(Listing::parse(&list(&[("gc.auto", None)])), Err(SettingError::NotNumber { .. })));
        assert_eq!(Listing::parse(b"file:/srv/a/config\0"), Err(SettingError::Torn));
    }

    #[test]
    fn any_of_three_settings_switches_maintenance_off() {
        for (key, value) in
            [("receive.autogc", "no"), ("maintenance.auto", "0"), ("gc.auto", "0"), ("gc.auto", "-1")]
        {
            assert!(!settings(&[(key, Some(value))]).maintains(), "{key}={value}");
        }
        assert!(settings(&[("gc.auto", Some("6700")), ("receive.autogc", Some("true"))]).maintains());
    }

    #[test]
    fn the_hash_is_sha1_unless_the_repository_says_otherwise() {
        assert_eq!(settings(&[]).object_format(), ObjectFormat::Sha1);
        let sha256 = settings(&[("extensions.objectformat", Some("sha256"))]);
        assert_eq!(sha256.object_format(), ObjectFormat::Sha256);
        let unknown = Listing::parse(&list(&[("extensions.objectformat", Some("sha3"))]));
        assert_eq!(unknown, Err(SettingError::UnknownHash { value: "sha3".into() }));
    }

    #[test]
    fn refs_are_in_files_unless_an_extension_may_have_moved_them() {
        let is_plain = |key: &str, value| settings(&[(key, Some(value))]).keeps_refs_in_files();
        assert!(settings(&[]).keeps_refs_in_files() && is_plain("extensions.refstorage", "files"));
        assert!(is_plain("extensions.objectformat", "sha256") && is_plain("core.bare", "true"));
        for (key, value) in
            [("refstorage", "reftable"), ("refstorage", ""), ("worktreeconfig", "true"), ("news", "1")]
        {
            assert!(!is_plain(&format!("extensions.{key}"), value), "{key}");
        }
    }

    #[test]
    fn the_digest_is_of_what_is_set_and_not_of_where() {
        let digest = |entries| settings(entries).digest();
        let some = digest(&[("core.bare", Some("true")), ("transfer.hiderefs", Some("refs/x"))]);
        assert_ne!(some, digest(&[("core.bare", Some("true"))]));
        assert_ne!(some, digest(&[("transfer.hiderefs", Some("refs/x")), ("core.bare", Some("true"))]));
        assert_ne!(digest(&[("a.b", Some(""))]), digest(&[("a.b", None)]));
        let elsewhere = b"file:/srv/b/config\0core.bare\ntrue\0";
        let elsewhere = Listing::parse(elsewhere).unwrap().settings.digest();
        assert_eq!(elsewhere, digest(&[("core.bare", Some("true"))]));
    }

    #[test]
    fn a_listing_knows_the_files_that_it_depends_on() {
        let files = |entries: &[(&str, Option<&str>)]| Listing::parse(&list(entries)).unwrap().files;
        let set = |paths: &[&str]| Some(paths.iter().map(PathBuf::from).collect::<BTreeSet<_>>());
        assert_eq!(files(&[("core.bare", Some("true"))]), set(&["/srv/a/config"]));
        assert_eq!(files(&[("include.path", Some("more"))]), set(&["/srv/a/config", "/srv/a/more"]));
        assert_eq!(files(&[("include.path", Some("/etc/more"))]), set(&["/srv/a/config", "/etc/more"]));
        assert_eq!(files(&[("include.path", Some("~/more"))]), None);
        assert_eq!(files(&[("includeif.onbranch:x.path", Some("more")), ("core.bare", None)]), None);
        assert_eq!(Listing::parse(b"command line:\0core.bare\ntrue\0").unwrap().files, None);
    }
}
