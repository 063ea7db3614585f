//! Who may ask GenAuth: management tokens, and signed requests. Both written from the vendor's description, not
//! from this program's client.

use std::collections::{HashSet, VecDeque};
use std::time::UNIX_EPOCH;

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::Value;

use crate::event::Millis;
use crate::simulate::clock::millis;
use crate::simulate::world::{World, locked};

use super::{ACCESS_KEY_ID, ACCESS_KEY_SECRET, Problem, USER_POOL_ID};

/// How far a signed request's date may be off.
const SKEW: Millis = 300_000;

/// Signs management tokens. Nobody else knows it or needs to.
const TOKEN_KEY: &[u8] = b"trailcast simulator management tokens";

/// Refuses a request that neither bears a valid token nor is signed.
pub fn check(world: &World, headers: &HeaderMap, path: &str, body: &Value) -> Result<(), Problem> {
    let authorization = text(headers, "authorization").unwrap_or_default();
    if let Some(token) = authorization.strip_prefix("Bearer ").or_else(|| authorization.strip_prefix("bearer ")) {
        return check_token(world, headers, token);
    }
    match authorization.strip_prefix("authing ").and_then(|rest| rest.split_once(':')) {
        Some((id, signature)) => check_signature(world, headers, path, body, (id, signature)),
        None => Err(Problem::unauthorized(2020, "not logged in")),
    }
}

/// A JSON Web Token for the user pool, and its life in seconds.
#[must_use]
pub fn issue_token(world: &World) -> (String, u64) {
    let life = world.options.token_ttl.as_secs();
    let issued = world.clock.now();
    // The expiry is kept in milliseconds beside the standard claim, so that short lives can be simulated.
    let expires = issued + millis(world.options.token_ttl);
    let claims = format!(
        r#"{{"scoped_userpool_id":"{USER_POOL_ID}","iat":{},"exp":{},"expires_ms":{expires}}}"#,
        issued / 1000,
        expires.div_euclid(1000)
    );
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let unsigned = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, TOKEN_KEY), unsigned.as_bytes());
    (format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(signature)), life)
}

fn check_token(world: &World, headers: &HeaderMap, token: &str) -> Result<(), Problem> {
    let invalid = || Problem::unauthorized(2020, "the token is not valid");
    let (unsigned, signature) = token.rsplit_once('.').ok_or_else(invalid)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| invalid())?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, TOKEN_KEY);
    hmac::verify(&key, unsigned.as_bytes(), &signature).map_err(|_| invalid())?;
    let claims = unsigned.split_once('.').and_then(|(_, claims)| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims: Value = serde_json::from_slice(&claims.ok_or_else(invalid)?).map_err(|_| invalid())?;
    if claims["expires_ms"].as_i64().is_none_or(|expires| expires <= world.clock.now()) {
        world.genauth.count(|stats| stats.expired_tokens += 1);
        return Err(Problem::unauthorized(2020, "the token has expired"));
    }
    let pool = text(headers, "x-genauth-userpool-id").or_else(|| text(headers, "x-authing-userpool-id"));
    match pool {
        Some(pool) if claims["scoped_userpool_id"].as_str() == Some(pool) => Ok(()),
        Some(_) => Err(Problem::new(403, None, "the token is for another user pool")),
        None => Err(Problem::unauthorized(2020, "no user pool header")),
    }
}

fn check_signature(
    world: &World,
    headers: &HeaderMap,
    path: &str,
    body: &Value,
    (id, signature): (&str, &str),
) -> Result<(), Problem> {
    let now = world.clock.now();
    let date = text(headers, "date").ok_or_else(|| Problem::unauthorized(1304, "no date header"))?;
    let date = httpdate::parse_http_date(date).ok().and_then(|date| date.duration_since(UNIX_EPOCH).ok());
    let date = millis(date.ok_or_else(|| Problem::unauthorized(1303, "the date is not an HTTP date"))?);
    if (date - now).abs() > SKEW {
        return Err(Problem::unauthorized(1305, "the date is too far off"));
    }
    if text(headers, "x-authing-signature-method") != Some("HMAC-SHA1") {
        return Err(Problem::unauthorized(1301, "the signature method is not HMAC-SHA1"));
    }
    if text(headers, "x-authing-signature-version") != Some("1.0") {
        return Err(Problem::unauthorized(1302, "the signature version is not 1.0"));
    }
    let wrong = || Problem::unauthorized(1300, "the access key or the signature is wrong");
    let given = STANDARD.decode(signature).map_err(|_| wrong())?;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, ACCESS_KEY_SECRET.as_bytes());
    let signed = hmac::verify(&key, string_to_sign(headers, path, body).as_bytes(), &given);
    if id != ACCESS_KEY_ID || signed.is_err() {
        return Err(wrong());
    }
    let nonce = text(headers, "x-authing-signature-nonce").unwrap_or_default();
    if locked(&world.nonces).is_new(nonce, now) {
        Ok(())
    } else {
        Err(Problem::unauthorized(1306, "the nonce was used before"))
    }
}

fn string_to_sign(headers: &HeaderMap, path: &str, body: &Value) -> String {
    let mut signed: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .filter(|(name, _)| *name == "date" || name.starts_with("x-authing-"))
        .map(|(name, value)| (name, std::str::from_utf8(value.as_bytes()).unwrap_or_default()))
        .collect();
    signed.sort_unstable();
    let mut out = "POST\n".to_owned();
    for (name, value) in signed {
        let value = value.replace(['\t', '\r', '\n', '\u{c}'], " ");
        out.push_str(&format!("{name}:{}\n", value.trim()));
    }
    out.push_str(path);
    let mut members: Vec<(&String, &Value)> = body.as_object().into_iter().flatten().collect();
    members.sort_unstable_by_key(|(name, _)| *name);
    for (place, (name, value)) in members.into_iter().enumerate() {
        out.push(if place == 0 { '?' } else { '&' });
        match value {
            Value::String(text) => out.push_str(&format!("{name}={text}")),
            other => out.push_str(&format!("{name}={other}")),
        }
    }
    out
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
}

/// The nonces of signed requests, for as long as their dates would still be accepted.
#[derive(Debug, Default)]
pub struct Nonces {
    seen: HashSet<String>,
    by_age: VecDeque<(Millis, String)>,
}

impl Nonces {
    fn is_new(&mut self, nonce: &str, now: Millis) -> bool {
        while self.by_age.front().is_some_and(|(at, _)| now - at > 2 * SKEW) {
            if let Some((_, oldest)) = self.by_age.pop_front() {
                self.seen.remove(&oldest);
            }
        }
        let new = self.seen.insert(nonce.to_owned());
        if new {
            self.by_age.push_back((now, nonce.to_owned()));
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_string_to_sign_is_as_the_vendor_builds_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-authing-signature-nonce", " n\tonce "),
            ("date", "Tue, 24 Nov 2026 00:00:00 GMT"),
            ("content-type", "application/json"),
            ("x-authing-lang", "zh-CN"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let body = serde_json::json!({"start": 5, "pagination": {"page": 1, "limit": 50}, "eventType": "login", "success": true});
        assert_eq!(
            string_to_sign(&headers, "/api/v3/get-user-action-logs", &body),
            "POST\ndate:Tue, 24 Nov 2026 00:00:00 GMT\nx-authing-lang:zh-CN\nx-authing-signature-nonce:n once\n\
             /api/v3/get-user-action-logs?eventType=login&pagination={\"page\":1,\"limit\":50}&start=5&success=true"
        );
        assert!(string_to_sign(&headers, "/p", &Value::Null).ends_with("\n/p"));
    }

    #[test]
    fn a_nonce_is_new_once() {
        let mut nonces = Nonces::default();
        assert!(nonces.is_new("a", 0) && nonces.is_new("b", 0) && !nonces.is_new("a", SKEW));
        assert!(nonces.is_new("a", 2 * SKEW + 1));
    }
}
