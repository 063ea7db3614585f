//! `trailcast cursor export|import`: lanes' state from one checkpoint to another, such as from a file to Kafka.
//!
//! One JSON object a line: the format's number first, then each entry of the map with its lane, key and value. What a
//! lane remembers goes with its cursor, so that nothing is delivered twice for the move.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::cursor::{confirm, open, usage};
use super::{Answer, CommandError};
use crate::checkpoint;
use crate::checkpoint::Changes;
use crate::cli::{CursorAcceptArgs, CursorExportArgs, CursorImportArgs};
use crate::config;
use crate::state::store::LaneKey;
use crate::telemetry::chain;

/// The format that is written, and the only one that is read.
const FORMAT: u64 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    trailcast_cursors: u64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    stream: String,
    sink: String,
    key: String,
    value: String,
}

/// See the module.
pub(super) fn export(args: &CursorExportArgs) -> Result<Answer, CommandError> {
    let config = config::load(&args.config.config)?.config;
    let checkpoint =
        checkpoint::salvage(&config.checkpoint, &config.dead_letters).map_err(|error| usage(&chain(&error)))?;
    let mut text = json(&Head { trailcast_cursors: FORMAT });
    let mut lanes = Vec::new();
    let all = LaneKey::all_cursors();
    checkpoint
        .scan(&all.start..&all.end, &mut |key, _| lanes.extend(LaneKey::names(key)))
        .map_err(|error| chain(&error))?;
    let wanted = |(stream, sink): &(String, String)| {
        args.stream.as_ref().is_none_or(|wanted| wanted == stream)
            && args.sink.as_ref().is_none_or(|wanted| wanted == sink)
    };
    for (stream, sink) in lanes.into_iter().filter(wanted) {
        let lane = LaneKey::new(&stream, &sink);
        let mut put = |key: &[u8], value: &[u8]| {
            let (key, value) = (BASE64.encode(key), BASE64.encode(value));
            text.push('\n');
            text += &json(&Line { stream: stream.clone(), sink: sink.clone(), key, value });
        };
        let cursor = lane.cursor();
        if let Some(value) = checkpoint.get(&cursor).map_err(|error| chain(&error))? {
            put(&cursor, &value);
        }
        for range in lane.remembered() {
            checkpoint.scan(&range.start..&range.end, &mut put).map_err(|error| chain(&error))?;
        }
    }
    Ok(Answer::done(text))
}

fn json(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("text and a number are always JSON")
}

/// See the module.
pub(super) fn import(args: &CursorImportArgs) -> Result<Answer, CommandError> {
    let path = &args.from;
    let text = std::fs::read_to_string(path).map_err(|error| usage(&format!("{}: {error}", path.display())))?;
    let lanes = parse(&text).map_err(|what| usage(&format!("{}: {what}", path.display())))?;
    if lanes.is_empty() {
        return Err(usage(&format!("{}: holds no cursor", path.display())));
    }
    let checkpoint = open(&args.config.config)?;
    let names: Vec<String> = lanes.keys().map(|(stream, sink)| format!("{stream} to {sink}")).collect();
    confirm(&names, "go on from where the import says, forgetting what this checkpoint has of them", args.yes)?;
    let mut answer = String::new();
    for ((stream, sink), puts) in lanes {
        let lane = LaneKey::new(&stream, &sink);
        let count = puts.len();
        // What was there goes in the same commit, so that at no moment a lane has a part of each.
        let changes = Changes { delete_ranges: lane.remembered().to_vec(), deletes: vec![lane.cursor()], puts };
        checkpoint.commit(&changes).map_err(|error| chain(&error))?;
        let _ = writeln!(answer, "{stream} to {sink}: imported, {count} entries");
    }
    answer.truncate(answer.trim_end().len());
    Ok(Answer::done(answer))
}

/// `trailcast cursor accept`: what the checkpoint holds counts from now on, whatever was there before.
pub(super) fn accept(args: &CursorAcceptArgs) -> Result<Answer, CommandError> {
    let config = config::load(&args.config.config)?.config;
    let what = "go on from what the checkpoint holds, or where it holds nothing begin at their stream's `start`, though \
                more was delivered before: events come again";
    confirm(&["all lanes".to_owned()], what, args.yes)?;
    checkpoint::accept(&config.checkpoint, &config.dead_letters).map_err(|error| usage(&chain(&error)))?;
    Ok(Answer::done("accepted: what the checkpoint holds counts from now on".to_owned()))
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// By stream and sink. Refuses what would end in another lane than it says.
fn parse(text: &str) -> Result<BTreeMap<(String, String), Entries>, String> {
    let mut lines = text.lines();
    match lines.next().map(serde_json::from_str) {
        Some(Ok(Head { trailcast_cursors: FORMAT })) => {}
        Some(Ok(Head { trailcast_cursors: other })) => {
            return Err(format!("has format {other}, this trailcast knows {FORMAT}"));
        }
        _ => return Err("is not what `trailcast cursor export` writes".to_owned()),
    }
    let mut lanes: BTreeMap<(String, String), Entries> = BTreeMap::new();
    for (number, line) in (2..).zip(lines) {
        let wrong = |what: &str| format!("line {number}: {what}");
        let line: Line = serde_json::from_str(line).map_err(|_| wrong("is torn or not an entry"))?;
        let bytes = |text: &str| BASE64.decode(text).map_err(|_| wrong("is not Base64"));
        let (key, value) = (bytes(&line.key)?, bytes(&line.value)?);
        let lane = LaneKey::new(&line.stream, &line.sink);
        let is_of_lane = key == lane.cursor() || lane.remembered().iter().any(|range| range.contains(&key));
        if !is_of_lane {
            return Err(wrong("is of another lane than it says"));
        }
        lanes.entry((line.stream, line.sink)).or_default().push((key, value));
    }
    match lanes.iter().find(|((stream, sink), entries)| {
        let cursor = LaneKey::new(stream, sink).cursor();
        !entries.iter().any(|(key, _)| *key == cursor)
    }) {
        Some(((stream, sink), _)) => Err(format!("has no cursor of {stream} to {sink}: it is not whole")),
        None => Ok(lanes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stream: &str, key: &[u8]) -> String {
        let (key, value) = (BASE64.encode(key), BASE64.encode(b"v"));
        json(&Line { stream: stream.to_owned(), sink: "out".to_owned(), key, value })
    }

    #[test]
    fn only_a_whole_export_is_imported() {
        let (lane, other) = (LaneKey::new("users", "out"), LaneKey::new("cloud", "out"));
        let remembered = lane.remembered()[0].start.clone();
        let head = json(&Head { trailcast_cursors: FORMAT });
        let whole = [head.clone(), line("users", &lane.cursor()), line("users", &remembered)].join("\n");
        let lanes = parse(&whole).unwrap();
        let entries = &lanes[&("users".to_owned(), "out".to_owned())];
        assert_eq!(*entries, [(lane.cursor(), b"v".to_vec()), (remembered.clone(), b"v".to_vec())]);
        for (text, error) in [
            (String::new(), "is not what `trailcast cursor export` writes"),
            (whole.replacen(":1}", ":2}", 1), "has format 2"),
            (whole[..whole.len() - 2].to_owned(), "line 3: is torn"),
            (format!("{head}\n{}", line("users", &other.cursor())), "line 2: is of another lane than it says"),
            (format!("{head}\n{}", line("users", &remembered)), "has no cursor of users to out"),
            (whole.replace("\"key\":\"", "\"key\":\"!"), "line 2: is not Base64"),
        ] {
            let found = parse(&text).unwrap_err();
            assert!(found.contains(error), "{error}: {found}");
        }
    }
}
