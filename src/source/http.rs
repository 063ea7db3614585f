//! One HTTP request and its answer: TLS, proxy, timeouts, the size cap, and the clock in every answer.
//!
//! Knows nothing of either API, never sends a request twice, and follows no redirect.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, DATE, HeaderMap, RETRY_AFTER};
use serde_json::value::RawValue;
use url::{Host, Url};

use super::clock::Dated;
use super::list::{MOST_ROWS, TOO_MANY};
use super::members::TWO_THINGS;
use super::tls::{Connections, Renewable};
use super::unpack::{self, Gunzip, check_size};
use super::{BuildError, FetchError, ServerClock};
use crate::blocking::blocking;
use crate::clock;
use crate::config::StreamConfig;
use crate::event::{Listed, Millis, Source};
use crate::memory::{Hold, Room};
use crate::record;
use crate::retry::retry_after;
use crate::spans;

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
    client: Arc<Renewable>,
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
        let room = crate::memory::Budget::new(1 << 20, 1 << 20, 1).share().small_room();
        let body = Body::new(String::from_utf8_lossy(body).into_owned(), room);
        Self { status, retry_after: None, dated: None, body }
    }
}

/// A body, valid UTF-8: known once as text, and as bytes that records can share.
pub(super) struct Body {
    text: Arc<String>,
    bytes: Bytes,
    /// For as long as it is looked at; what is kept of it is counted for itself.
    room: Room,
}

/// Why a body is not had.
pub(super) enum Unread {
    Failed(FetchError),
    /// There is no room for so many bytes now.
    Outgrown(u64),
}

/// A body as large as this is parsed off the runtime's workers: what else runs there waits for no page.
const LARGE: usize = 256 << 10;
/// What a record takes beside its text, in bytes, while it is looked at and until it is committed.
pub(super) const ROW: u64 = 256;
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
    pub(super) fn build(
        config: &StreamConfig,
        endpoint: &Url,
        connections: &mut Connections,
    ) -> Result<Self, BuildError> {
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
        Ok(Self { client: connections.of(config, https, loopback)?, clock: ServerClock::new() })
    }

    pub(super) fn clock(&self) -> &ServerClock {
        &self.clock
    }

    /// An answer is the API's own: what time it says it is counts, and that it says none.
    pub(super) fn believe(&self, dated: Option<Dated>) {
        match dated {
            Some(dated) => self.clock.observe(dated),
            None => self.clock.observe_undated(),
        }
    }

    /// Sends one request and reads the answer to its end, into `room`. Where the body turns out to be larger than that, it
    /// is asked for again once there is more: nobody waits for room who holds some. `headers` are made for each time.
    pub(super) async fn post(
        &self,
        url: &Url,
        headers: impl Fn() -> Result<HeaderMap, FetchError>,
        body: Vec<u8>,
        mut room: Room,
    ) -> Result<Answer, FetchError> {
        spans::sent_to(url.host_str());
        loop {
            room.ready().await;
            let sent = clock::steady();
            let request = self.client.get().post(url.clone()).headers(headers()?).header(ACCEPT_ENCODING, "gzip");
            let request = request.body(body.clone());
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
            let text = match read(response, &mut room).await {
                Ok(text) => text,
                // Its status says enough.
                Err(_) if !status.is_success() => String::new(),
                Err(Unread::Failed(error)) => return Err(error),
                Err(Unread::Outgrown(bytes)) => {
                    room.outgrown(bytes);
                    continue;
                }
            };
            return Ok(Answer { status, retry_after, dated, body: Body::new(text, room) });
        }
    }
}

/// The text of an answer. What room it takes is made before it comes.
async fn read(mut response: reqwest::Response, room: &mut Room) -> Result<String, Unread> {
    let largest = room.largest();
    let packed = header(response.headers(), CONTENT_ENCODING)
        .is_some_and(|coding| ["gzip", "x-gzip"].iter().any(|name| coding.trim().eq_ignore_ascii_case(name)));
    let cut = |error| Unread::Failed(FetchError::of_transport(error, "the answer ended early"));
    let body = if packed {
        let mut gunzip = Gunzip::new(unpack::Body::new(0, room));
        while let Some(chunk) = response.chunk().await.map_err(cut)? {
            gunzip = gunzip.take(&chunk).await?;
        }
        gunzip.end()?.into_bytes()
    } else {
        let mut body = unpack::Body::new(response.content_length().unwrap_or(0), room);
        while let Some(chunk) = response.chunk().await.map_err(cut)? {
            body.take(&chunk)?;
        }
        body.into_bytes()
    };
    room.took(body.len() as u64);
    // A byte that is no UTF-8 becomes U+FFFD: a stream must not stand still for one damaged name, and the same
    // bytes give the same record at each read.
    let mut text = match String::from_utf8(body) {
        Ok(text) => text,
        Err(damaged) => {
            let body = damaged.as_bytes();
            let mended =
                |chunk: std::str::Utf8Chunk<'_>| chunk.valid().len() + 3 * usize::from(!chunk.invalid().is_empty());
            let length = body.utf8_chunks().map(mended).sum();
            check_size(length, largest)?;
            let both = (body.len() + length) as u64;
            if !room.grow(both) {
                return Err(Unread::Outgrown(both));
            }
            room.took(both);
            String::from_utf8_lossy(body).into_owned()
        }
    };
    // It may be kept for as long as a record of it waits.
    if text.capacity() > text.len() + PADDING {
        text.shrink_to_fit();
    }
    Ok(text)
}

impl Body {
    fn new(text: String, room: Room) -> Self {
        let text = Arc::new(text);
        Self { bytes: Bytes::from_owner(Shared(Arc::clone(&text))), text, room }
    }

    /// What it says, without what some servers put around it: a byte order mark, NULs, blanks.
    pub(super) fn text(&self) -> &str {
        self.text.trim_matches(|c: char| c.is_whitespace() || c == '\0' || c == '\u{feff}')
    }

    /// The records of this body, sharing its memory unless it holds much else; and what they hold of it.
    pub(super) fn listed(&self, source: Source, records: &[&RawValue]) -> (Vec<Listed>, Hold) {
        spans::listed(records.len());
        let length: usize = records.iter().map(|record| record.get().len()).sum();
        let copies = self.bytes.len() > 2 * length + PADDING;
        let listed = |record: &&RawValue| {
            let identity = record::identify(source, record.get());
            let text = record.get().as_bytes();
            let raw = if copies { Bytes::copy_from_slice(text) } else { self.bytes.slice_ref(text) };
            Listed { fingerprint: identity.fingerprint, time: identity.time, raw }
        };
        let kept = if copies { length } else { self.bytes.len() } as u64;
        let held = self.room.hold(kept + records.len() as u64 * ROW);
        (records.iter().map(listed).collect(), held)
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
        // Its words are ours.
        if error.to_string().starts_with(TWO_THINGS) {
            return FetchError::malformed(error.to_string());
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
