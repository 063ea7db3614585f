//! The OTLP sink's keys as they are written, what they become, and what only they can get wrong.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::check::Path;
use super::convert::Converter;
use super::file::{SecretEntry, seconds, yes};
use super::syntax::{Size, Written};
use super::{Secret, SinkConfig};

/// gRPC's receivers take 4 MiB unless told otherwise; this leaves room for the frame.
const LARGEST_REQUEST: u64 = (4 << 20) - (64 << 10);

/// Resource attributes that are not the user's to set.
const OWN_ATTRIBUTES: [(&str, &str); 3] = [
    ("service.name", "it is the source's name"),
    ("service.namespace", "it is the tenant"),
    ("service.instance.id", "`backfill` says where it is set, so that old events have a stream of their own"),
];

/// Headers that are not the user's to set.
const OWN_HEADERS: [&str; 10] = [
    "content-type",
    "content-encoding",
    "content-length",
    "transfer-encoding",
    "connection",
    "host",
    "te",
    "grpc-timeout",
    "grpc-encoding",
    "grpc-accept-encoding",
];

/// OTLP logs: to the OpenTelemetry Collector, Loki, or another receiver.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Otlp {
    /// Where to send. For `http` the path without its `/v1/logs`, such as `http://loki:3100/otlp`; for `grpc` no path.
    pub endpoint: Written<Url>,
    /// How: `http` (protobuf) or `grpc`.
    #[serde(default)]
    pub protocol: OtlpProtocol,
    /// How requests are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// More headers of each request, such as `X-Scope-OrgID`: a text, or where a secret is.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretEntry>,
    /// Whether the record's own text is inside the event, in `log.record.original`.
    #[serde(default = "yes")]
    pub raw: bool,
    /// More attributes of the resource, the same for all events. Loki may make labels of them.
    #[serde(default)]
    pub resource: BTreeMap<String, String>,
    /// The most bytes of a request before compression, up to 4032KiB; an event that is larger is sent alone.
    #[serde(default = "max_request_size")]
    pub max_request_size: Written<Size>,
    /// The most events of a request.
    #[serde(default = "max_request_events")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_request_events: u32,
    /// The longest that connecting may take.
    #[serde(default = "seconds::<10>")]
    pub connect_timeout: Written<Duration>,
    /// The longest that one whole request may take.
    #[serde(default = "seconds::<30>")]
    pub request_timeout: Written<Duration>,
    /// After so long without a word on a gRPC connection the receiver is asked for one; without an answer the connection
    /// is given up. A Collector may close an idle connection that asks more often than once in 5 minutes.
    #[serde(default = "seconds::<30>")]
    pub keepalive: Written<Duration>,
    /// How long an event fails alone while others pass before it is a dead letter. (What the receiver calls wrong or too
    /// large is one as soon as another event has passed beside it five times, unless the receiver has contradicted itself.)
    #[serde(default = "seconds::<300>")]
    pub give_up_after: Written<Duration>,
    /// Which authorities to trust, and which certificate to show. Only for `https://`. Default: the system's certificate authorities.
    pub tls: Option<OtlpTls>,
    /// An event that is older when it is sent is treated as `max_event_age_policy` says. Loki refuses what is older
    /// than 7 days unless told otherwise. Default: no age is too old.
    pub max_event_age: Option<Written<Duration>>,
    /// What becomes of an event older than `max_event_age`: kept as a dead letter without being sent, sent all the
    /// same, or sent with a time as old as is allowed and its own in the attribute `trailcast.time`.
    #[serde(default)]
    pub max_event_age_policy: MaxEventAgePolicy,
    /// Old events have a resource of their own, and so a stream of their own in Loki, which refuses what is much
    /// older than the newest entry of its stream.
    #[serde(default)]
    pub backfill: Backfill,
}

/// TLS to the receiver.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtlpTls {
    /// A PEM file of certificate authorities to trust instead of the system's.
    #[schemars(length(min = 1))]
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the certificate that this client shows (mTLS), and those that vouch for it.
    #[schemars(length(min = 1))]
    pub certificate_file: Option<PathBuf>,
    /// The PEM file with its private key.
    #[schemars(length(min = 1))]
    pub key_file: Option<PathBuf>,
}

/// When and how the resource says that an event is old.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Backfill {
    /// An event that is older when it is first sent is backfill. Below Loki's window, which is half of its
    /// `max_chunk_age`: 1 hour by default.
    pub older_than: Written<Duration>,
    /// The resource attribute `service.instance.id` of backfill; all other events have none.
    #[schemars(length(min = 1))]
    pub instance_id: String,
    /// Whether backfill is one stream, or one for each hour or day (UTC) of the events' own time, which `instance_id`
    /// then ends with. By the hour it needs no order at all, at the price of many streams.
    pub split: Split,
}

impl Default for Backfill {
    fn default() -> Self {
        Self {
            older_than: Written(Duration::from_secs(50 * 60)),
            instance_id: "backfill".to_owned(),
            split: Split::default(),
        }
    }
}

/// The two ways to a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtlpProtocol {
    /// Protobuf over HTTP.
    #[default]
    Http,
    /// gRPC.
    Grpc,
}

/// How requests are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// What every receiver takes.
    #[default]
    Gzip,
    /// Less work for the same size; not every receiver takes it.
    Zstd,
    /// Not at all.
    None,
}

/// What becomes of an event that is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MaxEventAgePolicy {
    /// Kept as a dead letter, not sent.
    #[default]
    DeadLetter,
    /// Sent as it is: the receiver decides.
    Send,
    /// Sent with a time as old as is allowed; its own is in an attribute.
    Clamp,
}

/// How backfill is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Not at all.
    #[default]
    None,
    /// By the day.
    Day,
    /// By the hour.
    Hour,
}

/// OTLP logs.
#[derive(Debug, Clone)]
pub struct OtlpConfig {
    /// For `http` the whole URL that requests go to.
    pub endpoint: Url,
    /// Default HTTP.
    pub protocol: OtlpProtocol,
    /// Default gzip.
    pub compression: Compression,
    /// By their names.
    pub headers: BTreeMap<String, Secret>,
    /// Whether the record's own text is inside the event. Default true.
    pub raw: bool,
    /// Attributes of the resource, beside our own.
    pub resource: BTreeMap<String, String>,
    /// Default 1 MiB.
    pub max_request_size: usize,
    /// Default 1000.
    pub max_request_events: usize,
    /// Default 10 s.
    pub connect_timeout: Duration,
    /// Default 30 s.
    pub request_timeout: Duration,
    /// Default 30 s.
    pub keepalive: Duration,
    /// How long an event fails alone while others pass before it is a dead letter. Default 5 min.
    pub give_up_after: Duration,
    /// Default: the system's authorities.
    pub tls: OtlpTls,
    /// Default: none is too old.
    pub max_event_age: Option<Duration>,
    /// What becomes of older ones.
    pub max_event_age_policy: MaxEventAgePolicy,
    /// When an event is backfill.
    pub backfill: BackfillConfig,
}

/// When and how the resource says that an event is old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackfillConfig {
    /// Default 50 min.
    pub older_than: Duration,
    /// Default `backfill`.
    pub instance_id: String,
    /// Default: one stream.
    pub split: Split,
}

impl Converter<'_> {
    pub(super) fn otlp(&mut self, otlp: Otlp, path: &Path) -> SinkConfig {
        let headers = self.headers(otlp.headers, &path.child("headers"));
        self.clear_secrets(&otlp.endpoint.0, &headers, &path.child("endpoint"));
        let endpoint = self.otlp_endpoint(otlp.endpoint.0, otlp.protocol, &path.child("endpoint"));
        for name in otlp.resource.keys() {
            let own = OWN_ATTRIBUTES.iter().find(|(own, _)| own == name);
            if let Some((_, why)) = own {
                self.mistake(&path.child("resource").child(name), &format!("is trailcast's own: {why}"));
            }
        }
        let size = otlp.max_request_size.0.0;
        if !(1 << 10..=LARGEST_REQUEST).contains(&size) {
            self.mistake(&path.child("max_request_size"), "must be from `1KiB` to `4032KiB`");
        }
        for (key, duration) in [
            ("connect_timeout", otlp.connect_timeout.0),
            ("request_timeout", otlp.request_timeout.0),
            ("keepalive", otlp.keepalive.0),
            ("give_up_after", otlp.give_up_after.0),
        ] {
            if duration.is_zero() {
                self.mistake(&path.child(key), "must be above zero");
            }
        }
        if let Some(tls) = &otlp.tls {
            if endpoint.scheme() != "https" {
                self.mistake(&path.child("tls"), "needs an `endpoint` that begins with `https://`");
            }
            if tls.certificate_file.is_some() != tls.key_file.is_some() {
                self.mistake(&path.child("tls"), "`certificate_file` and `key_file` go together");
            }
        }
        SinkConfig::Otlp(Box::new(OtlpConfig {
            endpoint,
            protocol: otlp.protocol,
            compression: otlp.compression,
            headers,
            raw: otlp.raw,
            resource: otlp.resource,
            max_request_size: usize::try_from(size).unwrap_or(usize::MAX),
            max_request_events: otlp.max_request_events as usize,
            connect_timeout: otlp.connect_timeout.0,
            request_timeout: otlp.request_timeout.0,
            keepalive: otlp.keepalive.0,
            give_up_after: otlp.give_up_after.0,
            tls: otlp.tls.unwrap_or_default(),
            max_event_age: otlp.max_event_age.map(|age| age.0),
            max_event_age_policy: otlp.max_event_age_policy,
            backfill: BackfillConfig {
                older_than: otlp.backfill.older_than.0,
                instance_id: otlp.backfill.instance_id,
                split: otlp.backfill.split,
            },
        }))
    }

    pub(super) fn clear_secrets(&mut self, endpoint: &Url, headers: &BTreeMap<String, Secret>, path: &Path) {
        let clear = endpoint.scheme() == "http" && !super::convert::is_loopback(endpoint);
        if clear && headers.values().any(|value| !matches!(value, Secret::Inline(_))) {
            self.warn(path, "without `https://` the secrets of `headers` cross the network in the clear");
        }
    }

    pub(super) fn otlp_endpoint(&mut self, mut url: Url, protocol: OtlpProtocol, path: &Path) -> Url {
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            self.mistake(path, "must begin with `http://` or `https://` and name a host");
            return url;
        }
        if !url.username().is_empty() || url.password().is_some() {
            self.mistake(path, "must hold no user name or password: `headers` is the place for secrets");
        }
        if url.query().is_some() || url.fragment().is_some() {
            self.mistake(path, "must end with the host or a path: no `?` and no `#`");
        }
        match protocol {
            OtlpProtocol::Grpc if url.path() != "/" => self.mistake(path, "must end with the port: gRPC has no path"),
            OtlpProtocol::Grpc => {}
            OtlpProtocol::Http => {
                let base = url.path().trim_end_matches('/');
                let whole = if base.ends_with("/v1/logs") { base.to_owned() } else { format!("{base}/v1/logs") };
                url.set_path(&whole);
            }
        }
        url
    }

    pub(super) fn headers(&mut self, headers: BTreeMap<String, SecretEntry>, path: &Path) -> BTreeMap<String, Secret> {
        let mut converted = BTreeMap::new();
        for (name, entry) in headers {
            let path = path.child(&name);
            let lower = name.to_ascii_lowercase();
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                self.mistake(&path, "is no name of a header");
            } else if OWN_HEADERS.contains(&lower.as_str()) || lower.ends_with("-bin") {
                self.mistake(&path, "is trailcast's own to set");
            }
            let secret = match entry {
                // Most headers are none: a tenant, a data set.
                SecretEntry::Inline(text) if !holds_secrets(&lower) => Secret::Inline(text.into()),
                entry => self.secret(entry, &path),
            };
            if let Secret::Inline(text) = &secret
                && HeaderValue::from_str(secrecy::ExposeSecret::expose_secret(text)).is_err()
            {
                self.mistake(&path, "holds characters that no header may hold");
            }
            converted.insert(lower, secret);
        }
        converted
    }
}

/// By its name, as people name such headers.
fn holds_secrets(name: &str) -> bool {
    ["authorization", "token", "secret", "password", "key", "cookie"].iter().any(|word| name.contains(word))
}

const fn max_request_size() -> Written<Size> {
    Written(Size(1 << 20))
}

const fn max_request_events() -> u32 {
    1000
}
