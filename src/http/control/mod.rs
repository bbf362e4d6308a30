//! The operator's door: `tiny_http` on the data directory's `control.sock`, for the command line on this machine.
//!
//! The socket's mode (0600, in a directory of mode 0700) is the credential: who can connect is the operator, or a hook
//! of a repository, which is why [`guard`] stands before the server. It has threads of its own, so that it answers while
//! the public front is full or draining. Only pages are served here; a repository's address is answered with a sentence.

mod callers;
mod guard;

use self::callers::Callers;
use self::guard::{Behind, Guard};
use super::app::App;
use super::auth;
use super::message::{Headers, Response};
use super::refusal::Refusal;
use super::route::{self, Answer, Asked, BODY_MAX, Found, Needs, Target, Way};
use crate::config::CONTROL_SOCKET;
use crate::model::access::Caller;
use crate::model::role::Role;
use crate::sys::private::PrivateAddress;
use crate::sys::stop::Level;
use crate::sys::thread;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tiny_http::{Header, Request, Server, StatusCode};

/// The pause before the server is rebuilt after it failed to receive.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);

/// The name that the server's own socket has before it listens, in the data directory.
const SERVER_SOCKET: &str = "control.new";

/// The running door.
pub struct Control {
    shared: Arc<Shared>,
    guard: Guard,
    thread: JoinHandle<()>,
}

struct Shared {
    app: Arc<App>,
    socket: PathBuf,
    /// `None` while it is being rebuilt.
    inner: Mutex<Option<Arc<Inner>>>,
    callers: Callers,
    /// The threads that wait for what a caller waits for, one a caller.
    waiting: Mutex<Vec<JoinHandle<()>>>,
    closing: AtomicBool,
}

/// The server and the only way to it. The server goes first: it is told to end, and then woken to see it.
struct Inner {
    server: Server,
    wake: Wake,
}

/// Wakes the server's accepting thread when it goes. `tiny_http` tries that itself, by a name that is no more.
struct Wake(PrivateAddress);

impl Drop for Wake {
    fn drop(&mut self) {
        // Refused where the thread has ended before.
        let _ = self.0.connect();
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("socket", &self.shared.socket).finish_non_exhaustive()
    }
}

impl Control {
    /// Opens the socket in the data directory and answers in the thread `control`.
    ///
    /// The caller holds the lock of the data directory: a socket that is already there is a dead gate's.
    ///
    /// # Errors
    /// When the socket cannot be made or a thread cannot be started.
    pub fn start(app: Arc<App>) -> io::Result<Self> {
        let socket = app.settings.data_dir.join(CONTROL_SOCKET);
        let inner = Mutex::new(Some(open_inner(&app)?));
        let stop = app.stop.clone();
        let listener = open(&socket)?;
        let (callers, closing) = (Callers::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { app, socket, inner, callers, waiting: Mutex::default(), closing });
        let guard = {
            let (shared, callers) = (Arc::clone(&shared), shared.callers.clone());
            let behind = Behind { connect: Box::new(move || shared.connect()), callers };
            Guard::start(listener, Arc::new(behind), stop)?
        };
        let thread = {
            let shared = Arc::clone(&shared);
            thread::spawn("control", move || shared.answer_all())?
        };
        Ok(Self { shared, guard, thread })
    }

    /// Whether one of the threads has ended, which only a panic can bring about before [`Control::close`].
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished() || self.guard.has_ended()
    }

    /// Answers no more and removes the socket.
    pub fn close(self) {
        // Who cannot remove it now replaces it at the next start.
        let _ = fs::remove_file(&self.shared.socket);
        // Calls that have come in are answered before the server ends.
        self.guard.close();
        self.shared.closing.store(true, Ordering::Relaxed);
        if let Some(inner) = &*self.shared.inner() {
            inner.server.unblock();
        }
        if self.thread.join().is_err() {
            log::error!("the thread control has panicked");
        }
        // Their callers have been cut off.
        self.shared.waiting().drain(..).for_each(join);
    }
}

fn join(waiting: JoinHandle<()>) {
    if waiting.join().is_err() {
        log::error!("a thread control-wait has panicked");
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Option<Arc<Inner>>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self) -> io::Result<UnixStream> {
        match &*self.inner() {
            Some(inner) => inner.wake.0.connect(),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer_all(self: &Arc<Self>) {
        while !self.closing.load(Ordering::Relaxed) {
            let inner = self.inner().clone();
            match inner.map_or_else(|| Err(io::ErrorKind::NotConnected.into()), |inner| inner.server.recv()) {
                Ok(request) => self.answer(request),
                Err(_) if self.closing.load(Ordering::Relaxed) => return,
                Err(error) => self.rebuild(&error),
            }
        }
    }

    fn answer(self: &Arc<Self>, request: Request) {
        let method = request.method().to_string();
        let url = request.url().to_owned();
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        match route::find(&method, path, query) {
            Ok(Target::Page(found)) => match found.page.answer {
                Answer::Look(_) | Answer::Ask(_) | Answer::Stream => self.answer_page(request, found, query),
                Answer::Await(_) => self.answer_aside(request, found, query.to_owned()),
            },
            Ok(Target::Git(_)) => {
                let why = "repositories are served at the public address, not here";
                respond(request, Err(Refusal::Unsupported(why.into())));
            }
            Err(refusal) => respond(request, Err(refusal)),
        }
    }

    /// In a thread of its own. There are no more of them than the guard lets callers in.
    fn answer_aside(self: &Arc<Self>, request: Request, found: Found, query: String) {
        let shared = Arc::clone(self);
        let mut waiting = self.waiting();
        let (ended, going_on) = waiting.drain(..).partition(JoinHandle::is_finished);
        *waiting = going_on;
        match thread::spawn("control-wait", move || shared.answer_page(request, found, &query)) {
            Ok(thread) => waiting.push(thread),
            // The server itself answers a request that is dropped.
            Err(error) => log::warn!("control: no thread for a caller who waits: {error}"),
        }
        drop(waiting);
        Vec::into_iter(ended).for_each(join);
    }

    fn answer_page(&self, mut request: Request, found: Found, query: &str) {
        let answer = self.page(&mut request, found, query);
        respond(request, answer);
    }

    fn page(&self, request: &mut Request, found: Found, query: &str) -> Result<Response, Refusal> {
        let headers = headers(request);
        let stream = self.callers.find(&headers).ok_or(Refusal::ClientGone)?;
        let caller = self.caller(&headers)?;
        authorise(&caller, found.page.needs)?;
        let body = match found.page.way {
            Way::Read | Way::Remove => Vec::new(),
            Way::Write => read_body(request)?,
        };
        let (push, mirror, client) = (found.push, found.mirror.clone(), stream.as_fd());
        let asked = Asked { caller: &caller, push, mirror, query, headers: &headers, body, client };
        found.answer(&self.app, &asked)
    }

    /// The operator, unless he shows a user's token to act as that user.
    fn caller(&self, headers: &Headers) -> Result<Caller, Refusal> {
        let field =
            headers.get("authorization").map_err(|error| Refusal::BadRequest(error.to_string().into()))?;
        match field {
            None => Ok(Caller::Local),
            field @ Some(_) => Ok(auth::log_in(&self.app.store, &self.app.throttle, field, None)?),
        }
    }

    /// `tiny_http` stops accepting for good after one failed accept.
    fn rebuild(&self, error: &io::Error) {
        log::warn!("control: receiving a request: {error}; the server is built again");
        drop(self.inner().take());
        if !self.app.stop.sleep(REBUILD_PAUSE, Level::Killing) {
            return;
        }
        match open_inner(&self.app) {
            Ok(inner) => *self.inner() = Some(inner),
            Err(error) => log::warn!("control: building the server: {error}"),
        }
    }
}

fn respond(request: Request, answer: Result<Response, Refusal>) {
    let response = answer.unwrap_or_else(|refusal| refusal.json());
    if let Err(error) = request.respond(translate(&response)) {
        log::debug!("control: the caller left before its answer: {error}");
    }
}

fn open_inner(app: &App) -> io::Result<Arc<Inner>> {
    let (listener, address) = PrivateAddress::listen(&app.settings.data_dir.join(SERVER_SOCKET))?;
    let server = Server::from_listener(listener, None).map_err(io::Error::other)?;
    Ok(Arc::new(Inner { server, wake: Wake(address) }))
}

fn open(socket: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Who acts as a user has that user's rights and no more.
fn authorise(caller: &Caller, needs: Needs) -> Result<(), Refusal> {
    match (needs, caller) {
        (Needs::Nothing | Needs::LoopbackOrUser, _) | (_, Caller::Local) => Ok(()),
        (Needs::User, Caller::User { .. }) | (Needs::Admin, Caller::User { role: Role::Admin, .. }) => Ok(()),
        (Needs::Admin, Caller::User { .. }) => Err(Refusal::Forbidden("this is for admins only".into())),
        (Needs::User | Needs::Admin, Caller::Anonymous | Caller::Guest { .. }) => Err(Refusal::Credential),
    }
}

fn headers(request: &Request) -> Headers {
    let mut headers = Headers::new();
    for header in request.headers() {
        headers.push(header.field.as_str().as_str(), header.value.as_str());
    }
    headers
}

/// The whole body. One that stalls stalls this door, which is the operator's own.
fn read_body(request: &mut Request) -> Result<Vec<u8>, Refusal> {
    let mut body = Vec::new();
    let most = BODY_MAX as u64 + 1;
    request
        .as_reader()
        .take(most)
        .read_to_end(&mut body)
        .map_err(|error| Refusal::BadRequest(format!("reading the body: {error}").into()))?;
    if body.len() > BODY_MAX {
        return Err(Refusal::TooLarge(format!("a body has at most {BODY_MAX} bytes here").into()));
    }
    Ok(body)
}

fn translate(response: &Response) -> tiny_http::Response<io::Cursor<Vec<u8>>> {
    let headers =
        response.headers.iter().filter_map(|(name, value)| Header::from_bytes(name.as_bytes(), value).ok());
    let mut translated =
        tiny_http::Response::from_data(response.body.clone()).with_status_code(StatusCode(response.status));
    headers.for_each(|header| translated.add_header(header));
    translated
}
