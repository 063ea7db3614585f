//! The config file: what a user may write, with each key's meaning, default and unit.
//!
//! `file` is the one list of keys: `trailcast schema`, the checks and the error messages are made from it. The
//! way of a file: `tree` (YAML with positions) → `check` (against the schema) → `file` → `convert` → [`Config`].
//! Only this module and `main` read the environment for settings and secrets.

mod check;
mod cluster;
mod convert;
mod error;
mod file;
mod kafka;
mod log;
mod material;
mod otlp;
mod secret;
mod syntax;
mod traces;
mod tree;
pub mod units;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::encode::Format;
use crate::event::Millis;

pub use cluster::{
    ClusterConfig, CreateTopicConfig, KafkaCheckpointConfig, KafkaConfig, KafkaTlsConfig, Key, SaslConfig,
    SaslMechanism,
};
pub use convert::is_loopback;
pub use error::{ConfigErrors, Finding};
pub use file::schema;
pub use log::{FilterError, LogConfig, LogFormat, log_filter};
pub use material::Material;
pub use otlp::{BackfillConfig, Compression, MaxEventAgePolicy, OtlpConfig, OtlpProtocol, OtlpTls, Split};
pub use secret::SecretError;
pub use traces::TracesConfig;

/// This host's name, by which Kafka knows a replica unless the config says otherwise: a pod's own name in Kubernetes.
#[must_use]
pub fn host_name() -> String {
    let of_file = |path| std::fs::read_to_string(path).ok().map(|name| name.trim().to_owned());
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .into_iter()
        .find_map(of_file)
        .or_else(|| std::env::var("HOSTNAME").ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "trailcast".to_owned())
}

/// A config that can be run, and what is doubtful about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// What works but should not stay so, in the file's order.
    pub warnings: Vec<Finding>,
}

/// Reads a config file. Opens nothing else: secrets are read later, by [`Secret::read`].
///
/// # Errors
/// Every mistake of form in the file, or, where there is none, every one of meaning; or the one that kept it from being
/// read.
pub fn load(path: &Path) -> Result<Loaded, ConfigErrors> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = format!("cannot read the config: {error}");
        let file = path.to_path_buf();
        ConfigErrors(vec![Finding { file, line: None, column: None, key: String::new(), message }])
    })?;
    parse(path, &text)
}

/// As [`load`], from text; `path` is only named in findings.
///
/// # Errors
/// Every mistake of form in the text, or, where there is none, every one of meaning.
pub fn parse(path: &Path, text: &str) -> Result<Loaded, ConfigErrors> {
    parse_at(path, text, crate::clock::now())
}

/// `now` only serves doubts about times.
fn parse_at(path: &Path, text: &str, now: Millis) -> Result<Loaded, ConfigErrors> {
    let (tree, faults) = tree::parse(text);
    let mut mistakes: Vec<check::Mistake> = faults
        .into_iter()
        .map(|fault| check::Mistake { at: fault.at, path: check::Path::default(), message: fault.message })
        .collect();
    let mut warnings = Vec::new();
    let mut config = None;
    if let Some(tree) = tree {
        let (json, unfit) = check::check(&tree, &schema());
        mistakes.extend(unfit);
        // Checks across keys would stumble over what is missing.
        if mistakes.is_empty() {
            match serde_json::from_value(json) {
                Ok(file) => {
                    let (converted, findings) = convert::convert(file, &tree, now);
                    config = converted;
                    mistakes.extend(findings.mistakes);
                    warnings.extend(findings.warnings);
                }
                // Its message could quote a value.
                Err(_) => mistakes.push(check::Mistake {
                    at: tree.at,
                    path: check::Path::default(),
                    message: "fits the schema and yet cannot be read; please report this".to_owned(),
                }),
            }
        }
    }
    match config {
        Some(config) if mistakes.is_empty() => Ok(Loaded { config, warnings: findings(path, warnings) }),
        _ => Err(ConfigErrors(findings(path, mistakes))),
    }
}

fn findings(file: &Path, mut mistakes: Vec<check::Mistake>) -> Vec<Finding> {
    mistakes.sort_by_key(|mistake| mistake.at);
    mistakes
        .into_iter()
        .map(|mistake| Finding {
            file: file.to_path_buf(),
            line: Some(mistake.at.line),
            column: Some(mistake.at.column),
            key: mistake.path.to_string(),
            message: mistake.message,
        })
        .collect()
}

/// The whole file.
#[derive(Debug, Clone)]
pub struct Config {
    /// The streams by name. The name is a label in metrics and part of the cursor's key; renaming a stream
    /// starts a new cursor but changes no event id.
    pub streams: BTreeMap<String, StreamConfig>,
    /// The sinks by name.
    pub sinks: BTreeMap<String, SinkConfig>,
    /// Where cursors are stored.
    pub checkpoint: CheckpointConfig,
    /// Where what a sink refuses for good is kept.
    pub dead_letters: DeadLettersConfig,
    /// The admin server.
    pub admin: AdminConfig,
    /// trailcast's own log.
    pub log: LogConfig,
    /// trailcast's own traces. Default: none.
    pub traces: Option<TracesConfig>,
    /// What may be held in memory.
    pub memory: MemoryConfig,
}

/// What may be held in memory of what is read and not yet delivered.
#[derive(Debug, Clone, Copy)]
pub struct MemoryConfig {
    /// By all streams, bytes. Default 128 MiB.
    pub process: u64,
    /// By one stream at most, bytes. Default: half of that.
    pub stream: u64,
}

/// One configured use of a source.
#[derive(Debug, Clone)]
pub struct StreamConfig {
    /// Which API, with what only it needs. (In YAML: exactly one of the keys `genauth` and `scloud`.)
    pub source: SourceConfig,
    /// Where a lane with no cursor begins. Default `30d`.
    pub start: Start,
    /// Between two live polls; polls fall on multiples of it on the server's clock. Default 10 s.
    pub poll_interval: Duration,
    /// The live pass stops this far behind the server's clock. Default 0 s.
    pub settle: Duration,
    /// And reads this much again at each poll. Default 10 s.
    pub overlap: Duration,
    /// Ages at which everything is read again, ascending. Default `[1m, 15m, 6h]`.
    pub sweeps: Vec<Duration>,
    /// Requests in flight, from 1. Default 4. Shared, with `rate_limit`, by all streams that use the same
    /// credential (the strictest of them counts).
    pub concurrency: u32,
    /// Requests a second, above 0. Default 20.
    pub rate_limit: f64,
    /// Names of sinks. Default: all.
    pub sinks: Vec<String>,
    /// Connecting to the API. Default 10 s.
    pub connect_timeout: Duration,
    /// One whole request. Default 60 s.
    pub request_timeout: Duration,
    /// The largest page body accepted, after decompression. Default 16 MiB, or an eighth of `memory.process`.
    pub max_response_size: u64,
    /// A PEM file of certificate authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Accepts an `http://` endpoint on a host that is not loopback. Default false.
    pub allow_http: bool,
}

impl StreamConfig {
    /// The stream's secret, and the key that holds it.
    #[must_use]
    pub const fn secret(&self) -> (&'static str, &Secret) {
        match &self.source {
            SourceConfig::Genauth(genauth) => ("genauth.access_key_secret", &genauth.access_key_secret),
            SourceConfig::Scloud(scloud) => ("scloud.private_key", &scloud.private_key),
        }
    }
}

impl SourceConfig {
    /// Where its API is.
    #[must_use]
    pub const fn endpoint(&self) -> &url::Url {
        match self {
            Self::Genauth(genauth) => &genauth.endpoint,
            Self::Scloud(scloud) => &scloud.endpoint,
        }
    }
}

/// A source and what only it needs.
#[derive(Debug, Clone)]
pub enum SourceConfig {
    /// GenAuth user action logs.
    Genauth(GenauthConfig),
    /// SCloud user operation events.
    Scloud(ScloudConfig),
}

/// GenAuth (Authing).
#[derive(Debug, Clone)]
pub struct GenauthConfig {
    /// Default per brand: `https://api.genauth.ai`, `https://api.authing.cn`.
    pub endpoint: url::Url,
    /// Which headers. Default `genauth`.
    pub brand: GenauthBrand,
    /// Whose log.
    pub user_pool_id: String,
    /// How requests prove themselves. Default `token`.
    pub auth: GenauthAuth,
    /// The access key.
    pub access_key_id: String,
    /// Its secret.
    pub access_key_secret: Secret,
    /// Sent with every request.
    pub filter: GenauthFilter,
    /// The most rows that page numbers may reach; a window with more is halved first. Default 10,000.
    pub max_rows: u64,
}

/// The two brands of one API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GenauthBrand {
    /// GenAuth: header `x-genauth-userpool-id`.
    Genauth,
    /// Authing: header `x-authing-userpool-id`.
    Authing,
}

/// The two ways in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GenauthAuth {
    /// A management token, asked for with the access key.
    Token,
    /// Each request signed with the access key.
    Signature,
}

/// The API's own filters; absent means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GenauthFilter {
    /// Only events of this type (`eventType`).
    pub event_type: Option<String>,
    /// Only acts that succeeded, or only those that failed (`success`).
    pub success: Option<bool>,
    /// Only this user's acts (`userId`).
    pub user_id: Option<String>,
    /// Only acts in this app (`appId`).
    pub app_id: Option<String>,
    /// Only acts from this address (`clientIp`).
    pub client_ip: Option<String>,
    /// Only acts of this request (`requestId`).
    pub request_id: Option<String>,
}

/// SCloud (UCloud family).
#[derive(Debug, Clone)]
pub struct ScloudConfig {
    /// Default `https://api.scloudsg.com`.
    pub endpoint: url::Url,
    /// The public key.
    pub public_key: String,
    /// The private key.
    pub private_key: Secret,
    /// Whose log; sub-accounts must give it.
    pub project_id: Option<String>,
    /// Sent with every request.
    pub filter: ScloudFilter,
    /// The most rows one run of pages may reach; a window with more is halved. Default 10,000.
    pub max_rows: u64,
}

/// The API's own filters; absent means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScloudFilter {
    /// Only operations on this resource (`ResourceID`).
    pub resource_id: Option<String>,
    /// Only operations by these access keys (`AccessKeyIDs.N`), at most 50.
    #[schemars(length(max = 50))]
    pub access_key_ids: Vec<String>,
}

/// Where a lane with no cursor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the server's now.
    Now,
    /// This long before the server's now.
    Age(Duration),
    /// At this time, milliseconds since the epoch.
    At(crate::event::Millis),
}

/// A secret: where it is, and its value once read. `Debug` shows neither the value nor its length.
#[derive(Debug, Clone)]
pub enum Secret {
    /// The variable of this name.
    Env(String),
    /// The file at this path, read again when it changes.
    File(PathBuf),
    /// In the config itself: accepted with a warning.
    Inline(secrecy::SecretString),
}

/// A destination. (In YAML: exactly one of its kinds.)
#[derive(Debug, Clone)]
pub enum SinkConfig {
    /// A Kafka topic.
    Kafka(Box<KafkaConfig>),
    /// OTLP logs.
    Otlp(Box<OtlpConfig>),
    /// NDJSON on stdout.
    Stdout(StdoutConfig),
}

/// NDJSON on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StdoutConfig {
    /// How an event is written; not as `otlp`, which has no lines.
    pub format: Format,
    /// Whether the record's own text is inside the event.
    pub raw: bool,
}

impl Default for StdoutConfig {
    fn default() -> Self {
        Self { format: Format::default(), raw: true }
    }
}

/// Where cursors are stored.
#[derive(Debug, Clone)]
pub enum CheckpointConfig {
    /// One file in this folder.
    File {
        /// The folder; created if missing.
        path: PathBuf,
    },
    /// A compacted Kafka topic, shared by the replicas of a group.
    Kafka(Box<KafkaCheckpointConfig>),
    /// Gone with the process: for tests and demos.
    Memory,
}

/// Where what a sink refuses for good is kept.
#[derive(Debug, Clone)]
pub enum DeadLettersConfig {
    /// Files in a folder.
    Files {
        /// The folder.
        path: PathBuf,
        /// From this size on, a file is followed by a new one. Default 64 MiB.
        max_file_size: u64,
        /// All files together. Default 1 GiB.
        max_size: u64,
    },
    /// A topic on the checkpoint's cluster.
    Topic(String),
}

impl DeadLettersConfig {
    /// The topic, if they go to one.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        match self {
            Self::Topic(topic) => Some(topic),
            Self::Files { .. } => None,
        }
    }
}

/// The admin server.
#[derive(Debug, Clone, Copy)]
pub struct AdminConfig {
    /// Default `127.0.0.1:9464`.
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)) }
    }
}
