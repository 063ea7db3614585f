//! Clients of the two APIs: one page each, with its limits and credentials.
//!
//! A client asks once. It never retries (but for the one fresh token or fresh signature that the API itself
//! asks for), never sleeps but in its limiter, and knows nothing of windows, lanes or sinks.

mod clock;
mod failure;
mod genauth;
mod http;
mod limiter;
mod list;
mod members;
mod question;
mod scloud;
#[cfg(test)]
mod tests;
mod tls;
mod unpack;

use std::borrow::Borrow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument;

pub use clock::{Began, Doubt, ServerClock};
pub use http::install_tls_provider;
pub use limiter::{Limiter, Permit, Rank};
pub use tls::Connections;

use crate::config::{SourceConfig, StreamConfig};
use crate::event::Source;
use crate::memory::{Awaited, Room, Share};
use crate::page::{Page, PageRequest, Priority};
use crate::spans;

/// Asks one stream's API for pages. Shared by all lanes of the stream.
#[derive(Debug)]
pub struct Client {
    /// The stream's name.
    stream: String,
    tenant: String,
    question: String,
    max_rows: u64,
    limiter: Limiter,
    memory: Arc<Share>,
    largest: u64,
    api: Api,
}

#[derive(Debug)]
enum Api {
    Genauth(Box<genauth::Api>),
    Scloud(Box<scloud::Api>),
}

impl Client {
    /// A client for the stream of this name, whose answers and records `memory` counts; of `connections` it shares those that
    /// suit it. Connects to nothing yet and reads no secret: those are read for each request that needs them.
    /// [`install_tls_provider`] comes first.
    ///
    /// # Errors
    /// A key of the stream's config does not work out.
    pub fn build(
        stream: &str,
        config: &StreamConfig,
        limiter: Limiter,
        memory: Arc<Share>,
        connections: &mut Connections,
    ) -> Result<Self, BuildError> {
        let largest = config.max_response_size;
        Ok(match &config.source {
            SourceConfig::Genauth(genauth) => Self {
                stream: stream.to_owned(),
                tenant: genauth.user_pool_id.clone(),
                question: question::question(&config.source),
                max_rows: genauth.max_rows,
                limiter,
                memory,
                largest,
                api: Api::Genauth(Box::new(genauth::Api::build(config, genauth, connections)?)),
            },
            SourceConfig::Scloud(scloud) => Self {
                stream: stream.to_owned(),
                // A key that needs no project reads the account's own log. Not the key itself: it rotates,
                // and ids would change with it.
                tenant: scloud.project_id.clone().unwrap_or_else(|| "default".to_owned()),
                question: question::question(&config.source),
                max_rows: scloud.max_rows,
                limiter,
                memory,
                largest,
                api: Api::Scloud(Box::new(scloud::Api::build(config, scloud, connections)?)),
            },
        })
    }

    /// The API.
    #[must_use]
    pub fn source(&self) -> Source {
        match self.api {
            Api::Genauth(_) => Source::Genauth,
            Api::Scloud(_) => Source::Scloud,
        }
    }

    /// Whose log: part of every event id.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// What it asks for, tenant and filter, as a hash.
    #[must_use]
    pub fn question(&self) -> &str {
        &self.question
    }

    /// The most records that a page may be asked for (both APIs' documentation).
    #[must_use]
    pub fn page_limit(&self) -> u32 {
        50
    }

    /// The most rows that one run of pages may reach.
    #[must_use]
    pub fn max_rows(&self) -> u64 {
        self.max_rows
    }

    /// What counts what is held of its answers.
    #[must_use]
    pub const fn memory(&self) -> &Arc<Share> {
        &self.memory
    }

    /// How far back the API can be read; `None` when nothing is documented.
    #[must_use]
    pub fn history(&self) -> Option<Duration> {
        history(self.source())
    }

    /// The server's clock, as every answer so far tells it.
    #[must_use]
    pub fn clock(&self) -> &ServerClock {
        match &self.api {
            Api::Genauth(api) => api.clock(),
            Api::Scloud(api) => api.clock(),
        }
    }

    /// The next place in the limiter's line among those with `priority`: for one request, or for all that a window
    /// takes.
    #[must_use]
    pub fn rank(&self, priority: Priority) -> Rank {
        self.limiter.rank(priority)
    }

    /// Asks for one page that is waited for, when the limiter lets it. Dropping the future gives up the request.
    ///
    /// # Errors
    /// Sorted by what to do: see [`FailureClass`].
    pub async fn fetch(&self, request: &PageRequest, rank: Rank) -> Result<Fetched, FetchError> {
        self.fetch_for(request, rank, &Awaited::now()).await
    }

    /// The same of one that may not be waited for yet: that one waits for memory, too.
    ///
    /// # Errors
    /// As [`Client::fetch`].
    pub async fn fetch_for(&self, request: &PageRequest, rank: Rank, awaited: &Awaited) -> Result<Fetched, FetchError> {
        let Self { stream, limiter, memory, largest, .. } = self;
        let mut turn = Turn { stream, limiter, memory, largest: *largest, awaited, rank, timing: Timing::default() };
        let page = match &self.api {
            Api::Genauth(api) => api.fetch(request, &mut turn).await,
            Api::Scloud(api) => api.fetch(request, &mut turn).await,
        };
        if page.as_ref().is_err_and(|error| error.class == FailureClass::Refused) {
            self.clock().observe_refusal(request.to);
        }
        Ok(Fetched { page: page?, timing: turn.timing })
    }
}

/// How far back an API can be read; `None` when nothing is documented.
#[must_use]
pub const fn history(source: Source) -> Option<Duration> {
    match source {
        Source::Genauth => None,
        Source::Scloud => Some(scloud::HISTORY),
    }
}

/// A page and what getting it took.
#[derive(Debug)]
pub struct Fetched {
    /// The page.
    pub page: Page,
    /// For metrics.
    pub timing: Timing,
}

/// Where the time of one fetch went. A fetch is one request, but for fresh tokens and signatures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// In the limiter's line.
    pub waited: Duration,
    /// For memory.
    pub waited_for_memory: Duration,
    /// In requests, from sending to the end of the body.
    pub requests: Duration,
}

/// One fetch's way through the limiter.
struct Turn<'a> {
    stream: &'a str,
    limiter: &'a Limiter,
    memory: &'a Arc<Share>,
    largest: u64,
    awaited: &'a Awaited,
    rank: Rank,
    timing: Timing,
}

impl Turn<'_> {
    /// Room for the answer. Comes before the line of the limiter: whoever has a place in flight waits for nothing that is
    /// held.
    async fn room(&mut self) -> Room {
        let queued = tokio::time::Instant::now();
        let room = self.memory.room(self.largest, self.awaited).await;
        self.timing.waited_for_memory += queued.elapsed();
        room
    }

    /// Sends one request when it may, and tells the limiter how it went.
    async fn send<T, E: Borrow<FetchError>>(
        &mut self,
        rank: Rank,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let queued = tokio::time::Instant::now();
        let permit = self.limiter.acquire(rank).await;
        self.timing.waited += queued.elapsed();
        let sent = tokio::time::Instant::now();
        let span = spans::request(self.stream);
        let result = request.instrument(span.clone()).await;
        self.timing.requests += sent.elapsed();
        if let Err(error) = &result {
            spans::failed(&span, error.borrow().reason.label());
        }
        match &result {
            Ok(_) => permit.succeeded(),
            Err(error) if error.borrow().class == FailureClass::Throttled => {
                permit.throttled(error.borrow().retry_after);
            }
            // Says nothing of the pace; the place in flight is given back.
            Err(_) => drop(permit),
        }
        result
    }
}

/// Why a client cannot be made; each names the key of the stream's config that is at fault.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Credentials and personal data would cross a network in the clear.
    #[error("endpoint: {endpoint} is not https; set allow_http: true if that network is trusted")]
    Insecure {
        /// The endpoint.
        endpoint: url::Url,
    },
    /// Neither `https` nor `http`, or no host.
    #[error("endpoint: {endpoint} is no https:// address of a host")]
    Endpoint {
        /// The endpoint.
        endpoint: url::Url,
    },
    /// It cannot be sent in a header.
    #[error("{key}: holds a character that a header cannot")]
    Header {
        /// The key.
        key: &'static str,
    },
    /// The file of certificate authorities cannot be read.
    #[error("ca_file: cannot read {}: {error}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// It can be read, but holds no certificate.
    #[error("ca_file: {} holds no PEM certificate", path.display())]
    CaContent {
        /// The file.
        path: PathBuf,
    },
    /// TLS cannot be set up: no certificate authorities on this system, or one in `ca_file` is damaged.
    #[error("cannot set up TLS; are CA certificates installed (package ca-certificates), or is ca_file damaged?")]
    Tls {
        /// What the TLS library says.
        source: reqwest::Error,
    },
}

/// What is made of an answer with this body, the first of its run or not.
///
/// # Errors
/// It is no page.
#[cfg(any(test, fuzzing))]
pub(crate) fn page_of(source: Source, first: bool, success: bool, body: &[u8]) -> Result<Page, FetchError> {
    let answer = http::Answer::of(success, body);
    match source {
        Source::Genauth => genauth::page_of(&answer, first),
        Source::Scloud => scloud::page_of(&answer),
    }
}

/// What went wrong with one request, sorted by what to do about it. See [`FailureClass`].
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct FetchError {
    /// What to do.
    pub class: FailureClass,
    /// The metric label.
    pub reason: FetchReason,
    /// How long the server asked to wait, as it said it (not clamped).
    pub retry_after: Option<Duration>,
    /// One readable line; holds no secret and no personal data.
    pub message: String,
}

/// Failures sorted by what they ask of the caller. None ends the process, none advances state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// Slow down, and honour the wait that was asked for.
    Throttled,
    /// Try again with backoff.
    Transient,
    /// An operator must mend the credentials; retry slowly and loudly.
    Credentials,
    /// The request itself is refused; an operator must mend the config or a permission.
    Refused,
    /// The answer is not what the API documents; try again with backoff.
    Malformed,
}

impl FailureClass {
    /// Whether it stays until a person does something.
    #[must_use]
    pub const fn needs_operator(self) -> bool {
        matches!(self, Self::Credentials | Self::Refused)
    }
}

/// The closed set of values of the label `reason` of `trailcast_fetch_errors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FetchReason {
    /// HTTP 429, `statusCode` 429, `RetCode` 153.
    Throttled,
    /// No connection: refused, reset, DNS, TLS.
    Connect,
    /// No answer in time.
    Timeout,
    /// An HTTP status that says that the server, or what is before it, cannot answer now.
    HttpStatus,
    /// The API's own error, worth a retry.
    Api,
    /// The credentials are refused.
    Credentials,
    /// The request is refused: a parameter, a permission, an endpoint where nothing is served.
    Refused,
    /// The body ended early or is no such page.
    Malformed,
    /// The body is larger than the cap.
    TooLarge,
    /// It lists nothing, not even where it has listed records before: not believed.
    Doubtful,
}

impl FetchReason {
    /// Every value, for initialising metrics to zero.
    pub const ALL: [Self; 10] = [
        Self::Throttled,
        Self::Connect,
        Self::Timeout,
        Self::HttpStatus,
        Self::Api,
        Self::Credentials,
        Self::Refused,
        Self::Malformed,
        Self::TooLarge,
        Self::Doubtful,
    ];

    /// Whether it stays until a person does something.
    #[must_use]
    pub const fn needs_operator(self) -> bool {
        matches!(self, Self::Credentials | Self::Refused)
    }

    /// The label's value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::HttpStatus => "http_status",
            Self::Api => "api",
            Self::Credentials => "credentials",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Doubtful => "doubtful",
        }
    }
}
