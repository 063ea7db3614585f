//! `trailcast cursor export|import`: lanes' state from one checkpoint to another, such as from a file to Kafka.
//!
//! One JSON object a line: the format's number first, then each entry of the map with its lane, key and value, and last
//! how many entries these are and a hash of all that stands before. What a lane remembers goes with its cursor, so that
//! nothing is delivered twice for the move; and an export that is not whole is refused, since what it lacks would come again.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::cursor::{confirm, kept, open, usage};
use super::{Answer, CommandError};
use crate::checkpoint::{self, CheckpointError};
use crate::cli::{CursorAcceptArgs, CursorExportArgs, CursorImportArgs};
use crate::config;
use crate::state::store::{Changes, LaneKey};
use crate::words::chain;

/// The format that is written, and the only one that is read.
const FORMAT: u64 = 2;
/// The format before that had no last line: one that was cut between two lines looked whole.
const WITHOUT_END: u64 = 1;
/// What to do about an export that is not as it was written.
const AGAIN: &str = "nothing was imported; run `trailcast cursor export` again, look that it ends with status 0, and take \
                     the whole of what it writes";

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

/// The last line.
#[derive(Serialize, Deserialize)]
struct End {
    entries: u64,
    /// BLAKE3, in hex, of all lines before, each with a line feed at its end.
    blake3: String,
}

/// See the module.
pub(super) fn export(args: &CursorExportArgs) -> Result<Answer, CommandError> {
    let config = kept(config::load(&args.config.config)?.config)?;
    let checkpoint =
        checkpoint::salvage(&config.checkpoint, &config.dead_letters).map_err(|error| usage(&chain(&error)))?;
    let mut text = json(&Head { trailcast_cursors: FORMAT });
    let mut entries = 0;
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
            entries += 1;
        };
        let cursor = lane.cursor();
        if let Some(value) = checkpoint.get(&cursor).map_err(|error| chain(&error))? {
            put(&cursor, &value);
        }
        for range in lane.remembered() {
            checkpoint.scan(&range.start..&range.end, &mut put).map_err(|error| chain(&error))?;
        }
    }
    Ok(Answer::done(ended(text, entries)))
}

/// With the last line.
fn ended(mut text: String, entries: u64) -> String {
    text.push('\n');
    let blake3 = blake3::hash(text.as_bytes()).to_hex().to_string();
    text + &json(&End { entries, blake3 })
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
    let checkpoint = open(&kept(config::load(&args.config.config)?.config)?)?;
    let names: Vec<String> = lanes.keys().map(|(stream, sink)| format!("{stream} to {sink}")).collect();
    confirm(&names, "go on from where the import says, forgetting what this checkpoint has of them", args.yes)?;
    let mut answer = String::new();
    for ((stream, sink), puts) in lanes {
        let lane = LaneKey::new(&stream, &sink);
        let count = puts.len();
        // What was there goes in the same commit, so that at no moment a lane has a part of each.
        let changes = Changes { delete_ranges: lane.remembered().to_vec(), deletes: vec![lane.cursor()], puts };
        checkpoint.commit(&changes).map_err(|error| chain(&error))?;
        let entries = if count == 1 { "entry" } else { "entries" };
        let _ = writeln!(answer, "{stream} to {sink}: imported, {count} {entries}");
    }
    answer.truncate(answer.trim_end().len());
    Ok(Answer::done(answer))
}

/// `trailcast cursor accept`: what the checkpoint holds counts from now on, whatever was there before.
pub(super) fn accept(args: &CursorAcceptArgs) -> Result<Answer, CommandError> {
    let config = kept(config::load(&args.config.config)?.config)?;
    match checkpoint::look(&config.checkpoint, &config.dead_letters) {
        Ok(()) => {
            let nothing =
                "nothing to accept: the checkpoint holds what was kept there before, and `run` goes on from it";
            return Ok(Answer::done(nothing.to_owned()));
        }
        // Nothing is known of it.
        Err(error @ (CheckpointError::InUse { .. } | CheckpointError::Kafka(_))) => return Err(usage(&chain(&error))),
        Err(_) => {}
    }
    let what = "go on from what the checkpoint holds, or where it holds nothing begin at their stream's `start`, though \
                more was delivered before: events come again";
    confirm(&["all lanes".to_owned()], what, args.yes)?;
    checkpoint::accept(&config.checkpoint, &config.dead_letters).map_err(|error| usage(&chain(&error)))?;
    Ok(Answer::done("accepted: what the checkpoint holds counts from now on".to_owned()))
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// By stream and sink. Refuses what is not whole, and what would end in another lane than it says.
fn parse(text: &str) -> Result<BTreeMap<(String, String), Entries>, String> {
    let mut lines = text.lines();
    match lines.next().map(serde_json::from_str) {
        Some(Ok(Head { trailcast_cursors: FORMAT })) => {}
        Some(Ok(Head { trailcast_cursors: WITHOUT_END })) => {
            return Err(format!(
                "has format {WITHOUT_END}, of an earlier trailcast, which does not say where it ends: whether it is whole \
                 cannot be seen; nothing was imported; export again with this trailcast, from the checkpoint it came from"
            ));
        }
        Some(Ok(Head { trailcast_cursors: other })) => {
            return Err(format!("has format {other}, this trailcast knows {FORMAT}"));
        }
        _ => return Err("is not what `trailcast cursor export` writes".to_owned()),
    }
    let lines = whole(text, lines.collect())?;
    let mut lanes: BTreeMap<(String, String), Entries> = BTreeMap::new();
    for (number, line) in (2..).zip(lines) {
        let wrong = |what: &str| format!("line {number}: {what}");
        let line: Line = serde_json::from_str(line).map_err(|_| wrong("is no entry"))?;
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

/// The entries among `lines`, which are those of `text` behind the first, if their last says that they are all and as they
/// were written.
fn whole<'a>(text: &str, mut lines: Vec<&'a str>) -> Result<Vec<&'a str>, String> {
    let Some(Ok(end)) = lines.pop().map(serde_json::from_str::<End>) else {
        return Err(format!("is not whole: its last line does not say how many entries it has; {AGAIN}"));
    };
    let found = lines.len() as u64;
    if found != end.entries {
        return Err(format!(
            "is not whole: it has {found} entries, and says at its end that they are {}; {AGAIN}",
            end.entries
        ));
    }
    // By lines, so that it is the same whatever a transfer makes of their ends.
    let mut hash = blake3::Hasher::new();
    for line in text.lines().take(1 + lines.len()) {
        hash.update(line.as_bytes()).update(b"\n");
    }
    if *hash.finalize().to_hex() != *end.blake3 {
        return Err(format!("is not as it was written: its hash is another than it says at its end; {AGAIN}"));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stream: &str, key: &[u8]) -> String {
        let (key, value) = (BASE64.encode(key), BASE64.encode(b"v"));
        json(&Line { stream: stream.to_owned(), sink: "out".to_owned(), key, value })
    }

    fn exported(lines: &[String]) -> String {
        let head = json(&Head { trailcast_cursors: FORMAT });
        ended([&[head], lines].concat().join("\n"), lines.len() as u64)
    }

    fn refused(text: &str, error: &str) {
        let found = parse(text).expect_err(error);
        assert!(found.contains(error), "{error}: {found}");
    }

    #[test]
    fn only_a_whole_export_is_imported() {
        let (lane, other) = (LaneKey::new("users", "out"), LaneKey::new("cloud", "out"));
        let remembered = lane.remembered()[0].start.clone();
        let lines = [line("users", &lane.cursor()), line("users", &remembered)];
        let whole = exported(&lines);
        for text in [whole.clone(), format!("{whole}\n"), whole.replace('\n', "\r\n")] {
            let lanes = parse(&text).unwrap();
            let entries = &lanes[&("users".to_owned(), "out".to_owned())];
            assert_eq!(*entries, [(lane.cursor(), b"v".to_vec()), (remembered.clone(), b"v".to_vec())]);
        }
        // Cut anywhere: between two lines, too.
        let head = whole.lines().next().unwrap().len();
        for length in 0..whole.len() {
            let error = if length < head { "is not what `trailcast cursor export` writes" } else { "is not whole" };
            refused(&whole[..length], error);
        }
        // A line that is missing, there twice, another, or moved; and what follows the end.
        let parts: Vec<&str> = whole.lines().collect();
        let [head, first, second, end] = parts[..] else { panic!("{whole}") };
        for (lines, error) in [
            (vec![head, first, end], "it has 1 entries, and says at its end that they are 2"),
            (vec![head, first, second, second, end], "it has 3 entries"),
            (vec![head, first, first, end], "is not as it was written"),
            (vec![head, second, first, end], "is not as it was written"),
            (vec![head, first, second, end, head, first, second, end], "it has 6 entries"),
            (vec![head, first, second, end, first], "its last line does not say how many entries it has"),
        ] {
            refused(&lines.join("\n"), error);
        }
        for (text, error) in [
            (String::new(), "is not what `trailcast cursor export` writes"),
            (whole.replacen(":2}", ":3}", 1), "has format 3"),
            (whole.replacen(":2}", ":1}", 1), "export again with this trailcast"),
            (exported(&["{}".to_owned()]), "line 2: is no entry"),
            (exported(&[line("users", &other.cursor())]), "line 2: is of another lane than it says"),
            (exported(&[line("users", &remembered)]), "has no cursor of users to out"),
            (exported(&[lines[0].replace("\"key\":\"", "\"key\":\"!")]), "line 2: is not Base64"),
        ] {
            refused(&text, error);
        }
    }
}
