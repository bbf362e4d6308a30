//! The one table of routes: which address means what, for both doors.
//!
//! Everything of ours lives under `/-/`; every other address names a repository, whose services stand in a second
//! table. Paths are matched as raw bytes against a strict grammar: nothing is decoded, nothing is normalised, so no two
//! spellings meet behind an access rule.

use super::app::App;
use super::message::Response;
use super::refusal::Refusal;
use super::status;
use crate::git::command::Service;
use crate::model::name::RepoName;
use crate::model::status::PATH as STATUS;

/// Who may see a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Everyone.
    Nothing,
    /// A caller on this machine, or any user.
    LoopbackOrUser,
    /// An admin, or the operator's own socket.
    Admin,
}

/// A page or an API address.
#[derive(Debug)]
pub struct Page {
    /// The whole path.
    pub path: &'static str,
    /// Who may see it.
    pub needs: Needs,
    /// Makes the answer.
    pub answer: fn(&App) -> Response,
}

/// Every page, all of them for GET and HEAD.
static PAGES: [Page; 6] = [
    Page { path: "/-/healthz", needs: Needs::Nothing, answer: status::healthz },
    Page { path: "/-/readyz", needs: Needs::Nothing, answer: status::readyz },
    Page { path: "/-/metrics", needs: Needs::LoopbackOrUser, answer: status::metrics },
    Page { path: STATUS, needs: Needs::Admin, answer: status::status },
    Page { path: "/-/api/v1/children", needs: Needs::Admin, answer: status::children },
    Page { path: "/-/api/v1/jobs", needs: Needs::Admin, answer: status::jobs },
];

/// The two requests of the smart HTTP protocol (gitprotocol-http(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// `GET info/refs?service=…`: the advertisement.
    Advertise,
    /// `POST git-…-pack`: one stateless exchange.
    Exchange,
}

/// A git request that is well addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitTarget {
    /// The repository's canonical name.
    pub repo: RepoName,
    /// What is asked of it.
    pub service: Service,
    /// Which of the two requests.
    pub phase: Phase,
}

/// What an address means.
#[derive(Debug)]
pub enum Target {
    /// One of ours.
    Page(&'static Page),
    /// A repository's.
    Git(GitTarget),
}

/// What a client is told that asks for the files of a repository instead of a service.
const DUMB: &str = "dumb HTTP is not served here: use git 1.6.6 or newer, without GIT_SMART_HTTP=0";

/// Finds what `method` on `path` with `query` (without its `?`) means.
///
/// # Errors
/// The refusal to answer with.
pub fn find(method: &str, path: &str, query: &str) -> Result<Target, Refusal> {
    if path == "/-" || path.starts_with("/-/") {
        return page(method, path).map(Target::Page);
    }
    git(method, path, query).map(Target::Git)
}

fn page(method: &str, path: &str) -> Result<&'static Page, Refusal> {
    let page = PAGES.iter().find(|page| page.path == path).ok_or(Refusal::NotFound)?;
    require(method, &["GET", "HEAD"], "GET, HEAD")?;
    Ok(page)
}

fn git(method: &str, path: &str, query: &str) -> Result<GitTarget, Refusal> {
    let path = path.strip_prefix('/').ok_or(Refusal::NotFound)?;
    if let Some(name) = path.strip_suffix("/info/refs") {
        let repo = name_of(name)?;
        require(method, &["GET"], "GET")?;
        return Ok(GitTarget { repo, service: advertised_service(query)?, phase: Phase::Advertise });
    }
    for service in Service::ALL {
        if let Some(name) = path.strip_suffix(service.name()).and_then(|path| path.strip_suffix('/')) {
            let repo = name_of(name)?;
            require(method, &["POST"], "POST")?;
            return Ok(GitTarget { repo, service, phase: Phase::Exchange });
        }
    }
    Err(not_a_service(path))
}

/// What to say of an address under a repository that is no service of ours.
fn not_a_service(path: &str) -> Refusal {
    if path.contains("/info/lfs") {
        Refusal::Lfs
    } else if path.ends_with("/git-upload-archive") {
        Refusal::Unsupported("git archive --remote is not served here: clone and archive locally".into())
    } else if path.ends_with("/HEAD") || path.contains("/objects/") {
        Refusal::Forbidden(DUMB.into())
    } else {
        Refusal::NotFound
    }
}

fn name_of(name: &str) -> Result<RepoName, Refusal> {
    RepoName::parse(name).map_err(|error| Refusal::BadRequest(error.to_string().into()))
}

fn require(method: &str, allowed: &[&str], allow: &'static str) -> Result<(), Refusal> {
    if allowed.contains(&method) { Ok(()) } else { Err(Refusal::Method(allow)) }
}

/// The service that `info/refs` is asked for: exactly one parameter of that name, exactly one of two values.
fn advertised_service(query: &str) -> Result<Service, Refusal> {
    let mut asked = query.split('&').filter_map(|pair| pair.strip_prefix("service="));
    let Some(name) = asked.next() else { return Err(Refusal::Forbidden(DUMB.into())) };
    if asked.next().is_some() {
        return Err(Refusal::BadRequest("the parameter service stands twice".into()));
    }
    Service::from_name(name)
        .ok_or_else(|| Refusal::Forbidden("services are git-upload-pack and git-receive-pack".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git_target(method: &str, path: &str, query: &str) -> Result<(String, Service, Phase), u16> {
        match find(method, path, query) {
            Ok(Target::Git(target)) => Ok((target.repo.as_str().to_owned(), target.service, target.phase)),
            Ok(Target::Page(page)) => panic!("{} is a page", page.path),
            Err(refusal) => Err(refusal.status()),
        }
    }

    #[test]
    fn both_spellings_of_a_name_reach_one_repository() {
        for path in ["/team/app.git/git-upload-pack", "/team/app/git-upload-pack"] {
            let found = git_target("POST", path, "");
            assert_eq!(found, Ok(("team/app".to_owned(), Service::UploadPack, Phase::Exchange)));
        }
    }

    #[test]
    fn the_service_parameter_is_exact_and_single() {
        let ask = |query| git_target("GET", "/app/info/refs", query).map(|target| target.1);
        assert_eq!(ask("service=git-receive-pack"), Ok(Service::ReceivePack));
        assert_eq!(ask("x=1&service=git-upload-pack"), Ok(Service::UploadPack));
        assert_eq!(ask("service=git-upload-pack&service=git-receive-pack"), Err(400));
        assert_eq!(ask("service=git-upload-archive"), Err(403));
        assert_eq!(ask("service=git%2Dupload-pack"), Err(403));
        assert_eq!(ask(""), Err(403));
    }

    #[test]
    fn wrong_methods_dumb_files_lfs_and_strangers_are_told_apart() {
        assert_eq!(git_target("GET", "/app/git-upload-pack", ""), Err(405));
        assert_eq!(git_target("PUT", "/app/info/refs", "service=git-upload-pack"), Err(405));
        assert_eq!(git_target("GET", "/app/HEAD", ""), Err(403));
        assert_eq!(git_target("GET", "/app.git/objects/info/packs", ""), Err(403));
        assert_eq!(git_target("POST", "/app.git/info/lfs/objects/batch", ""), Err(501));
        assert_eq!(git_target("GET", "/app.git/config", ""), Err(404));
        assert_eq!(git_target("GET", "/", ""), Err(404));
    }

    #[test]
    fn names_are_matched_raw() {
        for name in ["..", "a/../b", "a//b", "%2e%2e/b", "a\\b", ".hidden", "-x", "", "a%00", ".git"] {
            let path = format!("/{name}/info/refs");
            assert_eq!(git_target("GET", &path, "service=git-upload-pack"), Err(400), "{name}");
        }
    }

    #[test]
    fn pages_answer_get_and_head_only() {
        assert!(matches!(find("HEAD", "/-/healthz", ""), Ok(Target::Page(_))));
        assert!(matches!(find("POST", "/-/healthz", ""), Err(Refusal::Method(_))));
        assert!(matches!(find("GET", "/-/nothing", ""), Err(Refusal::NotFound)));
        assert!(matches!(find("GET", "/-", ""), Err(Refusal::NotFound)));
    }
}
