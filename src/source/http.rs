//! One HTTP request and its answer: TLS, proxy, timeouts, the size cap, and the clock in every answer.
//!
//! Knows nothing of either API, never sends a request twice, and follows no redirect.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde_json::value::RawValue;
use url::{Host, Url};

use super::clock::Dated;
use super::list::{MOST_ROWS, TOO_MANY};
use super::tls::Renewable;
use super::{BuildError, FailureClass, FetchError, FetchReason, ServerClock};
use crate::blocking::blocking;
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
    client: Renewable,
    /// Bytes, after decompression.
    largest: usize,
    clock: ServerClock,
}

/// What came back, whatever its status.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// How long the server asks to wait, not clamped.
    pub(super) retry_after: Option<Duration>,
    /// What time it says it is: evidence only once it is known to be the API's own answer.
    pub(super) dated: Option<Dated>,
    pub(super) body: Body,
}

impl Answer {
    /// One that succeeded, or did not.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of(success: bool, body: &[u8]) -> Self {
        let status = if success { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
        Self { status, retry_after: None, dated: None, body: Body::new(body.to_vec()) }
    }
}

/// A body, valid UTF-8: known once as text, and as bytes that records can share.
pub(super) struct Body {
    text: Arc<String>,
    bytes: Bytes,
}

/// A body as large as this is parsed off the runtime's workers: what else runs there waits for no page.
const LARGE: usize = 256 << 10;
/// Room made for a body before any of it has come, whatever length was announced.
const ROOM: usize = 256 << 10;
/// How much more than its records a body may hold before they are copied out of it: a record keeps its page's body.
const PADDING: usize = 64 << 10;

/// What `read` makes of an answer.
pub(super) async fn parsed<T: Send + 'static>(answer: Answer, read: impl FnOnce(&Answer) -> T + Send + 'static) -> T {
    if answer.body.text.len() < LARGE {
        return read(&answer);
    }
    let span = tracing::Span::current();
    blocking(move || span.in_scope(|| read(&answer))).await
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
        Ok(Self {
            client: Renewable::build(config, https, loopback)?,
            largest: usize::try_from(config.max_response_size).unwrap_or(usize::MAX),
            clock: ServerClock::new(),
        })
    }

    pub(super) fn clock(&self) -> &ServerClock {
        &self.clock
    }

    /// An answer is the API's own: what time it says it is counts.
    pub(super) fn believe(&self, dated: Option<Dated>) {
        if let Some(dated) = dated {
            self.clock.observe(dated);
        }
    }

    /// Sends one request and reads the answer to its end.
    pub(super) async fn post(&self, url: &Url, headers: HeaderMap, body: Vec<u8>) -> Result<Answer, FetchError> {
        spans::sent_to(url.host_str());
        let sent = clock::steady();
        let request = self.client.get().post(url.clone()).headers(headers).body(body);
        let response = request.send().await.map_err(|error| {
            self.client.look_again();
            FetchError::of_transport(error, "no answer")
        })?;
        let date = header(response.headers(), DATE).and_then(|date| httpdate::parse_http_date(date).ok());
        let dated = date.and_then(millis).map(|date| Dated { date, sent, received: clock::steady() });
        let status = response.status();
        spans::answered(status.as_u16());
        let retry_after = header(response.headers(), RETRY_AFTER).and_then(|asked| {
            // A date counts from the answer's own, so that no clocks need to agree, and from what the server's clock
            // is known to be; where they differ, the shorter wait costs less.
            let known = system_time(self.clock.now().sure);
            date.into_iter().chain([known]).filter_map(|from| retry_after(asked, from)).min()
        });
        let body = match self.read(response).await {
            Ok(body) => body,
            // Its status says enough.
            Err(_) if !status.is_success() => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Answer { status, retry_after, dated, body: Body::new(body) })
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Vec<u8>, FetchError> {
        let said = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        let mut body = Vec::with_capacity(said.min(self.largest).min(ROOM));
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
        let mut text =
            String::from_utf8(bytes).unwrap_or_else(|damaged| String::from_utf8_lossy(damaged.as_bytes()).into_owned());
        // It grew by doubling, and may be kept for as long as a record of it waits.
        if text.capacity() > text.len() + PADDING {
            text.shrink_to_fit();
        }
        let text = Arc::new(text);
        Self { bytes: Bytes::from_owner(Shared(Arc::clone(&text))), text }
    }

    /// What it says, without what some servers put around it: a byte order mark, NULs, blanks.
    pub(super) fn text(&self) -> &str {
        self.text.trim_matches(|c: char| c.is_whitespace() || c == '\0' || c == '\u{feff}')
    }

    /// The records of this body, sharing its memory unless it holds much else; and how many bytes they keep.
    pub(super) fn listed(&self, source: Source, records: &[&RawValue]) -> (Vec<Listed>, u64) {
        spans::listed(records.len());
        let length: usize = records.iter().map(|record| record.get().len()).sum();
        let copies = self.bytes.len() > 2 * length + PADDING;
        let listed = |record: &&RawValue| {
            let identity = record::identify(source, record.get());
            let text = record.get().as_bytes();
            let raw = if copies { Bytes::copy_from_slice(text) } else { self.bytes.slice_ref(text) };
            Listed { fingerprint: identity.fingerprint, time: identity.time, raw }
        };
        (records.iter().map(listed).collect(), if copies { length } else { self.bytes.len() } as u64)
    }

    /// Why a body that did not parse is no page.
    pub(super) fn complaint(&self, error: &serde_json::Error) -> FetchError {
        if self.text().starts_with('<') {
            return FetchError::garbled("the answer is HTML, as of a gateway or a login page; look at endpoint");
        }
        if error.to_string().starts_with(TOO_MANY) {
            return FetchError::malformed(format!(
                "the answer lists more than {MOST_ROWS} records, far more than asked for"
            ));
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

fn header(headers: &HeaderMap, name: reqwest::header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn millis(time: SystemTime) -> Option<Millis> {
    Millis::try_from(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// What no clock shows becomes the nearest time that one does.
pub(super) fn system_time(time: Millis) -> SystemTime {
    // From 1970 to the end of 9998: a `Date` has four digits for the year.
    SystemTime::UNIX_EPOCH + Duration::from_millis(time.clamp(0, 253_370_764_799_999).unsigned_abs())
}
