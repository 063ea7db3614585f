//! What must hold whatever bytes come from outside: one function a boundary, each of which panics where it does not.
//!
//! `cargo fuzz` looks for such bytes by what they reach (`tests/fuzz`); the tests at the end try seeded ones at each run of
//! the unit tests. Only there is this compiled.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::encode::{Format, encode};
use crate::event::{Admitted, EventId, Fingerprint, Listed, Source, StreamContext, StreamIdentity};
use crate::memory::Hold;
use crate::normalize::normalize;
use crate::page::{Page, PageRequest};
use crate::reading::{self, Paging, Reading, Rules, Shard, Suspicion};
use crate::record::{self, time};
use crate::state::admit::Delivered;
use crate::state::store::{self, LaneKey};
use crate::window::Window;
use crate::{checkpoint::kafka, config};

const SOURCES: [Source; 2] = [Source::Genauth, Source::Scloud];
const FORMATS: [Format; 4] = [Format::Ocsf, Format::Ecs, Format::Native, Format::Otlp];

/// A boundary.
#[derive(Debug, Clone, Copy)]
pub struct Boundary {
    /// Its name, and that of its target.
    pub name: &'static str,
    /// Panics where what must hold does not.
    pub holds: fn(&[u8]),
}

/// All of them.
pub const ALL: [Boundary; 8] = [
    Boundary { name: "envelope", holds: envelope },
    Boundary { name: "event", holds: event },
    Boundary { name: "times", holds: times },
    Boundary { name: "spelling", holds: spelling },
    Boundary { name: "identity", holds: identity },
    Boundary { name: "reading", holds: reading },
    Boundary { name: "state", holds: state },
    Boundary { name: "configs", holds: configs },
];

fn first(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (*first, rest))
}

/// An answer is a page or an error; a page holds its records as they stand in the body.
pub fn envelope(data: &[u8]) {
    let (how, body) = first(data);
    for source in SOURCES {
        let Ok(page) = crate::source::page_of(source, how & 1 == 0, how & 2 == 0, body) else { continue };
        let text = String::from_utf8_lossy(body);
        for Listed { fingerprint, time, raw } in &page.records {
            let raw = std::str::from_utf8(raw).expect("a record is text");
            assert!(text.contains(raw), "it stands in the answer");
            let again = record::identify(source, raw);
            assert_eq!((again.fingerprint, again.time), (*fingerprint, *time));
        }
        assert!(page.records.len() <= 1000, "no page is longer");
        assert!(
            page.total.is_none_or(|total| total >= page.records.len() as u64),
            "a count is no smaller than the list"
        );
        assert!(page.next_token.is_none_or(|token| (1..=4096).contains(&token.len())), "a token is short");
    }
}

/// Any record, and any bytes, are an event in every format, on one line.
pub fn event(data: &[u8]) {
    let (how, raw) = first(data);
    for source in SOURCES {
        let identity = StreamIdentity { source, tenant: "t".to_owned() };
        let stream = StreamContext { identity, name: "s".to_owned() };
        let found = record::identify(source, &String::from_utf8_lossy(raw));
        let id = EventId::new(&stream.identity, found.fingerprint, 0);
        let time = found.time.unwrap_or_default();
        let admitted = Admitted { id, ordinal: 0, late: how & 1 == 1, time, raw: Bytes::copy_from_slice(raw) };
        let event = normalize(&stream, &admitted);
        for format in FORMATS {
            let mut out = Vec::new();
            encode(format, how & 2 == 0, &event, &mut out);
            if format == Format::Otlp {
                continue;
            }
            assert!(!out.contains(&b'\n') && !out.contains(&b'\r'), "{format:?} is one line");
            let line = std::str::from_utf8(&out).expect("it is text");
            assert!(
                serde_json::from_str::<&RawValue>(line).is_ok_and(|json| json.get().starts_with('{')),
                "{format:?}: {line}"
            );
            assert!(line.contains(&id.to_string()), "{format:?} has its id");
        }
    }
}

/// A time that is read can be written, and is read as the same.
pub fn times(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let read = [time::parse(&text).map(|stamp| stamp.instant), time::from_number(&text)];
    for instant in read.into_iter().flatten() {
        let written = time::Rfc3339(instant).to_string();
        assert_eq!(written.len(), 24);
        // Years that have no four digits are shown as the nearest that have.
        if (-62_167_219_200_000..253_402_207_199_999).contains(&instant) {
            assert_eq!(time::parse(&written).map(|stamp| stamp.instant), Some(instant), "{text}");
        }
    }
}

/// The same record in another spelling of JSON has the same identity.
pub fn spelling(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(other) = spelled_otherwise(text) else { return };
    for source in SOURCES {
        assert_eq!(record::identify(source, text), record::identify(source, &other), "{text}\n{other}");
    }
}

/// Members in another order, the last of each name; white space between; texts with every character escaped.
fn spelled_otherwise(text: &str) -> Option<String> {
    let members: std::collections::BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    let escaped = |text: &str| -> String { text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect() };
    let value = |json: &RawValue| match serde_json::from_str::<String>(json.get()) {
        Ok(text) => format!("\"{}\"", escaped(&text)),
        Err(_) => json.get().to_owned(),
    };
    let member = |(name, json): (&String, &&RawValue)| format!("\t\"{}\" :\r\n {}", escaped(name), value(json));
    Some(format!(" {{{} }}\n", members.iter().rev().map(member).collect::<Vec<_>>().join(" ,")))
}

/// What a fingerprint is taken of can be read back, whole: so no two identities give the same bytes.
pub fn identity(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for source in SOURCES {
        let bytes = record::canonical(source, &text);
        let head = [b"trailcast/record/1\0", source.name().as_bytes(), b"\0"].concat();
        let mut rest = bytes.strip_prefix(head.as_slice()).expect("version and source come first");
        let mut parts = 0;
        while !rest.is_empty() {
            rest = part(rest).expect("each part says how long it is");
            parts += 1;
        }
        assert!(parts == 9 || parts == 1, "{parts} parts of {text}");
    }
}

/// What follows a part of the canonical form.
fn part(bytes: &[u8]) -> Option<&[u8]> {
    let (tag, rest) = bytes.split_first()?;
    if *tag == 0 {
        return Some(rest);
    }
    let (length, rest) = rest.split_first_chunk::<8>()?;
    let (inside, rest) = rest.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)?;
    // A list is made of parts.
    let mut inside = if *tag == 4 { inside } else { &[] };
    while !inside.is_empty() {
        inside = part(inside)?;
    }
    (*tag <= 5).then_some(rest)
}

/// Whatever pages come, a reading ends, and finds no record more often than some page has listed it.
pub fn reading(data: &[u8]) {
    let (how, script) = first(data);
    let paging = if how & 1 == 0 { Paging::Numbered } else { Paging::Tokens };
    let rules = Rules {
        unit: 1,
        paging,
        page_limit: 1 + u32::from(how >> 4),
        max_rows: 200,
        max_bytes: 1 << 16,
        max_unit_bytes: 1 << 16,
        max_unit_rows: 200,
        everywhere: reading::Listed { rows: u64::from(how >> 2 & 3) * 8, bytes: 0 },
        shard: Shard::WHOLE,
        deepest: 100,
        cap: (how & 2 == 0).then_some(7),
        suspicion: [Suspicion::Nothing, Suspicion::Limit(11), Suspicion::Parts([1, 1, 1, 1 + i64::from(how >> 5)])]
            [usize::from(how >> 2) % 3],
    };
    let window = Window { from: 0, to: 1 + i64::from(how >> 1 & 7) * 5 };
    let mut reading = Reading::new(rules, window, None);
    let mut script = script.iter().copied();
    let mut listed: HashMap<Fingerprint, usize> = HashMap::new();
    let mut asked = 0;
    while let Some(request) = reading.next() {
        asked += 1;
        assert!(asked < 100_000, "a reading ends");
        assert!(request.from <= request.to && request.limit >= 1 && request.limit <= rules.page_limit, "{request:?}");
        match script.next().unwrap_or_default() {
            253 => reading.void(),
            254 => reading.too_large(),
            255 => reading.refused(),
            how => {
                let page = page(how, &request, paging, &mut script);
                let mut here: HashMap<Fingerprint, usize> = HashMap::new();
                page.records.iter().for_each(|record| *here.entry(record.fingerprint).or_default() += 1);
                for (fingerprint, count) in here {
                    let most = listed.entry(fingerprint).or_default();
                    *most = count.max(*most);
                }
                reading.give(page);
            }
        }
    }
    assert!(reading.end().is_some());
    for found in reading.into_found() {
        assert!(found.raw.len() <= listed[&found.fingerprint], "found more often than any page has listed it");
    }
}

/// Any page: its rows, their times, what is counted and what comes next are as the script says.
fn page(how: u8, request: &PageRequest, paging: Paging, script: &mut impl Iterator<Item = u8>) -> Page {
    let mut byte = || script.next().unwrap_or_default();
    let count = usize::from(how & 31);
    let records: Vec<Listed> = (0..count)
        .map(|_| {
            let which = byte();
            let time = (which & 3 != 0).then(|| request.from + i64::from(which >> 2) % 11 - 2);
            Listed { fingerprint: Fingerprint([which >> 2; 16]), time, raw: Bytes::from_static(b"{}") }
        })
        .collect();
    let total = match how >> 5 {
        0..=3 => Some(records.len() as u64),
        4 => Some(u64::from(byte())),
        5 => Some(u64::MAX >> (byte() & 63)),
        _ => None,
    };
    let next = (how & 32 != 0).then(|| byte().to_string());
    let held = Hold::uncounted(records.len() as u64 * 2);
    match paging {
        Paging::Numbered => Page { records, total, held, ..Page::default() },
        Paging::Tokens => Page { records, next_token: next, held, ..Page::default() },
    }
}

/// What was stored, here or in Kafka, is read, or refused; what was read is written as the same.
pub fn state(data: &[u8]) {
    if let Ok(cursor) = store::parse_cursor(data) {
        let again = store::parse_cursor(&store::write_cursor(&cursor)).expect("what was written is read");
        assert_eq!(cursor, again);
    }
    let mut delivered = Delivered::default();
    if let Ok(events) = store::add_delta(&mut delivered, data) {
        assert!(events <= data.len() as u64 / 18 * u64::from(u16::MAX));
    }
    let _ = store::add_unplaced(&mut delivered, Fingerprint([0; 16]), data);
    let _ = (LaneKey::names(data), LaneKey::stream_of(data), LaneKey::interval(data));
    kafka::reads_what_it_finds(data);
}

/// A config is right, or each mistake is named.
pub fn configs(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Err(errors) = config::parse(Path::new("fuzz.yaml"), &text) {
        assert!(!errors.to_string().is_empty(), "a refusal says why");
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Of each boundary.
    const TRIES: usize = 20_000;

    /// What was found once, by which boundary.
    const FOUND: [(&str, &[u8]); 1] =
        // A clock unit that was refused, and then read several times: fewer attempts than those that came to nothing.
        [("reading", b"Q\xff\xae:\xccc\x7f6\x01\xee")];

    /// What is near to what the boundaries take.
    const SEEDS: [&str; 12] = [
        r#"{"statusCode":200,"message":"ok","data":{"totalCount":2,"list":[{"userId":"u","timestamp":"2026-01-01T00:00:00.000+0800"},{"userId":"v"}]}}"#,
        r#"{"RetCode":0,"Action":"GetUserOperationEventsResponse","NextToken":"abc","Events":[{"Region":"cn","Api":"X","OperateTime":1700000000}]}"#,
        r#"{"userId":"u","userDisplayName":"n","appId":"a","clientIp":"10.0.0.1","eventType":"login","eventDetail":"d","success":true,"userAgent":"Mozilla/5.0","parsedUserAgent":{"os":"iOS","device":"x"},"geoip":{"location":{"lat":1.5,"lon":2}},"timestamp":"2022-09-20T08:55:00.188+0800","requestId":"r"}"#,
        r#"{"Region":"cn-bj2","Api":"CreateUHostInstance","IsSuccess":true,"OperateTime":1663635300,"UserName":"u","UserEmail":"a@b.c","RelatedResource":[{"ResourceId":"uhost-1","ResourceName":"n"}],"RemoteIP":"::1","AccessKeyID":"k"}"#,
        r#"{"statusCode":429,"apiCode":1305,"message":"\u4e2d"}"#,
        r#"{"RetCode":153,"Message":"too many"}"#,
        "2022-09-20T08:55:00.188+0800",
        "1663635300188.5e-3",
        r#"{"source":"genauth","tenant":"t","live":1,"overlap":0,"sweeps":{"60000":0},"commits":3,"read_at":5,"begun":0,"known":{}}"#,
        r#"{"format":1,"partitions":3,"group":"g"}"#,
        "streams: { users: { genauth: { user_pool_id: p, access_key_id: k, access_key_secret: { env: E } }, sweeps: [1h, 1d] } }\nsinks: { out: { stdout: {} } }\n",
        "trailcast state 00000000000000ff",
    ];
    const WORDS: [&str; 16] = [
        "null",
        "{}",
        "[]",
        "\"\"",
        "-1",
        "1e309",
        "\\u0000",
        "\\ud800",
        "\u{2028}",
        "true",
        "9223372036854775808",
        "list",
        "totalCount",
        "Events",
        "NextToken",
        "timestamp",
    ];

    fn changed(random: &mut StdRng, data: &mut Vec<u8>) {
        let at = random.random_range(0..=data.len());
        match random.random_range(0..7) {
            0 => data.truncate(at),
            1 => data.insert(at, random.random()),
            2 if at < data.len() => data[at] = random.random(),
            3 if at < data.len() => data[at] ^= 1 << random.random_range(0..8),
            4 => {
                let word = WORDS[random.random_range(0..WORDS.len())].as_bytes();
                data.splice(at..at, word.iter().copied());
            }
            5 => {
                let end = random.random_range(at..=data.len()).min(at + 64);
                let part = data[at..end].to_vec();
                data.splice(at..at, part);
            }
            _ => {
                let other = SEEDS[random.random_range(0..SEEDS.len())].as_bytes();
                let from = random.random_range(0..other.len());
                data.splice(at.., other[from..].iter().copied());
            }
        }
    }

    #[test]
    fn what_was_found_once_holds() {
        for (name, data) in FOUND {
            let of_name = ALL.into_iter().filter(|boundary| boundary.name == name);
            of_name.for_each(|boundary| (boundary.holds)(data));
        }
    }

    #[test]
    fn every_boundary_holds_whatever_comes() {
        for (seed, Boundary { name, holds }) in (0..).zip(ALL) {
            let mut random = StdRng::seed_from_u64(seed);
            SEEDS.iter().for_each(|text| holds(text.as_bytes()));
            for _ in 0..TRIES {
                let mut data = match random.random_range(0..4) {
                    0 => (0..random.random_range(0..200)).map(|_| random.random()).collect(),
                    _ => SEEDS[random.random_range(0..SEEDS.len())].as_bytes().to_vec(),
                };
                (0..random.random_range(1..6)).for_each(|_| changed(&mut random, &mut data));
                let told = std::panic::catch_unwind(|| holds(&data));
                assert!(told.is_ok(), "{name}: {}", data.escape_ascii());
            }
        }
    }

    /// `cargo fuzz` has a target for each, and no other.
    #[test]
    fn every_boundary_has_a_target() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("it is there");
        assert_eq!(manifest.matches("[[bin]]").count(), ALL.len());
        for Boundary { name, .. } in ALL {
            assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
            let target = std::fs::read_to_string(folder.join(format!("targets/{name}.rs"))).expect("it is there");
            assert!(target.contains(&format!("trailcast::fuzz::{name}(")), "{target}");
        }
    }
}
