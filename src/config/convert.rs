//! The file as written → [`Config`], with the checks that need more than one key or more than a shape.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use url::{Host, Url};

use super::check::{Mistake, Path, suggestion};
use super::file::{Checkpoint, DeadLetters, File, Genauth, Memory, Scloud, SecretEntry, Sink, Stream};
use super::file::{dead_letter_file_size, dead_letter_size};
use super::syntax::{Size, Written};
use super::tree::Node;
use super::units::size_text;
use super::{
    AdminConfig, CheckpointConfig, Config, DeadLettersConfig, GenauthBrand, GenauthConfig, LogConfig, MemoryConfig,
    ScloudConfig, Secret, SinkConfig, SourceConfig, Start, StreamConfig,
};
use crate::clock::millis;
use crate::encode::Format;
use crate::event::{Millis, Source};
use crate::memory::Budget;

/// How far back SCloud keeps its events, as its documentation says.
const SCLOUD_HISTORY: Duration = Duration::from_secs(365 * 86_400);

/// Where the default checkpoint is. A config that names none must still survive a restart, so the default is
/// never memory; this is where a Linux service keeps its state.
const DEFAULT_CHECKPOINT: &str = "/var/lib/trailcast/state";

/// Where dead letters are when neither the config nor the checkpoint says so.
const DEFAULT_DEAD_LETTERS: &str = "/var/lib/trailcast/dead-letters";

/// The largest page accepted where the config names none, and there is memory for it.
const LARGEST_BODY: u64 = 16 << 20;

/// Less is not worth dividing.
const LEAST_MEMORY: u64 = 1 << 20;

/// The config, and what is wrong or doubtful. The config counts only when nothing is wrong; `now` is only for
/// doubts about times.
pub(super) fn convert(file: File, tree: &Node, now: Millis) -> (Option<Config>, Findings) {
    let mut converter = Converter { tree, now, findings: Findings::default() };
    let config = converter.config(file);
    (config, converter.findings)
}

/// What a conversion has to say.
#[derive(Default)]
pub(super) struct Findings {
    pub mistakes: Vec<Mistake>,
    pub warnings: Vec<Mistake>,
}

pub(super) struct Converter<'a> {
    tree: &'a Node,
    now: Millis,
    findings: Findings,
}

impl Converter<'_> {
    fn config(&mut self, file: File) -> Option<Config> {
        let root = Path::default();
        let (streams, sinks) = (root.child("streams"), root.child("sinks"));
        let names: Vec<String> = file.sinks.keys().cloned().collect();
        let asked_exactly_once: BTreeMap<String, Option<bool>> = file
            .sinks
            .iter()
            .filter_map(|(name, sink)| Some((name.clone(), sink.kafka.as_ref()?.exactly_once)))
            .collect();
        let mut converted_sinks = BTreeMap::new();
        for (name, sink) in file.sinks {
            let path = sinks.child(&name);
            self.name(&name, &path);
            converted_sinks.insert(name, self.sink(sink, &path)?);
        }
        let checkpoint = self.checkpoint(file.checkpoint, &root.child("checkpoint"));
        self.exactly_once(&mut converted_sinks, &asked_exactly_once, &checkpoint, &sinks);
        let dead_letters = self.dead_letters(file.dead_letters, &checkpoint, &root.child("dead_letters"));
        let memory = self.memory(&file.memory, &root.child("memory"));
        let mut converted = BTreeMap::new();
        for (name, stream) in file.streams {
            let path = streams.child(&name);
            self.name(&name, &path);
            converted.insert(name, self.stream(stream, &names, memory, &path)?);
        }
        self.same_events_twice(&converted, &streams);
        let traces = file.traces.map(|traces| self.traces(traces, &root.child("traces")));
        Some(Config {
            streams: converted,
            sinks: converted_sinks,
            checkpoint,
            dead_letters,
            admin: AdminConfig { listen: file.admin.listen.0 },
            log: LogConfig { format: file.log.format, level: file.log.level.0.0 },
            traces,
            memory,
        })
    }

    fn memory(&mut self, memory: &Memory, path: &Path) -> MemoryConfig {
        let process = memory.process.0.0;
        let stream = memory.stream.as_ref().map_or(process / 2, |stream| stream.0.0);
        if process < LEAST_MEMORY {
            self.mistake(&path.child("process"), &format!("must be at least {}", size_text(LEAST_MEMORY)));
        }
        if memory.stream.is_some() && (stream == 0 || stream > process) {
            self.mistake(&path.child("stream"), "must be above zero and at most `memory.process`");
        }
        MemoryConfig { process, stream }
    }

    fn largest(&mut self, written: Option<u64>, memory: MemoryConfig, path: &Path) -> u64 {
        let most = Budget::largest_body(memory.process);
        let largest = written.unwrap_or(most.min(LARGEST_BODY));
        if largest == 0 || largest > most {
            let most = size_text(most);
            let why = format!("must be above zero, and at most {most}, which is an eighth of `memory.process`");
            self.mistake(path, &why);
        }
        largest
    }

    /// `None`, with a mistake, when the sink has no kind; the schema has already ruled that out.
    fn sink(&mut self, sink: Sink, path: &Path) -> Option<SinkConfig> {
        match sink {
            Sink { kafka: Some(kafka), otlp: None, stdout: None } => Some(self.kafka(kafka, &path.child("kafka"))),
            Sink { kafka: None, otlp: Some(otlp), stdout: None } => Some(self.otlp(otlp, &path.child("otlp"))),
            Sink { kafka: None, otlp: None, stdout: Some(stdout) } => {
                if stdout.format == Format::Otlp {
                    let why = "`otlp` is no text, and stdout has one event a line: `ocsf`, `ecs` or `native`; for OTLP \
                               there is a sink `otlp`";
                    self.mistake(&path.child("stdout").child("format"), why);
                }
                Some(SinkConfig::Stdout(stdout))
            }
            _ => {
                self.mistake(path, "expected exactly one of the keys `kafka`, `otlp`, `stdout`");
                None
            }
        }
    }

    fn checkpoint(&mut self, checkpoint: Option<Checkpoint>, path: &Path) -> CheckpointConfig {
        match checkpoint {
            Some(Checkpoint { kafka: Some(kafka), .. }) => self.kafka_checkpoint(kafka, &path.child("kafka")),
            Some(Checkpoint { memory: Some(_), .. }) => CheckpointConfig::Memory,
            Some(Checkpoint { file: Some(file), .. }) => CheckpointConfig::File { path: file.path },
            // No key at all is a mistake that the schema has ruled out.
            Some(_) | None => CheckpointConfig::File { path: PathBuf::from(DEFAULT_CHECKPOINT) },
        }
    }

    fn dead_letters(
        &mut self,
        dead_letters: Option<DeadLetters>,
        checkpoint: &CheckpointConfig,
        path: &Path,
    ) -> DeadLettersConfig {
        match dead_letters {
            Some(DeadLetters { kafka: Some(topic), .. }) => {
                if !matches!(checkpoint, CheckpointConfig::Kafka(_)) {
                    let why = "needs `checkpoint.kafka`, whose cluster and transaction it shares";
                    self.mistake(&path.child("kafka"), why);
                }
                DeadLettersConfig::Topic(topic.topic.0.0)
            }
            Some(DeadLetters { file: Some(files), .. }) => {
                let (max_file_size, max_size) = (files.max_file_size.0.0, files.max_size.0.0);
                if max_file_size == 0 || max_size < max_file_size {
                    self.mistake(&path.child("file"), "`max_file_size` must be above zero and at most `max_size`");
                }
                DeadLettersConfig::Files { path: files.path, max_file_size, max_size }
            }
            Some(_) | None => match checkpoint {
                CheckpointConfig::Kafka(kafka) => DeadLettersConfig::Topic(format!("{}-dead-letters", kafka.topic)),
                CheckpointConfig::File { path } => dead_letter_files(path.join("dead-letters")),
                CheckpointConfig::Memory => dead_letter_files(PathBuf::from(DEFAULT_DEAD_LETTERS)),
            },
        }
    }

    /// An id comes from content, so two streams that read the same give one sink the same ids twice. Of many each is told of
    /// once.
    fn same_events_twice(&mut self, streams: &BTreeMap<String, StreamConfig>, path: &Path) {
        for (name, stream) in streams {
            let is_same = |other: &StreamConfig| {
                same_events(&other.source, &stream.source) && other.sinks.iter().any(|sink| stream.sinks.contains(sink))
            };
            let mut before = streams.iter().take_while(|(other, _)| *other != name);
            if let Some((other, _)) = before.find(|(_, other)| is_same(other)) {
                let message =
                    format!("reads the same as the stream `{other}` into the same sink: each event comes twice");
                self.warn(&path.child(name), &message);
            }
        }
    }

    /// `None`, with a mistake, when the stream has not exactly one source; the schema has already ruled that out.
    fn stream(
        &mut self,
        stream: Stream,
        known_sinks: &[String],
        memory: MemoryConfig,
        path: &Path,
    ) -> Option<StreamConfig> {
        let allow_http = stream.allow_http;
        let (source, unit) = match (stream.genauth, stream.scloud) {
            (Some(genauth), None) => {
                (SourceConfig::Genauth(self.genauth(genauth, allow_http, &path.child("genauth"))), Source::Genauth)
            }
            (None, Some(scloud)) => {
                (SourceConfig::Scloud(self.scloud(scloud, allow_http, &path.child("scloud"))), Source::Scloud)
            }
            _ => {
                self.mistake(path, "expected exactly one of the keys `genauth`, `scloud`");
                return None;
            }
        };
        let sweeps: Vec<Duration> = stream.sweeps.iter().map(|age| age.0).collect();
        self.sweeps(&sweeps, &path.child("sweeps"));
        for (key, duration) in [
            ("poll_interval", stream.poll_interval.0),
            ("connect_timeout", stream.connect_timeout.0),
            ("request_timeout", stream.request_timeout.0),
        ] {
            if duration.is_zero() {
                self.mistake(&path.child(key), "must be above zero");
            }
        }
        let written = stream.max_response_size.map(|size| size.0.0);
        let max_response_size = self.largest(written, memory, &path.child("max_response_size"));
        let clocked =
            [("poll_interval", stream.poll_interval.0), ("settle", stream.settle.0), ("overlap", stream.overlap.0)];
        for (key, duration) in clocked {
            if unit == Source::Scloud && duration.subsec_nanos() != 0 {
                self.mistake(&path.child(key), "must be in whole seconds: SCloud's clock has no finer unit");
            }
        }
        self.start(stream.start.0, unit, &path.child("start"));
        let sinks = match stream.sinks {
            Some(sinks) => self.sinks(sinks, known_sinks, &path.child("sinks")),
            None => known_sinks.to_vec(),
        };
        Some(StreamConfig {
            source,
            start: stream.start.0,
            poll_interval: stream.poll_interval.0,
            settle: stream.settle.0,
            overlap: stream.overlap.0,
            sweeps,
            concurrency: stream.concurrency,
            rate_limit: stream.rate_limit,
            sinks,
            connect_timeout: stream.connect_timeout.0,
            request_timeout: stream.request_timeout.0,
            max_response_size,
            ca_file: stream.ca_file,
            allow_http,
        })
    }

    fn genauth(&mut self, genauth: Genauth, allow_http: bool, path: &Path) -> GenauthConfig {
        let endpoint = genauth.endpoint.map_or_else(|| default_endpoint(genauth.brand), |endpoint| endpoint.0);
        self.endpoint(&endpoint, allow_http, &path.child("endpoint"));
        GenauthConfig {
            endpoint,
            brand: genauth.brand,
            user_pool_id: genauth.user_pool_id,
            auth: genauth.auth,
            access_key_id: genauth.access_key_id,
            access_key_secret: self.secret(genauth.access_key_secret, &path.child("access_key_secret")),
            filter: genauth.filter.unwrap_or_default(),
            max_rows: genauth.max_rows,
        }
    }

    fn scloud(&mut self, scloud: Scloud, allow_http: bool, path: &Path) -> ScloudConfig {
        self.endpoint(&scloud.endpoint.0, allow_http, &path.child("endpoint"));
        ScloudConfig {
            endpoint: scloud.endpoint.0,
            public_key: scloud.public_key,
            private_key: self.secret(scloud.private_key, &path.child("private_key")),
            project_id: scloud.project_id,
            filter: scloud.filter.unwrap_or_default(),
            max_rows: scloud.max_rows,
        }
    }

    fn endpoint(&mut self, url: &Url, allow_http: bool, path: &Path) {
        let loopback = is_loopback(url);
        match url.scheme() {
            "https" => {}
            "http" if loopback || allow_http => {}
            "http" => self.mistake(
                path,
                "must begin with `https://`: credentials and audit records would cross the network in the clear \
                 (`allow_http: true` in the stream accepts that)",
            ),
            _ => self.mistake(path, "must begin with `https://`"),
        }
        if !url.username().is_empty() || url.password().is_some() {
            self.mistake(path, "must hold no user name or password: secrets have keys of their own");
        }
        if url.query().is_some() || url.fragment().is_some() {
            self.mistake(path, "must end with the host or a path: no `?` and no `#`");
        }
    }

    fn sweeps(&mut self, sweeps: &[Duration], path: &Path) {
        let mut last = Duration::ZERO;
        for (index, age) in sweeps.iter().enumerate() {
            let path = path.child(format!("[{index}]"));
            if age.is_zero() {
                self.mistake(&path, "must be above zero");
            } else if *age <= last {
                self.mistake(&path, "must be above the one before it: sweeps are ascending");
            }
            last = last.max(*age);
        }
    }

    fn start(&mut self, start: Start, source: Source, path: &Path) {
        let age = match start {
            Start::Now => return,
            Start::Age(age) => millis(age),
            Start::At(time) => self.now.saturating_sub(time),
        };
        if age < 0 {
            self.warn(path, "lies in the future: nothing is delivered until then");
        }
        let history = millis(SCLOUD_HISTORY);
        if source == Source::Scloud && age > history {
            self.warn(path, "is more than 365 days ago: SCloud keeps no events older than that");
        }
    }

    fn sinks(&mut self, sinks: Vec<String>, known: &[String], path: &Path) -> Vec<String> {
        for (index, name) in sinks.iter().enumerate() {
            let path = path.child(format!("[{index}]"));
            if !known.contains(name) {
                let hint = suggestion(name, known.iter().map(String::as_str));
                self.mistake(&path, &format!("no such sink; {hint}"));
            } else if sinks[..index].contains(name) {
                self.mistake(&path, "is listed twice");
            }
        }
        sinks
    }

    pub(super) fn secret(&mut self, entry: SecretEntry, path: &Path) -> Secret {
        match entry {
            SecretEntry::Inline(text) => {
                let advice = "the secret stands in the config; `{ env: NAME }` or `{ file: PATH }` keeps it out";
                let variable =
                    "is taken as it stands, `$` and all: no variable is put in its place; `{ env: NAME }` does that";
                self.warn(path, if text.starts_with('$') { variable } else { advice });
                Secret::Inline(text.into())
            }
            // The schema has ruled out both and neither.
            SecretEntry::Reference(reference) => match reference.env {
                Some(name) => Secret::Env(name),
                None => Secret::File(reference.file.unwrap_or_default()),
            },
        }
    }

    fn name(&mut self, name: &str, path: &Path) {
        let fits = (1..=63).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if !fits {
            self.mistake(
                path,
                "a name has 1 to 63 letters, digits, `-` and `_`, a letter or digit first: it is a label in metrics",
            );
        }
    }

    pub(super) fn mistake(&mut self, path: &Path, message: &str) {
        let mistake = self.found(path, message);
        self.findings.mistakes.push(mistake);
    }

    pub(super) fn warn(&mut self, path: &Path, message: &str) {
        let warning = self.found(path, message);
        self.findings.warnings.push(warning);
    }

    fn found(&self, path: &Path, message: &str) -> Mistake {
        Mistake { at: self.tree.locate(path.segments()), path: path.clone(), message: message.to_owned() }
    }
}

fn same_events(one: &SourceConfig, other: &SourceConfig) -> bool {
    match (one, other) {
        (SourceConfig::Genauth(one), SourceConfig::Genauth(other)) => {
            (&one.user_pool_id, &one.filter) == (&other.user_pool_id, &other.filter)
        }
        (SourceConfig::Scloud(one), SourceConfig::Scloud(other)) => {
            (&one.public_key, &one.project_id, &one.filter) == (&other.public_key, &other.project_id, &other.filter)
        }
        _ => false,
    }
}

/// Whether an endpoint is on this machine.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn default_endpoint(brand: GenauthBrand) -> Url {
    let text = match brand {
        GenauthBrand::Genauth => "https://api.genauth.ai",
        GenauthBrand::Authing => "https://api.authing.cn",
    };
    Url::parse(text).expect("a constant URL")
}

fn dead_letter_files(path: PathBuf) -> DeadLettersConfig {
    let (Written(Size(max_file_size)), Written(Size(max_size))) = (dead_letter_file_size(), dead_letter_size());
    DeadLettersConfig::Files { path, max_file_size, max_size }
}
