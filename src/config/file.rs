//! The config file as it is written: the one list of keys, with each one's meaning, unit and default.
//!
//! `trailcast schema`, the checks and the error messages all come from these structs; a doc comment is a
//! description that users read. [`super::convert`] makes the [`Config`](super::Config) of them.

mod kafka;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use serde::Deserialize;
use url::Url;

use super::otlp::Otlp;
use super::syntax::{LogFilter, Size, TopicName, Written};
use super::traces::Traces;
use super::{
    AdminConfig, GenauthAuth, GenauthBrand, GenauthFilter, LogConfig, LogFormat, ScloudFilter, Start, StdoutConfig,
};
pub(super) use kafka::{CreateTopic, Kafka, KafkaCheckpoint, KafkaTls, Sasl};

/// The config of trailcast: which audit logs to read and where to deliver their events.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The streams by name. A stream is one configured use of a source. The name is a label in metrics and part
    /// of the cursor's key: renaming a stream starts a new cursor but changes no event id.
    #[schemars(extend("minProperties" = 1))]
    pub streams: BTreeMap<String, Stream>,
    /// The sinks by name. A sink is a destination of events.
    #[schemars(extend("minProperties" = 1))]
    pub sinks: BTreeMap<String, Sink>,
    /// Where cursors are stored. Default: a file in `/var/lib/trailcast/state`.
    pub checkpoint: Option<Checkpoint>,
    /// Where events are kept that a sink refuses for good. Default: beside the checkpoint, which is a folder
    /// `dead-letters` in its folder, or the topic `<state topic>-dead-letters`.
    pub dead_letters: Option<DeadLetters>,
    /// The admin server: metrics, health and status.
    #[serde(default)]
    pub admin: Admin,
    /// trailcast's own log, on stderr.
    #[serde(default)]
    pub log: Log,
    /// trailcast's own traces. Default: none.
    pub traces: Option<Traces>,
    /// How much of what is read and not yet delivered may be held in memory.
    #[serde(default)]
    pub memory: Memory,
}

/// How much of what is read and not yet delivered may be held in memory. Where it is reached, reading slows.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    /// What all streams hold together. A quarter is kept for large answers, the rest is shared out evenly.
    #[serde(default = "memory_process")]
    pub process: Written<Size>,
    /// What one stream holds at most, if its share of the rest is more than that. Default: half of `process`.
    pub stream: Option<Written<Size>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { process: memory_process(), stream: None }
    }
}

/// One configured use of a source: exactly one of `genauth` and `scloud`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["genauth"] }, { "required": ["scloud"] }]))]
pub(super) struct Stream {
    /// Reads GenAuth (Authing) user action logs.
    pub genauth: Option<Genauth>,
    /// Reads SCloud (UCloud family) user operation events.
    pub scloud: Option<Scloud>,
    /// Where a lane with no cursor begins: a time (RFC 3339), an age, or `now`. SCloud keeps 365 days.
    #[serde(default = "start")]
    pub start: Written<Start>,
    /// Between two live polls. Polls fall on multiples of it on the server's clock.
    #[serde(default = "seconds::<10>")]
    pub poll_interval: Written<Duration>,
    /// The live pass stops this far behind the server's clock. More than zero trades latency for fewer events
    /// marked late.
    #[serde(default = "seconds::<0>")]
    pub settle: Written<Duration>,
    /// The live pass reads this much again at each poll, for records that become readable a little late.
    #[serde(default = "seconds::<10>")]
    pub overlap: Written<Duration>,
    /// Ages at which everything is read again for records that became readable late; ascending. What comes
    /// later than the oldest is missed.
    #[serde(default = "sweeps")]
    #[schemars(length(min = 1))]
    pub sweeps: Vec<Written<Duration>>,
    /// Requests in flight. Shared, with `rate_limit`, by all streams that use the same credential: the
    /// strictest of them counts.
    #[serde(default = "concurrency")]
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: u32,
    /// Requests a second.
    #[serde(default = "rate_limit")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub rate_limit: f64,
    /// The names of the sinks that get this stream's events. Default: all.
    #[schemars(length(min = 1))]
    pub sinks: Option<Vec<String>>,
    /// The longest that connecting to the API may take.
    #[serde(default = "seconds::<10>")]
    pub connect_timeout: Written<Duration>,
    /// The longest that one whole request may take.
    #[serde(default = "seconds::<60>")]
    pub request_timeout: Written<Duration>,
    /// The largest page accepted, after decompression; at most an eighth of `memory.process`. Default: 16MiB, or that
    /// eighth if it is less.
    pub max_response_size: Option<Written<Size>>,
    /// A PEM file of certificate authorities to trust beside the system's.
    #[schemars(length(min = 1))]
    pub ca_file: Option<PathBuf>,
    /// Whether an `http://` endpoint on a host that is not loopback is accepted. Credentials and audit records
    /// then cross the network in the clear.
    #[serde(default)]
    pub allow_http: bool,
}

/// GenAuth (Authing) user action logs.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Genauth {
    /// The API. Default: `https://api.genauth.ai`, or `https://api.authing.cn` for the brand `authing`.
    pub endpoint: Option<Written<Url>>,
    /// Which of the two brands of the API it is: they differ in their headers.
    #[serde(default = "brand")]
    pub brand: GenauthBrand,
    /// Whose log: the id of the user pool.
    #[schemars(length(min = 1))]
    pub user_pool_id: String,
    /// How requests prove themselves.
    #[serde(default = "auth")]
    pub auth: GenauthAuth,
    /// The id of the access key.
    #[schemars(length(min = 1))]
    pub access_key_id: String,
    /// The secret of the access key.
    pub access_key_secret: SecretEntry,
    /// Narrows what is read; absent keys mean all.
    pub filter: Option<GenauthFilter>,
    /// The most rows that page numbers may reach; a window with more is halved before it is read.
    #[serde(default = "max_rows")]
    #[schemars(range(min = 1))]
    pub max_rows: u64,
}

/// SCloud (UCloud family) user operation events.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Scloud {
    /// The API.
    #[serde(default = "scloud_endpoint")]
    pub endpoint: Written<Url>,
    /// The public key.
    #[schemars(length(min = 1))]
    pub public_key: String,
    /// The private key.
    pub private_key: SecretEntry,
    /// Whose log: the id of the project. Sub-accounts must give it.
    #[schemars(length(min = 1))]
    pub project_id: Option<String>,
    /// Narrows what is read; absent keys mean all.
    pub filter: Option<ScloudFilter>,
    /// The most rows that one run of pages may reach; a window with more is halved.
    #[serde(default = "max_rows")]
    #[schemars(range(min = 1))]
    pub max_rows: u64,
}

/// A secret, one line of text: `{ env: NAME }`, `{ file: PATH }`, or the text itself, which draws a warning. One line end
/// behind it is not part of it.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum SecretEntry {
    /// Where the secret is.
    Reference(SecretReference),
    /// The secret itself.
    Inline(#[schemars(length(min = 1))] String),
}

/// Where a secret is: exactly one of `env` and `file`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline, extend("writeOnly" = true, "oneOf" = [{ "required": ["env"] }, { "required": ["file"] }]))]
pub(super) struct SecretReference {
    /// The name of an environment variable.
    #[schemars(length(min = 1))]
    pub env: Option<String>,
    /// The path of a file, read again when it changes.
    #[schemars(length(min = 1))]
    pub file: Option<PathBuf>,
}

/// A destination of events: exactly one kind.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["kafka"] }, { "required": ["otlp"] }, { "required": ["stdout"] }]))]
pub(super) struct Sink {
    /// One record an event in a Kafka topic.
    pub kafka: Option<Kafka>,
    /// Log records by the OpenTelemetry protocol: to a Collector, Loki, or another receiver.
    pub otlp: Option<Otlp>,
    /// One event a line on stdout.
    pub stdout: Option<StdoutConfig>,
}

/// Where events are kept that a sink refuses for good: exactly one of `file` and `kafka`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["file"] }, { "required": ["kafka"] }]))]
pub(super) struct DeadLetters {
    /// In files in a folder, one JSON object a line.
    pub file: Option<DeadLetterFiles>,
    /// In a topic of the checkpoint's cluster, in the transaction that moves the cursor. Needs `checkpoint.kafka`.
    pub kafka: Option<DeadLetterTopic>,
}

/// Dead letters in files.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadLetterFiles {
    /// The folder; created once it is needed, for the user that trailcast runs as and nobody else.
    #[schemars(length(min = 1))]
    pub path: PathBuf,
    /// A file that has grown to this size is followed by a new one.
    #[serde(default = "dead_letter_file_size")]
    pub max_file_size: Written<Size>,
    /// All files together. Nothing is ever overwritten: what would go beyond this stops its lane until someone
    /// has made room.
    #[serde(default = "dead_letter_size")]
    pub max_size: Written<Size>,
}

/// Dead letters in a topic.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadLetterTopic {
    /// The topic; created if missing, with as many replicas as the state topic and without a limit of age.
    pub topic: Written<TopicName>,
}

/// Where cursors are stored: exactly one of `file`, `kafka` and `memory`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["file"] }, { "required": ["kafka"] }, { "required": ["memory"] }]))]
pub(super) struct Checkpoint {
    /// In a folder on disk.
    pub file: Option<FileCheckpoint>,
    /// In a compacted Kafka topic. Processes with the same topic and group share the streams.
    pub kafka: Option<KafkaCheckpoint>,
    /// Nowhere: gone with the process. For tests and demos.
    pub memory: Option<MemoryCheckpoint>,
}

/// Cursors in a folder on disk.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileCheckpoint {
    /// The folder; created if missing, for the user that trailcast runs as and nobody else.
    #[schemars(length(min = 1))]
    pub path: PathBuf,
}

/// Cursors in memory; has no keys of its own.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MemoryCheckpoint {}

/// The admin server: metrics, health and status.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Admin {
    /// The address and port it listens on. It has no login: think before listening on more than loopback.
    pub listen: Written<SocketAddr>,
}

/// trailcast's own log, on stderr.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Log {
    /// How a line is written. Default: `text` on a terminal, `json` otherwise.
    pub format: Option<LogFormat>,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,trailcast::source=debug`.
    pub level: Written<LogFilter>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: Written(AdminConfig::default().listen) }
    }
}

impl Default for Log {
    fn default() -> Self {
        let LogConfig { format, level } = LogConfig::default();
        Self { format, level: Written(LogFilter(level)) }
    }
}

fn start() -> Written<Start> {
    Written(Start::Age(Duration::from_secs(30 * 86_400)))
}

pub(super) fn seconds<const SECONDS: u64>() -> Written<Duration> {
    Written(Duration::from_secs(SECONDS))
}

fn sweeps() -> Vec<Written<Duration>> {
    [60, 900, 21_600].map(|age| Written(Duration::from_secs(age))).into()
}

const fn concurrency() -> u32 {
    4
}

const fn rate_limit() -> f64 {
    20.0
}

const fn memory_process() -> Written<Size> {
    Written(Size(128 << 20))
}

pub(super) const fn yes() -> bool {
    true
}

pub(super) const fn dead_letter_file_size() -> Written<Size> {
    Written(Size(64 << 20))
}

pub(super) const fn dead_letter_size() -> Written<Size> {
    Written(Size(1 << 30))
}

const fn brand() -> GenauthBrand {
    GenauthBrand::Genauth
}

const fn auth() -> GenauthAuth {
    GenauthAuth::Token
}

const fn max_rows() -> u64 {
    10_000
}

fn scloud_endpoint() -> Written<Url> {
    Written(Url::parse("https://api.scloudsg.com").expect("a constant URL"))
}

/// The JSON schema of the config file, draft 2020-12.
#[must_use]
pub fn schema() -> serde_json::Value {
    let generator = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(Tidy)).into_generator();
    let mut schema = generator.into_root_schema_for::<File>();
    schema.insert("title".to_owned(), "trailcast".into());
    schema.to_value()
}

/// An optional key may be absent, but its value is never `null`; and where a doc comment breaks its lines means
/// nothing to who reads a description.
#[derive(Debug, Clone)]
struct Tidy;

impl Transform for Tidy {
    fn transform(&mut self, schema: &mut schemars::Schema) {
        let Some(object) = schema.as_object_mut() else { return };
        if let Some(serde_json::Value::String(text)) = object.get_mut("description") {
            *text = text.replace('\n', " ");
        }
        if object.get("default").is_some_and(serde_json::Value::is_null) {
            object.remove("default");
        }
        if let Some(types) = object.get_mut("type").and_then(|kind| kind.as_array_mut()) {
            types.retain(|kind| kind != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                object.insert("type".to_owned(), only);
            }
        }
        if let Some(branches) = object.get_mut("anyOf").and_then(|branches| branches.as_array_mut()) {
            branches.retain(|branch| branch["type"] != "null");
            if let [serde_json::Value::Object(only)] = branches.as_slice() {
                let only = only.clone();
                object.remove("anyOf");
                object.extend(only);
            }
        }
    }
}
