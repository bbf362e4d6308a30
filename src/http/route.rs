//! The one table of routes: which address means what, for both doors.
//!
//! Everything of ours lives under `/-/`, where `/` leads; every other address names a repository, whose services stand in a
//! second table. Paths are matched as raw bytes against a strict grammar: nothing is decoded, nothing is normalised, so no two
//! spellings meet behind an access rule.

use super::app::App;
use super::message::{Headers, Response};
use super::refusal::Refusal;
use super::{api, fleet, mirrors, pages, status};
use crate::gate::decide::Verb;
use crate::git::command::Service;
use crate::model::access::Caller;
use crate::model::name::RepoName;
use crate::model::outbox::PATH as OUTBOX;
use crate::model::peer::PATH as PEERS;
use crate::model::push::PushId;
use crate::model::status::PATH as STATUS;
use std::os::fd::BorrowedFd;

/// Who may see a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Everyone.
    Nothing,
    /// A caller on this machine, or any user.
    LoopbackOrUser,
    /// Any user, or the operator's own socket. What exactly he may see and do depends on the push.
    User,
    /// An admin, or the operator's own socket.
    Admin,
}

/// What is done at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Something is shown: GET and HEAD.
    Read,
    /// Something is changed: POST, with a body that the door reads, bounded.
    Write,
    /// Something is removed: DELETE, without a body.
    Remove,
}

/// Makes an answer.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// Out of how the gate is, whoever asks.
    Look(fn(&App) -> Response),
    /// For this caller and what he sent.
    Ask(fn(&App, &Asked<'_>) -> Result<Response, Refusal>),
    /// The same, and may wait for minutes: not in a thread that others wait for.
    Await(fn(&App, &Asked<'_>) -> Result<Response, Refusal>),
    /// By the stream of events, which has no end: only the public front can give it.
    Stream,
}

/// A page or an API address.
#[derive(Debug)]
pub struct Page {
    /// The whole path; the one segment `{push}` stands for the number of any push.
    pub path: &'static str,
    /// What is done there.
    pub way: Way,
    /// Who may come.
    pub needs: Needs,
    /// Makes the answer.
    pub answer: Answer,
}

/// A page that an address names, with what is named in it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The page.
    pub page: &'static Page,
    /// The push whose number stands in the path.
    pub push: Option<PushId>,
    /// The mirror whose name stands in the path.
    pub mirror: Option<RepoName>,
}

/// What is known of a request for a page: the same through both doors.
#[derive(Debug)]
pub struct Asked<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// The push whose number stands in the path.
    pub push: Option<PushId>,
    /// The mirror whose name stands in the path.
    pub mirror: Option<RepoName>,
    /// What followed the first `?`, not decoded.
    pub query: &'a str,
    /// The header fields.
    pub headers: &'a Headers,
    /// The body, whole: at most [`BODY_MAX`].
    pub body: Vec<u8>,
    /// The caller's connection, whose end ends a wait.
    pub client: BorrowedFd<'a>,
}

/// The longest body of a page, in bytes: far more than a reason, and nothing to a machine.
pub const BODY_MAX: usize = 1 << 20;

/// What stands in a path for the number of a push.
const PUSH: &str = "{push}";

/// What stands in a path for the name of a mirror, or of any repository, slashes and all.
const MIRROR: &str = "{mirror}";

impl Way {
    const fn methods(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Read => (&["GET", "HEAD"], "GET, HEAD"),
            Self::Write => (&["POST"], "POST"),
            Self::Remove => (&["DELETE"], "DELETE"),
        }
    }
}

impl Found {
    /// Makes the answer.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn answer(&self, app: &App, asked: &Asked<'_>) -> Result<Response, Refusal> {
        match self.page.answer {
            Answer::Look(look) => Ok(look(app)),
            Answer::Ask(ask) | Answer::Await(ask) => ask(app, asked),
            Answer::Stream => Err(elsewhere(app)),
        }
    }
}

impl Asked<'_> {
    /// The push in the path.
    ///
    /// # Errors
    /// 404 at an address without one.
    pub fn push(&self) -> Result<PushId, Refusal> {
        self.push.ok_or(Refusal::NotFound)
    }
}

/// Where events are streamed, for who asks at the operator's door: what it answers is whole and short.
fn elsewhere(app: &App) -> Refusal {
    let at = app.settings.public_url.clone().or_else(|| app.settings.listen.first().map(ToString::to_string));
    let at = at.unwrap_or_default();
    let why = format!("events are not streamed here: GET /-/events at {at}, with the token of a user");
    Refusal::Unsupported(why.into())
}

const fn read(path: &'static str, needs: Needs, answer: Answer) -> Page {
    Page { path, way: Way::Read, needs, answer }
}

const fn write(path: &'static str, needs: Needs, answer: Answer) -> Page {
    Page { path, way: Way::Write, needs, answer }
}

const fn remove(path: &'static str, needs: Needs, answer: Answer) -> Page {
    Page { path, way: Way::Remove, needs, answer }
}

/// Every page.
#[rustfmt::skip]
static PAGES: &[Page] = &[
    read("/-/healthz", Needs::Nothing, Answer::Look(status::healthz)),
    read("/-/readyz", Needs::Nothing, Answer::Await(status::readyz)),
    read("/-/metrics", Needs::LoopbackOrUser, Answer::Look(status::metrics)),
    read(STATUS, Needs::Admin, Answer::Look(status::status)),
    read("/-/api/v1/children", Needs::Admin, Answer::Look(status::children)),
    read("/-/api/v1/jobs", Needs::Admin, Answer::Look(status::jobs)),
    read(PEERS, Needs::Admin, Answer::Look(fleet::peers)),
    read(OUTBOX, Needs::Admin, Answer::Look(fleet::outbox)),
    read("/-/api/v1/versions/{mirror}", Needs::User, Answer::Ask(fleet::version)),
    read("/-/events", Needs::User, Answer::Stream),
    read("/-/api/v1/pushes", Needs::User, Answer::Ask(api::pushes)),
    read("/-/api/v1/pushes/{push}", Needs::User, Answer::Ask(api::push)),
    read("/-/api/v1/pushes/{push}/diff", Needs::User, Answer::Ask(api::diff)),
    write("/-/api/v1/pushes/{push}/approve", Needs::User, Answer::Ask(|app, asked| api::decide(app, asked, Verb::Approve))),
    write("/-/api/v1/pushes/{push}/reject", Needs::User, Answer::Ask(|app, asked| api::decide(app, asked, Verb::Reject))),
    write("/-/api/v1/pushes/{push}/cancel", Needs::User, Answer::Ask(|app, asked| api::decide(app, asked, Verb::Cancel))),
    write("/-/api/v1/pushes/{push}/retry", Needs::User, Answer::Ask(|app, asked| api::decide(app, asked, Verb::Retry))),
    read("/-/api/v1/mirrors", Needs::User, Answer::Ask(mirrors::list)),
    write("/-/api/v1/mirrors/{mirror}/sync", Needs::User, Answer::Await(mirrors::sync)),
    read("/-/api/v1/mirrors/{mirror}", Needs::User, Answer::Ask(mirrors::show)),
    remove("/-/api/v1/mirrors/{mirror}", Needs::Admin, Answer::Ask(mirrors::forget)),
    read("/", Needs::Nothing, Answer::Look(pages::front_door)),
    read("/-/", Needs::User, Answer::Ask(pages::list)),
    read("/-/style.css", Needs::Nothing, Answer::Look(pages::style)),
    read("/-/pushes/{push}", Needs::User, Answer::Ask(pages::push)),
    write("/-/pushes/{push}/approve", Needs::User, Answer::Ask(|app, asked| pages::decide(app, asked, Verb::Approve))),
    write("/-/pushes/{push}/reject", Needs::User, Answer::Ask(|app, asked| pages::decide(app, asked, Verb::Reject))),
    write("/-/pushes/{push}/cancel", Needs::User, Answer::Ask(|app, asked| pages::decide(app, asked, Verb::Cancel))),
    write("/-/pushes/{push}/retry", Needs::User, Answer::Ask(|app, asked| pages::decide(app, asked, Verb::Retry))),
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
    Page(Found),
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
    if path == "/" || path == "/-" || path.starts_with("/-/") {
        return page(method, path).map(Target::Page);
    }
    git(method, path, query).map(Target::Git)
}

fn page(method: &str, path: &str) -> Result<Found, Refusal> {
    let mut found: Vec<Found> = PAGES.iter().filter_map(|page| matched(page, path)).collect();
    if found.is_empty() {
        return Err(Refusal::NotFound);
    }
    // A mirror may be called as what is done to another one.
    match found.iter().position(|found| found.page.way.methods().0.contains(&method)) {
        Some(at) => Ok(found.swap_remove(at)),
        None => {
            let allow: Vec<_> = found.iter().map(|found| found.page.way.methods().1).collect();
            Err(Refusal::Method(allow.join(", ").into()))
        }
    }
}

/// The page with what `path` names in it, if it is of its form.
fn matched(page: &'static Page, path: &str) -> Option<Found> {
    let between = |mark| {
        let (before, after) = page.path.split_once(mark)?;
        Some(path.strip_prefix(before).and_then(|rest| rest.strip_suffix(after)))
    };
    if let Some(number) = between(PUSH) {
        return Some(Found { page, push: Some(PushId::parse(number?).ok()?), mirror: None });
    }
    if let Some(name) = between(MIRROR) {
        return Some(Found { page, push: None, mirror: Some(RepoName::parse(name?).ok()?) });
    }
    (page.path == path).then_some(Found { page, push: None, mirror: None })
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
    if allowed.contains(&method) { Ok(()) } else { Err(Refusal::Method(allow.into())) }
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
            Ok(Target::Page(found)) => panic!("{} is a page", found.page.path),
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
        assert!(matches!(find("GET", "/", ""), Ok(Target::Page(_))));
        assert!(matches!(find("GET", "/-/nothing", ""), Err(Refusal::NotFound)));
        assert!(matches!(find("GET", "/-", ""), Err(Refusal::NotFound)));
    }

    #[test]
    fn the_name_of_a_mirror_is_read_from_its_address_also_where_it_ends_as_a_deed() {
        let mirror = |method, path: &str| match find(method, path, "") {
            Ok(Target::Page(found)) => Ok((found.page.path, found.mirror.map(|name| name.to_string()))),
            Ok(Target::Git(target)) => panic!("{target:?}"),
            Err(refusal) => Err(refusal.status()),
        };
        let name = |text: &str| Some(text.to_owned());
        let (one, sync) = ("/-/api/v1/mirrors/{mirror}", "/-/api/v1/mirrors/{mirror}/sync");
        assert_eq!(mirror("GET", "/-/api/v1/mirrors/forge/a/b"), Ok((one, name("forge/a/b"))));
        assert_eq!(mirror("POST", "/-/api/v1/mirrors/forge/a/sync"), Ok((sync, name("forge/a"))));
        assert_eq!(mirror("GET", "/-/api/v1/mirrors/forge/a/sync"), Ok((one, name("forge/a/sync"))));
        assert_eq!(mirror("DELETE", "/-/api/v1/mirrors/forge/a/sync"), Ok((one, name("forge/a/sync"))));
        assert_eq!(mirror("POST", "/-/api/v1/mirrors/forge/a"), Err(405));
        let refused = find("PUT", "/-/api/v1/mirrors/forge/a", "").unwrap_err();
        assert!(matches!(&refused, Refusal::Method(allow) if allow == "GET, HEAD, DELETE"), "{refused:?}");
        assert_eq!(mirror("DELETE", "/-/api/v1/mirrors"), Err(405));
        assert_eq!(mirror("GET", "/-/api/v1/mirrors/../a"), Err(404));
    }

    #[test]
    fn the_number_of_a_push_is_read_from_its_address_and_nothing_else_is() {
        let push = |method, path: &str| match find(method, path, "") {
            Ok(Target::Page(found)) => Ok((found.page.path, found.push.map(PushId::get))),
            Ok(Target::Git(target)) => panic!("{target:?}"),
            Err(refusal) => Err(refusal.status()),
        };
        assert_eq!(push("GET", "/-/api/v1/pushes"), Ok(("/-/api/v1/pushes", None)));
        assert_eq!(push("HEAD", "/-/api/v1/pushes/7"), Ok(("/-/api/v1/pushes/{push}", Some(7))));
        assert_eq!(push("GET", "/-/api/v1/pushes/7/diff"), Ok(("/-/api/v1/pushes/{push}/diff", Some(7))));
        for verb in Verb::ALL {
            let path = format!("/-/api/v1/pushes/12/{}", verb.as_str());
            assert_eq!(push("POST", &path).map(|(_, id)| id), Ok(Some(12)));
            assert_eq!(push("GET", &path), Err(405));
        }
        assert_eq!(push("POST", "/-/api/v1/pushes/7"), Err(405));
        for id in ["", "0", "-1", "+7", "07", "7/", "7/x", "x", "%37", "{push}", "99999999999999999999"] {
            assert_eq!(push("GET", &format!("/-/api/v1/pushes/{id}")), Err(404), "{id}");
        }
    }
}
