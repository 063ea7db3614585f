//! What others said, fit for a log line, a status page or a dead letter: one function for all parts.
//!
//! A server repeats what it was sent, and what it was sent are secrets and people. So of its words only those pass that
//! are in `WORDS`, which name what goes wrong between programs and nobody; beside them times, units and short numbers.
//! Names, addresses, ids and telephone numbers are not in it, whatever they look like. Before that, each configured
//! secret is blotted out, and every piece of one ([`Secrets`]).
//!
//! Where the words are a library's of our own process, not a server's, [`Secrets::hide`] alone is enough.

use std::collections::BTreeSet;
use std::net::IpAddr;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Most characters of what was said that are repeated.
const LONGEST_QUOTE: usize = 300;
/// Stands for what is left out.
const BLOT: &str = "…";
/// A piece of a secret that is shorter is no secret; the whole of it is, however short.
const SHORTEST_PIECE: usize = 3;
/// So many digits, one after the other but for spaces, may be somebody's telephone number.
const MOST_DIGITS: usize = 7;

/// Secrets in all the forms in which a server may repeat them: whole; without the scheme before it (`Bearer …`); each
/// piece between separators; decoded from base64, or encoded so; percent-encoded; as JSON writes it.
#[derive(Clone, Default)]
pub struct Secrets {
    /// In lower case, the longest first.
    pieces: Vec<String>,
}

impl Secrets {
    /// All of these.
    #[must_use]
    pub fn of<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut pieces = BTreeSet::new();
        for secret in secrets {
            forms(secret, 2, &mut pieces);
            if !secret.trim().is_empty() {
                pieces.insert(secret.trim().to_ascii_lowercase());
            }
        }
        let mut pieces: Vec<String> = pieces.into_iter().collect();
        pieces.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
        Self { pieces }
    }

    /// `text` without any of them, whatever the case of its letters.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        let lower = text.to_ascii_lowercase();
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        while at < text.len() {
            match self.pieces.iter().find(|piece| lower[at..].starts_with(piece.as_str())) {
                Some(piece) => {
                    if !out.ends_with(BLOT) {
                        out.push_str(BLOT);
                    }
                    at += piece.len();
                }
                None => {
                    let next = text[at..].chars().next().map_or(1, char::len_utf8);
                    out.push_str(&text[at..at + next]);
                    at += next;
                }
            }
        }
        out
    }
}

/// Debug shows no piece.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

/// Adds what of `secret` may be repeated; what is encoded in it is looked into `depth` times.
fn forms(secret: &str, depth: usize, pieces: &mut BTreeSet<String>) {
    let mut add = |piece: &str| {
        if piece.chars().count() >= SHORTEST_PIECE {
            pieces.insert(piece.to_ascii_lowercase());
        }
    };
    let whole = secret.trim();
    // A scheme says how, not what: `Bearer` is no secret, what follows it is.
    let value = whole.split_once(char::is_whitespace).map_or(whole, |(_, value)| value.trim());
    for text in [whole, value] {
        add(text);
        add(&percent(text));
        add(&text.replace(' ', "+"));
        add(serde_json::Value::from(text).to_string().trim_matches('"'));
        add(&STANDARD.encode(text));
        add(STANDARD.encode(text).trim_end_matches('='));
        add(URL_SAFE.encode(text).trim_end_matches('='));
    }
    value.split(|c: char| !c.is_alphanumeric()).for_each(&mut add);
    // A password may hold anything but what separates it from the user.
    value.split([':', ',', ';', '=', '&', ' ']).for_each(&mut add);
    if depth > 0 {
        for word in value.split([' ', ':', ',', ';', '.']).filter(|word| word.len() >= 8) {
            let decoded = STANDARD.decode(word).or_else(|_| URL_SAFE.decode(word));
            let text = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
            if let Some(text) = text.filter(|text| !text.chars().any(char::is_control)) {
                forms(&text, depth - 1, pieces);
            }
        }
    }
}

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

fn percent(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// What a server said, in one line of bounded length: without `secrets`, and of all other words those that name nobody.
#[must_use]
pub fn quote(said: &str, secrets: &Secrets) -> String {
    let said = secrets.hide(said);
    let words = || said.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let digits = |word: &str| word.chars().filter(char::is_ascii_digit).count();
    // Numbers that stand together may be one: what is told of each is how many digits all have.
    let mut runs: Vec<usize> = words().map(|word| if is_time(bare(word)) { 0 } else { digits(word) }).collect();
    let mut begin = 0;
    while begin < runs.len() {
        let end = (begin..runs.len()).find(|at| runs[*at] == 0).unwrap_or(runs.len());
        let sum = runs[begin..end].iter().sum();
        runs[begin..end].fill(sum);
        begin = end + 1;
    }
    let mut out = String::new();
    let mut length = 0;
    for (word, digits) in words().zip(runs) {
        let word = if digits > MOST_DIGITS { BLOT.to_owned() } else { safe(word) };
        if word == BLOT && out.ends_with(BLOT) {
            continue;
        }
        if length > 0 {
            out.push(' ');
        }
        length += 1 + word.chars().count();
        out.push_str(&word);
        if length > LONGEST_QUOTE {
            return out.chars().take(LONGEST_QUOTE).chain(BLOT.chars()).collect();
        }
    }
    out
}

/// Without what stands around a word.
fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| c.is_ascii_punctuation())
}

fn is_time(word: &str) -> bool {
    word.parse::<jiff::Timestamp>().is_ok() || word.parse::<jiff::civil::Date>().is_ok()
}

/// A word with what stands around it, or nothing of it.
fn safe(word: &str) -> String {
    let core = bare(word);
    let is_safe = || {
        core.is_ascii()
            && core.parse::<IpAddr>().is_err()
            && !core.split(|c: char| !c.is_ascii_digit() && c != '.').any(|part| part.parse::<IpAddr>().is_ok())
            && !core.contains(['@', '\\'])
            && (is_time(core) || core.bytes().filter(u8::is_ascii_digit).count() <= MOST_DIGITS)
            && (is_time(core) || core.split(|c: char| c.is_ascii_punctuation()).all(is_safe_part))
    };
    if core.is_empty() && word.is_ascii() && word.len() <= 3 || !core.is_empty() && is_safe() && word.is_ascii() {
        return word.to_owned();
    }
    BLOT.to_owned()
}

fn is_safe_part(part: &str) -> bool {
    let number = part.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    match (number.is_empty(), &part[number.len()..]) {
        // A word; or nothing, where two separators meet.
        (true, word) => word.is_empty() || WORDS.contains(&word.to_ascii_lowercase().as_str()),
        (false, unit) => {
            let unit = unit.to_ascii_lowercase();
            number.len() <= MOST_DIGITS
                && number.bytes().all(|byte| byte.is_ascii_digit())
                && (unit.is_empty() || UNITS.contains(&unit.as_str()))
        }
    }
}

/// What may follow a number.
const UNITS: [&str; 20] =
    ["ns", "us", "ms", "s", "m", "h", "d", "b", "kb", "mb", "gb", "kib", "mib", "gib", "k", "g", "xx", "th", "st", "z"];

/// The words that pass. None is anybody's name, and none tells one account from another.
#[rustfmt::skip]
const WORDS: &[&str] = &[
    // What sentences are made of.
    "a", "about", "above", "after", "again", "all", "already", "also", "an", "and", "another", "any", "are", "as", "at",
    "be", "because", "been", "before", "behind", "below", "between", "both", "but", "by", "can", "cannot", "could", "did",
    "do", "does", "done", "due", "during", "each", "either", "else", "every", "for", "from", "get", "got", "had", "has",
    "have", "here", "how", "if", "in", "instead", "into", "is", "isn", "it", "its", "just", "least", "less", "many", "more",
    "most", "much", "must", "never", "next", "no", "none", "nor", "not", "now", "of", "off", "ok", "on", "once", "one",
    "only", "or", "other", "others", "our", "out", "over", "own", "per", "same", "should", "since", "so", "some", "still",
    "such", "t", "than", "that", "the", "their", "them", "then", "there", "these", "they", "this", "those", "to", "too",
    "two", "under", "until", "up", "us", "was", "we", "were", "what", "when", "where", "which", "while", "who", "why",
    "with", "within", "without", "would", "yes", "yet", "you", "your",
    // Who takes part.
    "account", "admin", "administrator", "agent", "api", "app", "application", "backend", "balancer", "bad", "broker",
    "brokers", "client", "cluster", "collector", "coordinator", "distributor", "endpoint", "exporter", "frontend",
    "gateway", "host", "ingester", "ingesters", "ingress", "leader", "loki", "member", "nginx", "node", "organization",
    "origin", "owner", "project", "proxy", "receiver", "replica", "replicas", "sender", "server", "service", "services",
    "support", "system", "tenant", "upstream", "downstream", "user", "users", "pool", "userpool", "victorialogs",
    // What it is about.
    "access", "acl", "acls", "address", "allowance", "argument", "arguments", "attempt", "attempts", "attribute",
    "attributes", "auth", "authentication", "authorization", "bandwidth", "batch", "body", "boundary", "buffer", "burst",
    "byte", "bytes", "capacity", "certificate", "character", "characters", "charset", "chunk", "code", "codes", "commit",
    "compression", "config", "configuration", "connection", "connections", "content", "context", "count", "cpu",
    "credential", "credentials", "cursor", "data", "database", "date", "day", "days", "db", "deadline", "detail",
    "details", "disk", "dns", "document", "element", "encoding", "entries", "entry", "epoch", "error", "errors", "event",
    "events", "exception", "field", "fields", "file", "format", "frame", "grpc", "gzip", "header", "headers", "hour",
    "hours", "http", "https", "id", "identity", "index", "ingestion", "input", "instance", "interval", "item", "items",
    "json", "key", "keys", "label", "labels", "length", "level", "limit", "limits", "line", "lines", "load", "lock", "log",
    "login", "logs", "maintenance", "media", "memory", "message", "messages", "metadata", "method", "minute", "minutes",
    "missing", "mode", "name", "names", "network", "number", "object", "offset", "operation", "option", "order", "page",
    "pair", "param", "parameter", "parameters", "params", "part", "partition", "partitions", "path", "pattern", "payload",
    "permission", "permissions", "policy", "port", "position", "producer", "property", "proto", "protobuf", "protocol",
    "query", "queue", "quota", "range", "rate", "reason", "reasons", "record", "records", "redirect", "region",
    "replication", "request", "requests", "resource", "resources", "response", "result", "results", "retention", "right",
    "rights", "role", "route", "row", "rows", "rpc", "sample", "samples", "schema", "scope", "second", "seconds", "secret",
    "security", "sequence", "session", "settings", "shard", "signature", "size", "snappy", "socket", "space", "ssl",
    "state", "status", "storage", "store", "stream", "streams", "string", "success", "syntax", "table", "tcp", "text",
    "time", "timeout", "timestamp", "timestamps", "tls", "token", "tokens", "topic", "topics", "total", "transaction",
    "transport", "type", "types", "unit", "uri", "url", "utc", "value", "values", "version", "window", "wire", "word",
    "write", "writes", "x", "xml", "yaml", "zstd",
    // What is wrong with it.
    "aborted", "acceptable", "accept", "accepted", "accepts", "ahead", "allow", "allowed", "ambiguous", "attempted",
    "attempting", "authenticate", "authenticated", "authorized", "available", "blocked", "blocks", "broken", "busy",
    "cancelled", "canceled", "change", "changed", "check", "close", "closed", "compressed", "conflict", "connect",
    "connected", "contact", "contain", "contains", "corrupt", "created", "current", "currently", "decode", "decoded",
    "decoding", "decompress", "decreased", "defined", "delete", "deleted", "denied", "deprecated", "different",
    "disabled", "discarded", "dropped", "duplicate", "earlier", "early", "empty", "enabled", "enough", "exceed",
    "exceeded", "exceeds", "exhausted", "exist", "exists", "expected", "expired", "expires", "fail", "far", "failed", "failing",
    "fails", "failure", "fatal", "fenced", "few", "fewer", "forbidden", "found", "full", "future", "given", "gone",
    "greater", "halted", "high", "ignored", "illegal", "impossible", "inactive", "incompatible", "incomplete",
    "inconsistent", "incorrect", "increase", "increased", "insufficient", "internal", "invalid", "large", "larger", "largest", "last",
    "late", "later", "limited", "limiting", "loading", "locked", "long", "longer", "longest", "low", "malformed",
    "max", "maximum", "min", "minimum", "mismatch", "moved", "negative", "new", "newer", "newest", "null", "old", "older",
    "oldest", "open", "overflow", "overload", "overloaded", "parse", "parsed", "parser", "parsing", "partial",
    "past", "pending", "permanent", "permanently", "please", "present", "process", "processed", "processing", "read",
    "reached", "read-only", "ready", "receive", "received", "reduce", "refused", "refuses", "reject", "rejected",
    "rejects", "repeated", "replaced", "require", "required", "requires", "reset", "restart", "restarting", "retry",
    "returned", "revoked", "send", "sent", "set", "short", "shutdown", "shutting", "sign", "signed", "slow", "slower",
    "small", "smaller", "started", "starting", "stop", "stopped", "structured", "supported", "suspended", "temporarily",
    "temporary", "terminated", "throttle", "throttled", "throttling", "timed", "transient", "tried", "truncated", "try",
    "trying", "unable", "unauthenticated", "unauthorized", "unavailable", "undefined", "unexpected", "unhealthy",
    "unimplemented", "unknown", "unmarshal", "unreachable", "unreadable", "unrecognized", "unspecified", "unsupported",
    "unsafe", "upgrade", "upgrading", "use", "used", "valid", "verified", "verify", "vs", "wait", "warning", "wrong",
    "reduced", "ingest", "ingesting", "ingested", "configured", "applied", "fit", "fits", "look", "fine",
];

#[cfg(test)]
#[path = "quote_tests.rs"]
mod tests;
