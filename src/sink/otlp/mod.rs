//! OTLP logs, over HTTP or gRPC: to the OpenTelemetry Collector, Loki, or whoever else takes them. At least once, with
//! the same bytes each time.
//!
//! A part's events are encoded once, as requests of one resource each: Loki answers 204 and keeps nothing of some
//! entries where one request holds several of its streams, so resources are never mixed. Requests go out one after the
//! other, in time order. What an answer means is decided in [`answer`]; which records are refused is found out by
//! [`search`], and what is known of a part is kept while the lane tries it again.

mod answer;
mod grpc;
mod http;
mod plan;
mod request;
mod search;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};

pub use answer::OtlpError;

use self::answer::Answer;
use self::grpc::Grpc;
use self::http::Http;
use self::search::Search;
use super::SinkError;
use crate::clock;
use crate::config::{OtlpConfig, OtlpProtocol};
use crate::dead_letter::Refused;
use crate::event::{EventId, StreamContext};
use crate::metrics::SinkReason;
use crate::state::admit::New;

/// See the module.
pub struct OtlpSink {
    config: OtlpConfig,
    /// Made when first needed, and anew after it could not connect.
    client: Mutex<Option<Arc<Client>>>,
    /// By stream: the part that its lane tries, if it was not delivered at once.
    tried: Mutex<HashMap<String, Tried>>,
    largest: Mutex<Largest>,
}

/// So many parts in a row that were not throttled, and larger requests are tried again.
const CALM_PARTS: u32 = 16;

/// The most bytes of a request: what the config says, or less while larger ones are throttled however often they are
/// tried, as Loki does with what is above its burst.
struct Largest {
    bytes: usize,
    /// Parts that were not throttled since it was last changed.
    calm: u32,
}

enum Client {
    Http(Http),
    Grpc(Grpc),
}

/// What is known of a part.
struct Tried {
    /// Its events.
    ids: Vec<EventId>,
    search: Search,
}

impl OtlpSink {
    /// Asks nobody.
    #[must_use]
    pub fn new(config: OtlpConfig) -> Self {
        let largest = Mutex::new(Largest { bytes: config.max_request_size, calm: 0 });
        Self { config, client: Mutex::default(), tried: Mutex::default(), largest }
    }

    /// Its config.
    #[must_use]
    pub const fn config(&self) -> &OtlpConfig {
        &self.config
    }

    /// As [`super::Sink::deliver`].
    ///
    /// # Errors
    /// See [`SinkError`].
    pub async fn deliver(&self, stream: &StreamContext, part: &[New]) -> Result<Vec<Refused>, SinkError> {
        let mut tried = self.tried(stream, part);
        match self.search(stream, &mut tried.search).await {
            Ok(()) => {
                self.learn(tried.search.found_largest());
                Ok(tried.search.into_refused())
            }
            Err(error) => {
                lock(&self.tried).insert(stream.name.clone(), tried);
                Err(error)
            }
        }
    }

    /// Whether the receiver can be reached and takes our credentials: sends a request with nothing in it, which no
    /// receiver keeps. Loki refuses it for being empty, which says as much.
    ///
    /// # Errors
    /// See [`SinkError`].
    pub async fn probe(&self) -> Result<(), SinkError> {
        let headers = self.headers()?;
        let client = self.client()?;
        match self.send(&client, &headers, Bytes::new()).await {
            Answer::Later(error) => Err(error.into()),
            Answer::Dropped { message } => Err(OtlpError::new(SinkReason::Refused, message).into()),
            _ => Ok(()),
        }
    }

    /// What is known of this part, or that nothing is.
    fn tried(&self, stream: &StreamContext, part: &[New]) -> Tried {
        let ids: Vec<EventId> = part.iter().map(|new| new.admitted.id).collect();
        let before = lock(&self.tried).remove(&stream.name);
        before.filter(|tried| tried.ids == ids).unwrap_or_else(|| {
            let (groups, refused) = plan::plan(&self.config, stream, part, clock::now());
            let search = Search::new(groups, refused, lock(&self.largest).bytes, self.config.max_request_events);
            Tried { ids, search }
        })
    }

    /// Of a part that is delivered: what it `found`, if it was throttled.
    fn learn(&self, found: Option<usize>) {
        let mut largest = lock(&self.largest);
        match found {
            Some(bytes) => *largest = Largest { bytes: bytes.min(largest.bytes), calm: 0 },
            None if largest.calm + 1 < CALM_PARTS => largest.calm += 1,
            None => {
                *largest = Largest { bytes: largest.bytes.saturating_mul(2).min(self.config.max_request_size), calm: 0 }
            }
        }
    }

    /// Until it is known of each record whether it is delivered.
    async fn search(&self, stream: &StreamContext, search: &mut Search) -> Result<(), SinkError> {
        let mut progressed = false;
        loop {
            while let Some(request) = search.next() {
                let headers = self.headers()?;
                let client = self.client()?;
                let answer = self.send(&client, &headers, request).await;
                if matches!(&answer, Answer::Later(error) if matches!(error.reason, SinkReason::Connect)) {
                    // Files of `tls` may have been replaced; the next try reads them.
                    lock(&self.client).take_if(|kept| Arc::ptr_eq(kept, &client));
                }
                search.answered(answer).map_err(|error| OtlpError { progressed, ..error })?;
                progressed = true;
            }
            let behind = search.take_behind();
            if behind.is_empty() {
                return Ok(());
            }
            search.add(plan::as_backfill(&self.config, stream, behind));
        }
    }

    async fn send(&self, client: &Client, headers: &[(&str, SecretString)], request: Bytes) -> Answer {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.expose_secret())).collect();
        match client {
            Client::Http(http) => http.send(&self.config, &headers, &request).await,
            Client::Grpc(grpc) => grpc.send(&self.config, &headers, &request).await,
        }
    }

    /// As they are now: a secret's file may be replaced at any time.
    fn headers(&self) -> Result<Vec<(&str, SecretString)>, SinkError> {
        let read = |(name, secret): (&'_ String, &crate::config::Secret)| match secret.read() {
            Ok(value) => Ok(value),
            Err(error) => Err(OtlpError::new(SinkReason::Credentials, format!("headers.{name}: {error}"))),
        };
        let headers = self.config.headers.iter().map(|(name, secret)| Ok((name.as_str(), read((name, secret))?)));
        Ok(headers.collect::<Result<_, OtlpError>>()?)
    }

    fn client(&self) -> Result<Arc<Client>, OtlpError> {
        let mut kept = lock(&self.client);
        if let Some(client) = &*kept {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(match self.config.protocol {
            OtlpProtocol::Http => Client::Http(Http::build(&self.config)?),
            OtlpProtocol::Grpc => Client::Grpc(Grpc::build(&self.config)?),
        });
        *kept = Some(Arc::clone(&client));
        Ok(client)
    }
}

/// What is kept is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
