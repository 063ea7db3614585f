//! The SCloud API: the one action `GetUserOperationEvents`.

mod record;
mod request;
mod token;

use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use serde_json::Value;

use crate::event::{Millis, Source};

pub use self::record::{Operation, write_odd};
pub use self::request::signature;

use self::request::{Parameters, parameters};
use self::token::NextToken;
use super::clock::millis;
use super::connection::Cut;
use super::faults::{Failure, Reply, around};
use super::hash::{happens, mix};
use super::history::Slot;
use super::lies::{self, Lie};
use super::text;
use super::world::{Ask, World};

/// The simulated project.
pub const PROJECT_ID: &str = "org-trailcast";
/// Its key's public part.
pub const PUBLIC_KEY: &str = "demo@example.com1296235120854146120";
/// Its key's private part.
pub const PRIVATE_KEY: &str = "46f09bb9fab4f12dfc160dae12273d5332b5debe";

/// Sets this source's records apart from the other's.
pub const SALT: u64 = 2;

/// Times are whole seconds.
pub const CLOCK_UNIT: Millis = 1000;

const ACTION: &str = "GetUserOperationEvents";
const MAX_RESULTS: u64 = 50;
const DEFAULT_RESULTS: u64 = 20;
/// Older records cannot be read.
const READABLE: Millis = 365 * 86_400_000;

/// A request that does not succeed.
#[derive(Debug)]
pub struct Problem {
    code: u32,
    message: String,
}

impl Problem {
    fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn reply(self, action: &str) -> Reply {
        let action = Value::String(format!("{action}Response"));
        let message = Value::String(self.message);
        Reply::ok(format!(r#"{{"RetCode":{},"Action":{action},"Message":{message}}}"#, self.code).into())
    }
}

/// `GET` or `POST /`.
pub async fn events(
    State(world): State<Arc<World>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    around(&world, Source::Scloud, &cut, fail, |nonce| {
        let parameters = parameters(&method, uri.query().unwrap_or_default(), &headers, &body).unwrap_or_default();
        let answer = answer(&world, &parameters, nonce);
        answer.unwrap_or_else(|problem| {
            world.scloud.count(|stats| match problem.code {
                170..=174 | 292 => stats.unauthorized += 1,
                _ => stats.refused += 1,
            });
            problem.reply(parameters.get("Action").map_or("", String::as_str))
        })
    })
    .await
}

fn fail(failure: Failure, hash: u64) -> Reply {
    const TRANSIENT: [(u32, &str); 6] = [
        (110, "request timed out"),
        (130, "authentication service failed"),
        (150, "service unavailable"),
        (5001, "internal error of the service behind"),
        (8039, "service busy"),
        (2001, "try again"),
    ];
    const REFUSED: [(u32, &str); 6] = [
        (171, "signature error"),
        (172, "user does not exist"),
        (174, "token does not exist"),
        (299, "IAM permission denied"),
        (230, "params [BeginTime] not available"),
        (161, "action not found"),
    ];
    let at = (hash % 6) as usize;
    match failure {
        // The gateway says it in the body; what stands before the gateway says it with the status.
        Failure::Throttled { retry_after } => {
            let by_status = retry_after || hash & 64 == 0;
            let status = if by_status { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::OK };
            Reply { status, retry_after, ..Problem::new(153, "too many requests").reply(ACTION) }
        }
        Failure::Transient => {
            let reply = Problem::new(TRANSIENT[at].0, TRANSIENT[at].1).reply(ACTION);
            Reply { status: super::faults::transient_status(hash), ..reply }
        }
        Failure::Refused => Problem::new(REFUSED[at].0, REFUSED[at].1).reply(ACTION),
    }
}

fn authorize(parameters: &Parameters) -> Result<(), Problem> {
    let get = |name: &str| parameters.get(name).map(String::as_str);
    let action = get("Action").ok_or_else(|| Problem::new(160, "missing Action"))?;
    let given = get("Signature").ok_or_else(|| Problem::new(170, "missing signature"))?;
    if get("PublicKey") != Some(PUBLIC_KEY) {
        return Err(Problem::new(172, "user does not exist"));
    }
    if given != signature(parameters, PRIVATE_KEY) {
        return Err(Problem::new(171, "signature error"));
    }
    if action != ACTION {
        return Err(Problem::new(161, format!("action [{action}] not found")));
    }
    match get("ProjectId") {
        None | Some(PROJECT_ID) => Ok(()),
        Some(_) => Err(Problem::new(292, "project does not exist")),
    }
}

fn answer(world: &World, parameters: &Parameters, nonce: u64) -> Result<Reply, Problem> {
    authorize(parameters)?;
    let query = Query::parse(parameters)?;
    let lie = world.lie(nonce);
    let later = parameters.get("NextToken").is_some_and(|token| !token.is_empty());
    if let Some(lie) = lie {
        world.scloud.count(|stats| stats.lies += 1);
        match lie {
            Lie::Maintenance => return Ok(Reply::ok(br#"{"RetCode":0,"Message":"maintenance"}"#.into())),
            Lie::Empty => return Ok(Reply::ok(br#"{"RetCode":0,"Events":[]}"#.into())),
            Lie::EmptyLaterPages if later => return Ok(Reply::ok(br#"{"RetCode":0,"Events":[]}"#.into())),
            Lie::RefusedTokens if later => return Err(Problem::new(230, "params [NextToken] not available")),
            Lie::DeepErrors if later => return Err(Problem::new(5001, "internal error of the service behind")),
            _ => {}
        }
        if let Some(body) = world.scloud.last_answer().filter(|_| lie == Lie::OtherAnswer) {
            return Ok(Reply::ok(body));
        }
    }
    let offset = match parameters.get("NextToken").map(String::as_str) {
        None | Some("") => 0,
        Some(token) => resume(world, token, query.run)?,
    };
    if world.refuses(&world.scloud, (query.begin, query.end)) {
        return Err(Problem::new(230, "params [EndTime] not available"));
    }
    let api = &world.scloud;
    if world.fails(api, (query.begin, query.end)) {
        return Ok(fail(Failure::Transient, nonce));
    }
    let now = world.clock.now();
    let begin = Some(query.begin.unwrap_or(0).max(now - READABLE));
    // What is not written as documented has no field that equals anything.
    let wanted = |slot: &Slot| api.history.odd(slot.root).is_none() && query.wants(&Operation::at(&api.history, slot));
    let filter: Option<&dyn Fn(&Slot) -> bool> = if query.filters() { Some(&wanted) } else { None };
    let rows = world.rows(api, (begin, query.end), filter);

    let empty = offset < rows.len() && happens(mix(nonce, 11), world.options.empty_pages);
    let slots = if empty {
        api.count(|stats| stats.empty_pages += 1);
        Vec::new()
    } else {
        world.page(api, &rows, Ask { run: query.run, offset, limit: query.limit, nonce }).slots
    };
    let next = offset + slots.len() as u64;

    let mut out = Vec::with_capacity(256 + slots.len() * 480);
    out.push(b'{');
    if lie == Some(Lie::Padded) {
        lies::padding(&mut out);
    }
    out.extend_from_slice(b"\"RetCode\":0,\"Action\":\"GetUserOperationEventsResponse\",\"Events\":");
    if lie == Some(Lie::Spelled) && next == rows.len() && slots.is_empty() {
        out.extend_from_slice(b"{}}");
        return Ok(Reply::ok(lies::spelled(&out)));
    }
    out.push(b'[');
    if lie == Some(Lie::ManyRows) {
        lies::many(&mut out);
        out.extend_from_slice(b"]}");
        return Ok(Reply::ok(out));
    }
    for (place, slot) in slots.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        record::write(&mut out, &api.history, slot, nonce, world.options.volatile_share);
        if api.history.large(slot.root) {
            lies::enlarge(&mut out);
        }
    }
    out.push(b']');
    let more = next < rows.len() || lie == Some(Lie::EndlessTokens);
    if more && lie == Some(Lie::MistypedToken) {
        out.extend_from_slice(b",\"NextToken\":{\"after\":1}");
    } else if more && lie == Some(Lie::LongTokens) {
        text::key_after(&mut out, b',', "NextToken");
        text::string(&mut out, &"x".repeat(lies::LARGE));
    } else if more {
        let token = NextToken { run: query.run, offset: next, issued: now, nonce };
        text::key_after(&mut out, b',', "NextToken");
        text::string(&mut out, &token.encode());
    } else if nonce & 1 == 0 {
        // The end is said in two ways.
        out.extend_from_slice(b",\"NextToken\":\"\"");
    }
    out.push(b'}');
    api.answered(&world.options, &out);
    Ok(Reply::ok(if lie == Some(Lie::Spelled) { lies::spelled(&out) } else { out }))
}

/// The offset that a NextToken stands for.
fn resume(world: &World, token: &str, run: u64) -> Result<u64, Problem> {
    let token = NextToken::decode(token).ok_or_else(|| Problem::new(230, "params [NextToken] not available"))?;
    if token.run != run {
        return Err(Problem::new(230, "the parameters differ from those that [NextToken] was given for"));
    }
    if world.clock.now() - token.issued > millis(world.options.next_token_ttl) {
        world.scloud.count(|stats| stats.expired_next_tokens += 1);
        return Err(Problem::new(230, "params [NextToken] has expired"));
    }
    Ok(token.offset)
}

/// What a request asks for.
#[derive(Debug)]
struct Query<'a> {
    begin: Option<Millis>,
    end: Option<Millis>,
    limit: u64,
    resource: Option<&'a str>,
    keys: Vec<&'a str>,
    /// A hash of what the pages of one run have in common.
    run: u64,
}

impl<'a> Query<'a> {
    fn parse(parameters: &'a Parameters) -> Result<Self, Problem> {
        let wrong = |name: &str| Problem::new(230, format!("params [{name}] not available"));
        let get = |name: &str| parameters.get(name).map(String::as_str);
        let time = |name: &str| match get(name) {
            None => Ok(None),
            Some(text) => match text.parse::<Millis>() {
                Ok(seconds) if seconds >= 0 => Ok(Some(seconds.saturating_mul(1000))),
                _ => Err(wrong(name)),
            },
        };
        let limit = match get("MaxResults") {
            None => DEFAULT_RESULTS,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=MAX_RESULTS).contains(limit))
                .ok_or_else(|| wrong("MaxResults"))?,
        };
        let keys: Vec<&str> = parameters
            .iter()
            .filter(|(name, _)| name.starts_with("AccessKeyIDs"))
            .map(|(_, value)| value.as_str())
            .collect();
        if keys.len() > 50 {
            return Err(wrong("AccessKeyIDs"));
        }
        let run = parameters
            .iter()
            .filter(|(name, _)| *name != "NextToken" && *name != "Signature")
            .flat_map(|(name, value)| name.bytes().chain([0]).chain(value.bytes()).chain([0]))
            .fold(0, |hash, byte| mix(hash, u64::from(byte)));
        Ok(Self { begin: time("BeginTime")?, end: time("EndTime")?, limit, resource: get("ResourceID"), keys, run })
    }

    fn filters(&self) -> bool {
        self.resource.is_some() || !self.keys.is_empty()
    }

    fn wants(&self, operation: &Operation) -> bool {
        self.resource.is_none_or(|id| operation.concerns(id))
            && (self.keys.is_empty() || operation.used_one_of(&self.keys))
    }
}
