//! `trailcast demo`: the simulator and a pipeline of both streams, in one process, on loopback.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Instant;

use super::{Answer, CommandError, progress};
use crate::app::{App, Ended};
use crate::cli::{DemoArgs, Exit};
use crate::config;
use crate::encode::Format;
use crate::lane::Until;
use crate::metrics::Metrics;
use crate::shutdown;
use crate::simulate::{self, Simulator, genauth, scloud};
use crate::words::chain;

/// Runs until `--for` is over or a signal comes.
///
/// # Errors
/// A part cannot start, or the lanes could not drain.
pub async fn demo(args: DemoArgs) -> Result<Answer, CommandError> {
    let options = simulate::Options {
        faults: args.faults,
        rate: 5.0,
        start: Some(simulate::Start::Ago(std::time::Duration::from_secs(60))),
        hang_for: std::time::Duration::from_secs(5),
        ..simulate::Options::default()
    };
    let simulator = Simulator::start(options).await.map_err(|error| format!("cannot simulate: {error}"))?;
    let config = config::parse(Path::new("demo"), &demo_config(&simulator.url(), args.format))?.config;
    let (trigger, end) = shutdown::channel();
    let signals = shutdown::signals(trigger.clone(), shutdown::exit).map_err(|error| error.to_string())?;
    tokio::spawn(signals);
    if let Some(duration) = args.duration {
        tokio::spawn(async move {
            tokio::time::sleep(duration).await;
            trigger.pull();
        });
    }
    let app = App::build(&config, Metrics::new()).await.map_err(|error| chain(&error))?;
    let faults = if args.faults { "with every fault at moderate rates" } else { "no faults (try --faults)" };
    say(&format!(
        "trailcast demo: SIMULATED events, from simulated APIs at {}, {faults}.\n\
         stdout carries the events; metrics and status: http://{}/metrics and /status. Ctrl-C ends it.",
        simulator.url(),
        app.admin_address()
    ));
    let began = Instant::now();
    let lanes = progress::lanes(&app.metrics, &app.lanes);
    // Where the events themselves scroll by, they are progress enough.
    let shown = std::io::stderr().is_terminal() && !std::io::stdout().is_terminal();
    let progress = shown.then(|| progress::progress(&app));
    let ended = app.run(Until::Shutdown, None, end).await;
    drop(progress);
    say(&format!("trailcast demo: {}", progress::line(&lanes, began.elapsed())));
    simulator.shutdown().await;
    match ended {
        Ended::CaughtUp { .. } | Ended::Drained => Ok(Answer::done(String::new())),
        Ended::Incomplete(_) | Ended::Early { .. } | Ended::NotDrained | Ended::Failed => Err(CommandError {
            message: "demo: could not deliver every event to stdout".to_owned(),
            exit: Exit::Failed,
        }),
    }
}

fn demo_config(url: &str, format: Format) -> String {
    let format = match format {
        Format::Ocsf => "ocsf",
        Format::Ecs => "ecs",
        Format::Native => "native",
        // No line: the command line does not offer it.
        Format::Otlp => "otlp",
    };
    format!(
        "streams:
  users:
    genauth:
      endpoint: {url}
      user_pool_id: {pool}
      access_key_id: {key}
      access_key_secret: {secret}
    start: 1m
    poll_interval: 1s
    request_timeout: 3s
    sweeps: [5s, 20s]
  cloud:
    scloud:
      endpoint: {url}
      project_id: {project}
      public_key: {public}
      private_key: {private}
    start: 1m
    poll_interval: 1s
    request_timeout: 3s
    sweeps: [5s, 20s]
sinks:
  out: {{ stdout: {{ format: {format} }} }}
checkpoint: {{ memory: {{}} }}
admin: {{ listen: \"127.0.0.1:0\" }}
",
        pool = genauth::USER_POOL_ID,
        key = genauth::ACCESS_KEY_ID,
        secret = genauth::ACCESS_KEY_SECRET,
        project = scloud::PROJECT_ID,
        public = scloud::PUBLIC_KEY,
        private = scloud::PRIVATE_KEY,
    )
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
