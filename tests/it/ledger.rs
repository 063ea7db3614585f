//! What arrived, compared with the simulator's truth ledger: as multisets, since equal records are several events.
//!
//! Records are read by a parser of their own here, so that a mistake of `record` or `encode` shows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use trailcast::event::{Millis, Source};
use trailcast::simulate::{Content, Simulator, Truth};

/// An event in the format `native`.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: String,
    pub source: Source,
    pub time: Millis,
    /// The record's own text.
    pub record: String,
}

impl Event {
    /// # Panics
    /// If `line` is no event.
    pub fn parse(line: &str) -> Self {
        #[derive(Deserialize)]
        struct Line<'a> {
            id: String,
            source: Source,
            time: String,
            #[serde(borrow)]
            record: &'a RawValue,
        }
        let Line { id, source, time, record } =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("not an event: {error}: {line:?}"));
        assert!(id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
        let time = time.parse::<jiff::Timestamp>().expect("an event's time is RFC 3339").as_millisecond();
        Self { id, source, time, record: record.get().to_owned() }
    }

    /// The events of a file.
    ///
    /// # Panics
    /// If a line is no event, or the last one has no end.
    pub fn all_of(path: &Path) -> Vec<Self> {
        let text = std::fs::read_to_string(path).expect("what was delivered can be read");
        assert!(text.is_empty() || text.ends_with('\n'), "the last line is torn");
        text.lines().map(Self::parse).collect()
    }
}

/// What differs. Everything is empty where each event arrived once and as it was.
#[derive(Debug, Default)]
pub struct Difference {
    /// How many records had to arrive.
    pub expected: usize,
    /// Records that did not arrive.
    pub missing: Vec<Truth>,
    /// Events of no record.
    pub invented: Vec<Event>,
    /// Events whose frame does not say what their record says, or whose id is another event's.
    pub altered: Vec<Event>,
    /// Ids that arrived more than once. Such an event counts once for all else.
    pub repeated: Vec<String>,
}

impl Difference {
    /// # Panics
    /// Unless every event arrived, and once.
    pub fn assert_none(&self) {
        let nothing = self.missing.is_empty() && self.invented.is_empty() && self.altered.is_empty();
        assert!(nothing && self.repeated.is_empty(), "{self}");
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, missing, invented, altered, repeated } = self;
        write!(f, "of {expected} records: {} missing, {} invented, ", missing.len(), invented.len())?;
        write!(f, "{} altered, {} ids repeated; for example ", altered.len(), repeated.len())?;
        write!(f, "missing {:?}, ", &missing[..missing.len().min(3)])?;
        write!(f, "invented {:?}, ", &invented[..invented.len().min(3)])?;
        write!(f, "altered {:?}, ", &altered[..altered.len().min(3)])?;
        write!(f, "repeated {:?}", &repeated[..repeated.len().min(3)])
    }
}

/// Compares the events of one source, which all must be of `events`' one stream and sink, with what happened from
/// `from` until before `to`. What became readable after `readable_by` (on the servers' clock) may be among them.
pub fn compare(
    simulator: &Simulator,
    source: Source,
    (from, to): (Millis, Millis),
    readable_by: Millis,
    events: &[Event],
) -> Difference {
    let truth: Vec<Truth> = simulator.truth(source, from, to).collect();
    let odd: HashSet<String> = truth.iter().filter_map(odd_text).collect();
    let mut difference = Difference::default();
    let mut by_id: HashMap<&str, Content> = HashMap::new();
    let mut arrived: HashMap<Content, Vec<&Event>> = HashMap::new();
    for event in events.iter().filter(|event| event.source == source) {
        let content = content(event, &odd);
        match by_id.get(event.id.as_str()) {
            None => {
                by_id.insert(&event.id, content.clone());
                arrived.entry(content).or_default().push(event);
            }
            Some(first) if *first == content => difference.repeated.push(event.id.clone()),
            Some(_) => difference.altered.push(event.clone()),
        }
    }
    // Those that must be there first, so that one that may is not taken for one that must.
    let (must, may): (Vec<_>, Vec<_>) = truth.into_iter().partition(|truth| truth.readable_at <= readable_by);
    difference.expected = must.len();
    for (truth, must) in must.into_iter().map(|truth| (truth, true)).chain(may.into_iter().map(|truth| (truth, false)))
    {
        let same = normal(&truth.content);
        match arrived.get_mut(&same).and_then(Vec::pop) {
            Some(event) if truth.time.is_some_and(|time| time != event.time) => difference.altered.push(event.clone()),
            Some(_) => {}
            None if must => difference.missing.push(truth),
            None => {}
        }
    }
    difference.invented = arrived.into_values().flatten().cloned().collect();
    difference
}

/// Compares both sources' events with all that was readable at `readable_by`; [`Difference::assert_none`] of both.
///
/// # Panics
/// Unless every event arrived, and once.
pub fn assert_all_arrived(simulator: &Simulator, readable_by: Millis, events: &[Event]) {
    assert_arrived(simulator, (0, Millis::MAX), readable_by, 0, events);
}

/// The same of what happened in `range`, where more than so many records of each source did.
pub fn assert_arrived(
    simulator: &Simulator,
    range: (Millis, Millis),
    readable_by: Millis,
    more_than: usize,
    events: &[Event],
) {
    for source in [Source::Genauth, Source::Scloud] {
        let difference = compare(simulator, source, range, readable_by, events);
        assert!(difference.expected > more_than, "{source}: too little happened to show anything: {difference}");
        difference.assert_none();
    }
}

/// Each event by its id, and how often it arrived.
pub fn counted(events: &[Event]) -> BTreeMap<&str, usize> {
    events.iter().fold(BTreeMap::new(), |mut counts, event| {
        *counts.entry(event.id.as_str()).or_default() += 1;
        counts
    })
}

fn odd_text(truth: &Truth) -> Option<String> {
    match &truth.content {
        Content::Odd(text) => Some(text.clone()),
        Content::Identity(_) => None,
    }
}

/// As `serde_json` writes it.
fn normal(content: &Content) -> Content {
    match content {
        Content::Odd(text) => Content::Odd(text.clone()),
        Content::Identity(text) => {
            let value: Value = serde_json::from_str(text).expect("an identity is JSON");
            Content::Identity(value.to_string())
        }
    }
}

/// What the record is. One that is neither odd nor as documented equals nothing that happened.
fn content(event: &Event, odd: &HashSet<String>) -> Content {
    if odd.contains(&event.record) {
        return Content::Odd(event.record.clone());
    }
    let record: Value = serde_json::from_str(&event.record).expect("a raw value is JSON");
    let fields = |names: &[&str]| -> Vec<Value> { names.iter().map(|name| record[*name].clone()).collect() };
    let values = match event.source {
        Source::Genauth => {
            let mut values = fields(&[
                "userId",
                "appId",
                "clientIp",
                "eventType",
                "eventDetail",
                "success",
                "userAgent",
                "timestamp",
                "requestId",
            ]);
            values[7] = instant(&values[7]).into();
            values
        }
        Source::Scloud => {
            let mut values =
                fields(&["Region", "Api", "IsSuccess", "OperateTime", "UserName", "UserEmail", "RelatedResource"]);
            values[3] = match instant(&values[3]) {
                Some(instant) => (instant / 1000).into(),
                None => values[3].take(),
            };
            let resources = values[6].as_array().cloned().unwrap_or_default();
            values[6] = resources.iter().map(|resource| resource["ResourceId"].clone()).collect();
            values.extend(fields(&["RemoteIP", "AccessKeyID"]));
            values
        }
    };
    Content::Identity(Value::from(values).to_string())
}

/// Milliseconds since the epoch of what is written in whatever form: text, seconds or milliseconds, or a text of them.
fn instant(written: &Value) -> Option<Millis> {
    let number = written.as_f64().or_else(|| written.as_str()?.parse().ok());
    let Some(number) = number else { return moment(written.as_str()?) };
    #[expect(clippy::cast_possible_truncation, reason = "a time of this century")]
    Some((if number < 1e11 { number * 1000.0 } else { number }).round() as Millis)
}

/// Milliseconds since the epoch of such as `2022-09-20T08:55:00.188+0800`.
fn moment(text: &str) -> Option<Millis> {
    let text = text.replace('Z', "+0000").replace("+08:00", "+0800");
    let moment = jiff::fmt::strtime::parse("%Y-%m-%dT%H:%M:%S%.f%z", text).ok()?;
    Some(moment.to_timestamp().ok()?.as_millisecond())
}
