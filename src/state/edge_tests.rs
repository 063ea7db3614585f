//! Each rule of the state at its edge. What they are for is told by the models in `tests`.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::admit::{self, Delivered, MOST_SKEW, Memory, New, admit};
use super::backfill::Backfill;
use super::cursor::Cursor;
use super::fore::Fore;
use super::known::{Known, Noted};
use super::schedule::{Pass, Schedule, Turns};
use super::store::{self, Commit, LaneKey, ReadAt};
use crate::event::{Fingerprint, Millis, Source, StreamIdentity};
use crate::page::Priority;
use crate::reading::{Found, Gap, GapReason};
use crate::window::{Now, Window};

fn stream(source: Source) -> StreamIdentity {
    StreamIdentity { source, tenant: "t".to_owned() }
}

fn schedule() -> Schedule {
    Schedule { unit: 1000, poll: 2000, phase: 0, settle: 2000, overlap: 3000, sweeps: vec![10_000, 60_000] }
}

fn window(from: Millis, to: Millis) -> Window {
    Window { from, to }
}

fn print(name: u8) -> Fingerprint {
    Fingerprint([name; 16])
}

fn found(name: u8, time: impl Into<Option<Millis>>) -> Found {
    Found { fingerprint: print(name), time: time.into(), raw: vec![Bytes::from_static(b"{}")] }
}

/// Of a lane of which nobody knows where it began.
fn begins_at(live: Millis) -> Cursor {
    Cursor { begun: None, ..Cursor::new(stream(Source::Scloud), &schedule(), live) }
}

/// What is admitted of records of these times, as (time, late).
fn admitted(window: Window, live: Millis, begun: Option<Millis>, times: &[Millis]) -> Vec<(Millis, bool)> {
    let found: Vec<_> = (0..).zip(times).map(|(name, time)| found(name, *time)).collect();
    admit(&Cursor { begun, ..begins_at(live) }, window, &found, &Delivered::default(), 0)
        .iter()
        .map(|new| (new.admitted.time, new.admitted.late))
        .collect()
}

#[test]
fn a_record_is_late_where_the_live_pass_had_read_its_place() {
    let times = [8_000, 9_000, 14_999, 15_000, 20_000, 21_000];
    let late = |live| -> Vec<bool> {
        admitted(window(10_000, 20_000), live, None, &times).into_iter().map(|(_, late)| late).collect()
    };
    // The place of one that shows a time outside is the window.
    assert_eq!(late(15_000), [false, true, true, false, false, false]);
    assert_eq!(late(20_000), [true, true, true, true, false, true]);
    assert_eq!(late(19_999), [false, true, true, true, false, false]);
}

#[test]
fn only_the_unit_before_the_beginning_is_asked_for_by_nobody() {
    let times = [8_999, 9_000, 9_999, 10_000];
    let kept = |begun| -> Vec<Millis> {
        admitted(window(10_000, 20_000), 0, begun, &times).into_iter().map(|(time, _)| time).collect()
    };
    assert_eq!(kept(Some(10_000)), [8_999, 10_000]);
    assert_eq!(kept(Some(9_000)), times, "that window was asked for before");
    assert_eq!(kept(None), times);
}

#[test]
fn skew_is_how_far_from_the_end_on_which_it_is_filed_a_record_outside_lies() {
    let skew = |times: &[Option<Millis>]| {
        let found: Vec<_> = times.iter().map(|time| Found { raw: vec![Bytes::new(); 2], ..found(1, *time) }).collect();
        admit::skew(window(10_000, 20_000), 1000, &found)
    };
    assert_eq!(skew(&[None, Some(9_000), Some(15_000), Some(20_000)]), (0, 0));
    assert_eq!(skew(&[Some(8_999)]), (11_001, 0), "as far as rounding goes");
    assert_eq!((skew(&[Some(8_000)]), skew(&[Some(7_999)])), ((12_000, 0), (12_001, 2)));
    assert_eq!(skew(&[Some(20_001)]), (11_001, 0));
    assert_eq!((skew(&[Some(21_000)]), skew(&[Some(21_001)])), ((12_000, 0), (12_001, 2)));
    assert_eq!(skew(&[Some(-10_000_000), Some(7_999)]), (MOST_SKEW, 4));
}

#[test]
fn what_lies_further_back_than_is_remembered_by_time_is_remembered_alone() {
    let memory = |skew| Memory { window: window(10_000_000, 10_060_000), unit: 1000, skew };
    let (own, capped) = (memory(MOST_SKEW - 1), memory(MOST_SKEW));
    let bound = 10_000_000 - 1000 - MOST_SKEW;
    for (memory, bound) in [(own, bound), (capped, bound + 60_000)] {
        let alone = [None, Some(bound - 1), Some(bound)].map(|time| memory.is_alone(time));
        assert_eq!(alone, [true, true, false]);
    }
    // One that lies before what is asked for by more than rounding may be astray.
    assert_eq!([9_998_000, 9_997_999].map(|time| own.may_be_alone(Some(time))), [false, true]);
    assert!(capped.may_be_alone(Some(10_000_000)), "another window may have remembered it so");
}

#[test]
fn what_is_delivered_is_counted_however_it_is_remembered() {
    let mut delivered = Delivered::default();
    assert!(delivered.is_empty());
    delivered.set_unplaced(print(7), 2, 50_000);
    assert_eq!((delivered.unplaced(print(7)), delivered.unplaced(print(8))), (Some((2, 50_000)), None));
    let found = [Found { raw: vec![Bytes::new(); 4], ..found(7, 5_000) }, found(8, 5_000)];
    let new = admit(&begins_at(0), window(0, 10_000), &found, &delivered, 0);
    assert_eq!(new.len(), 3, "two of four were delivered");
    delivered.add(&new[..1], window(0, 10_000));
    assert_eq!(delivered.unplaced(print(7)), Some((3, 50_000)), "a later window has listed it");
    delivered.add(&new[1..], window(0, 90_000));
    assert_eq!(delivered.unplaced(print(7)), Some((4, 90_000)));
    assert_eq!((delivered.count(print(7)), delivered.count(print(8))), (4, 1));
    delivered.add_placed(print(9), 1);
    assert_eq!((delivered.len(), delivered.is_empty()), (3, false));
}

/// A cursor with these marks.
fn cursor(live: Millis, overlap: Millis, sweeps: [Millis; 2]) -> Cursor {
    let mut cursor = Cursor::new(stream(Source::Scloud), &schedule(), 0);
    (cursor.live, cursor.overlap) = (live, overlap);
    cursor.sweeps = BTreeMap::from([(10_000, sweeps[0]), (60_000, sweeps[1])]);
    cursor
}

#[test]
fn a_mark_is_ahead_where_it_cannot_have_come_by_now() {
    // A unit and a second may be rounding.
    let ahead = |live, overlap, sweeps| cursor(live, overlap, sweeps).is_ahead_of(100_000);
    assert!(!ahead(102_000, 99_000, [92_000, 42_000]));
    assert!(ahead(102_001, 99_000, [92_000, 42_000]));
    assert!(ahead(99_000, 102_001, [92_000, 42_000]));
    assert!(ahead(102_000, 99_000, [92_001, 42_000]));
    assert!(!ahead(102_000, 102_000, [102_000, 102_000]), "it has just begun");
    assert!(ahead(102_001, 102_001, [102_001, 102_001]));
    assert!(!ahead(0, 0, [0, 0]));
}

#[test]
fn marks_are_put_back_to_what_was_read_and_not_before_the_beginning() {
    let now = |claimed| Now { sure: 40_000, latest: 40_000, claimed };
    let mut back = cursor(90_000, 90_000, [90_000, 30_000]);
    back.read_at = Some(50_000);
    back.put_back(&schedule(), now(50_000));
    assert_eq!(back, Cursor { read_at: Some(50_000), ..cursor(48_000, 45_000, [40_000, 0]) });
    // It was not read at a time that nothing claims to be over.
    let mut back = cursor(90_000, 90_000, [90_000, 30_000]);
    back.read_at = Some(50_000);
    back.put_back(&schedule(), now(49_999));
    assert_eq!(back, Cursor { read_at: Some(-20_000), ..cursor(-22_000, -25_000, [-30_000, -80_000]) });
}

#[test]
fn skipping_moves_no_mark_back_nor_lets_the_first_record_do_so() {
    let mut skipped = cursor(90_000, 80_000, [70_000, 30_000]);
    skipped.known.silent = Some(30_000);
    skipped.skip_to(75_000);
    let mut expected = cursor(90_000, 80_000, [75_000, 75_000]);
    expected.known.silent = Some(75_000);
    assert_eq!(skipped, expected);
}

/// A part of its age, a poll and more, or as much as fits one window: whichever comes first, but the part or the poll last.
#[test]
fn a_sweep_waits_until_it_is_worth_a_request() {
    let is_due = |age: Millis, poll, comfortable, gathered| {
        let schedule = Schedule { unit: 1, poll, sweeps: vec![age], ..schedule() };
        let mut cursor = Cursor::new(stream(Source::Genauth), &schedule, 0);
        (cursor.live, cursor.overlap) = (age + gathered, age + gathered);
        let job = cursor.plan(&schedule, age + gathered, comfortable, false, &Turns::default());
        job.is_some_and(|job| job.pass == Pass::Sweep(age))
    };
    for (age, poll, comfortable, enough) in [
        (60_000, 10_000, Millis::MAX, 10_001),
        (160_000, 10_000, Millis::MAX, 20_000),
        (160_000, 10_000, 5_000, 5_000),
        (60_000, 10_000, 5_000, 5_000),
    ] {
        assert!(is_due(age, poll, comfortable, enough), "{age} {poll} {comfortable}");
        assert!(!is_due(age, poll, comfortable, enough - 1), "{age} {poll} {comfortable}");
    }
}

/// Polls of a hundred streams are spread over the interval, on the clock's units.
#[test]
fn streams_do_not_all_ask_at_once() {
    let phases = |poll, unit| -> Vec<Millis> {
        (0..100).map(|number| Schedule::phase_of(&format!("stream-{number}"), poll, unit)).collect()
    };
    let mut in_each = [0; 10];
    for phase in phases(10_000, 1000) {
        assert!((0..10_000).contains(&phase) && phase % 1000 == 0, "{phase}");
        in_each[usize::try_from(phase / 1000).unwrap()] += 1;
    }
    assert!(in_each.iter().all(|count| (3..=20).contains(count)), "{in_each:?}");
    assert_eq!(phases(1000, 1000), [0; 100]);
    let schedule = Schedule { poll: 10_000, phase: 3_000, ..schedule() };
    assert_eq!([2_999, 3_000, 12_999, 13_000].map(|now| schedule.tick(now)), [-7_000, 3_000, 3_000, 13_000]);
}

#[test]
fn a_live_pass_that_is_far_behind_catches_up_behind_others() {
    let mut cursor = Cursor::new(stream(Source::Genauth), &schedule(), 0);
    let plan = |cursor: &Cursor, poll, now| {
        let job = cursor.plan_live(&Schedule { unit: 1, poll, ..schedule() }, now).unwrap();
        (job.priority, job.range)
    };
    assert_eq!(plan(&cursor, 2000, 62_000), (Priority::Live, window(0, 60_000)));
    assert_eq!(plan(&cursor, 2000, 62_001), (Priority::CatchUp, window(0, 60_001)));
    // Three polls, where those are longer than a minute.
    assert_eq!(plan(&cursor, 30_000, 92_000).0, Priority::Live);
    assert_eq!(plan(&cursor, 30_000, 92_001).0, Priority::CatchUp);
    cursor.set_to(10_000);
    assert_eq!(plan(&cursor, 2000, 72_000), (Priority::Live, window(10_000, 70_000)));
}

#[test]
fn a_window_that_moves_no_mark_does_not_count() {
    let mut cursor = Cursor::new(stream(Source::Scloud), &schedule(), 0);
    cursor.advance(&schedule(), window(0, 60_000), 1_000_000);
    assert_eq!((cursor.floor(), cursor.read_at), (60_000, Some(1_000_000)));
    cursor.advance(&schedule(), window(0, 60_000), 2_000_000);
    assert_eq!(cursor.read_at, Some(1_000_000));
}

#[test]
fn what_may_be_readable_beyond_what_is_over_is_read_once_a_poll() {
    let cursor = Cursor::new(stream(Source::Genauth), &schedule(), 0);
    let schedule = Schedule { unit: 1, ..schedule() };
    let now = |sure, latest| Now { sure, latest, claimed: latest };
    let mut fore = Fore::default();
    let range = |fore: &Fore, now, all| fore.plan(&cursor, &schedule, now, all).map(|job| job.range);
    assert_eq!(range(&fore, now(10_000, 15_000), false), None, "too little");
    assert_eq!(range(&fore, now(10_000, 15_001), false), Some(window(0, 13_001)));
    assert_eq!(range(&fore, now(10_000, 15_001), true), Some(window(0, 13_001)));
    fore.read(&schedule, window(0, 13_001), now(10_000, 15_001), Vec::new());
    assert_eq!(range(&fore, now(11_999, 99_000), false), None, "in the same poll");
    assert_eq!(range(&fore, now(12_000, 99_000), false), Some(window(0, 97_000)));
    assert_eq!(range(&fore, now(12_000, 99_000), true), None, "it has come to the end");
    fore.read(&schedule, window(0, 96_999), now(12_000, 99_000), Vec::new());
    assert_eq!(range(&fore, now(12_000, 99_000), true), Some(window(0, 97_000)), "not to this one");
}

#[test]
fn one_claim_is_enough_where_the_live_pass_stands_beyond_what_is_over() {
    let schedule = Schedule { unit: 1, ..schedule() };
    let now = Now { sure: 10_000, latest: 10_000, claimed: 90_000 };
    let plan = |live| {
        let cursor = Cursor::new(stream(Source::Genauth), &schedule, live);
        Fore::default().plan(&cursor, &schedule, now, false).map(|job| (job.pass, job.range))
    };
    assert_eq!(plan(10_000), None);
    assert_eq!(plan(10_001), Some((Pass::Fore, window(10_001, 88_000))));
}

#[test]
fn how_far_it_is_read_goes_by_records_and_else_by_doubling() {
    const HOUR: Millis = 3_600_000;
    let schedule = Schedule { unit: 1, ..schedule() };
    let cursor = Cursor::new(stream(Source::Genauth), &schedule, 0);
    let now = |poll: Millis| Now { sure: poll * 2000, latest: 100 * HOUR, claimed: 100 * HOUR };
    let mut fore = Fore::default();
    let mut poll = 0;
    let mut read = |listed: &[Millis]| {
        poll += 1;
        let job = fore.plan(&cursor, &schedule, now(poll), false).unwrap();
        fore.read(&schedule, job.range, now(poll), listed.to_vec());
        job.range
    };
    assert_eq!(read(&[]), window(0, HOUR));
    assert_eq!(read(&[1, 2, 3, 4]), window(0, 2 * HOUR), "four may all be absurd");
    assert_eq!(read(&[9_000, 10_000, HOUR, HOUR, HOUR, HOUR]), window(0, 4 * HOUR));
    let from = 7_000;
    assert_eq!(read(&[10_000, HOUR, HOUR, HOUR, HOUR]), window(from, from + HOUR), "behind the fifth newest");
    assert_eq!(read(&[9_000, HOUR, HOUR, HOUR, HOUR]), window(from, from + 2 * HOUR), "no further: nothing new");
    assert_eq!(read(&[]), window(from, from + 4 * HOUR), "nor back");
    // The end is no reason to reach further.
    let mut fore = Fore::default();
    let near = Now { sure: 0, latest: 10_000, claimed: 10_000 };
    fore.read(&schedule, window(0, 8_000), near, Vec::new());
    assert_eq!(fore.plan(&cursor, &schedule, now(1), false).unwrap().range, window(0, HOUR));
}

#[test]
fn what_was_too_much_to_read_beyond_is_asked_for_in_halves() {
    const HOUR: Millis = 3_600_000;
    let schedule = Schedule { unit: 1, ..schedule() };
    let cursor = Cursor::new(stream(Source::Genauth), &schedule, 0);
    let now = |sure| Now { sure, latest: 100 * HOUR, claimed: 100 * HOUR };
    let range = |fore: &Fore, sure, all| fore.plan(&cursor, &schedule, now(sure), all).map(|job| job.range);
    let mut fore = Fore::default();
    fore.was_too_much(&schedule, now(2_000));
    assert_eq!(range(&fore, 3_999, false), None, "in the same poll");
    assert_eq!(range(&fore, 3_999, true), Some(window(0, HOUR / 2)), "the end has not been seen");
    // Down to a poll, and to more than is read again each time.
    for (poll, least) in [(2_000, 3_001), (4_000, 4_000)] {
        let schedule = Schedule { poll, ..schedule.clone() };
        (0..20).for_each(|_| fore.was_too_much(&schedule, now(0)));
        assert_eq!(range(&fore, 10_000, false), Some(window(0, least)));
    }
}

#[test]
fn a_pass_goes_on_from_its_own_mark() {
    let cursor = cursor(90_000, 80_000, [70_000, 30_000]);
    let passes = [Pass::Live, Pass::Fore, Pass::Sweep(10_000), Pass::Sweep(60_000), Pass::Sweep(7)];
    assert_eq!(passes.map(|pass| cursor.mark_of(pass)), [90_000, 90_000, 70_000, 30_000, 90_000]);
}

#[test]
fn a_cursor_tells_what_it_knows_and_no_more() {
    let json = |known: &Known| serde_json::to_string(known).unwrap();
    let mut known = Known::default();
    assert_eq!((json(&known), known.reach()), ("{}".to_owned(), 600_000));
    known.saw(700_000);
    known.saw(5);
    assert_eq!((json(&known), known.reach()), (r#"{"skew":700000}"#.to_owned(), 700_000));
}

fn gap(from: Millis, to: Millis) -> Gap {
    Gap { from, to, reason: GapReason::Unreadable }
}

#[test]
fn gaps_are_one_only_where_they_touch_and_have_one_reason() {
    let mut known = Known::default();
    let other = Gap { reason: GapReason::TooDeep, ..gap(120, 130) };
    for (new, noted) in [
        (gap(100, 200), Noted::New),
        (other, Noted::New),
        (gap(150, 300), Noted::Grows),
        (gap(50, 100), Noted::Grows),
        (gap(400, 500), Noted::New),
    ] {
        assert_eq!(known.add_gap(new), noted, "{new:?}");
    }
    assert_eq!(known.gaps, [gap(50, 300), other, gap(400, 500)]);
    assert_eq!((known.add_gap(gap(50, 300)), known.add_gap(other)), (Noted::Known, Noted::Known));
    known.ask_anew(400);
    assert_eq!(known.gaps, [gap(50, 300), other], "what is read again is none");
    known.ask_anew(125);
    assert_eq!(known.gaps, [gap(50, 125), Gap { to: 125, ..other }]);
}

#[test]
fn the_two_oldest_of_too_many_gaps_become_one() {
    let mut known = Known::default();
    assert!((0..100).all(|n| known.add_gap(gap(n * 10, n * 10 + 5)) == Noted::New));
    assert_eq!((known.gaps.len(), known.gaps[0]), (100, gap(0, 5)));
    known.add_gap(gap(1000, 1005));
    assert_eq!((known.gaps.len(), known.gaps[0], known.gaps[1]), (100, gap(0, 15), gap(20, 25)));
}

#[test]
fn keys_name_their_lane() {
    let lane = LaneKey::new("s", "k");
    assert_eq!(lane.cursor(), b"cs\0k\0");
    assert_eq!(LaneKey::names(&lane.cursor()), Some(("s".to_owned(), "k".to_owned())));
    for key in [lane.cursor(), lane.unplaced(print(1)), lane.deltas(window(0, 1)).start] {
        assert_eq!(LaneKey::stream_of(&key).as_deref(), Some("s"));
        assert_eq!(LaneKey::names(&key).is_some(), key == lane.cursor());
        assert_eq!(LaneKey::all_cursors().contains(&key), key == lane.cursor());
    }
    let [deltas, unplaced] = lane.remembered();
    for from in [-9_000_000_000_000_000_000, -1, 0, 9_000_000_000_000_000_000] {
        assert!(deltas.contains(&lane.deltas(window(from, from + 1)).start), "{from}");
        assert!(!deltas.contains(&LaneKey::new("s", "l").deltas(window(from, from + 1)).start));
    }
    assert!(unplaced.contains(&lane.unplaced(print(0xff))) && !unplaced.contains(&lane.cursor()));
}

#[test]
fn a_window_needs_the_deltas_of_its_intervals_each_once() {
    let lane = LaneKey::new("s", "k");
    let deltas = |from, to| lane.deltas(window(from, to));
    assert_eq!(deltas(0, 10_000).end, deltas(10_000, 20_000).start);
    assert_eq!(deltas(0, 10_001).end, deltas(20_000, 30_000).start);
    assert_eq!(deltas(9_999, 10_000), deltas(0, 10_000));
    // A delta that came twice would count its events twice, and what is new would be taken for delivered.
    let of = |times: &[Millis]| {
        let found: Vec<_> = times.iter().map(|time| found(1, *time)).collect();
        lane.deltas_of(window(0, 10_000), &found)
    };
    assert_eq!(of(&[5, 9_999]), [deltas(0, 10_000)]);
    assert_eq!(of(&[15_000, 16_000, 25_000, 45_000, 46_000]), [deltas(0, 30_000), deltas(40_000, 50_000)]);
    assert_eq!(of(&[-15_000, -14_000, 5]), [deltas(-20_000, -10_000), deltas(0, 10_000)]);
}

#[test]
fn a_delta_is_of_the_interval_that_its_key_names() {
    let lane = LaneKey::new("s", "k");
    for from in [-20_000, 0, 20_000] {
        let key = [lane.deltas(window(from, from + 10_000)).start, 7_u64.to_be_bytes().to_vec()].concat();
        assert_eq!(LaneKey::interval(&key), Some(window(from, from + 10_000)));
    }
    assert_eq!(LaneKey::interval(b"short"), None);
    for (whole, of) in
        [((10_000, 20_000), (5, 25_000)), ((10_000, 20_000), (10_000, 20_000)), ((-10_000, 0), (-15_000, 5))]
    {
        assert_eq!(LaneKey::whole_intervals(window(of.0, of.1)), window(whole.0, whole.1), "{of:?}");
    }
    assert_eq!(LaneKey::whole_intervals(window(10_001, 20_000)), window(20_000, 20_000));
}

#[test]
fn a_delta_tells_how_many_events_it_is_of() {
    let mut delivered = Delivered::default();
    let delta = [&[7; 16][..], &[0, 3], &[8; 16], &[1, 0]].concat();
    assert_eq!(store::add_delta(&mut delivered, &delta).unwrap(), 259);
    assert_eq!((delivered.count(print(7)), delivered.count(print(8))), (3, 256));
    assert!(store::add_delta(&mut delivered, &delta[1..]).is_err());
}

/// Commits the last part of `window`.
fn commit(window: Window, skew: Millis, found: &[Found], part: &[New], delivered: &Delivered) -> Commit {
    let schedule = Schedule { settle: 0, overlap: 0, sweeps: Vec::new(), ..schedule() };
    let cursor = Cursor::new(stream(Source::Scloud), &schedule, window.from);
    let known = Known { skew, ..Known::default() };
    let read = ReadAt { window, read_at: 1_000_000_000, schedule: &schedule, found, known: &known };
    store::commit(&LaneKey::new("s", "k"), &cursor, read, part, true, delivered)
}

#[test]
fn what_a_pass_may_list_once_more_is_not_forgotten() {
    // A unit before the floor, and as far behind that as records may lie: 19 s.
    let commit = commit(window(0, 620_000), 0, &[], &[], &Delivered::default());
    let forgotten: Vec<_> = commit.changes.delete_ranges.into_iter().map(|range| range.end).collect();
    assert_eq!(forgotten, [LaneKey::new("s", "k").deltas(window(10_000, 20_000)).start]);
    let nothing_moves = self::commit(window(0, 1), 0, &[], &[], &Delivered::default());
    assert_eq!(nothing_moves.changes.delete_ranges, []);
}

/// The counts under a fingerprint that a commit writes, and until when each is remembered.
fn alone(commit: &Commit, name: u8) -> Vec<(u32, Millis)> {
    let key = LaneKey::new("s", "k").unplaced(print(name));
    let values = commit.changes.puts.iter().filter(|(put, _)| *put == key).map(|(_, value)| value);
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | i64::from(*byte));
    values.map(|value| (u32::try_from(number(&value[..4])).unwrap(), number(&value[4..]))).collect()
}

#[test]
fn what_is_listed_again_is_remembered_for_longer() {
    let mut delivered = Delivered::default();
    delivered.set_unplaced(print(7), 2, 0);
    let again = [found(7, None)];
    // That is written down when it has moved by five minutes.
    assert_eq!(alone(&commit(window(0, 300_000), 0, &again, &[], &delivered), 7), []);
    assert_eq!(alone(&commit(window(0, 300_001), 0, &again, &[], &delivered), 7), [(2, 300_001)]);
    // Once, where one more of its kind is delivered.
    let three = [Found { raw: vec![Bytes::new(); 3], ..found(7, None) }];
    let new = admit(&begins_at(0), window(0, 300_001), &three, &delivered, 0);
    assert_eq!(alone(&commit(window(0, 300_001), 0, &three, &new, &delivered), 7), [(3, 300_001)]);
}

#[test]
fn what_was_remembered_by_its_time_is_remembered_alone_before_that_is_forgotten() {
    let mut delivered = Delivered::default();
    delivered.add_placed(print(7), 2);
    let (start, end) = (100_000_000, 100_060_000);
    let old = end - 1000 - MOST_SKEW - 1;
    let written =
        |found: &[Found], skew| alone(&commit(window(start, end), skew, found, &[], &delivered), found_name(found));
    assert_eq!(written(&[found(7, old)], MOST_SKEW), [(2, end)]);
    assert_eq!(written(&[found(7, old + 1)], MOST_SKEW), [], "it is remembered by its time still");
    assert_eq!(written(&[found(8, old)], MOST_SKEW), [], "it was not delivered");
}

#[test]
fn what_is_astray_is_remembered_alone() {
    let (start, end) = (100_000_000, 100_060_000);
    // As far back as is remembered by time once the window is committed.
    let kept = end - 1000 - 600_000;
    let written = |time| {
        let astray = [found(7, time)];
        let new = admit(&begins_at(0), window(start, end), &astray, &Delivered::default(), 0);
        alone(&commit(window(start, end), 0, &astray, &new, &Delivered::default()), 7)
    };
    assert_eq!((written(kept - 1), written(kept)), (vec![(1, end)], vec![]));
    // So is what was remembered by its time, which is about to be forgotten.
    let mut delivered = Delivered::default();
    delivered.add_placed(print(7), 2);
    let again = |time| alone(&commit(window(start, end), 0, &[found(7, time)], &[], &delivered), 7);
    assert_eq!((again(kept - 1), again(kept)), (vec![(2, end)], vec![]));
    // Of a long window all that it was asked for is forgotten with it.
    let long = [found(7, start)];
    let new = admit(&begins_at(0), window(start, end + 900_000), &long, &Delivered::default(), 0);
    assert_eq!(alone(&commit(window(start, end + 900_000), 0, &long, &new, &Delivered::default()), 7), []);
}

#[test]
fn what_was_empty_before_the_first_record_is_read_again() {
    let mut cursor = cursor(50_000, 40_000, [30_000, 20_000]);
    cursor.known.silent = None;
    let before = cursor.clone();
    let hear = |cursor: &mut Cursor, from, to| cursor.hear(&schedule(), window(from, to));
    let backfill = |since, from, to| vec![Backfill { since, from, to }];
    hear(&mut cursor, 50_000, 60_000);
    assert_eq!(cursor, before, "something was listed before");
    let silent = |cursor: &Cursor| {
        let known = Known { silent: Some(10_000), ..Known::default() };
        Cursor { known, ..cursor.clone() }
    };
    cursor = silent(&before);
    hear(&mut cursor, 50_000, 60_000);
    let sweeps = BTreeMap::from([(10_000, 40_000), (60_000, 20_000)]);
    let expected = Cursor { backfills: backfill(10_000, 10_000, 50_000), sweeps, ..before.clone() };
    assert_eq!(cursor, expected, "what is new does not wait");
    assert_eq!((cursor.floor(), cursor.delivered_through()), (10_000, 10_000));
    // What the live pass was told behind the window as well, and what the backfill was.
    let mut amid = silent(&before);
    hear(&mut amid, 20_000, 30_000);
    assert_eq!(amid.backfills, backfill(10_000, 10_000, 50_000));
    let mut beside = Cursor { live: 90_000, backfills: backfill(5_000, 30_000, 70_000), ..silent(&before) };
    hear(&mut beside, 80_000, 90_000);
    assert_eq!(beside.backfills, backfill(10_000, 10_000, 80_000));
    let mut first = Cursor { known: Known { silent: Some(50_000), ..Known::default() }, ..before.clone() };
    hear(&mut first, 50_000, 60_000);
    assert_eq!(first, before, "nothing lies before the first window");
}

/// The live pass goes on from now, sweeps from where what the backfill reads is not late enough for them.
#[test]
fn what_is_new_does_not_wait_for_history() {
    let (minute, schedule) = (60_000, schedule());
    let history = |since, from, to| vec![Backfill { since, from, to }];
    let mut near = Cursor::new(stream(Source::Scloud), &schedule, 0);
    assert_eq!(near.go_past(&schedule, minute + 2_000), None, "a minute behind");
    let mut cursor = Cursor::new(stream(Source::Scloud), &schedule, 0);
    let to = 10 * minute;
    assert_eq!(cursor.go_past(&schedule, to + 2_000), Some(window(0, to)));
    assert_eq!((cursor.live, cursor.overlap, cursor.floor()), (to, to - 3_000, 0));
    assert_eq!(cursor.sweeps, BTreeMap::from([(10_000, to - 10_000), (60_000, to - minute)]));
    assert_eq!([0, to - 1, to].map(|time| cursor.has_read(time)), [false; 3]);
    // Beside what is new, in turns.
    let (mut turns, mut passes) = (Turns::default(), Vec::new());
    for _ in 0..5 {
        let job = cursor.plan(&schedule, to + minute, 1000, false, &turns).unwrap();
        turns.took(job.pass);
        passes.push(job.pass);
    }
    assert_eq!(passes, [Pass::Live, Pass::Backfill(0), Pass::Live, Pass::Sweep(60_000), Pass::Live]);
    cursor.advance(&schedule, window(0, minute), to + minute);
    assert_eq!((&cursor.backfills, cursor.floor()), (&history(0, minute, to), minute));
    assert_eq!([minute - 1, minute, to - 1].map(|time| cursor.has_read(time)), [true, false, false]);
    // Nor is any of it asked for while clocks say that its end is not over.
    let at = |now| cursor.plan(&schedule, now, 1000, false, &Turns::default()).map(|job| (job.pass, job.range));
    assert_eq!(at(to + 999), None);
    assert_eq!(at(to + 2_000), Some((Pass::Backfill(0), window(minute, to))));
    cursor.advance(&schedule, window(minute, to), to + minute);
    assert_eq!((&cursor.backfills, cursor.floor(), cursor.delivered_through()), (&vec![], to, to));
}

/// Also where it falls behind once more: each time has a backfill of its own, the newest first, and no sweep reads what one of
/// them reads late enough for it.
#[test]
fn what_is_new_waits_for_no_history_however_often_a_lane_falls_behind() {
    let (minute, schedule) = (60_000, schedule());
    let mut cursor = Cursor::new(stream(Source::Scloud), &schedule, 0);
    cursor.go_past(&schedule, 10 * minute + 2_000).unwrap();
    let first = Backfill { since: 0, from: 0, to: 10 * minute };
    assert_eq!(cursor.go_past(&schedule, 10 * minute + 2_000), None, "it has gone past that");
    cursor.advance(&schedule, window(cursor.overlap, 11 * minute), 11 * minute + 2_000);
    let since = 11 * minute - 3_000;
    assert_eq!(cursor.go_past(&schedule, 20 * minute + 2_000), Some(window(since, 20 * minute)));
    let second = Backfill { since, from: since, to: 20 * minute };
    assert_eq!(cursor.backfills, [second, first]);
    assert_eq!((cursor.floor(), cursor.delivered_through()), (0, 0));
    let at = [minute, 10 * minute, since - 1, since, 20 * minute - 1].map(|time| cursor.has_read(time));
    assert_eq!(at, [false, true, true, false, false]);
    // Sweeps read what lies between the two, and then go on behind the second.
    assert_eq!(cursor.sweeps, BTreeMap::from([(10_000, 10 * minute - 10_000), (minute, 9 * minute)]));
    let (mut turns, mut jobs) = (Turns::default(), Vec::new());
    for _ in 0..10 {
        let job = cursor.plan(&schedule, 21 * minute, 1000, false, &turns).unwrap();
        turns.took(job.pass);
        jobs.push((job.pass, job.range));
    }
    let newest = (Pass::Backfill(since), window(since, 20 * minute));
    let beside = [
        newest,
        (Pass::Backfill(0), window(0, 10 * minute)),
        (Pass::Sweep(minute), window(9 * minute, since)),
        (Pass::Sweep(10_000), window(10 * minute - 10_000, since)),
        newest,
    ];
    let odd: Vec<_> = jobs.iter().skip(1).step_by(2).copied().collect();
    assert_eq!(odd, beside, "each in its turn, after the live pass");
    cursor.advance(&schedule, window(9 * minute, since), 21 * minute);
    assert_eq!(cursor.sweeps, BTreeMap::from([(10_000, 20 * minute - 10_000), (minute, 19 * minute)]));
    // In either order.
    let mut other = cursor.clone();
    cursor.advance(&schedule, newest.1, 21 * minute);
    assert_eq!((&cursor.backfills, cursor.floor()), (&vec![first], 0));
    other.advance(&schedule, first.rest(), 21 * minute);
    assert_eq!((&other.backfills, other.floor()), (&vec![second], since));
    other.advance(&schedule, newest.1, 21 * minute);
    assert_eq!((&other.backfills, other.floor()), (&vec![], 20 * minute));
}

/// Nor may what was read before an outage, and is taken after it, stand for what the sweeps leave to the backfill.
#[test]
fn what_was_read_before_a_backfill_was_over_is_not_read_by_it() {
    let schedule = schedule();
    let mut cursor = cursor(100_000, 98_000, [98_000, 40_000]);
    cursor.go_past(&schedule, 1_002_000).unwrap();
    let before = cursor.clone();
    cursor.advance(&schedule, window(98_000, 500_000), 1_001_999);
    assert_eq!(cursor.backfills, before.backfills);
    cursor.advance(&schedule, window(98_000, 500_000), 1_002_000);
    assert_eq!(cursor.backfills, [Backfill { since: 98_000, from: 500_000, to: 1_000_000 }]);
}

/// It begins where the lane is to read once more what may be a little late: then it holds the one before.
#[test]
fn a_backfill_holds_those_that_began_no_earlier() {
    let schedule = Schedule { overlap: 600_000, ..schedule() };
    let mut cursor = Cursor::new(stream(Source::Scloud), &schedule, 0);
    cursor.go_past(&schedule, 102_000).unwrap();
    assert_eq!((cursor.live, cursor.overlap), (100_000, 0));
    cursor.advance(&schedule, window(0, 50_000), 102_000);
    assert_eq!(cursor.go_past(&schedule, 202_000), Some(window(0, 200_000)));
    assert_eq!(cursor.backfills, [Backfill { since: 0, from: 0, to: 200_000 }]);
}

#[test]
fn a_lane_that_has_eight_backfills_reads_in_its_turn_what_comes_after() {
    let schedule = schedule();
    let mut cursor = Cursor::new(stream(Source::Scloud), &schedule, 0);
    for number in 1..=8 {
        assert!(cursor.go_past(&schedule, number * 100_000 + 2_000).is_some(), "{number}");
    }
    assert_eq!((cursor.go_past(&schedule, 1_000_000), cursor.history().count()), (None, 8));
    let job = cursor.plan(&schedule, 1_000_000, 1000, false, &Turns::default()).unwrap();
    assert_eq!((job.pass, job.range), (Pass::Live, window(797_000, 998_000)));
    cursor.advance(&schedule, window(0, 100_000), 1_000_000);
    assert!(cursor.go_past(&schedule, 1_000_000).is_some());
}

#[test]
fn sweeps_read_on_their_own_what_lies_before_the_backfill_began() {
    let schedule = schedule();
    let mut cursor = cursor(100_000, 98_000, [90_000, 40_000]);
    assert_eq!(cursor.go_past(&schedule, 1_002_000), Some(window(98_000, 1_000_000)));
    assert_eq!((cursor.overlap, &cursor.sweeps), (997_000, &BTreeMap::from([(10_000, 90_000), (60_000, 40_000)])));
    let sweep = |cursor: &Cursor| {
        let mut turns = Turns::default();
        turns.took(Pass::Backfill(98_000));
        turns.took(Pass::Live);
        cursor.plan(&schedule, 1_002_000, 10_000, false, &turns).map(|job| (job.pass, job.range))
    };
    assert_eq!(sweep(&cursor), Some((Pass::Sweep(60_000), window(40_000, 98_000))));
    // One window of the older sweep serves the younger one.
    cursor.advance(&schedule, window(40_000, 98_000), 1_002_000);
    assert_eq!(cursor.sweeps, BTreeMap::from([(10_000, 990_000), (60_000, 940_000)]));
    let mut slow = Cursor { sweeps: BTreeMap::from([(10_000, 97_999), (60_000, 40_000)]), ..cursor.clone() };
    slow.advance(&schedule, window(98_000, 1_000_000), 1_002_000);
    assert_eq!(
        (slow.history().next(), slow.floor()),
        (None, 40_000),
        "what was read is known until they have come there"
    );
    slow.advance(&schedule, window(40_000, 98_000), 1_002_000);
    assert_eq!((&slow.backfills, slow.floor()), (&vec![], 940_000));
}

#[test]
fn a_backfill_moves_with_the_cursor() {
    let of = |since, from, to| Cursor {
        backfills: vec![Backfill { since, from, to }],
        ..cursor(90_000, 80_000, [70_000, 60_000])
    };
    let mut set = of(0, 10_000, 90_000);
    set.set_to(20_000);
    assert_eq!((&set.backfills, set.floor()), (&vec![], 20_000));
    let mut skipped = [of(0, 10_000, 90_000), of(0, 10_000, 30_000)];
    skipped.iter_mut().for_each(|cursor| cursor.skip_to(30_000));
    assert_eq!(skipped.map(|cursor| cursor.backfills), [vec![Backfill { since: 0, from: 30_000, to: 90_000 }], vec![]]);
    let mut back = Cursor { read_at: Some(50_000), ..of(0, 10_000, 90_000) };
    back.put_back(&schedule(), Now { sure: 40_000, latest: 40_000, claimed: 50_000 });
    assert_eq!((back.live, back.history().next()), (48_000, Some(window(10_000, 48_000))));
    assert_eq!(of(0, 10_000, 90_000).mark_of(Pass::Backfill(0)), 10_000);
    let text = store::write_cursor(&of(0, 10_000, 90_000));
    assert_eq!(store::parse_cursor(&text).unwrap(), of(0, 10_000, 90_000));
}

fn found_name(found: &[Found]) -> u8 {
    found[0].fingerprint.0[0]
}

#[test]
fn a_count_is_forgotten_ten_minutes_behind_the_floor() {
    let value = [&7_u32.to_be_bytes()[..], &60_000_i64.to_be_bytes()].concat();
    assert!(!store::is_forgotten(&value, 660_000).unwrap());
    assert!(store::is_forgotten(&value, 660_001).unwrap());
}
