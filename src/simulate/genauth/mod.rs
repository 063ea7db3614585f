//! The GenAuth management API: the token endpoint and the user action log.

mod auth;
mod record;

use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use serde_json::Value;

use crate::event::{Millis, Source};

pub use self::auth::Nonces;
pub use self::record::{Act, write_odd};

use self::record::Reading;
use super::connection::Cut;
use super::faults::{Failure, Reply, around};
use super::hash::mix;
use super::history::{History, Slot};
use super::lies::{self, Lie};
use super::text;
use super::world::{Ask, World};

/// The simulated tenant.
pub const USER_POOL_ID: &str = "65f0a1b2c3d4e5f60718293a";
/// Its access key.
pub const ACCESS_KEY_ID: &str = "65f0a1b2c3d4e5f607182940";
/// Its access key's secret.
pub const ACCESS_KEY_SECRET: &str = "6f2b8c1d9e0a4735b6c8d1e2f3a4b5c6";

/// Sets this source's records apart from the other's.
pub const SALT: u64 = 1;

/// Times have milliseconds.
pub const CLOCK_UNIT: Millis = 1;

/// The path of the user action log.
pub const LOGS_PATH: &str = "/api/v3/get-user-action-logs";
/// The path at which an access key becomes a management token.
pub const TOKEN_PATH: &str = "/api/v3/get-management-token";

const LIMIT: u64 = 50;
const DEFAULT_LIMIT: u64 = 10;

/// A request that does not succeed.
#[derive(Debug)]
pub struct Problem {
    code: u16,
    api_code: Option<u16>,
    message: String,
}

impl Problem {
    fn new(code: u16, api_code: Option<u16>, message: &str) -> Self {
        Self { code, api_code, message: message.to_owned() }
    }

    fn unauthorized(api_code: u16, message: &str) -> Self {
        Self::new(401, Some(api_code), message)
    }

    fn invalid(message: &str) -> Self {
        Self::new(400, None, message)
    }

    fn reply(self) -> Reply {
        let api_code = self.api_code.map(|code| format!(r#","apiCode":{code}"#)).unwrap_or_default();
        let message = Value::String(self.message);
        let body = format!(r#"{{"statusCode":{},"message":{message}{api_code}}}"#, self.code);
        let status = if self.code == 429 { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
        Reply { status, retry_after: false, body: body.into() }
    }
}

/// `POST /api/v3/get-management-token`.
pub async fn token(State(world): State<Arc<World>>, ConnectInfo(cut): ConnectInfo<Cut>, body: Bytes) -> Response {
    around(&world, Source::Genauth, &cut, fail, |_| answer_token(&world, &body).unwrap_or_else(Problem::reply)).await
}

/// `POST /api/v3/get-user-action-logs`.
pub async fn logs(
    State(world): State<Arc<World>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    around(&world, Source::Genauth, &cut, fail, |nonce| {
        let answer = answer_logs(&world, uri.path(), &headers, &body, nonce);
        answer.unwrap_or_else(|problem| {
            world.genauth.count(|stats| match problem.code {
                401 | 403 => stats.unauthorized += 1,
                _ => stats.refused += 1,
            });
            problem.reply()
        })
    })
    .await
}

/// Whatever else is asked for.
pub fn not_found() -> Reply {
    Problem::new(404, None, "no such endpoint").reply()
}

fn fail(failure: Failure, hash: u64) -> Reply {
    const TRANSIENT: [(u16, &str); 6] = [
        (500, "internal error"),
        (502, "bad gateway"),
        (503, "under maintenance"),
        (499, "request failed"),
        (601, "the third party did not answer"),
        (603, "the third party failed"),
    ];
    const REFUSED: [(u16, Option<u16>, &str); 6] = [
        (401, Some(2020), "not logged in"),
        (401, Some(1305), "the date is too far off"),
        (401, Some(1306), "the nonce was used before"),
        (402, Some(4021), "the plan does not include this"),
        (403, None, "forbidden"),
        (400, None, "invalid argument"),
    ];
    let at = (hash % 6) as usize;
    match failure {
        Failure::Throttled { retry_after } => {
            Reply { retry_after, ..Problem::new(429, None, "too many requests").reply() }
        }
        Failure::Transient => {
            let reply = Problem::new(TRANSIENT[at].0, None, TRANSIENT[at].1).reply();
            Reply { status: super::faults::transient_status(hash), ..reply }
        }
        Failure::Refused => Problem::new(REFUSED[at].0, REFUSED[at].1, REFUSED[at].2).reply(),
    }
}

fn answer_token(world: &World, body: &[u8]) -> Result<Reply, Problem> {
    let body: Value = serde_json::from_slice(body).map_err(|_| Problem::invalid("the body is not JSON"))?;
    if body["accessKeyId"] != ACCESS_KEY_ID || body["accessKeySecret"] != ACCESS_KEY_SECRET {
        world.genauth.count(|stats| stats.unauthorized += 1);
        return Err(Problem::unauthorized(1300, "the access key is wrong"));
    }
    world.genauth.count(|stats| stats.tokens_issued += 1);
    let (token, life) = auth::issue_token(world);
    let body =
        format!(r#"{{"statusCode":200,"message":"ok","data":{{"access_token":"{token}","expires_in":{life}}}}}"#);
    Ok(Reply::ok(body.into()))
}

fn answer_logs(world: &World, path: &str, headers: &HeaderMap, body: &[u8], nonce: u64) -> Result<Reply, Problem> {
    let body: Value = match body {
        b"" => Value::Null,
        body => serde_json::from_slice(body).map_err(|_| Problem::invalid("the body is not JSON"))?,
    };
    auth::check(world, headers, path, &body)?;
    let query = Query::parse(&body)?;
    let lie = world.lie(nonce);
    if let Some(lie) = lie {
        world.genauth.count(|stats| stats.lies += 1);
        let body = match lie {
            Lie::Maintenance => r#"{"statusCode":200,"message":"maintenance"}"#,
            Lie::NoData if nonce & 1 == 0 => r#"{"statusCode":200,"data":null}"#,
            Lie::NoData => r#"{"statusCode":200,"data":{}}"#,
            Lie::Empty => r#"{"statusCode":200,"data":{"totalCount":0,"list":[]}}"#,
            Lie::CountAlone => r#"{"statusCode":200,"data":{"totalCount":7,"list":[]}}"#,
            Lie::DeepErrors if query.page > 1 => r#"{"statusCode":500,"message":"too deep"}"#,
            _ => "",
        };
        if !body.is_empty() {
            return Ok(Reply::ok(body.into()));
        }
        if let Some(body) = world.genauth.last_answer().filter(|_| lie == Lie::OtherAnswer) {
            return Ok(Reply::ok(body));
        }
    }
    let rows_asked = query.page.saturating_mul(query.limit);
    if world.options.max_rows > 0 && rows_asked > world.options.max_rows {
        world.genauth.count(|stats| stats.too_deep += 1);
        return Err(Problem::invalid(&format!(
            "Result window is too large, from + size must be less than or equal to: [{}]",
            world.options.max_rows
        )));
    }
    if world.refuses(&world.genauth, (query.start, query.end)) {
        return Err(Problem::invalid("the interval is too long"));
    }
    let api = &world.genauth;
    if world.fails(api, (query.start, query.end)) {
        return Ok(fail(Failure::Transient, nonce));
    }
    // What is not written as documented has no field that equals anything.
    let wanted = |slot: &Slot| api.history.odd(slot.root).is_none() && query.wants(&api.history, slot);
    let filter: Option<&dyn Fn(&Slot) -> bool> = if query.filters() { Some(&wanted) } else { None };
    let rows = world.rows(api, (query.start, query.end), filter);
    let offset = (query.page - 1).saturating_mul(query.limit);
    let page = world.page(api, &rows, Ask { run: query.run(), offset, limit: query.limit, nonce });

    let mut out = Vec::with_capacity(256 + page.slots.len() * 1100);
    out.extend_from_slice(b"{\"statusCode\":200,\"message\":\"success\",\"requestId\":\"");
    text::hex(&mut out, nonce, 32);
    out.extend_from_slice(b"\",\"data\":{");
    if lie == Some(Lie::Padded) {
        lies::padding(&mut out);
    }
    out.extend_from_slice(b"\"totalCount\":");
    let (total, shown) = match lie {
        Some(Lie::ZeroCount) => (0, page.slots.len()),
        Some(Lie::PageCount) => (page.slots.len() as u64, page.slots.len()),
        Some(Lie::HugeCount) => (100_000_000_000_000_000, page.slots.len()),
        Some(Lie::ShortList) => (page.total, (page.slots.len() * 2).div_ceil(5)),
        Some(Lie::EmptyLaterPages) if offset > 0 => (page.total, 0),
        _ => (page.total, page.slots.len()),
    };
    text::number(&mut out, total);
    if lie == Some(Lie::Spelled) && shown == 0 {
        out.extend_from_slice(b",\"list\":{}}}");
        return Ok(Reply::ok(lies::spelled(&out)));
    }
    out.extend_from_slice(b",\"list\":[");
    if lie == Some(Lie::ManyRows) {
        lies::many(&mut out);
        out.extend_from_slice(b"]}}");
        return Ok(Reply::ok(out));
    }
    let reading = Reading { nonce, volatile_share: world.options.volatile_share };
    for (place, slot) in page.slots.iter().take(shown).enumerate() {
        if place > 0 {
            out.push(b',');
        }
        record::write(&mut out, &api.history, slot, reading);
        if api.history.large(slot.root) {
            lies::enlarge(&mut out);
        }
    }
    out.extend_from_slice(b"]}}");
    api.answered(&world.options, &out);
    Ok(Reply::ok(if lie == Some(Lie::Spelled) { lies::spelled(&out) } else { out }))
}

/// What a request for the user action log asks for.
#[derive(Debug, Default)]
struct Query {
    request_id: Option<String>,
    client_ip: Option<String>,
    event_type: Option<String>,
    user_id: Option<String>,
    app_id: Option<String>,
    success: Option<bool>,
    start: Option<Millis>,
    end: Option<Millis>,
    /// From 1.
    page: u64,
    limit: u64,
}

impl Query {
    fn parse(body: &Value) -> Result<Self, Problem> {
        let text = |name: &str| match &body[name] {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            _ => Err(Problem::invalid(&format!("{name} must be a string"))),
        };
        let time = |name: &str| match &body[name] {
            Value::Null => Ok(None),
            value => value.as_i64().map(Some).ok_or_else(|| Problem::invalid(&format!("{name} must be a number"))),
        };
        let count = |name: &str, default: u64, max: u64| match &body["pagination"][name] {
            Value::Null => Ok(default),
            value => match value.as_u64() {
                Some(count) if (1..=max).contains(&count) => Ok(count),
                _ => Err(Problem::invalid(&format!("pagination.{name} must be a number from 1 to {max}"))),
            },
        };
        let success = match &body["success"] {
            Value::Null => None,
            Value::Bool(success) => Some(*success),
            _ => return Err(Problem::invalid("success must be a boolean")),
        };
        Ok(Self {
            request_id: text("requestId")?,
            client_ip: text("clientIp")?,
            event_type: text("eventType")?,
            user_id: text("userId")?,
            app_id: text("appId")?,
            success,
            start: time("start")?,
            end: time("end")?,
            page: count("page", 1, u64::MAX)?,
            limit: count("limit", DEFAULT_LIMIT, LIMIT)?,
        })
    }

    fn texts(&self) -> [Option<&str>; 5] {
        [&self.request_id, &self.client_ip, &self.event_type, &self.user_id, &self.app_id].map(|text| text.as_deref())
    }

    fn filters(&self) -> bool {
        self.success.is_some() || self.texts().iter().any(Option::is_some)
    }

    fn wants(&self, history: &History, slot: &Slot) -> bool {
        let act = Act::at(history, slot);
        let equal = |wanted: Option<&str>, write: &dyn Fn(&mut Vec<u8>)| {
            wanted.is_none_or(|wanted| {
                let mut written = Vec::with_capacity(40);
                write(&mut written);
                written.get(1..written.len().saturating_sub(1)) == Some(wanted.as_bytes())
            })
        };
        let [request_id, client_ip, event_type, user_id, app_id] = self.texts();
        self.success.is_none_or(|success| act.success == success)
            && event_type.is_none_or(|wanted| act.event_type == wanted)
            && equal(user_id, &|out| act.user_id(out))
            && equal(app_id, &|out| act.app_id(out))
            && equal(request_id, &|out| act.request_id(out))
            && equal(client_ip, &|out| act.client_ip(out))
    }

    /// A hash of what the pages of one run have in common.
    fn run(&self) -> u64 {
        let texts = self.texts();
        let bytes = texts.iter().flat_map(|text| text.unwrap_or("\0").bytes().chain([0]));
        let hash = bytes.fold(self.limit, |hash, byte| mix(hash, u64::from(byte)));
        let times = [self.start, self.end, self.success.map(Millis::from)];
        times.iter().fold(hash, |hash, time| mix(hash, time.map_or(u64::MAX, Millis::unsigned_abs)))
    }
}
