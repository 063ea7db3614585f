//! GenAuth (Authing V3): user action logs.
//!
//! Success is `statusCode` 200 in the body, whatever the HTTP status says. Fields, codes and both ways in
//! after the vendor's OpenAPI document and SDKs.

mod auth;

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use url::Url;

use self::auth::{Auth, Token};
use super::failure::NOTHING_THERE;
use super::http::{Answer, Http, parsed};
use super::list::{List, count, int, text, under_another_name};
use super::members::{Said, members};
use super::{BuildError, Connections, FetchError, ServerClock, Turn};
use crate::config::{GenauthAuth, GenauthConfig, GenauthFilter, StreamConfig};
use crate::event::Source;
use crate::page::{Page, PageRequest, Position};
use crate::quote::{Secrets, quote};

const LOGS: &str = "/api/v3/get-user-action-logs";

/// The client.
#[derive(Debug)]
pub(super) struct Api {
    http: Http,
    url: Url,
    filter: GenauthFilter,
    mode: GenauthAuth,
    auth: Auth,
}

/// A request that was refused.
struct Refusal {
    error: FetchError,
    /// What other credentials would mend.
    wants: Wants,
    /// The API itself says so, and not that nothing is there.
    by_api: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wants {
    Nothing,
    /// 401: a fresh management token.
    Token,
    /// 1305: a date that the server believes.
    Date,
    /// 1306: a fresh nonce.
    Nonce,
}

impl From<FetchError> for Refusal {
    fn from(error: FetchError) -> Self {
        Self { error, wants: Wants::Nothing, by_api: false }
    }
}

impl Borrow<FetchError> for Refusal {
    fn borrow(&self) -> &FetchError {
        &self.error
    }
}

impl Api {
    pub(super) fn build(
        stream: &StreamConfig,
        config: &GenauthConfig,
        connections: &mut Connections,
    ) -> Result<Self, BuildError> {
        Ok(Self {
            http: Http::build(stream, &config.endpoint, connections)?,
            url: join(&config.endpoint, LOGS),
            filter: config.filter.clone(),
            mode: config.auth,
            auth: Auth::build(config)?,
        })
    }

    pub(super) fn clock(&self) -> &ServerClock {
        self.http.clock()
    }

    pub(super) async fn fetch(&self, request: &PageRequest, turn: &mut Turn<'_>) -> Result<Page, FetchError> {
        let body = self.body(request)?;
        let refusal = match self.ask(&body, request, turn).await {
            Ok(page) => return Ok(page),
            Err(refusal) => refusal,
        };
        // Once each, as the API's documentation says; a second refusal is final.
        match (self.mode, refusal.wants) {
            (GenauthAuth::Token, Wants::Token) | (GenauthAuth::Signature, Wants::Date | Wants::Nonce) => {
                self.ask(&body, request, turn).await.map_err(|refusal| refusal.error)
            }
            _ => Err(refusal.error),
        }
    }

    async fn ask(
        &self,
        body: &Map<String, Value>,
        request: &PageRequest,
        turn: &mut Turn<'_>,
    ) -> Result<Page, Refusal> {
        let bytes = Value::Object(body.clone()).to_string().into_bytes();
        match self.mode {
            GenauthAuth::Token => {
                let token = self.auth.token(&self.http, turn).await?;
                let headers = || Ok(self.auth.bearer(&token));
                let room = turn.room().await;
                let result = turn
                    .send(turn.rank, async {
                        let answer = self.http.post(&self.url, headers, bytes, room).await?;
                        self.read(answer, request, Some(token.clone())).await
                    })
                    .await;
                if result.as_ref().is_err_and(|refusal| refusal.wants == Wants::Token) {
                    self.auth.forget(&token).await;
                }
                result
            }
            GenauthAuth::Signature => {
                // Signed when its turn has come: a date that waited in line would be refused.
                let headers = || self.auth.signed(LOGS, body, self.http.clock().signing());
                let room = turn.room().await;
                turn.send(turn.rank, async {
                    self.read(self.http.post(&self.url, headers, bytes, room).await?, request, None).await
                })
                .await
            }
        }
    }

    /// The page in `answer`, whose date then counts.
    async fn read(&self, answer: Answer, request: &PageRequest, token: Option<Token>) -> Result<Page, Refusal> {
        let (dated, first) = (answer.dated, is_first(request));
        let read = move |answer: &Answer| {
            let secrets: Vec<&str> = token.iter().map(Token::text).collect();
            read(answer, first, &secrets)
        };
        let result = parsed(answer, read).await;
        match (&result, dated) {
            (Ok(_), _) => self.http.believe(dated),
            (Err(Refusal { wants: Wants::Date, .. }), Some(dated)) => self.http.clock().sign_as(dated),
            _ => {}
        }
        result
    }

    /// All nine parameters; those without a filter are left out.
    fn body(&self, request: &PageRequest) -> Result<Map<String, Value>, FetchError> {
        let page = match request.position {
            Position::First => 1,
            Position::Number(page) => page,
            Position::Token(_) => return Err(FetchError::refused("genauth has page numbers, no tokens")),
        };
        let filter = &self.filter;
        let all = [
            ("requestId", json!(filter.request_id)),
            ("clientIp", json!(filter.client_ip)),
            ("eventType", json!(filter.event_type)),
            ("userId", json!(filter.user_id)),
            ("appId", json!(filter.app_id)),
            ("start", json!(request.from)),
            ("end", json!(request.to)),
            ("success", json!(filter.success)),
            ("pagination", json!({ "page": page, "limit": request.limit })),
        ];
        let present = all.into_iter().filter(|(_, value)| !value.is_null());
        Ok(present.map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

/// The address of `path` behind `endpoint`, which may have a path of its own (a private deployment's prefix).
fn join(endpoint: &Url, path: &str) -> Url {
    let mut url = endpoint.clone();
    url.set_path(&format!("{}{path}", endpoint.path().trim_end_matches('/')));
    url
}

fn is_first(request: &PageRequest) -> bool {
    matches!(request.position, Position::First | Position::Number(1))
}

members! {
    /// The answer. A spelling that can mean only one thing must not stop a stream; another type is an error.
    struct Envelope<'a> {
        status_code: &'a RawValue = "statusCode",
        data: Data<'a> = "data",
    }
}

#[derive(Default)]
enum Data<'a> {
    #[default]
    Missing,
    /// An empty object, as writers without types make of one.
    Nothing,
    Members(Members<'a>),
}

members! {
    struct Members<'a> {
        total_count: &'a RawValue = "totalCount",
        list: List<'a> = "list",
    }
}

impl Said for Data<'_> {
    fn is_said_by(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Members(one), Self::Members(other)) => one.is_said_by(other),
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Data<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor(PhantomData))
    }
}

/// What it does not take, such as a number, is no page.
struct DataVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for DataVisitor<'a> {
    type Value = Data<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        Members::deserialize(MapAccessDeserializer::new(members)).map(Data::Members)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        match elements.next_element::<IgnoredAny>()? {
            None => Ok(Data::Nothing),
            Some(_) => Err(A::Error::invalid_type(Unexpected::Seq, &self)),
        }
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Data::Missing)
    }
}

members! {
    /// The answer of a request that failed: its `data` may be anything.
    struct Failed<'a> {
        status_code: &'a RawValue = "statusCode",
        api_code: &'a RawValue = "apiCode",
        message: &'a RawValue = "message",
    }
}

/// The page in `answer`. Parsed once when it is one: pages are large, refusals are not.
fn read(answer: &Answer, first: bool, secrets: &[&str]) -> Result<Page, Refusal> {
    let complaint = match serde_json::from_str::<Envelope<'_>>(answer.body.text()) {
        Ok(envelope) if answer.status.is_success() && int(envelope.status_code) == Some(200) => {
            return Ok(page(envelope, answer, first, secrets)?);
        }
        Ok(_) => FetchError::malformed("the answer has no statusCode"),
        Err(error) => answer.body.complaint(&error),
    };
    Err(refusal(answer, secrets).unwrap_or(Refusal::from(complaint)))
}

/// The page in `answer`, the first of its run or not.
#[cfg(any(test, fuzzing))]
pub(super) fn page_of(answer: &Answer, first: bool) -> Result<Page, FetchError> {
    read(answer, first, &["a secret"]).map_err(|refusal| refusal.error)
}

/// The API documents `data` with both members for every answer that succeeds: an answer without them is none, whatever its
/// `statusCode` says. A count of none beside no list, and no count beside an empty one, can mean only one thing.
/// One that lists what it has under another name is none, either.
fn page(envelope: Envelope<'_>, answer: &Answer, first: bool, secrets: &[&str]) -> Result<Page, FetchError> {
    let Members { total_count, list } = match envelope.data.unwrap_or_default() {
        Data::Members(members) => members,
        Data::Nothing => Members { total_count: None, list: Some(List::Nothing) },
        Data::Missing => return Err(FetchError::malformed("the answer has no data")),
    };
    let list = list.unwrap_or_default();
    if matches!(list, List::Missing | List::Nothing) {
        under_another_name("list", answer.body.text(), secrets)?;
    }
    let total = count(total_count)?;
    let (rows, bare) = match (list, total) {
        (List::Rows(rows), _) => (rows, false),
        (List::Nothing, _) => (Vec::new(), total.is_none()),
        (List::Missing, Some(_)) => (Vec::new(), true),
        (List::Missing, None) => {
            return Err(FetchError::malformed("the answer's data has neither totalCount nor list"));
        }
        (List::Wrong, _) => return Err(FetchError::malformed("the answer's list is no list")),
    };
    match total {
        Some(1..) if first && rows.is_empty() => {
            return Err(FetchError::malformed("the answer counts records but lists none"));
        }
        Some(total) if total < rows.len() as u64 => {
            return Err(FetchError::malformed("the answer counts fewer records than it lists"));
        }
        _ => {}
    }
    let (records, held) = answer.body.listed(Source::Genauth, &rows);
    Ok(Page { records, total, next_token: None, held, bare })
}

/// What the server refused, if it says so in its envelope or by its HTTP status. The one place where its codes
/// are sorted by what to do.
fn refusal(answer: &Answer, secrets: &[&str]) -> Option<Refusal> {
    let failed = serde_json::from_str::<Failed<'_>>(answer.body.text()).unwrap_or_default();
    let Some(status) = int(failed.status_code).filter(|status| *status != 200) else {
        return (!answer.status.is_success()).then(|| Refusal {
            error: FetchError::of_status(answer.status, answer.retry_after),
            wants: if answer.status.as_u16() == 401 { Wants::Token } else { Wants::Nothing },
            by_api: false,
        });
    };
    let code = int(failed.api_code);
    let said = quote(&text(failed.message).unwrap_or_default(), &Secrets::of(secrets.iter().copied()));
    let message = match code {
        Some(code) => format!("statusCode {status}, apiCode {code}: {said}"),
        None => format!("statusCode {status}: {said}"),
    };
    let mut wants = Wants::Nothing;
    let error = match (code, status) {
        // Before all others: a throttling gateway may add any code.
        (_, 429) => FetchError::throttled(message, None),
        // The server does not believe the signature's date. A second signature uses the date of this very answer, so
        // what remains is not ours to mend.
        (Some(1305), _) => {
            wants = Wants::Date;
            FetchError::credentials(format!("{message}; look at this machine's clock and the server's"))
        }
        // It has seen the nonce: something on the way sends requests twice. The next nonce is another.
        (Some(1306), _) => {
            wants = Wants::Nonce;
            FetchError::api(message)
        }
        // Wrong key, method, version or date format: no retry makes a signature right.
        (Some(1300..=1304), _) => {
            FetchError::credentials(format!("{message}; look at access_key_id and access_key_secret"))
        }
        // Not logged in, or the token has run out before its time.
        (Some(2020), _) | (_, 401) => {
            wants = Wants::Token;
            FetchError::credentials(format!("{message}; look at access_key_id, access_key_secret and user_pool_id"))
        }
        // The plan does not include the log, or the bill is not paid.
        (Some(4021), _) | (_, 402) => FetchError::refused(format!("{message}; look at the vendor's plan and billing")),
        (_, 404 | 405) => FetchError::refused(format!("{message}; {NOTHING_THERE}")),
        (_, 403) => FetchError::refused(format!("{message}; the access key may not read the action log")),
        // The request itself; 499 is the vendor's generic "the client's fault".
        (_, 400..=499) | (_, 501) => {
            FetchError::refused(format!("{message}; look at user_pool_id, filter and endpoint"))
        }
        // Server, gateway, maintenance, a third party (601..603), and what is not documented.
        _ => FetchError::api(message),
    };
    let by_api = !matches!(status, 404 | 405);
    Some(Refusal { error: FetchError { retry_after: answer.retry_after, ..error }, wants, by_api })
}
