//! The keys of trailcast's own traces as they are written, what they become, and what only they can get wrong.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::check::Path;
use super::convert::Converter;
use super::file::SecretEntry;
use super::syntax::Written;
use super::{OtlpProtocol, Secret};

/// trailcast's own traces: spans for each window that a lane reads, delivers and commits.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Traces {
    /// Sends them by the OpenTelemetry protocol over gRPC.
    pub otlp: TracesOtlp,
}

/// Traces by the OpenTelemetry protocol, over gRPC.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TracesOtlp {
    /// Where to send, such as `http://collector:4317`; for `https://` the system's certificate authorities count.
    pub endpoint: Written<Url>,
    /// More headers of each request: a text, or where a secret is.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretEntry>,
    /// The share of windows that are traced, each with all of its spans or not at all.
    #[serde(default = "all")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample_ratio: f64,
}

/// Where trailcast's own traces go.
#[derive(Debug, Clone)]
pub struct TracesConfig {
    /// A scheme, a host and a port.
    pub endpoint: Url,
    /// By their names.
    pub headers: BTreeMap<String, Secret>,
    /// From 0 to 1. Default 1.
    pub sample_ratio: f64,
}

impl Converter<'_> {
    pub(super) fn traces(&mut self, traces: Traces, path: &Path) -> TracesConfig {
        let (otlp, path) = (traces.otlp, path.child("otlp"));
        let headers = self.headers(otlp.headers, &path.child("headers"));
        let path = path.child("endpoint");
        self.clear_secrets(&otlp.endpoint.0, &headers, &path);
        let endpoint = self.otlp_endpoint(otlp.endpoint.0, OtlpProtocol::Grpc, &path);
        TracesConfig { endpoint, headers, sample_ratio: otlp.sample_ratio }
    }
}

const fn all() -> f64 {
    1.0
}
