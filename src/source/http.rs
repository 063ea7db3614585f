//! One HTTP request and its answer: TLS, proxy, timeouts, the size cap, and the clock in every answer.
//!
//! Knows nothing of either API, never sends a request twice, and follows no redirect.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Certificate, StatusCode, redirect};
use serde_json::value::RawValue;
use url::{Host, Url};

use super::{BuildError, FailureClass, FetchError, FetchReason, ServerClock};
use crate::clock;
use crate::config::StreamConfig;
use crate::event::{Listed, Millis, Source};
use crate::record;
use crate::retry::retry_after;
use crate::telemetry::spans;

/// Chooses `ring` for all TLS of this process. Comes before the first client; a second call does nothing.
///
/// Without it `reqwest` panics where it builds a client: it is compiled without a provider of its own, as the
/// default one needs CMake and a C++ compiler.
pub fn install_tls_provider() {
    // An error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// One endpoint.
#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    /// Bytes, after decompression.
    largest: usize,
    clock: ServerClock,
}

/// What came back, whatever its status.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// How long the server asks to wait, not clamped.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Body,
}

/// A body, valid UTF-8: known once as text, and as bytes that records can share.
pub(super) struct Body {
    text: Arc<String>,
    bytes: Bytes,
}

struct Shared(Arc<String>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Http {
    pub(super) fn build(config: &StreamConfig, endpoint: &Url) -> Result<Self, BuildError> {
        let loopback = match endpoint.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => return Err(BuildError::Endpoint { endpoint: endpoint.clone() }),
        };
        let https = match endpoint.scheme() {
            "https" => true,
            "http" if loopback || config.allow_http => false,
            "http" => return Err(BuildError::Insecure { endpoint: endpoint.clone() }),
            _ => return Err(BuildError::Endpoint { endpoint: endpoint.clone() }),
        };
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("trailcast/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(config.connect_timeout)
            .timeout(config.request_timeout);
        builder = match authorities(config)? {
            Some(authorities) => builder.tls_certs_merge(authorities),
            // Without TLS no authority is needed, and a system that has none is no error.
            None if !https => builder.tls_certs_only([]),
            None => builder,
        };
        if loopback {
            // As other clients do: a proxy's loopback is not ours.
            builder = builder.no_proxy();
        }
        Ok(Self {
            client: builder.build().map_err(|source| BuildError::Tls { source })?,
            largest: usize::try_from(config.max_response_size).unwrap_or(usize::MAX),
            clock: ServerClock::new(),
        })
    }

    pub(super) fn clock(&self) -> &ServerClock {
        &self.clock
    }

    /// Sends one request and reads the answer to its end.
    pub(super) async fn post(&self, url: &Url, headers: HeaderMap, body: Vec<u8>) -> Result<Answer, FetchError> {
        spans::sent_to(url.host_str());
        let sent = clock::now();
        let request = self.client.post(url.clone()).headers(headers).body(body);
        let response = request.send().await.map_err(|error| FetchError::of_transport(error, "no answer"))?;
        let date = header(response.headers(), DATE).and_then(|date| httpdate::parse_http_date(date).ok());
        if let Some(date) = date.and_then(millis) {
            self.clock.observe(date, sent, clock::now());
        }
        let status = response.status();
        spans::answered(status.as_u16());
        let retry_after = header(response.headers(), RETRY_AFTER)
            .and_then(|asked| retry_after(asked, date.unwrap_or_else(SystemTime::now)));
        let body = match self.read(response).await {
            Ok(body) => body,
            // Its status says enough.
            Err(_) if !status.is_success() => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Answer { status, retry_after, body: Body::new(body) })
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Vec<u8>, FetchError> {
        let said = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let mut body = Vec::with_capacity(said.min(self.largest));
        let cut = |error| FetchError::of_transport(error, "the answer ended early");
        while let Some(chunk) = response.chunk().await.map_err(cut)? {
            self.check_size(body.len() + chunk.len())?;
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn check_size(&self, size: usize) -> Result<(), FetchError> {
        if size <= self.largest {
            return Ok(());
        }
        Err(FetchError::new(
            FailureClass::Malformed,
            FetchReason::TooLarge,
            format!("the answer is larger than max_response_size, {} bytes", self.largest),
        ))
    }
}

impl Body {
    /// A byte that is no UTF-8 becomes U+FFFD: a stream must not stand still for one damaged name, and the same
    /// bytes give the same record at each read.
    fn new(bytes: Vec<u8>) -> Self {
        let text =
            String::from_utf8(bytes).unwrap_or_else(|damaged| String::from_utf8_lossy(damaged.as_bytes()).into_owned());
        let text = Arc::new(text);
        Self { bytes: Bytes::from_owner(Shared(Arc::clone(&text))), text }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The records of this body, sharing its memory.
    pub(super) fn listed(&self, source: Source, records: &[&RawValue]) -> Vec<Listed> {
        spans::listed(records.len());
        let listed = |record: &&RawValue| {
            let identity = record::identify(source, record.get());
            Listed {
                fingerprint: identity.fingerprint,
                time: identity.time,
                raw: self.bytes.slice_ref(record.get().as_bytes()),
            }
        };
        records.iter().map(listed).collect()
    }

    /// Why a body that did not parse is no page.
    pub(super) fn complaint(&self, error: &serde_json::Error) -> FetchError {
        if self.text().trim_start().starts_with('<') {
            return FetchError::garbled("the answer is HTML, as of a gateway or a login page; look at endpoint");
        }
        // Line and column only: the text of the error can quote the body.
        let place = format!("line {}, column {}", error.line(), error.column());
        match error.classify() {
            serde_json::error::Category::Eof => FetchError::garbled("the answer ended early"),
            serde_json::error::Category::Data => {
                FetchError::malformed(format!("the answer is not as the API documents it ({place})"))
            }
            _ => FetchError::garbled(format!("the answer is no JSON ({place})")),
        }
    }
}

/// A value that should be a whole number, tolerating a string of one.
pub(super) fn int(value: Option<&RawValue>) -> Option<i64> {
    let text = value?.get().trim_matches('"');
    // A float as some JSON writers print whole numbers.
    text.split_once(".0")
        .filter(|(_, zeros)| zeros.bytes().all(|b| b == b'0'))
        .map_or(text, |(whole, _)| whole)
        .parse()
        .ok()
}

/// A value that should be a string; a number counts as its digits.
pub(super) fn text(value: Option<&RawValue>) -> Option<String> {
    match serde_json::from_str(value?.get()).ok()? {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn header(headers: &HeaderMap, name: reqwest::header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn millis(time: SystemTime) -> Option<Millis> {
    Millis::try_from(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis()).ok()
}

fn authorities(config: &StreamConfig) -> Result<Option<Vec<Certificate>>, BuildError> {
    let Some(path) = &config.ca_file else { return Ok(None) };
    let pem = std::fs::read(path).map_err(|source| BuildError::CaFile { path: path.clone(), source })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(authorities) if !authorities.is_empty() => Ok(Some(authorities)),
        _ => Err(BuildError::CaContent { path: path.clone() }),
    }
}
