//! What came out, held against the simulator's truth ledger.
//!
//! Reads `native` events with nothing of trailcast's own record code: what identifies a record is spelled out here
//! once more.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use trailcast::event::{Millis, Source};
use trailcast::simulate::{Content, Simulator};

/// The outcome of a comparison. All counts are of records or events.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// In the ledger.
    pub truth: usize,
    /// In the ledger, not delivered.
    pub missing: usize,
    /// Delivered, with an id of its own, though the ledger has no such record, or not so often.
    pub invented: usize,
    /// Delivered again with the same id.
    pub repeated: usize,
    /// Repeats of an id whose record differs in what identifies it, and events of another time than their record's.
    pub altered: usize,
    /// Lines that are no event.
    pub torn: usize,
    /// Examples of what is missing or invented.
    pub examples: Vec<String>,
}

/// Compares the lines of `native` events with what both APIs hold between `from` and `to`.
pub fn compare(lines: &str, simulator: &Simulator, from: Millis, to: Millis) -> Verdict {
    let mut verdict = Verdict::default();
    let mut balance: HashMap<String, i64> = HashMap::new();
    let mut odd = HashMap::new();
    let mut instants = HashMap::new();
    for source in [Source::Genauth, Source::Scloud] {
        for truth in simulator.truth(source, from, to) {
            verdict.truth += 1;
            let key = match truth.content {
                Content::Identity(identity) => format!("{source} {identity}"),
                Content::Odd(raw) => {
                    let key = format!("{source} odd {raw}");
                    odd.insert(canonical(&raw), key.clone());
                    key
                }
            };
            instants.insert(key.clone(), truth.time);
            *balance.entry(key).or_default() += 1;
        }
    }
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    for line in lines.lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            verdict.torn += 1;
            continue;
        };
        let source = event["source"].as_str().unwrap_or_default();
        let record = &event["record"];
        let text = canonical(&record.to_string());
        let key = odd.get(&text).cloned().unwrap_or_else(|| format!("{source} {}", identity(source, record)));
        let said = event["time"].as_str().and_then(|time| time.parse::<jiff::Timestamp>().ok());
        let happened = instants.get(&key).copied().flatten();
        verdict.altered += usize::from(happened.is_some() && happened != said.map(jiff::Timestamp::as_millisecond));
        match ids.insert(event["id"].as_str().unwrap_or_default().to_owned(), key.clone()) {
            None => *balance.entry(key).or_default() -= 1,
            Some(before) => {
                verdict.repeated += 1;
                verdict.altered += usize::from(before != key);
            }
        }
    }
    for (key, count) in balance {
        let size = usize::try_from(count.unsigned_abs()).unwrap();
        match count {
            1.. => verdict.missing += size,
            ..0 => verdict.invented += size,
            0 => continue,
        }
        if verdict.examples.len() < 5 {
            verdict.examples.push(format!("{count:+} {key}"));
        }
    }
    verdict
}

impl Verdict {
    /// # Panics
    /// Unless each record was delivered as it is, and once.
    pub fn assert_clean(&self) {
        assert!(self.truth > 0, "nothing happened, so nothing was shown");
        let examples = Vec::new();
        assert_eq!(self, &Self { truth: self.truth, examples, ..Self::default() });
    }
}

/// Odd texts may be no JSON of their own when they stand inside an event: compare what they say.
fn canonical(text: &str) -> String {
    serde_json::from_str::<Value>(text).map_or_else(|_| text.to_owned(), |value| value.to_string())
}

fn identity(source: &str, record: &Value) -> Value {
    let fields: &[&str] = if source == "genauth" {
        &["userId", "appId", "clientIp", "eventType", "eventDetail", "success", "userAgent", "timestamp", "requestId"]
    } else {
        &[
            "Region",
            "Api",
            "IsSuccess",
            "OperateTime",
            "UserName",
            "UserEmail",
            "RelatedResource",
            "RemoteIP",
            "AccessKeyID",
        ]
    };
    let value = |field: &&str| match (*field, &record[*field]) {
        ("timestamp", Value::String(time)) => json!(instant(time)),
        ("RelatedResource", Value::Array(resources)) => resources.iter().map(|one| one["ResourceId"].clone()).collect(),
        (_, value) => value.clone(),
    };
    fields.iter().map(value).collect()
}

/// `2022-09-20T08:55:00.188+0800` and its relatives, in milliseconds.
fn instant(text: &str) -> Option<Millis> {
    let form = if text.contains('.') { "%Y-%m-%dT%H:%M:%S%.f%z" } else { "%Y-%m-%dT%H:%M:%S%z" };
    let text = text.replace('Z', "+0000");
    let colon = text.len() - 3;
    let text = if text.as_bytes()[colon] == b':' { text[..colon].to_owned() + &text[colon + 1..] } else { text };
    Some(jiff::fmt::strtime::parse(form, text).ok()?.to_timestamp().ok()?.as_millisecond())
}
