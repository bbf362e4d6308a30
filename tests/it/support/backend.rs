//! Git's own HTTP server, `git http-backend`, run as CGI: the measure of parity.

use std::path::Path;
use std::process::Command;

use super::HANG;
use super::git::gits;
use super::http::Answer;
use super::place::path_variable;
use super::run::run;

/// One request, as both servers get it.
pub(crate) struct Request<'a> {
    /// `GET`, `POST`, …
    pub(crate) method: &'a str,
    /// From the slash, with the query.
    pub(crate) target: &'a str,
    /// `Content-Type`, `Content-Encoding` and `Git-Protocol` are understood.
    pub(crate) headers: Vec<(&'a str, &'a str)>,
    /// The content.
    pub(crate) body: Vec<u8>,
    /// The user that the web server would have authenticated.
    pub(crate) user: Option<&'a str>,
}

/// What `git http-backend` answers for repositories below `root`.
#[track_caller]
pub(crate) fn answer(root: &Path, request: &Request<'_>) -> Answer {
    let mut command = Command::new(&gits()[0]);
    let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    command.arg("http-backend").env_clear().env("PATH", path_variable()).env("LC_ALL", "C");
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command.env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1").env("REMOTE_ADDR", "127.0.0.1");
    command.env("SERVER_PROTOCOL", "HTTP/1.1");
    command.env("REQUEST_METHOD", request.method).env("PATH_INFO", path).env("QUERY_STRING", query);
    if request.method == "POST" {
        command.env("CONTENT_LENGTH", request.body.len().to_string());
    }
    for (name, value) in &request.headers {
        command.env(variable(name), value);
    }
    if let Some(user) = request.user {
        command.env("REMOTE_USER", user);
    }
    parse(&run(command, &request.body, HANG).stdout)
}

fn variable(header: &str) -> &'static str {
    match header {
        "Content-Type" => "CONTENT_TYPE",
        "Content-Encoding" => "HTTP_CONTENT_ENCODING",
        "Git-Protocol" => "GIT_PROTOCOL",
        other => panic!("no CGI variable is known for {other}"),
    }
}

/// RFC 3875: fields, an empty line, the content; `Status` is a field and 200 by default.
#[track_caller]
fn parse(output: &[u8]) -> Answer {
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").expect("a CGI answer has a head");
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let fields = head.split("\r\n").filter_map(|line| line.split_once(": "));
    let headers: Vec<_> = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let status =
        headers.iter().find(|(name, _)| name == "status").map(|(_, value)| value[..3].parse().unwrap());
    Answer { status: status.unwrap_or(200), headers, body: output[end + 4..].to_vec() }
}
