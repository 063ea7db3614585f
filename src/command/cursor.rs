//! `trailcast cursor`: where lanes stand, and changing it while nothing runs.

use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal, Write as _};
use std::sync::Arc;

use serde_json::json;

use super::{Answer, CommandError, transfer};
use crate::checkpoint::{self, Store};
use crate::cli::{CursorCommand, Exit, LaneArgs};
use crate::clock;
use crate::config;
use crate::config::{CheckpointConfig, Config, units};
use crate::event::{Millis, Source};
use crate::lane::cursor_set;
use crate::reading::{Gap, GapReason};
use crate::source::history;
use crate::state::cursor::Cursor;
use crate::state::store::{self, Changes, LaneKey};
use crate::window::Window;
use crate::words::chain;

const DAY: Millis = 86_400_000;
const NONE: &str = "no cursor is stored yet: trailcast stores one for each lane when it first runs";
/// Of one that ends with its process.
const MEMORY: &str = "the checkpoint is in memory: cursors are in the process that runs alone, and end with it; its `/status` \
                                 shows where its lanes stand";
/// Days back of an API that documents no end of what it keeps, before that is told.
const FAR: i64 = 365;

/// A lane that has a cursor.
struct Stored {
    stream: String,
    sink: String,
    cursor: Cursor,
}

/// Shows, sets or deletes the chosen lanes' cursors.
///
/// # Errors
/// The config is wrong, or the checkpoint cannot be opened: another trailcast may run on it.
pub fn cursor(command: &CursorCommand) -> Result<Answer, CommandError> {
    let lanes = match command {
        CursorCommand::Show(args) => &args.lanes,
        CursorCommand::Set(args) => &args.lanes,
        CursorCommand::Delete(args) => &args.lanes,
        CursorCommand::Export(args) => return transfer::export(args),
        CursorCommand::Import(args) => return transfer::import(args),
        CursorCommand::Accept(args) => return transfer::accept(args),
    };
    let config = config::load(&lanes.config.config)?.config;
    if is_in_memory(&config) && matches!(command, CursorCommand::Show(_)) {
        return Ok(Answer::done(if lanes.json { "[]".to_owned() } else { MEMORY.to_owned() }));
    }
    let config = kept(config)?;
    // What is changed is there, so it is that which is opened.
    let checkpoint =
        checkpoint::read(&config.checkpoint, &config.dead_letters).map_err(|error| usage(&chain(&error)))?;
    let mut stored = chosen(&checkpoint, lanes)?;
    if stored.is_empty() && (names_one(lanes) || !matches!(command, CursorCommand::Show(_))) {
        return Err(usage(&none_of(&checkpoint, lanes)?));
    }
    match command {
        CursorCommand::Show(_) | CursorCommand::Export(_) | CursorCommand::Import(_) | CursorCommand::Accept(_) => {}
        CursorCommand::Set(args) => {
            let now = clock::now();
            let effect = effect(&stored, args.to, now, args.skip).map_err(|message| usage(&message))?
                + &reach(&stored, args.to, now);
            confirm(&names(&stored), &effect, args.yes)?;
            for lane in &mut stored {
                let from = lane.cursor.floor();
                lane.cursor.set_to(args.to);
                let to = lane.cursor.live;
                let skipped = Gap { from, to, reason: GapReason::Skipped };
                lane.cursor.known.ask_anew(to);
                if skipped.from < skipped.to {
                    lane.cursor.known.add_gap(skipped);
                }
                change(&checkpoint, lane, true)?;
            }
        }
        CursorCommand::Delete(args) => {
            confirm(&names(&stored), "begin again at the stream's `start`", args.yes)?;
            for lane in &stored {
                change(&checkpoint, lane, false)?;
            }
        }
    }
    let deleted = matches!(command, CursorCommand::Delete(_));
    let hint =
        stored.iter().any(|lane| !lane.cursor.known.gaps.is_empty()) && matches!(command, CursorCommand::Show(_));
    let hint = if hint { read_again() } else { String::new() };
    Ok(Answer::done(if lanes.json { in_json(&stored, deleted) } else { in_text(&stored, deleted) + &hint }))
}

fn read_again() -> String {
    format!(
        "\nto read a gap again, once its cause is mended: `{}`, the time at which it begins; what was delivered since comes \
         again, with the same ids",
        cursor_set("STREAM", "SINK", "TIME")
    )
}

const fn names_one(lanes: &LaneArgs) -> bool {
    lanes.stream.is_some() || lanes.sink.is_some()
}

/// That none of the lanes that were asked for has a cursor, and which have.
fn none_of(checkpoint: &Arc<dyn Store>, lanes: &LaneArgs) -> Result<String, CommandError> {
    let any = LaneArgs { stream: None, sink: None, ..lanes.clone() };
    let stored = names(&chosen(checkpoint, &any)?);
    let asked = [("stream", &lanes.stream), ("sink", &lanes.sink)];
    let asked = asked.iter().filter_map(|(kind, name)| Some(format!("of {kind} {}", name.as_ref()?)));
    let asked = asked.collect::<Vec<_>>().join(", ");
    Ok(match (asked.as_str(), stored.as_slice()) {
        (_, []) => NONE.to_owned(),
        (asked, stored) => format!("no cursor {asked} is stored; stored are those of {}", stored.join(", ")),
    })
}

/// What setting these lanes to `to` does, or why that is refused.
fn effect(lanes: &[Stored], to: Millis, now: Millis, skip: bool) -> Result<String, String> {
    // What was read by the server's clock was not read in the future, whatever this machine's clock says.
    let now = lanes.iter().filter_map(|lane| lane.cursor.read_at).fold(now, Millis::max);
    if to > now {
        return Err(format!(
            "--to {} is ahead of now, {}: what happens until then would never be delivered",
            time(to),
            time(now)
        ));
    }
    let what = format!("go on from {}. What comes after it is delivered again", time(to));
    let passed_over: Vec<String> = lanes.iter().filter_map(|lane| passed_over(lane, to)).collect();
    let Some(lowest) = lanes.iter().map(|lane| lane.cursor.floor()).min().filter(|_| !passed_over.is_empty()) else {
        return Ok(what);
    };
    let passed_over = passed_over.join("\n");
    if skip {
        return Ok(format!(
            "{what}.\nThis is not read, but kept as a gap. What of it was not delivered before never is:\n{passed_over}"
        ));
    }
    Err(format!(
        "not changed. This would not be read, and what of it was not delivered before never would be:\n{passed_over}\n\
         --to {} loses nothing. If you mean it, say --skip, too",
        time(lowest)
    ))
}

/// What setting a lane to `to` passes over: whatever any of its passes has not read yet. A line, if it is anything. A
/// cursor that is ahead of now itself stands nowhere that was read.
fn passed_over(Stored { stream, sink, cursor }: &Stored, to: Millis) -> Option<String> {
    let (live, swept, to) = (cursor.live, cursor.passes_floor(), cursor.rounded(to));
    let until = live.min(to);
    let history = cursor.history().filter(|history| history.from < to).map(|Window { from, to: end }| {
        format!(
            "records of history between {} and {}, which the backfill has not read yet",
            time(from),
            time(end.min(to))
        )
    });
    let all = (live < to).then(|| format!("all records between {} and {}", time(live), time(to)));
    let late = (swept < until).then(|| {
        let (from, until) = (time(swept), time(until));
        format!("late records between {from} and {until}, which its sweeps have not read yet")
    });
    let what: Vec<String> = all.into_iter().chain(history).chain(late).collect();
    (!what.is_empty()).then(|| format!("  {stream} to {sink}: {}", what.join("; ")))
}

/// What it means that `to` lies far back, if it does: APIs do not keep all that ever happened, and every day is asked for.
fn reach(lanes: &[Stored], to: Millis, now: Millis) -> String {
    let mut means = String::new();
    let mut sources: Vec<Source> = lanes.iter().map(|lane| lane.cursor.stream.source).collect();
    sources.sort_unstable_by_key(|source| source.to_string());
    sources.dedup();
    for source in sources {
        let days = (now - to) / DAY;
        // Writing to a string cannot fail.
        let _ = match history(source).map(clock::millis) {
            Some(kept) if to < now - kept => {
                let oldest = time(now - kept);
                write!(means, "; {source} keeps {} days: what lies before {oldest} is gone, a gap", kept / DAY)
            }
            None if days > FAR => {
                write!(
                    means,
                    "; {source} is asked for each of {days} days, a call or more, though it may keep none of them"
                )
            }
            _ => Ok(()),
        };
    }
    means
}

const fn is_in_memory(config: &Config) -> bool {
    matches!(config.checkpoint, CheckpointConfig::Memory)
}

/// A config whose cursors are kept beyond its process.
pub(super) fn kept(config: Config) -> Result<Config, CommandError> {
    if is_in_memory(&config) { Err(usage(MEMORY)) } else { Ok(config) }
}

/// The checkpoint of a config.
pub(super) fn open(config: &Config) -> Result<Arc<dyn Store>, CommandError> {
    checkpoint::open(&config.checkpoint, &config.dead_letters).map_err(|error| usage(&chain(&error)))
}

fn names(lanes: &[Stored]) -> Vec<String> {
    lanes.iter().map(|lane| format!("{} to {}", lane.stream, lane.sink)).collect()
}

fn chosen(checkpoint: &Arc<dyn Store>, lanes: &LaneArgs) -> Result<Vec<Stored>, CommandError> {
    let mut stored = Vec::new();
    let mut damaged = Ok(());
    let all = LaneKey::all_cursors();
    let visit = &mut |key: &[u8], value: &[u8]| {
        let Some((stream, sink)) = LaneKey::names(key) else { return };
        let wanted = lanes.stream.as_ref().is_none_or(|wanted| *wanted == stream)
            && lanes.sink.as_ref().is_none_or(|wanted| *wanted == sink);
        match store::parse_cursor(value) {
            Ok(cursor) if wanted => stored.push(Stored { stream, sink, cursor }),
            Ok(_) => {}
            Err(error) => damaged = Err(format!("the cursor of {stream} to {sink}: {error}")),
        }
    };
    checkpoint.scan(&all.start..&all.end, visit).map_err(|error| chain(&error))?;
    damaged?;
    Ok(stored)
}

pub(super) fn usage(message: &str) -> CommandError {
    CommandError { message: message.to_owned(), exit: Exit::Usage }
}

/// Asks on the terminal, unless told not to.
pub(super) fn confirm(names: &[String], what: &str, yes: bool) -> Result<(), CommandError> {
    let what = format!("{} will {what}", names.join(", "));
    if yes {
        // What is not asked is said all the same: it may be that something is never delivered.
        let _ = writeln!(std::io::stderr(), "{what}");
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(usage("not changed: stdin is no terminal, so nobody can confirm; add `--yes`"));
    }
    let _ = write!(std::io::stderr(), "{what}.\nGo ahead? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|error| error.to_string())?;
    if answer.trim().eq_ignore_ascii_case("y") { Ok(()) } else { Err(usage("not changed")) }
}

/// Stores or forgets a cursor, and in any case what was remembered with the old one.
fn change(checkpoint: &Arc<dyn Store>, lane: &Stored, keep: bool) -> Result<(), CommandError> {
    let key = LaneKey::new(&lane.stream, &lane.sink);
    let mut changes = Changes { delete_ranges: key.remembered().to_vec(), ..Changes::default() };
    if keep {
        changes.puts.push((key.cursor(), store::write_cursor(&lane.cursor)));
    } else {
        changes.deletes.push(key.cursor());
    }
    checkpoint.commit(&changes).map_err(|error| chain(&error))?;
    Ok(())
}

fn time(millis: Millis) -> String {
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| millis.to_string(), |time| time.to_string())
}

fn age(millis: Millis) -> String {
    units::duration_text(std::time::Duration::from_millis(millis.unsigned_abs()))
}

fn in_text(lanes: &[Stored], deleted: bool) -> String {
    if lanes.is_empty() {
        return NONE.to_owned();
    }
    let mut text = String::new();
    for Stored { stream, sink, cursor } in lanes {
        let log = &cursor.stream;
        let state = if deleted { "deleted" } else { "stands at" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{stream} to {sink} ({} {}): {state} {}", log.source, log.tenant, time(cursor.live));
        for history in cursor.history().filter(|_| !deleted) {
            let _ = writeln!(text, "  backfill stands at {}, goes to {}", time(history.from), time(history.to));
        }
        for (sweep, mark) in cursor.sweeps.iter().filter(|_| !deleted) {
            let _ = writeln!(text, "  swept at {:>5}, through {}", age(*sweep), time(*mark));
        }
        for gap in cursor.known.gaps.iter().filter(|_| !deleted) {
            let _ = writeln!(text, "  gap from {} to {}: {}", time(gap.from), time(gap.to), gap.reason.label());
        }
    }
    text.truncate(text.trim_end().len());
    text
}

fn in_json(lanes: &[Stored], deleted: bool) -> String {
    let lane = |Stored { stream, sink, cursor }: &Stored| {
        let sweeps: serde_json::Map<_, _> =
            cursor.sweeps.iter().map(|(&sweep, &mark)| (age(sweep), json!(time(mark)))).collect();
        let gap = |gap: &Gap| json!({ "from": time(gap.from), "to": time(gap.to), "reason": gap.reason.label() });
        let gaps: Vec<_> = cursor.known.gaps.iter().map(gap).collect();
        let history = |rest: Window| json!({ "from": time(rest.from), "to": time(rest.to) });
        let history: Vec<_> = cursor.history().map(history).collect();
        json!({
            "stream": stream, "sink": sink, "source": cursor.stream.source, "tenant": cursor.stream.tenant,
            "deleted": deleted, "live": time(cursor.live), "sweeps": sweeps, "verified_through": time(cursor.floor()),
            "backfills": history, "gaps": gaps,
        })
    };
    format!("{:#}", serde_json::Value::Array(lanes.iter().map(lane).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::StreamIdentity;
    use crate::state::schedule::Schedule;

    #[test]
    fn a_cursor_set_forward_says_what_is_never_delivered_and_never_goes_ahead_of_now() {
        let schedule = Schedule { unit: 1, poll: 1000, phase: 0, settle: 0, overlap: 1000, sweeps: vec![60_000] };
        let stream = StreamIdentity { source: Source::Genauth, tenant: "t".to_owned() };
        let mut cursor = Cursor::new(stream, &schedule, 0);
        let window = crate::window::Window { from: 0, to: 600_000 };
        cursor.advance(&schedule, window, 600_000);
        let lanes = [Stored { stream: "s".to_owned(), sink: "k".to_owned(), cursor }];
        let now = 900_000;
        let effect = |to, skip| effect(&lanes, to, now, skip);
        assert_eq!(
            effect(0, false).unwrap(),
            "go on from 1970-01-01T00:00:00Z. What comes after it is delivered again"
        );
        // Back, and forward all the same: the sweep has not come so far.
        let late = "late records between 1970-01-01T00:09:00Z and 1970-01-01T00:09:30Z";
        let within = effect(570_000, false).unwrap_err();
        assert!(within.contains(late) && within.contains("--to 1970-01-01T00:09:00Z loses nothing"), "{within}");
        assert!(effect(570_000, true).unwrap().contains(late));
        assert!(effect(540_000, false).is_ok());
        let refused = effect(700_000, false).unwrap_err();
        // The sweep is moved over what it has not read, too.
        let range = "  s to k: all records between 1970-01-01T00:10:00Z and 1970-01-01T00:11:40Z; late records between \
                     1970-01-01T00:09:00Z and 1970-01-01T00:10:00Z, which its sweeps have not read yet\n";
        assert!(refused.contains(range) && refused.contains("--skip"), "{refused}");
        assert!(effect(700_000, true).unwrap().contains(range.trim_end()));
        // A lane that was set back has read nothing behind where it stands; another that is passed over is named alone.
        let mut back = Stored { stream: "b".to_owned(), sink: "k".to_owned(), cursor: lanes[0].cursor.clone() };
        back.cursor.set_to(650_000);
        let told = super::effect(&[back], 700_000, now, true).unwrap();
        assert!(
            told.ends_with("  b to k: all records between 1970-01-01T00:10:50Z and 1970-01-01T00:11:40Z"),
            "{told}"
        );
        assert!(told.contains("What of it was not delivered before never is"), "{told}");
        for skip in [false, true] {
            let ahead = effect(900_001, skip).unwrap_err();
            assert!(ahead.contains("ahead of now, 1970-01-01T00:15:00Z"), "{ahead}");
        }
        let reach = |source, to| {
            let stream = StreamIdentity { source, tenant: "t".to_owned() };
            let lane =
                Stored { stream: "s".to_owned(), sink: "k".to_owned(), cursor: Cursor::new(stream, &schedule, 0) };
            reach(&[lane], to, 800 * DAY)
        };
        assert_eq!(reach(Source::Scloud, 436 * DAY), "");
        assert!(
            reach(Source::Scloud, 0).contains("keeps 365 days: what lies before 1971-03-12T00:00:00Z is gone, a gap")
        );
        assert_eq!(reach(Source::Genauth, 436 * DAY), "");
        assert!(reach(Source::Genauth, 0).contains("asked for each of 800 days"));
        // A clock that is behind what was read is not now.
        assert!(super::effect(&lanes, 600_000, 0, true).is_ok());
    }
}
