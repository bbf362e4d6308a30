//! The command line's client of a running gate: over the control socket of a data directory on this machine, or over
//! HTTP to `TIDEGATE_URL` with `TIDEGATE_TOKEN`.

use super::CliError;
use crate::config::{self, CONTROL_SOCKET, Environment, Flags};
use crate::model::name::UserName;
use crate::model::secret::Secret;
use crate::model::text::sanitize_lines;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::config::Config;
use ureq::http::Response;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Agent, Body, RequestBuilder};

/// How long a command waits for the whole answer of a gate.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a running gate could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is none.
    #[error("TIDEGATE_URL is {0:?}: write the gate's address with http:// or https:// before it")]
    NoScheme(String),
    /// Nothing answered.
    #[error("asking the gate at {at}: {source}{}", hint(source))]
    Unreachable {
        /// The URL or socket that was tried.
        at: String,
        /// What went wrong.
        source: Box<ureq::Error>,
    },
    /// It answered something other than success.
    #[error("the gate at {at} answered {status}: {message}")]
    Refused {
        /// The URL or socket.
        at: String,
        /// The HTTP status.
        status: u16,
        /// The message of its error object, or its text.
        message: String,
    },
    /// Its answer was not JSON, too long, or cut off.
    #[error("the gate at {at} answered something that cannot be read: {source}")]
    Garbled {
        /// The URL or socket.
        at: String,
        /// What went wrong.
        source: Box<ureq::Error>,
    },
}

/// Which gate is meant.
#[derive(Debug, clap::Args)]
pub(super) struct Where {
    /// The gate's data directory, on this machine; otherwise TIDEGATE_URL and TIDEGATE_TOKEN name the gate.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The configuration that names the data directory.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Where {
    /// A named directory goes before the environment's URL, and that before the directory that `serve` would use.
    pub(super) fn client(&self, environment: &Environment) -> Result<Client, CliError> {
        let is_named = self.data_dir.is_some() || self.config.is_some();
        if let Some(url) = environment.url.as_ref().filter(|_| !is_named) {
            return Ok(Client::remote(url, environment.token.clone())?);
        }
        let flags =
            Flags { config: self.config.clone(), data_dir: self.data_dir.clone(), ..Flags::default() };
        Ok(Client::local(&config::load(&flags, environment)?.data_dir))
    }
}

/// A client of one gate.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    base: String,
    at: String,
    credential: Option<Credential>,
}

/// Who the client is to the gate; without one, whoever may open the socket.
#[derive(Debug)]
enum Credential {
    Token(Secret),
    User(UserName, Secret),
}

impl Client {
    /// A client of the gate that owns the data directory; the socket's mode is the credential.
    #[must_use]
    pub(super) fn local(data_dir: &Path) -> Self {
        let socket = data_dir.join(CONTROL_SOCKET);
        let at = socket.display().to_string();
        let agent = Agent::with_parts(settings(), UnixConnector { socket }, NoResolver);
        Self { agent, base: "http://localhost".into(), at, credential: None }
    }

    /// A client of the gate at `url`.
    ///
    /// # Errors
    /// When the text has no scheme of ours.
    pub(super) fn remote(url: &str, token: Option<Secret>) -> Result<Self, ClientError> {
        if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(ClientError::NoScheme(url.to_owned()));
        }
        let base = url.trim_end_matches('/').to_owned();
        Ok(Self {
            agent: Agent::new_with_config(settings()),
            at: base.clone(),
            base,
            credential: token.map(Credential::Token),
        })
    }

    /// The same gate, asked as this user.
    #[must_use]
    pub(super) fn acting_as(self, user: UserName, token: Secret) -> Self {
        Self { credential: Some(Credential::User(user, token)), ..self }
    }

    /// The JSON at `path`, which begins with `/`.
    ///
    /// # Errors
    /// When nothing answers, when the gate refuses, or when the answer is not JSON.
    pub(super) fn get(&self, path: &str) -> Result<Value, ClientError> {
        let request = self.authorised(self.agent.get(format!("{}{path}", self.base)));
        let mut response = self.checked(request.call())?;
        response.body_mut().read_json().map_err(|error| self.garbled(error))
    }

    /// The bytes at `path`.
    ///
    /// # Errors
    /// As [`Client::get`], whatever the bytes are.
    pub(super) fn bytes(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        let request = self.authorised(self.agent.get(format!("{}{path}", self.base)));
        let mut response = self.checked(request.call())?;
        response.body_mut().read_to_vec().map_err(|error| self.garbled(error))
    }

    /// The JSON that is the answer to `body`, sent to `path`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        let request = self.authorised(self.agent.post(format!("{}{path}", self.base)));
        let mut response = self.checked(request.send_json(body))?;
        response.body_mut().read_json().map_err(|error| self.garbled(error))
    }

    /// The JSON that is the answer to the removal of what is at `path`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) fn delete(&self, path: &str) -> Result<Value, ClientError> {
        let request = self.authorised(self.agent.delete(format!("{}{path}", self.base)));
        let mut response = self.checked(request.call())?;
        response.body_mut().read_json().map_err(|error| self.garbled(error))
    }

    fn authorised<T>(&self, request: RequestBuilder<T>) -> RequestBuilder<T> {
        let field = match &self.credential {
            None => return request,
            Some(Credential::Token(token)) => format!("Bearer {}", token.reveal()),
            Some(Credential::User(user, token)) => {
                format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{}", token.reveal())))
            }
        };
        request.header("Authorization", field)
    }

    fn checked(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, ClientError> {
        let at = || self.at.clone();
        let mut response =
            answer.map_err(|error| ClientError::Unreachable { at: at(), source: Box::new(error) })?;
        let status = response.status().as_u16();
        if matches!(status, 200 | 202) {
            return Ok(response);
        }
        let text = response.body_mut().read_to_string().unwrap_or_default();
        Err(ClientError::Refused { at: at(), status, message: message_of(&text) })
    }

    fn garbled(&self, error: ureq::Error) -> ClientError {
        ClientError::Garbled { at: self.at.clone(), source: Box::new(error) }
    }
}

/// What to do where nobody listens.
const IS_IT_RUNNING: &str =
    "; is it running? name its --data-dir or --config, or set TIDEGATE_URL and TIDEGATE_TOKEN";

/// What the reader can do about a gate that did not answer; nothing where the error says it all.
fn hint(error: &ureq::Error) -> &'static str {
    let ureq::Error::Io(error) = error else { return "" };
    if [ErrorKind::ConnectionRefused, ErrorKind::NotFound].contains(&error.kind()) {
        IS_IT_RUNNING
    } else if error.kind() == ErrorKind::PermissionDenied {
        "; only the gate's user may ask there: run it as the gate's user"
    } else {
        ""
    }
}

/// `path` with those of the parameters that have a value.
pub(super) fn with_query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| value.as_ref().map(|value| (name, value)));
    let pairs: Vec<String> = given.map(|(name, value)| format!("{name}={}", encode(value))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

/// Everything but the unreserved characters (RFC 3986) in percent signs.
fn encode(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

/// The message in an error object of the API; the text itself when it is not one. Fit for a terminal.
fn message_of(text: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    let message = parsed.as_ref().and_then(|value| value.pointer("/error/message")).and_then(Value::as_str);
    sanitize_lines(message.unwrap_or_else(|| text.trim()))
}

/// No proxy and no redirects: the gate that was named is the gate that is asked.
fn settings() -> Config {
    Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
}

/// Connects every request to one unix socket.
#[derive(Debug)]
struct UnixConnector {
    socket: PathBuf,
}

impl Connector for UnixConnector {
    type Out = UnixTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<UnixTransport>, ureq::Error> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(UnixTransport { stream, buffers }))
    }
}

struct UnixTransport {
    stream: UnixStream,
    buffers: LazyBuffers,
}

impl std::fmt::Debug for UnixTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnixTransport").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Transport for UnixTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let output =
            self.buffers.output().get(..amount).ok_or_else(|| io::Error::from(ErrorKind::InvalidInput))?;
        Ok(self.stream.write_all(output)?)
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        false // One request a connection: the socket is not pooled.
    }
}

/// The socket needs no address; the trait wants one.
#[derive(Debug)]
struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(
        &self,
        _: &ureq::http::Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(std::net::SocketAddr::from(([127, 0, 0, 1], 80)));
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_it_runs_is_asked_only_where_nobody_listens() {
        let hint = |kind: ErrorKind| hint(&ureq::Error::Io(kind.into()));
        for kind in [ErrorKind::ConnectionRefused, ErrorKind::NotFound] {
            assert_eq!(hint(kind), IS_IT_RUNNING);
        }
        assert!(hint(ErrorKind::PermissionDenied).ends_with("run it as the gate's user"));
        assert_eq!(hint(ErrorKind::TimedOut), "");
    }

    #[test]
    fn parameters_are_encoded_and_missing_ones_left_out() {
        let parameters =
            [("repo", Some("a/b c".to_owned())), ("state", None), ("user", Some("ü@x".to_owned()))];
        assert_eq!(with_query("/x", &parameters), "/x?repo=a%2Fb%20c&user=%C3%BC%40x");
        assert_eq!(with_query("/x", &[("state", None)]), "/x");
    }

    #[test]
    fn what_a_gate_says_is_fit_for_a_terminal() {
        assert_eq!(message_of("{\"error\": {\"message\": \"no\\u001b[2J\"}}"), "no?[2J");
        assert_eq!(message_of(" plain \u{202e}\n"), "plain ?");
    }
}
