//! The `tidegate` program: the command line, and the daemon where it asks for one.

use std::process::ExitCode;
use tidegate::cli::{self, Exit, Next, demo::Demo, output};
use tidegate::config::{self, Environment, Flags};
use tidegate::daemon::{DaemonError, Reload, Runtime};
use tidegate::sys::{logging, signals};

fn main() -> ExitCode {
    let environment = Environment::of_this_process();
    let result = match cli::run(std::env::args_os(), &environment) {
        Next::Exit(exit) => return exit.into(),
        Next::Serve(flags) => serve(flags, &environment),
        Next::Demo => demo(&environment),
    };
    match result {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            output::complain(&error);
            error.exit().into()
        }
    }
}

fn serve(flags: Flags, environment: &Environment) -> Result<(), DaemonError> {
    signals::normalise()?;
    start_log(environment);
    let settings = config::load(&flags, environment)?;
    let reload: Reload = {
        let environment = environment.clone();
        Box::new(move || config::load(&flags, &environment))
    };
    Runtime::start(settings, environment)?.run(&reload)
}

fn start_log(environment: &Environment) {
    logging::start(environment.log.as_deref(), environment.systemd.notify_socket.is_some());
}

fn demo(environment: &Environment) -> Result<(), DaemonError> {
    signals::normalise()?;
    start_log(environment);
    let demo = Demo::make()?;
    let settings = demo.settings(environment)?;
    let reload: Reload = {
        let settings = settings.clone();
        Box::new(move || Ok(settings.clone()))
    };
    let runtime = Runtime::start(settings, environment)?;
    let app = runtime.app();
    demo.populate(&app.reaper, &app.git, &app.store)?;
    output::print(&demo.guide(&runtime.url()))?;
    runtime.run(&reload)
}
