//! OTLP logs, over HTTP or gRPC: to the OpenTelemetry Collector, Loki, or whoever else takes them. At least once, with
//! the same bytes each time.
//!
//! A part's events are encoded once, as requests of one resource each: Loki answers 204 and keeps nothing of some
//! entries where one request holds several of its streams, so resources are never mixed. Requests go out one after the
//! other, in time order. What an answer means is decided in [`answer`]; which records are refused is found out by
//! [`search`], when one is given up is said in [`verdict`], and how much is sent at once in [`pace`]. What is known of a
//! part is kept while the lane tries it again, and what is known of the receiver for longer.

mod answer;
mod grpc;
mod http;
mod known;
mod pace;
mod plan;
mod request;
mod search;
#[cfg(test)]
mod tests;
mod tls;
mod verdict;
mod work;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

pub use answer::OtlpError;

use self::answer::Answer;
use self::grpc::Grpc;
use self::http::Http;
use self::known::{Known, Own};
use self::search::{Rules, Search, Turn};
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
    known: Mutex<Known>,
    /// By stream.
    own: Mutex<HashMap<String, Own>>,
    /// From which the times of searches count.
    began: Instant,
    /// When it was last seen that the receiver reads what it is sent.
    reads: Mutex<Option<Instant>>,
}

/// What is a page ago for a receiver whose successes say nothing: then it is asked again whether it reads.
const STALE: Duration = Duration::from_secs(60);
/// No request of OTLP, nor anything else in protobuf.
const NO_REQUEST: &[u8] = b"trailcast: is what is no request refused?";
/// How old an event is of which a receiver is believed at once that it is too old: [`Rules::old`].
const OLD: Duration = Duration::from_secs(3600);

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
        Self {
            known: Mutex::new(Known::new(config.max_request_events)),
            config,
            client: Mutex::default(),
            tried: Mutex::default(),
            own: Mutex::default(),
            began: Instant::now(),
            reads: Mutex::default(),
        }
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
        tried.search.known.learn(&lock(&self.known));
        let result = self.search(stream, &mut tried.search).await;
        lock(&self.known).learn(&tried.search.known);
        lock(&self.own).insert(stream.name.clone(), tried.search.own.clone());
        match result {
            Ok(()) => Ok(tried.search.into_refused()),
            Err(error) => {
                lock(&self.tried).insert(stream.name.clone(), tried);
                Err(error)
            }
        }
    }

    /// Whether the receiver can be reached, takes our credentials and answers as one of OTLP does: sends a request with
    /// nothing in it, which no receiver keeps. Loki refuses it for being empty, which says as much; a page does not. (An
    /// event that is sent as a test would be one that never happened.)
    ///
    /// # Errors
    /// See [`SinkError`].
    pub async fn probe(&self) -> Result<(), SinkError> {
        let headers = self.headers()?;
        let client = self.client()?;
        match self.send(&client, &headers, Bytes::new(), self.config.request_timeout).await {
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
            let rules = Rules {
                largest: self.config.max_request_size,
                most: self.config.max_request_events,
                request_timeout: self.config.request_timeout,
                give_up_after: self.config.give_up_after,
                old: clock::now() - clock::millis(OLD),
            };
            let own = lock(&self.own).get(&stream.name).cloned().unwrap_or_default();
            Tried { ids, search: Search::new(groups, refused, rules, lock(&self.known).clone(), own) }
        })
    }

    /// Until it is known of each record whether it is delivered.
    async fn search(&self, stream: &StreamContext, search: &mut Search) -> Result<(), SinkError> {
        loop {
            let headers = self.headers()?;
            let client = self.client()?;
            match search.next(self.began.elapsed()) {
                Turn::Send(request) => {
                    let patience = self.config.request_timeout * search.known.pace.patience();
                    let answer = self.send(&client, &headers, request, patience).await;
                    if matches!(&answer, Answer::Later(error) if matches!(error.reason, SinkReason::Connect)) {
                        // Files of `tls` may have been replaced; the next try reads them.
                        lock(&self.client).take_if(|kept| Arc::ptr_eq(kept, &client));
                    }
                    search.answered(answer, self.began.elapsed())?;
                }
                Turn::Wait(error) => return Err(error.into()),
                Turn::Done => {
                    let behind = search.take_behind();
                    if behind.is_empty() {
                        return Ok(());
                    }
                    search.add(plan::as_backfill(&self.config, stream, behind));
                }
            }
        }
    }

    /// A success that says nothing counts where it is known that the receiver reads what it is sent: what is no request it
    /// refuses. What stands before a receiver and answers 200 to whatever comes does not.
    async fn of_mute(&self, client: &Http, headers: &[(&str, &str)]) -> Answer {
        if lock(&self.reads).is_some_and(|seen| seen.elapsed() < STALE) {
            return Answer::Delivered;
        }
        let asked = Bytes::from_static(NO_REQUEST);
        match client.post(&self.config, headers, &asked, self.config.request_timeout).await {
            Ok(answer) if answer.refuses_what_it_reads() => {
                *lock(&self.reads) = Some(Instant::now());
                Answer::Delivered
            }
            Ok(answer) => {
                let message = format!(
                    "HTTP 200 without a word, and HTTP {} to what is no request: who answers does not read what it is sent; \
                     look at `endpoint`, and at what stands before the receiver",
                    answer.status
                );
                Answer::Later(OtlpError::new(SinkReason::Refused, message))
            }
            Err(error) => Answer::Later(error),
        }
    }

    async fn send(
        &self,
        client: &Client,
        headers: &[(&str, SecretString)],
        request: Bytes,
        patience: Duration,
    ) -> Answer {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.expose_secret())).collect();
        match client {
            Client::Http(http) => match http.send(&self.config, &headers, &request, patience).await {
                Answer::Mute => self.of_mute(http, &headers).await,
                answer => answer,
            },
            Client::Grpc(grpc) => grpc.send(&self.config, &headers, &request, patience).await,
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
