//! What the machine gives us: an identity, descriptors, processes.

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{AccessFlags, access, geteuid, gethostname};
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Where the identity of the installation is.
const MACHINE_ID: &str = "/etc/machine-id";

/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The user that this process runs as.
#[must_use]
pub fn uid() -> u32 {
    geteuid().as_raw()
}

/// What the machine, or the container, calls itself.
#[must_use]
pub fn host_name() -> String {
    let name = gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

/// What tells this installation of a system from all others, where it says so (machine-id(5)).
#[must_use]
pub fn identity() -> Option<String> {
    let text = fs::read_to_string(MACHINE_ID).ok()?;
    let id = text.trim();
    let is_one = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| id.to_owned())
}

/// Whether `/dev/null` can be used, as the standard input of every git is: without it the first git would seem to be
/// missing.
///
/// # Errors
/// What the system answers, with the place and the cure.
pub fn check_null() -> io::Result<()> {
    check_device(Path::new("/dev/null"))
}

fn check_device(path: &Path) -> io::Result<()> {
    let opened = File::options().read(true).write(true).open(path);
    opened.map(drop).map_err(|error| {
        let what = format!("opening {}: {error}; every git needs it: mount a /dev", path.display());
        io::Error::new(error.kind(), what)
    })
}

/// Whether this process may make files in the directory `path`.
#[must_use]
pub fn is_writable(path: &Path) -> bool {
    access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}

/// The most descriptors that this process may have open, once it has raised its soft limit.
///
/// # Errors
/// What the system answers.
pub fn descriptors_max() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.1)
}

/// The most threads and processes that may live beside each other here: the smaller of the user's limit and
/// that of our cgroup (`TasksMax` of systemd, `--pids-limit` of a container). `None`: no limit was found.
///
/// # Errors
/// What the system answers about the user's limit.
pub fn tasks_max() -> io::Result<Option<u64>> {
    let user = getrlimit(Resource::RLIMIT_NPROC)?.0;
    let user = Some(user).filter(|&limit| limit != nix::sys::resource::RLIM_INFINITY);
    Ok([user, cgroup_tasks_max()].into_iter().flatten().min())
}

/// `max`, and a machine without the second version of cgroups, are no limit.
fn cgroup_tasks_max() -> Option<u64> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
    fs::read_to_string(Path::new(CGROUPS).join(own).join("pids.max")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_is_named() {
        check_null().unwrap();
        let error = check_device(Path::new("/dev/null/none")).unwrap_err().to_string();
        assert!(error.starts_with("opening /dev/null/none: Not a directory"), "{error}");
    }

    #[test]
    fn this_machine_allows_descriptors_and_tasks() {
        assert!(descriptors_max().unwrap() > 0);
        assert_ne!(tasks_max().unwrap(), Some(0));
    }
}
