//! The log: one line per event on standard error, for a terminal with its time, for the service manager with its level
//! (sd-daemon(3)), which has its own clock. Nothing below `debug` is ever written.

use env_logger::fmt::Formatter;
use jiff::Timestamp;
use log::{Level, LevelFilter, Record};
use std::io::{self, Write};

/// Starts the log. `filter` has the syntax of `env_logger`; without it `info` and above are shown. `is_managed` says
/// that the service manager reads it.
pub fn start(filter: Option<&str>, is_managed: bool) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(LevelFilter::Info).parse_filters(filter.unwrap_or_default());
    builder.format(if is_managed { managed } else { plain });
    builder.init();
    // What is below, the HTTP client writes with the fields of its requests, credentials included.
    log::set_max_level(log::max_level().min(LevelFilter::Debug));
}

fn plain(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ");
    writeln!(out, "{now} {:<5} {}", record.level(), record.args())
}

fn managed(out: &mut Formatter, record: &Record<'_>) -> io::Result<()> {
    let priority = match record.level() {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    writeln!(out, "<{priority}>{}", record.args())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_http_client_says_of_its_requests_is_never_written() {
        start(Some("tidegate::nowhere=trace"), false);
        assert_eq!(log::max_level(), LevelFilter::Debug);
    }
}
