//! `trailcast check`: the config, then every part that it names, one line each.

mod admin;
mod kafka;
mod otlp;
mod stream;

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use rustix::fs::Access;
use serde::Serialize;

use super::{Answer, CommandError, progress};
use crate::app;
use crate::blocking::blocking;
use crate::checkpoint::{CheckpointError, FileStore, MAKE_FOLDER, Store as _};
use crate::cli::{CheckArgs, Exit};
use crate::clock;
use crate::config::{self, CheckpointConfig, Config, ConfigErrors, SinkConfig, Start};
use crate::event::{Millis, StreamIdentity};
use crate::lane::{LaneError, belongs};
use crate::source::install_tls_provider;
use crate::state::cursor::Cursor;
use crate::state::store::{LaneKey, parse_cursor};
use crate::words::{chain, counted};

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
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(errors) if args.json => return Ok(Answer { text: mistakes(&errors), exit: Exit::Usage }),
        Err(errors) => return Err(errors.into()),
    };
    let mut findings: Vec<Finding> = loaded
        .warnings
        .iter()
        .map(|warning| Finding { part: "config".to_owned(), state: State::Warning, message: warning.to_string() })
        .collect();
    findings.push(config_line(path, &loaded.config));
    let mut exit = Exit::Done;
    if !args.offline {
        install_tls_provider();
        let mut reads = Vec::new();
        for (name, client) in app::streams(&loaded.config) {
            let stream = &loaded.config.streams[&name];
            let client = match client {
                Ok(client) => client,
                Err(error) => {
                    let (part, message) = (format!("streams.{name}"), error.to_string());
                    findings.push(Finding { part, state: State::Failed, message });
                    continue;
                }
            };
            let (key, secret) = stream.secret();
            if let Err(error) = secret.read() {
                let message = format!("{key}: {error}");
                findings.push(Finding { part: format!("streams.{name}"), state: State::Failed, message });
            } else {
                progress::step(&format!("asking streams.{name}"));
                findings.push(stream::stream(&name, &client, stream.source.endpoint()).await);
            }
            let identity = StreamIdentity { source: client.source(), tenant: client.tenant().to_owned() };
            reads.push((name, identity, client.question().to_owned()));
        }
        let config = loaded.config;
        // `run` would not start. Which they are is told where they are needed.
        if !config.lacking().is_empty() {
            exit = Exit::Usage;
        }
        progress::step("asking the sinks and the checkpoint");
        findings.extend(otlp::sinks(&config).await);
        let (admin, traces) = (admin::admin(&config).await, otlp::traces(&config).await);
        let asking = move || {
            let mut findings = sinks(&config);
            findings.extend(checkpoint(&config, &reads));
            findings
        };
        findings.extend(blocking(asking).await);
        findings.extend(admin.into_iter().chain(traces));
        progress::step("");
    }
    if exit == Exit::Done && findings.iter().any(|finding| finding.state == State::Failed) {
        exit = Exit::Failed;
    }
    Ok(Answer { text: if args.json { json(&findings) } else { text(&findings) }, exit })
}

/// Those of the config, as findings are told in JSON, each with its place.
fn mistakes(errors: &ConfigErrors) -> String {
    #[derive(Serialize)]
    struct Mistake<'a> {
        part: &'static str,
        state: State,
        message: &'a str,
        file: &'a Path,
        #[serde(skip_serializing_if = "Option::is_none")]
        line: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        column: Option<usize>,
        #[serde(skip_serializing_if = "str::is_empty")]
        key: &'a str,
    }
    let mistakes = errors.0.iter().map(|config::Finding { file, line, column, key, message }| Mistake {
        part: "config",
        state: State::Failed,
        message,
        file,
        line: *line,
        column: *column,
        key,
    });
    json(&mistakes.collect::<Vec<_>>())
}

fn config_line(path: &Path, config: &Config) -> Finding {
    let (streams, sinks) = (counted(config.streams.len(), "stream"), counted(config.sinks.len(), "sink"));
    let message = format!("{}: {streams}, {sinks}", path.display());
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
                let message = format!("stdout, from {}", counted(streams.len(), "stream"));
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
    if FileStore::is_new(path) {
        return vec![new_checkpoint(path)];
    }
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

/// Of a folder in which nothing was ever kept: to look is not to make it.
fn new_checkpoint(path: &Path) -> Finding {
    let there = path.ancestors().find(|folder| folder.exists()).unwrap_or(path);
    let here = there.as_os_str().is_empty();
    let may_write = rustix::fs::access(if here { Path::new(".") } else { there }, Access::WRITE_OK | Access::EXEC_OK);
    let (state, message) = match may_write {
        Ok(()) if there == path => (State::Ok, format!("nothing is kept in {} yet", path.display())),
        Ok(()) => (State::Ok, format!("{} is not there yet; `run` makes it", path.display())),
        Err(error) => {
            let (path, error) = (path.to_owned(), io::Error::from(error));
            let doing = if there == path { "write to" } else { MAKE_FOLDER };
            (State::Failed, CheckpointError::Folder { doing, path, error }.to_string())
        }
    };
    Finding { part: "checkpoint".to_owned(), state, message }
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

fn json(findings: &[impl Serialize]) -> String {
    serde_json::to_string_pretty(findings).expect("findings are plain text, which is always JSON")
}
