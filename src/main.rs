//! The `tidegate` program: the command line, and the daemon where it asks for one.

use std::process::ExitCode;
use tidegate::cli::demo::{Demo, Stage};
use tidegate::cli::{self, Exit, Next, output};
use tidegate::config::{self, ConfigError, Environment, Flags, Settings};
use tidegate::daemon::{DaemonError, Reload, Runtime};
use tidegate::gate::needed_files;
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
    #[cfg(feature = "fault-points")]
    arm_fault_point(environment)?;
    let settings = load(&flags, environment)?;
    let reload: Reload = {
        let environment = environment.clone();
        Box::new(move || load(&flags, &environment))
    };
    Runtime::start(settings, environment)?.run(&reload)
}

/// The settings; the log says which files they name in vain.
fn load(flags: &Flags, environment: &Environment) -> Result<Settings, ConfigError> {
    let settings = config::load(flags, environment)?;
    needed_files::doubts(&settings).iter().for_each(|doubt| log::warn!("{doubt}"));
    Ok(settings)
}

#[cfg(feature = "fault-points")]
fn arm_fault_point(environment: &Environment) -> Result<(), DaemonError> {
    use tidegate::config::Problem;
    use tidegate::sys::fault::{Point, arm};

    let Some(name) = &environment.fault_point else { return Ok(()) };
    let why = format!("{name:?} is no fault point: write before-STATE or after-STATE");
    let wrong = Problem { place: "TIDEGATE_FAULT_POINT".into(), key: String::new(), why };
    arm(Point::parse(name).ok_or(ConfigError::Wrong(vec![wrong]))?);
    Ok(())
}

fn start_log(environment: &Environment) {
    logging::start(environment.log.as_deref(), environment.systemd.notify_socket.is_some());
}

fn demo(environment: &Environment) -> Result<(), DaemonError> {
    signals::normalise()?;
    start_log(environment);
    let mut demo = Demo::make()?;
    let flags = demo.configure()?;
    let runtime = Runtime::start(config::load(&flags, environment)?, environment)?;
    let (app, url) = (runtime.app(), runtime.url());
    let stage = Stage { reaper: &app.reaper, git: &app.git, store: &app.store, stop: &app.stop, url: &url };
    let waiting = demo.prepare(&stage)?;
    output::print(&demo.guide(&stage, &waiting, environment))?;
    demo.let_wait(&stage, waiting)?;
    let reload: Reload = {
        let environment = environment.clone();
        Box::new(move || config::load(&flags, &environment))
    };
    runtime.run(&reload)
}
