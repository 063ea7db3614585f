//! `trailcast check`: the config, then every part that it names, one line each.

mod kafka;
mod otlp;
mod stream;

use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use serde::Serialize;

use super::{Answer, CommandError, progress};
use crate::app;
use crate::blocking::blocking;
use crate::checkpoint::{CheckpointError, FileStore, Store as _};
use crate::cli::{CheckArgs, Exit};
use crate::clock;
use crate::config::{self, CheckpointConfig, Config, SinkConfig, Start};
use crate::event::{Millis, StreamIdentity};
use crate::lane::{LaneError, belongs};
use crate::source::install_tls_provider;
use crate::state::cursor::Cursor;
use crate::state::store::{LaneKey, parse_cursor};
use crate::telemetry::chain;

/// What was found of one part.
#[derive(Debug, Serialize)]
struct Finding {
    part: String,
    state: State,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Failed,
}

/// Checks what the config says and, unless offline, what it names.
///
/// # Errors
/// The config is wrong.
pub async fn check(args: &CheckArgs) -> Result<Answer, CommandError> {
    let path = &args.config.config;
    let loaded = config::load(path)?;
    let mut findings: Vec<Finding> = loaded
        .warnings
        .iter()
        .map(|warning| Finding { part: "config".to_owned(), state: State::Warning, message: warning.to_string() })
        .collect();
    findings.push(config_line(path, &loaded.config));
    if !args.offline {
        install_tls_provider();
        let clients = app::streams(&loaded.config)
            .map_err(|error| CommandError { message: error.to_string(), exit: Exit::Usage })?;
        let mut reads = Vec::new();
        for (name, client) in clients {
            progress::step(&format!("asking streams.{name}"));
            findings.push(stream::stream(&name, &client).await);
            let identity = StreamIdentity { source: client.source(), tenant: client.tenant().to_owned() };
            reads.push((name, identity, client.question().to_owned()));
        }
        let config = loaded.config;
        progress::step("asking the sinks and the checkpoint");
        findings.extend(otlp::sinks(&config).await);
        let traces = otlp::traces(&config).await;
        let asking = move || {
            let mut findings = sinks(&config);
            findings.extend(checkpoint(&config, &reads));
            findings.extend(admin(config.admin.listen));
            findings
        };
        findings.extend(blocking(asking).await);
        findings.extend(traces);
        progress::step("");
    }
    let exit = if findings.iter().any(|finding| finding.state == State::Failed) { Exit::Failed } else { Exit::Done };
    Ok(Answer { text: if args.json { json(&findings) } else { text(&findings) }, exit })
}

fn config_line(path: &Path, config: &Config) -> Finding {
    let message = format!("{}: {} streams, {} sinks", path.display(), config.streams.len(), config.sinks.len());
    Finding { part: "config".to_owned(), state: State::Ok, message }
}

fn sinks(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, sink) in &config.sinks {
        let part = format!("sinks.{name}");
        let streams: Vec<_> = config.streams.values().filter(|stream| stream.sinks.contains(name)).collect();
        if streams.is_empty() {
            let message = "no stream is delivered here".to_owned();
            findings.push(Finding { part: part.clone(), state: State::Warning, message });
        }
        match sink {
            SinkConfig::Kafka(config) => {
                let now = clock::now();
                let age = streams.iter().map(|stream| age(stream.start, now)).max().unwrap_or(0);
                findings.extend(kafka::sink(name, config, age));
            }
            // Asked by themselves: their client is asynchronous.
            SinkConfig::Otlp(_) => {}
            SinkConfig::Stdout(_) if streams.is_empty() => {}
            SinkConfig::Stdout(_) => {
                let message = format!("stdout, from {} streams", streams.len());
                findings.push(Finding { part, state: State::Ok, message });
            }
        }
    }
    findings
}

/// How old the oldest event may be that a lane without a cursor delivers.
fn age(start: Start, now: Millis) -> Millis {
    match start {
        Start::Now => 0,
        Start::Age(age) => clock::millis(age),
        Start::At(time) => now - time,
    }
}

/// The streams, each with the log that it reads and a hash of what it asks for.
type Reads = [(String, StreamIdentity, String)];

fn checkpoint(config: &Config, reads: &Reads) -> Vec<Finding> {
    let part = || "checkpoint".to_owned();
    let path = match &config.checkpoint {
        CheckpointConfig::Kafka(checkpoint) => return kafka::checkpoint(checkpoint, &config.dead_letters),
        CheckpointConfig::Memory => {
            let message = "memory: cursors end with the process".to_owned();
            return vec![Finding { part: part(), state: State::Warning, message }];
        }
        CheckpointConfig::File { path } => path,
    };
    // Something is written and synced: a disk may be full, or no longer take anything.
    let (state, message) = match FileStore::open(path).and_then(|store| store.prove().map(|()| store)) {
        Ok(store) => {
            let refused = refused(config, &store, reads).into_iter();
            let refused = refused.map(|message| Finding { part: part(), state: State::Failed, message });
            let message = format!("{} can be read and written", path.display());
            return std::iter::once(Finding { part: part(), state: State::Ok, message }).chain(refused).collect();
        }
        // Whoever runs on it has opened it, and says itself what fails.
        Err(CheckpointError::InUse { pid, .. }) => {
            let by = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            let path = path.display();
            (State::Warning, format!("a trailcast{by} runs on {path}: not tried here, its `/status` says how it is"))
        }
        Err(error) => (State::Failed, chain(&error)),
    };
    vec![Finding { part: part(), state, message }]
}

/// What `run` would say of the stored cursors that it refuses, once for each stream.
fn refused(config: &Config, store: &FileStore, reads: &Reads) -> Vec<String> {
    let stored = |stream: &str, sink: &str| -> Result<Option<Cursor>, LaneError> {
        let value = store.get(&LaneKey::new(stream, sink).cursor())?;
        Ok(value.map(|value| parse_cursor(&value)).transpose()?)
    };
    let of_stream = |(name, identity, question): &(String, StreamIdentity, String)| {
        let mut sinks = config.streams.get(name)?.sinks.iter();
        let refused = sinks.find_map(|sink| match stored(name, sink) {
            Ok(cursor) => cursor.and_then(|cursor| belongs(&cursor, name, identity, question).err()),
            Err(error) => Some(error),
        });
        refused.map(|error| error.to_string())
    };
    reads.iter().filter_map(of_stream).collect()
}

/// Whether the admin server can listen. That something else does is no fault where a trailcast runs already.
fn admin(address: SocketAddr) -> Option<Finding> {
    let error = TcpListener::bind(address).err()?;
    let part = "admin.listen".to_owned();
    Some(if error.kind() == std::io::ErrorKind::AddrInUse {
        let message = format!("{address} is in use: as it should be where a trailcast runs with this config already");
        Finding { part, state: State::Warning, message }
    } else {
        let message = format!("cannot listen on {address}: {error}; the address must be one of this machine's");
        Finding { part, state: State::Failed, message }
    })
}

fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.part.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { part, state, message } in findings {
        let state = match state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Failed => "FAILED",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{state:<8} {part:<width$}  {message}");
    }
    text.truncate(text.trim_end().len());
    text
}

fn json(findings: &[Finding]) -> String {
    serde_json::to_string_pretty(findings).expect("findings are plain text, which is always JSON")
}
