//! The `trailcast` command: config, parts, run, drain, say how it went.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use trailcast::admin::Unfinished;
use trailcast::app::{App, Cause, Ended};
use trailcast::blocking::blocking;
use trailcast::cli::{Cli, Command, Exit, RunArgs};
use trailcast::command::{self, Answer};
use trailcast::config::{self, Loaded, LogConfig, units};
use trailcast::event::timestamp;
use trailcast::lane::{Until, cursor_set, report_panics};
use trailcast::metrics::Metrics;
use trailcast::reading::Gap;
use trailcast::telemetry::export::Traces;
use trailcast::words::chain;
use trailcast::{kafka, shutdown, simulate, telemetry};

/// How long the process waits for clients of Kafka at its end: they ask nobody any more.
const CLIENTS_END_WITHIN: Duration = Duration::from_secs(2);

/// More lanes than these that have not caught up are told as a number.
const LANES_TOLD: usize = 20;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return say(Exit::Failed, &format!("cannot start: {error}")).into(),
    };
    let exit = runtime.block_on(dispatch(command));
    // A write to a pipe that nobody reads from never ends, and nothing it holds is counted as delivered.
    runtime.shutdown_background();
    if !kafka::clients_ended(CLIENTS_END_WITHIN) {
        tracing::debug!("clients of Kafka have not ended in time");
    }
    exit.into()
}

async fn dispatch(command: Command) -> Exit {
    match command {
        Command::Run(args) => run(args).await,
        Command::Demo(args) => {
            log(&LogConfig { level: "warn".to_owned(), ..LogConfig::default() }, None);
            answer(command::demo(args).await)
        }
        Command::Check(args) => answer(command::check(&args).await),
        // It may ask Kafka, which blocks.
        Command::Cursor(args) => answer(blocking(move || command::cursor(&args)).await),
        Command::DeadLetters(args) => answer(command::dead_letters(&args).await),
        Command::Schema => answer(
            serde_json::to_string_pretty(&config::schema()).map(Answer::done).map_err(|error| error.to_string().into()),
        ),
        Command::Simulate(options) => match simulate::serve(*options, io::stdout()).await {
            Ok(()) => Exit::Done,
            Err(error) => say(Exit::Failed, &format!("cannot simulate: {error}")),
        },
    }
}

async fn run(args: RunArgs) -> Exit {
    let Loaded { config, warnings } = match config::load(&args.config.config) {
        Ok(loaded) => loaded,
        Err(errors) => return say(Exit::Usage, &errors.to_string()),
    };
    let metrics = Metrics::new();
    let traces = config.traces.as_ref().map(|traces| Traces::build(traces, metrics.traces()));
    let traces = match traces.transpose() {
        Ok(traces) => traces,
        Err(error) => return say(Exit::Usage, &chain(&error)),
    };
    log(&config.log, traces.as_ref());
    report_panics();
    raise_descriptors();
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    // As the log is written, so that whoever reads that has it, too.
    let fail = |exit, message: &str| {
        if !telemetry::is_json(&config.log) || !tracing::enabled!(tracing::Level::ERROR) {
            return say(exit, message);
        }
        message.lines().for_each(|line| tracing::error!("{line}"));
        exit
    };
    let (trigger, end) = shutdown::channel();
    match shutdown::signals(trigger, shutdown::exit) {
        Ok(signals) => drop(tokio::spawn(signals)),
        Err(error) => return fail(Exit::Failed, &format!("cannot wait for signals: {error}")),
    }
    let app = match App::build(&config, metrics).await {
        Ok(app) => app,
        Err(error) => return fail(Exit::Usage, &chain(&error)),
    };
    let until = if args.until_caught_up { Until::CaughtUp } else { Until::Shutdown };
    tracing::info!(version = trailcast::version::VERSION, admin = %app.admin_address(), lanes = app.lanes.len(), "trailcast runs");
    let progress = (until == Until::CaughtUp && io::stderr().is_terminal()).then(|| command::progress(&app));
    let status = app.status();
    let ended = app.run(until, args.timeout, end).await;
    drop(progress);
    let (delivered, dead_letters) = status.counts();
    match &ended {
        Ended::CaughtUp { gaps: 0 } => tracing::info!(delivered, "caught up"),
        Ended::CaughtUp { gaps } => tracing::warn!(
            delivered,
            gaps,
            "caught up; runs before have given up parts of the log, and what is missing there still is: `trailcast cursor show` \
             lists them as gaps"
        ),
        Ended::Incomplete(lanes) => {
            for ((stream, sink), Gap { from, to, reason }) in lanes {
                let (from, to, reason) = (timestamp(*from), timestamp(*to), reason.label());
                tracing::error!(
                    stream, sink, %from, %to, reason,
                    "caught up, but not all that lies between could be read: what is missing is given up, and `trailcast \
                     cursor show` lists it as gaps; once the cause is mended, `{}` reads it again",
                    cursor_set(stream, sink, from)
                );
            }
        }
        Ended::Early { cause, lanes, drained } => tell_early(*cause, lanes, *drained),
        Ended::Drained => tracing::info!(delivered, "drained"),
        Ended::NotDrained => tracing::error!("could not drain: the events under way come again with the next run"),
        // Whatever failed has said so.
        Ended::Failed => {}
    }
    if dead_letters > 0 {
        tracing::warn!(
            dead_letters,
            "not all events of this run were delivered: these are kept as dead letters; `trailcast dead-letters list -c {}` \
             lists them, `trailcast dead-letters retry` delivers them again",
            args.config.config.display()
        );
    }
    if let Some(traces) = traces {
        traces.flush().await;
    }
    match ended {
        Ended::CaughtUp { .. } | Ended::Drained => Exit::Done,
        Ended::Incomplete(_) | Ended::Early { .. } | Ended::NotDrained | Ended::Failed => Exit::Failed,
    }
}

/// Says why a run that was to catch up ended before it had, and which lanes have not.
fn tell_early(cause: Cause, lanes: &[Unfinished], drained: bool) {
    let why = match cause {
        Cause::Asked => "asked to end before it had caught up".to_owned(),
        Cause::Time(timeout) => format!("not caught up within {}", units::duration_text(timeout)),
        Cause::Person => "cannot catch up before a person has done something".to_owned(),
    };
    for Unfinished { stream, sink, state, reason, message } in lanes.iter().take(LANES_TOLD) {
        tracing::error!(stream, sink, state, reason, "not caught up: {message}");
    }
    let unfinished = lanes.len();
    if drained {
        tracing::error!(unfinished, "{why}: the next run goes on from where the lanes stand");
    } else {
        tracing::error!(unfinished, "{why}, and could not drain: the events under way come again with the next run");
    }
}

/// Takes as many descriptors as this process may have: the usual soft limit is there for programs that select(2), and a
/// thousand streams need more.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(?current, "cannot raise the limit of open files: {error}");
    }
}

fn log(config: &LogConfig, traces: Option<&Traces>) {
    if let Err(error) = telemetry::init(config, traces) {
        say(Exit::Failed, &error.to_string());
    }
}

/// Prints a command's answer to stdout, or why there is none to stderr.
fn answer(answer: Result<Answer, command::CommandError>) -> Exit {
    match answer {
        Ok(Answer { text, exit }) if text.is_empty() => exit,
        Ok(Answer { text, exit }) => match writeln!(io::stdout(), "{text}") {
            Ok(()) => exit,
            // Such as `head`: a reader that has gone has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit,
            Err(error) => say(Exit::Failed, &format!("cannot write to stdout: {error}")),
        },
        Err(error) => say(error.exit, &error.message),
    }
}

/// Says on stderr why the process ends. Nothing is left to tell if that fails.
fn say(exit: Exit, message: &str) -> Exit {
    for line in message.lines() {
        let _ = writeln!(io::stderr(), "trailcast: {line}");
    }
    exit
}
