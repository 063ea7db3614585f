//! The two ways in: a management token, and a signature on each request.
//!
//! The access key's secret is read anew for each token and each signature, so that it can be rotated.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use sha1::Sha1;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::{Refusal, join, refusal};
use crate::config::{GenauthBrand, GenauthConfig, Secret};
use crate::event::Millis;
use crate::page::Priority;
use crate::source::http::{Answer, Http, system_time};
use crate::source::list::{int, text};
use crate::source::members::members;
use crate::source::{BuildError, FailureClass, FetchError, FetchReason, Turn};

const TOKEN: &str = "/api/v3/get-management-token";
/// A token whose life is not told is asked for again after this long.
const UNTOLD_LIFE: Duration = Duration::from_secs(600);

/// What a stream proves itself with.
#[derive(Debug)]
pub(super) struct Auth {
    token_url: Url,
    key_id: String,
    key_secret: Secret,
    /// On every request, both ways in.
    common: HeaderMap,
    /// Locked while a token is asked for: who comes meanwhile waits for the same one.
    token: Mutex<Option<Token>>,
}

/// A management token. `Debug` shows nothing of it.
#[derive(Debug, Clone)]
pub(super) struct Token {
    value: SecretString,
    header: HeaderValue,
    refresh_at: Instant,
}

impl Token {
    /// For leaving it out of messages.
    pub(super) fn text(&self) -> &str {
        self.value.expose_secret()
    }
}

impl Auth {
    pub(super) fn build(config: &GenauthConfig) -> Result<Self, BuildError> {
        let value = |key, value: &str| HeaderValue::from_str(value).map_err(|_| BuildError::Header { key });
        value("access_key_id", &config.access_key_id)?;
        let pool = HeaderName::from_static(match config.brand {
            GenauthBrand::Genauth => "x-genauth-userpool-id",
            GenauthBrand::Authing => "x-authing-userpool-id",
        });
        let common = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (pool, value("user_pool_id", &config.user_pool_id)?),
            (HeaderName::from_static("x-authing-sdk-version"), HeaderValue::from_static("trailcast")),
            (HeaderName::from_static("x-authing-lang"), HeaderValue::from_static("en-US")),
        ]);
        Ok(Self {
            token_url: join(&config.endpoint, TOKEN),
            key_id: config.access_key_id.clone(),
            key_secret: config.access_key_secret.clone(),
            common,
            token: Mutex::new(None),
        })
    }

    /// The token in use, or a fresh one: one request, however many wait for it.
    pub(super) async fn token(&self, http: &Http, turn: &mut Turn<'_>) -> Result<Token, FetchError> {
        let mut current = self.token.lock().await;
        if let Some(token) = current.as_ref().filter(|token| Instant::now() < token.refresh_at) {
            return Ok(token.clone());
        }
        let secret = self.secret()?;
        let body = json!({ "accessKeyId": self.key_id, "accessKeySecret": secret.expose_secret() });
        // At once: whoever else wants it waits for this one, whether it is waited for or not.
        let room = turn.memory.small_room();
        let fresh = turn
            // Whoever asks: a live read may be waiting for the same token.
            .send(turn.limiter.rank(Priority::Live), async {
                let answer = {
                    let (headers, body) = (|| Ok(self.common.clone()), body.to_string().into_bytes());
                    http.post(&self.token_url, headers, body, room).await?
                };
                granted(&answer, secret.expose_secret())
            })
            .await
            .map_err(not_granted)?;
        *current = Some(fresh.clone());
        Ok(fresh)
    }

    /// Drops `token`, which was refused, unless another has taken its place.
    pub(super) async fn forget(&self, token: &Token) {
        let mut current = self.token.lock().await;
        if current.as_ref().is_some_and(|current| current.text() == token.text()) {
            *current = None;
        }
    }

    pub(super) fn bearer(&self, token: &Token) -> HeaderMap {
        let mut headers = self.common.clone();
        headers.insert(AUTHORIZATION, token.header.clone());
        headers
    }

    /// The headers of a POST of `body` to `path`, signed at the server's `now`.
    pub(super) fn signed(&self, path: &str, body: &Map<String, Value>, now: Millis) -> Result<HeaderMap, FetchError> {
        let nonce = format!("{:032x}", rand::random::<u128>());
        self.signed_with(path, body, &httpdate::fmt_http_date(system_time(now)), &nonce)
    }

    fn signed_with(
        &self,
        path: &str,
        body: &Map<String, Value>,
        date: &str,
        nonce: &str,
    ) -> Result<HeaderMap, FetchError> {
        let value = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| FetchError::refused("access_key_id does not fit in a header"))
        };
        let mut headers = self.common.clone();
        headers.insert(DATE, value(date)?);
        headers.insert("x-authing-signature-nonce", value(nonce)?);
        headers.insert("x-authing-signature-method", HeaderValue::from_static("HMAC-SHA1"));
        headers.insert("x-authing-signature-version", HeaderValue::from_static("1.0"));
        let signature = sign(&string_to_sign(path, &headers, body), &self.secret()?);
        let mut authorization = value(&format!("authing {}:{signature}", self.key_id))?;
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
        Ok(headers)
    }

    fn secret(&self) -> Result<SecretString, FetchError> {
        self.key_secret.read().map_err(|error| FetchError::credentials(format!("access_key_secret: {error}")))
    }
}

/// As the vendor's Node SDK builds it: the method; `date` and every `x-authing-` header by name; the path and
/// the body's members by key, objects as compact JSON.
fn string_to_sign(path: &str, headers: &HeaderMap, body: &Map<String, Value>) -> String {
    let signed: BTreeMap<_, _> = headers
        .iter()
        .filter(|(name, _)| **name == DATE || name.as_str().starts_with("x-authing-"))
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
        .collect();
    let members: BTreeMap<_, _> = body.iter().collect();
    let mut text = "POST\n".to_owned();
    for (name, value) in signed {
        text += &format!("{name}:{}\n", value.replace(['\t', '\r', '\n'], " ").trim());
    }
    text += path;
    for (n, (key, value)) in members.into_iter().enumerate() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text += &format!("{}{key}={value}", if n == 0 { '?' } else { '&' });
    }
    text
}

fn sign(text: &str, secret: &SecretString) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.expose_secret().as_bytes())
        .expect("HMAC takes keys of any length (RFC 2104, 3)");
    mac.update(text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

members! {
    struct Envelope<'a> {
        status_code: &'a RawValue = "statusCode",
        data: Option<Grant<'a>> = "data",
    }
}

members! {
    struct Grant<'a> {
        access_token: &'a RawValue = "access_token",
        expires_in: &'a RawValue = "expires_in",
    }
}

fn granted(answer: &Answer, secret: &str) -> Result<Token, Refusal> {
    let complaint = match serde_json::from_str::<Envelope<'_>>(answer.body.text()) {
        Ok(Envelope { status_code, data: Some(Some(grant)) })
            if answer.status.is_success() && int(status_code) == Some(200) =>
        {
            match token(&grant) {
                Some(token) => return Ok(token),
                None => FetchError::malformed("the answer has no access_token"),
            }
        }
        Ok(_) => FetchError::malformed("the answer has no access_token"),
        Err(error) => answer.body.complaint(&error),
    };
    Err(refusal(answer, &[secret]).unwrap_or(Refusal::from(complaint)))
}

fn token(grant: &Grant<'_>) -> Option<Token> {
    let value = text(grant.access_token).filter(|value| !value.is_empty())?;
    let mut header = HeaderValue::from_str(&format!("Bearer {value}")).ok()?;
    header.set_sensitive(true);
    let life = int(grant.expires_in).map_or(UNTOLD_LIFE, |s| Duration::from_secs(u64::try_from(s).unwrap_or(0)));
    // Early enough that no request in line arrives with a token that has run out.
    let margin = (life / 10).min(Duration::from_secs(60));
    // A life beyond what the clock can count is as good as a year.
    let refresh_at = Instant::now() + (life - margin).min(Duration::from_secs(365 * 24 * 60 * 60));
    Some(Token { value: value.into(), header, refresh_at })
}

/// All that a token request says is the access key, so a refusal of the request is a refusal of the key.
fn not_granted(Refusal { error, by_api, .. }: Refusal) -> FetchError {
    let message = format!("no management token: {}", error.message);
    match error.class {
        // No page is: so there is nothing to ask less of.
        _ if error.reason == FetchReason::TooLarge => {
            FetchError::malformed("no management token: the answer is no such thing, it is far too large")
        }
        FailureClass::Refused if by_api => {
            FetchError { class: FailureClass::Credentials, reason: FetchReason::Credentials, message, ..error }
        }
        _ => FetchError { message, ..error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{GenauthAuth, GenauthFilter};

    fn auth(brand: GenauthBrand) -> Auth {
        Auth::build(&GenauthConfig {
            endpoint: "https://api.genauth.ai".parse().expect("a URL"),
            brand,
            user_pool_id: "65f0a1".to_owned(),
            auth: GenauthAuth::Signature,
            access_key_id: "AK".to_owned(),
            access_key_secret: Secret::Inline("SECRET".into()),
            filter: GenauthFilter::default(),
            max_rows: 10_000,
        })
        .expect("builds")
    }

    /// Expected values from Python's `hmac` and `json` over the string that the vendor's SDK would sign.
    #[test]
    fn signs_as_the_vendors_sdk_does() {
        let body = json!({
            "start": 1_700_000_000_000_i64, "end": 1_700_000_060_000_i64, "success": true,
            "eventType": "login", "pagination": { "page": 1, "limit": 50 },
        });
        let body = body.as_object().expect("an object");
        for (brand, expected) in [
            (GenauthBrand::Genauth, "authing AK:phbZZGDs7WPz/pfTtTkubvrLTw0="),
            // Its user pool header begins with `x-authing-` and so is signed too.
            (GenauthBrand::Authing, "authing AK:Fo1uWrbHqKYgIdBdqKx0qWlqMxE="),
        ] {
            let headers = auth(brand)
                .signed_with(
                    super::super::LOGS,
                    body,
                    "Tue, 24 Nov 2026 02:00:00 GMT",
                    "00112233445566778899aabbccddeeff",
                )
                .expect("signs");
            assert_eq!(headers[AUTHORIZATION], expected, "{brand:?}");
        }
    }

    #[test]
    fn a_token_is_renewed_before_it_runs_out() {
        let life = |expires_in: &str| {
            let raw = |json: &str| RawValue::from_string(json.to_owned()).expect("JSON");
            let (access_token, expires_in) = (raw("\"T\""), raw(expires_in));
            let grant = Grant { access_token: Some(&access_token), expires_in: Some(&expires_in) };
            token(&grant).expect("granted").refresh_at.saturating_duration_since(Instant::now()).as_secs_f64()
        };
        for (expires_in, renewed_after) in
            [("7200", 7140.0), ("100", 90.0), ("\"100\"", 90.0), ("0", 0.0), ("-5", 0.0), ("null", 540.0)]
        {
            assert!((life(expires_in) - renewed_after).abs() < 1.0, "{expires_in}: {}", life(expires_in));
        }
        assert!(life("9223372036854775807") > 1e6, "no clock overflows");
    }

    #[test]
    fn debug_shows_no_secret() {
        let auth = auth(GenauthBrand::Genauth);
        let token = Token {
            value: "TOKEN".into(),
            header: {
                let mut header = HeaderValue::from_static("Bearer TOKEN");
                header.set_sensitive(true);
                header
            },
            refresh_at: Instant::now(),
        };
        let shown = format!("{auth:?} {token:?}");
        assert!(!shown.contains("SECRET") && !shown.contains("TOKEN"), "{shown}");
    }
}
