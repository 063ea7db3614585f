//! SCloud (UCloud family): `GetUserOperationEvents`.
//!
//! A signed form each time: in a query string the key and signature would end up in proxies' logs. Parameters,
//! signature and codes after the vendor's public documentation.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;
use sha1::{Digest, Sha1};

use super::http::{Answer, Http, parsed};
use super::list::{List, int, text, token, under_another_name};
use super::members::members;
use super::{BuildError, Connections, FetchError, ServerClock, Turn};
use crate::config::{ScloudConfig, StreamConfig};
use crate::event::Source;
use crate::page::{Page, PageRequest, Position};
use crate::quote::{Secrets, quote};

/// "Only the last 365 days can be read."
pub(super) const HISTORY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The client.
#[derive(Debug)]
pub(super) struct Api {
    http: Http,
    config: ScloudConfig,
}

impl Api {
    pub(super) fn build(
        stream: &StreamConfig,
        config: &ScloudConfig,
        connections: &mut Connections,
    ) -> Result<Self, BuildError> {
        Ok(Self { http: Http::build(stream, &config.endpoint, connections)?, config: config.clone() })
    }

    pub(super) fn clock(&self) -> &ServerClock {
        self.http.clock()
    }

    pub(super) async fn fetch(&self, request: &PageRequest, turn: &mut Turn<'_>) -> Result<Page, FetchError> {
        let mut parameters = self.parameters(request)?;
        let key =
            self.config.private_key.read().map_err(|error| FetchError::credentials(format!("private_key: {error}")))?;
        parameters.push(("Signature".to_owned(), signature(&parameters, &key)));
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&parameters).finish();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = || Ok(HeaderMap::from_iter([(CONTENT_TYPE, kind.clone())]));
        let room = turn.room().await;
        turn.send(turn.rank, async {
            let answer = self.http.post(&self.config.endpoint, headers, form.into_bytes(), room).await?;
            let (public_key, dated) = (self.config.public_key.clone(), answer.dated);
            let page = parsed(answer, move |answer| read(answer, &[key.expose_secret(), &public_key])).await?;
            self.http.believe(dated);
            Ok(page)
        })
        .await
    }

    /// The same for every page of a run, but for the token.
    fn parameters(&self, request: &PageRequest) -> Result<Vec<(String, String)>, FetchError> {
        let mut parameters = vec![
            ("Action".to_owned(), "GetUserOperationEvents".to_owned()),
            ("PublicKey".to_owned(), self.config.public_key.clone()),
            ("BeginTime".to_owned(), request.from.div_euclid(1000).to_string()),
            ("EndTime".to_owned(), request.to.div_euclid(1000).to_string()),
            ("MaxResults".to_owned(), request.limit.to_string()),
        ];
        let mut add = |name: &str, value: &str| parameters.push((name.to_owned(), value.to_owned()));
        if let Some(project) = &self.config.project_id {
            add("ProjectId", project);
        }
        if let Some(resource) = &self.config.filter.resource_id {
            add("ResourceID", resource);
        }
        for (n, key) in self.config.filter.access_key_ids.iter().enumerate() {
            add(&format!("AccessKeyIDs.{n}"), key);
        }
        match &request.position {
            Position::First => {}
            Position::Token(token) => add("NextToken", token),
            Position::Number(_) => return Err(FetchError::refused("scloud has no page numbers")),
        }
        Ok(parameters)
    }
}

/// All parameters sorted by name, names and values joined with nothing between, then the private key: SHA-1 in
/// lower-case hex.
fn signature(parameters: &[(String, String)], key: &SecretString) -> String {
    let mut sorted: Vec<_> = parameters.iter().collect();
    sorted.sort();
    let mut hash = Sha1::new();
    for (name, value) in sorted {
        hash.update(name);
        hash.update(value);
    }
    hash.update(key.expose_secret());
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

members! {
    /// The answer. A spelling that can mean only one thing must not stop a stream; another type is an error.
    struct Envelope<'a> {
        ret_code: &'a RawValue = "RetCode",
        message: &'a RawValue = "Message",
        next_token: &'a RawValue = "NextToken",
        events: List<'a> = "Events",
    }
}

fn read(answer: &Answer, secrets: &[&str]) -> Result<Page, FetchError> {
    let envelope = serde_json::from_str::<Envelope<'_>>(answer.body.text());
    let code = envelope.as_ref().ok().and_then(|envelope| int(envelope.ret_code));
    match (envelope, code) {
        (Ok(envelope), Some(0)) if answer.status.is_success() => page(envelope, answer, secrets),
        (Ok(envelope), Some(code)) if code != 0 => {
            let said = quote(&text(envelope.message).unwrap_or_default(), &Secrets::of(secrets.iter().copied()));
            Err(refusal(code, &said, answer))
        }
        _ if !answer.status.is_success() => Err(FetchError::of_status(answer.status, answer.retry_after)),
        (Ok(_), _) => Err(FetchError::malformed("the answer has no RetCode")),
        (Err(error), _) => Err(answer.body.complaint(&error)),
    }
}

/// The page in `answer`.
#[cfg(any(test, fuzzing))]
pub(super) fn page_of(answer: &Answer) -> Result<Page, FetchError> {
    read(answer, &["a secret"])
}

/// An answer without `Events` is a page, since the API documents every member but `RetCode` as optional: what it is
/// worth is seen by whoever knows what the window should hold. But one that lists what it has under another name has not
/// nothing to list.
fn page(envelope: Envelope<'_>, answer: &Answer, secrets: &[&str]) -> Result<Page, FetchError> {
    let events = envelope.events.unwrap_or_default();
    if matches!(events, List::Missing | List::Nothing) {
        under_another_name("Events", answer.body.text(), secrets)?;
    }
    let (rows, bare) = match events {
        List::Rows(rows) => (rows, false),
        List::Missing => (Vec::new(), true),
        List::Nothing => (Vec::new(), false),
        List::Wrong => return Err(FetchError::malformed("the answer's Events are no list")),
    };
    let next_token = token(envelope.next_token)?;
    let (records, held) = answer.body.listed(Source::Scloud, &rows);
    Ok(Page { records, total: None, next_token, held, bare })
}

/// Sorts the documented `RetCode`s by what to do.
fn refusal(code: i64, said: &str, answer: &Answer) -> FetchError {
    let message = format!("RetCode {code}: {said}");
    let error = match code {
        // The gateway counts requests; slowing down is all it wants.
        153 => FetchError::throttled(message, answer.retry_after),
        // The gateway or what is behind it is late or down.
        110 | 130 | 150 => FetchError::api(message),
        // Signature missing or wrong, user or token unknown: no retry makes a key right.
        170 | 171 | 172 | 174 => FetchError::credentials(format!("{message}; look at public_key and private_key")),
        // Project, zone, source address, safety lock, IAM.
        292 | 293 | 294 | 295 | 299 => FetchError::refused(format!(
            "{message}; look at project_id and at what the key may do (GetUserOperationEvents, allowed addresses)"
        )),
        // The service behind the gateway; the vendor's SDK retries these.
        2001.. => FetchError::api(message),
        // A throttling gateway may use any code.
        _ if answer.status.as_u16() == 429 => FetchError::throttled(message, answer.retry_after),
        // The request itself: 160, 161, 230 and whatever comes.
        _ => FetchError::refused(format!("{message}; look at endpoint, project_id and filter")),
    };
    FetchError { retry_after: answer.retry_after, ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The three published examples.
    #[test]
    fn signs_as_the_vendor_does() {
        for (user, region, expected) in [
            ("ucloudsomeone@example.com1296235120854146120", "cn-bj2", "cba5cf5ec4d4233d206b1b54951e3787350a642f"),
            ("john.doe@example.com1296235120854146120", "vn-sng", "52fc1191f026532c9100946c6a863a90d5f766ed"),
            ("someone@example.com1296235120854146120", "cn-bj2", "4201919d267504385deb93af19e0197870fed36b"),
        ] {
            let parameters =
                [("Region", region), ("Action", "DescribeUHostInstance"), ("Limit", "10"), ("PublicKey", user)]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()));
            let key = SecretString::from("46f09bb9fab4f12dfc160dae12273d5332b5debe");
            assert_eq!(signature(&parameters, &key), expected);
        }
    }
}
