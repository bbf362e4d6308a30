//! The `tidegate` program.

use std::process::ExitCode;
use tidegate::cli;
use tidegate::config::{self, Environment, Flags};
use tidegate::daemon::{Reload, Runtime};

fn main() -> ExitCode {
    let environment = Environment::of_this_process();
    if std::env::args_os().nth(1).is_none_or(|command| command != "serve") {
        return cli::run(std::env::args_os(), &environment).into();
    }
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Info)
        .parse_filters(environment.log.as_deref().unwrap_or_default())
        .init();
    match serve(&environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(environment: &Environment) -> Result<(), Box<dyn std::error::Error>> {
    tidegate::sys::signals::normalise()?;
    let mut flags = Flags::default();
    let mut args = std::env::args().skip(2);
    while let Some(name) = args.next() {
        let value = args.next().unwrap_or_default();
        match name.as_str() {
            "--root" => flags.root = Some(value.into()),
            "--data-dir" => flags.data_dir = Some(value.into()),
            "--config" => flags.config = Some(value.into()),
            _ => flags.listen.push(value),
        }
    }
    let load = move || config::load(&flags, &Environment::of_this_process());
    let runtime = Runtime::start(load()?, environment)?;
    let reload: Reload = Box::new(load);
    Ok(runtime.run(&reload)?)
}
