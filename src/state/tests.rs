//! A whole lane against a hostile source, with part-commits and crashes, in pure code: what is delivered must
//! be the truth.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::admit::{self, Delivered, Memory, admit};
use super::cursor::Cursor;
use super::known::Known;
use super::schedule::{Pass, Schedule, Turns};
use super::store::{self, LaneKey, ReadAt};
use crate::event::{EventId, Fingerprint, Millis, Source, StreamIdentity};
use crate::reading::tests::read;
use crate::reading::tests::world::{self, Order, World, WorldOptions};
use crate::reading::{End, Everywhere, Found, Inclusive, Outcome, Paging};
use crate::window::{Density, Window};

/// The key-value map of a checkpoint.
#[derive(Debug, Clone, Default)]
struct Map(BTreeMap<Vec<u8>, Vec<u8>>);

impl Map {
    fn apply(&mut self, changes: &crate::state::store::Changes) {
        for range in &changes.delete_ranges {
            let doomed: Vec<_> = self.0.range(range.clone()).map(|(key, _)| key.clone()).collect();
            doomed.iter().for_each(|key| drop(self.0.remove(key)));
        }
        changes.deletes.iter().for_each(|key| drop(self.0.remove(key)));
        self.0.extend(changes.puts.iter().cloned());
    }
}

/// A window that is read, and not yet taken.
struct Ahead {
    window: Window,
    read_at: Millis,
    found: Vec<Found>,
}

struct Lane {
    key: LaneKey,
    stream: StreamIdentity,
    schedule: Schedule,
    map: Map,
    cursor: Cursor,
    density: Density,
    everywhere: Everywhere,
    inclusive: Inclusive,
    /// Delivered and committed.
    committed: Vec<EventId>,
    late: u64,
    crashes: u64,
    part_commits: u64,
    unstable: bool,
    start: Millis,
    most_delivered_in_memory: usize,
    /// So many windows are said to be empty at first.
    silent: usize,
    /// Whether the live pass goes past what it is far behind with.
    goes_past: bool,
    /// From when on nothing is read for some minutes: outages that are still to come, the last one first.
    outages: Vec<Millis>,
    /// The most backfills at once.
    most_backfills: usize,
    /// Windows that were read before an outage, and taken after it beside a backfill.
    held: u64,
    /// Events that were new to the backfill.
    history: u64,
}

impl Lane {
    fn new(source: Source, schedule: Schedule, start: Millis) -> Self {
        let stream = StreamIdentity { source, tenant: "t".to_owned() };
        let cursor = Cursor::new(stream.clone(), &schedule, start);
        let density = Density::new(schedule.unit, 60);
        Self {
            key: LaneKey::new("s", "k"),
            stream,
            schedule,
            map: Map::default(),
            cursor,
            density,
            everywhere: Everywhere::default(),
            inclusive: None,
            committed: Vec::new(),
            late: 0,
            crashes: 0,
            part_commits: 0,
            unstable: false,
            start,
            most_delivered_in_memory: 0,
            silent: 0,
            goes_past: true,
            outages: Vec::new(),
            most_backfills: 0,
            held: 0,
            history: 0,
        }
    }

    /// All that a restart keeps.
    fn crash(&mut self) {
        self.crashes += 1;
        if let Some(cursor) = self.map.0.get(&self.key.cursor()) {
            self.cursor = store::parse_cursor(cursor).unwrap();
        } else {
            self.cursor = Cursor::new(self.stream.clone(), &self.schedule, self.start);
        }
        self.density = Density::new(self.schedule.unit, 60);
        self.everywhere = Everywhere::default();
        self.inclusive = None;
    }

    fn delivered(&mut self, window: Window, skew: Millis, found: &[Found]) -> Delivered {
        let memory = Memory { window, unit: self.schedule.unit, skew };
        let mut delivered = Delivered::default();
        for deltas in self.key.deltas_of(window, found) {
            for (_, value) in self.map.0.range(deltas) {
                store::add_delta(&mut delivered, value).unwrap();
            }
        }
        self.most_delivered_in_memory = self.most_delivered_in_memory.max(delivered.len());
        for found in found.iter().filter(|found| memory.may_be_alone(found.time)) {
            if let Some(value) = self.map.0.get(&self.key.unplaced(found.fingerprint)) {
                store::add_unplaced(&mut delivered, found.fingerprint, value).unwrap();
            }
        }
        delivered
    }

    /// One window; `false` if it crashed on the way.
    fn step(&mut self, world: &mut World, window: Window, rng: &mut StdRng, crash_share: f64) -> bool {
        let Some(ahead) = self.look(world, window) else { return true };
        self.take(ahead, rng, crash_share)
    }

    /// Reads a window, if it is not too full.
    fn look(&mut self, world: &mut World, window: Window) -> Option<Ahead> {
        let read_at = world.now;
        world.everywhere = self.everywhere.listed();
        let mut reading = read(world, window, self.inclusive);
        self.inclusive = reading.inclusive();
        match reading.end().unwrap() {
            End::Overflow { rows } => {
                let rows = rows.saturating_sub(world.everywhere.rows).max(world.rules().max_rows);
                self.density.overflowed(window, rows);
                return None;
            }
            End::Complete(outcome) => self.unstable |= outcome == Outcome::Unstable,
            End::Outgrown => unreachable!("the model's records are small"),
        }
        let mut found =
            std::mem::replace(&mut reading, crate::reading::Reading::new(world.rules(), window, None)).into_found();
        if self.silent > 0 {
            self.silent -= 1;
            found.clear();
        }
        Some(Ahead { window, read_at, found })
    }

    /// Admits, delivers and commits what was read; `false` if it crashed on the way.
    fn take(&mut self, Ahead { window, read_at, found }: Ahead, rng: &mut StdRng, crash_share: f64) -> bool {
        self.density.saw(window, self.everywhere.saw(&found).rows);
        let mut known = self.cursor.known.clone();
        known.saw(admit::skew(window, self.schedule.unit, &found).0);
        let mut delivered = self.delivered(window, known.reach(), &found);
        let new = admit(&self.cursor, window, &found, &delivered, known.reach());
        let parts: Vec<&[super::admit::New]> = if new.is_empty() { vec![&[]] } else { new.chunks(17).collect() };
        for (index, part) in parts.iter().enumerate() {
            let last = index + 1 == parts.len();
            let read = ReadAt { window, read_at, schedule: &self.schedule, found: &found, known: &known };
            let commit = store::commit(&self.key, &self.cursor, read, part, last, &delivered);
            if rng.random_bool(crash_share) {
                self.crash();
                return false;
            }
            // One transaction: events and state.
            self.map.apply(&commit.changes);
            self.cursor = commit.cursor;
            self.committed.extend(part.iter().map(|new| new.admitted.id));
            self.late += part.iter().filter(|new| new.admitted.late).count() as u64;
            delivered.add(part, window);
            self.part_commits += u64::from(!last);
        }
        true
    }

    /// Runs until the oldest sweep has passed everything.
    fn run(&mut self, world: &mut World, crash_share: f64) {
        let (skew, more) = world.options.skew;
        self.run_to(world, crash_share, (world.options.seconds + 1) * 1000 + (skew + more).max(0));
    }

    fn run_to(&mut self, world: &mut World, crash_share: f64, end: Millis) {
        let mut rng = StdRng::seed_from_u64(world.options.seed);
        let mut turns = Turns::default();
        let mut planned = 0;
        // What was read before an outage is taken after it; but not if it was read of an API that had not shown anything.
        let mut held: Option<Ahead> = None;
        while self.cursor.floor() < end {
            planned += 1;
            // One window can take thousands of pages where each lists what has no time; and where pages come at once, thousands
            // of jobs are done in a minute.
            assert!(planned < 10_000 || world.now < 100 * end, "it never gets there: {:?}", self.cursor);
            if self.outages.pop_if(|outage| *outage <= world.now).is_some() {
                world.now += OUTAGE;
            }
            if self.goes_past && self.cursor.go_past(&self.schedule, world.now).is_some() {
                turns.took(Pass::Live);
            }
            if let Some(ahead) = held.take().filter(|_| self.cursor.known.silent.is_none()) {
                self.held += u64::from(!self.cursor.backfills.is_empty());
                self.take(ahead, &mut rng, crash_share);
            }
            self.most_backfills = self.most_backfills.max(self.cursor.history().count());
            let Some(job) = self.cursor.plan(&self.schedule, world.now, self.density.comfortable(), false, &turns)
            else {
                turns.waited();
                world.now += self.schedule.poll;
                continue;
            };
            turns.took(job.pass);
            let mut from = job.range.from;
            let mut windows = 0;
            while from < job.range.to {
                let to = (from + self.density.comfortable()).min(job.range.to);
                // An outage ends a job, too.
                if self.outages.last().is_some_and(|outage| *outage <= world.now) {
                    held = self.look(world, Window { from, to });
                    break;
                }
                windows += 1;
                assert!(windows < 10_000, "{job:?} is read in windows that are far too short: {:?}", self.cursor);
                let window = Window { from, to };
                let before = self.committed.len();
                if !self.step(world, window, &mut rng, crash_share) {
                    break;
                }
                if matches!(job.pass, Pass::Backfill(_)) {
                    self.history += (self.committed.len() - before) as u64;
                }
                // Complete readings move on; one that overflowed is asked for again, shorter.
                from = if self.done(job.pass, window) { to } else { from };
            }
        }
    }

    fn done(&self, pass: Pass, window: Window) -> bool {
        match pass {
            Pass::Live | Pass::Fore => self.cursor.live >= window.to || self.density.comfortable() >= window.len(),
            // It may have been put back.
            Pass::Sweep(age) => !(window.from..window.to).contains(&self.cursor.sweeps[&age]),
            Pass::Backfill(_) => !(window.from..window.to).contains(&self.cursor.mark_of(pass)),
        }
    }
}

fn schedule(paging: Paging) -> Schedule {
    let unit = if paging == Paging::Tokens { 1000 } else { 1 };
    Schedule { unit, poll: 2000, phase: 0, settle: 0, overlap: 3000, sweeps: vec![10_000, 60_000] }
}

fn truth_ids(world: &World, stream: &StreamIdentity) -> BTreeSet<EventId> {
    let mut counts: BTreeMap<Fingerprint, u32> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for truth in &world.truth {
        let ordinal = counts.entry(truth.fingerprint).or_default();
        ids.insert(EventId::new(stream, truth.fingerprint, *ordinal));
        *ordinal += 1;
    }
    ids
}

/// How long nothing is read.
const OUTAGE: Millis = 200_000;

/// When a lane begins to read, and what happens to it.
#[derive(Debug, Clone)]
struct Life {
    began: Millis,
    crash_share: f64,
    silent: usize,
    goes_past: bool,
    /// Each so long after the one before, whatever was read by then.
    outages: Vec<Millis>,
}

fn lives() -> impl Strategy<Value = Life> {
    (
        prop_oneof![3 => Just(0i64), 1 => Just(400_000)],
        prop_oneof![Just(0.0), 0.0f64..0.2],
        prop_oneof![Just(0usize), 0usize..100],
        prop_oneof![3 => Just(true), 1 => Just(false)],
        prop_oneof![
            1 => Just(Vec::new()),
            1 => proptest::collection::vec(0i64..150_000, 1),
            1 => proptest::collection::vec(prop_oneof![Just(0i64), 0i64..3_000], 1..12),
        ],
    )
        .prop_map(|(began, crash_share, silent, goes_past, outages)| Life {
            began,
            crash_share,
            silent,
            goes_past,
            outages,
        })
}

fn lane_over(options: WorldOptions, life: Life) -> (World, Lane) {
    let source = if options.paging == Paging::Tokens { Source::Scloud } else { Source::Genauth };
    // From before the first record is filed.
    let start = -5000 + options.skew.0.min(0) / 1000 * 1000;
    let mut lane = Lane::new(source, schedule(options.paging), start);
    let mut world = World::new(options);
    (lane.silent, lane.goes_past) = (life.silent, life.goes_past);
    world.now = life.began;
    let mut at = life.began;
    for after in life.outages {
        at += after;
        lane.outages.insert(0, at);
        at += OUTAGE;
    }
    lane.run(&mut world, life.crash_share);
    (world, lane)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Conservation, in the model: once the oldest sweep has passed, what was delivered is the truth, each id once. Also where
    /// the API says at first that there is nothing, and after an outage, whether history is read first or beside what is new.
    #[test]
    fn what_is_delivered_is_the_truth(options in world::options(), life in lives()) {
        let (mut world, mut lane) = lane_over(options, life);
        let delivered: BTreeSet<EventId> = lane.committed.iter().copied().collect();
        prop_assert_eq!(delivered.len(), lane.committed.len(), "an id twice");
        let truth = truth_ids(&world, &lane.stream);
        prop_assert!(delivered.is_subset(&truth), "{} invented", delivered.difference(&truth).count());
        // An API that never lists anything has nothing, as far as a lane can know.
        let heard = lane.cursor.known.silent.is_none();
        prop_assert!(heard || delivered.is_empty());
        let units_fit = heard && !lane.unstable && {
            let mut per_unit: BTreeMap<Millis, u32> = BTreeMap::new();
            world.truth.iter().for_each(|truth| *per_unit.entry(truth.time).or_default() += 1);
            per_unit.values().all(|&count| count < world.options.page_limit)
        };
        if units_fit {
            prop_assert_eq!(truth.difference(&delivered).count(), 0, "missing of {}", truth.len());
        }
        if world.options.seed % 8 == 0 {
            // What no pass reads any more is forgotten in the end.
            world.now += 1_000_000;
            lane.run_to(&mut world, 0.0, 900_000);
            prop_assert_eq!(lane.committed.len(), delivered.len(), "again");
            let keep = lane.cursor.floor() - lane.schedule.unit - lane.cursor.known.reach();
            let closed = Window { from: -1_000_000, to: keep.div_euclid(10_000) * 10_000 };
            prop_assert!(closed.to > 100_000);
            prop_assert_eq!(lane.map.0.range(lane.key.deltas(closed)).count(), 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// The same where the API goes by another time than its records show, by as much for all or by more or less from one
    /// record to the next, be it from the beginning or from some time on, and where those without a time are listed whatever
    /// is asked for.
    #[test]
    fn whatever_time_the_api_goes_by_each_is_delivered_once(
        options in world::options(),
        skew in prop_oneof![Just(0i64), Just(2000), Just(20_000), Just(-20_000), Just(59_000), Just(90_000), -90_000i64..90_000],
        more in prop_oneof![Just(0i64), 0i64..30_000],
        everywhere in any::<bool>(),
        shifts_at in prop_oneof![Just(0i64), 0i64..160_000],
        began in prop_oneof![Just(0i64), Just(400_000)],
        crash_share in prop_oneof![Just(0.0), 0.0f64..0.1],
    ) {
        let options = WorldOptions { skew: (skew, more), shifts_at, untimed_everywhere: everywhere, ..options };
        let source = if options.paging == Paging::Tokens { Source::Scloud } else { Source::Genauth };
        let start = -5000 + skew.min(0) / 1000 * 1000;
        let mut lane = Lane::new(source, schedule(options.paging), start);
        let mut world = World::new(options);
        let untimed = world.truth.iter().filter(|truth| truth.untimed).count();
        // Live, or history.
        world.now = began;
        lane.run(&mut world, crash_share);
        let delivered: BTreeSet<EventId> = lane.committed.iter().copied().collect();
        prop_assert_eq!(delivered.len(), lane.committed.len(), "an id twice");
        let truth = truth_ids(&world, &lane.stream);
        prop_assert!(delivered.is_subset(&truth), "{} invented", delivered.difference(&truth).count());
        let mut per_unit: BTreeMap<Millis, u32> = BTreeMap::new();
        world.truth.iter().for_each(|truth| *per_unit.entry(truth.filed).or_default() += 1);
        let everywhere = if world.options.untimed_everywhere { untimed as u32 } else { 0 };
        // What is filed behind all passes, once the API has changed its mind, nobody asks for again.
        let is_kept = shifts_at == 0 || skew >= 0;
        if is_kept && !lane.unstable && per_unit.values().all(|&count| count + everywhere < world.options.page_limit) {
            prop_assert_eq!(truth.difference(&delivered).count(), 0, "missing of {}", truth.len());
        }
    }
}

/// Of an API that lists 250 records without a time whatever is asked for, 50 to a page, each window costs the pages that
/// they fill; but windows are as long as ever.
#[test]
fn records_that_every_window_lists_make_no_window_shorter() {
    for paging in [Paging::Numbered, Paging::Tokens] {
        let rate = if paging == Paging::Numbered { 20.0 } else { 5.0 };
        let options = WorldOptions { paging, rate, page_limit: 50, untimed_everywhere: true, ..world::calm() };
        let source = if paging == Paging::Tokens { Source::Scloud } else { Source::Genauth };
        let mut lane = Lane::new(source, schedule(paging), -5000);
        let mut world = World::new(options);
        world.list_everywhere(250);
        world.now = 400_000;
        lane.run(&mut world, 0.0);
        let delivered: BTreeSet<EventId> = lane.committed.iter().copied().collect();
        assert_eq!((delivered.len(), lane.committed.len()), (world.truth.len(), world.truth.len()));
        assert!(world.pages < 300, "{paging:?}: {} pages", world.pages);
    }
}

/// The property above is worth something only if what it survives happens.
#[test]
fn the_model_does_what_it_claims() {
    let options = WorldOptions {
        cap: 0,
        seed: 3,
        paging: Paging::Numbered,
        order: Order::Newest,
        exclusive: false,
        rate: 25.0,
        seconds: 90,
        late_share: 0.4,
        late_most: 30_000,
        twin_share: 0.2,
        untimed_share: 0.01,
        untimed_everywhere: false,
        skew: (0, 0),
        shifts_at: 0,
        answer: 100,
        page_limit: 10,
    };
    let life = Life { began: 0, crash_share: 0.05, silent: 0, goes_past: true, outages: Vec::new() };
    let (world, lane) = lane_over(options.clone(), life.clone());
    assert!(world.arrivals_while_reading > 20, "{}", world.arrivals_while_reading);
    assert!(lane.crashes > 10 && lane.part_commits > 50 && lane.late > 300);
    assert_eq!(lane.committed.len(), world.truth.len());
    assert!(lane.most_delivered_in_memory < world.truth.len() / 2, "only the buckets that a window needs");
    let (_, late) = lane_over(options.clone(), Life { began: 400_000, outages: vec![0], ..life.clone() });
    assert!(late.history > 300 && late.outages.is_empty(), "{}", late.history);
    // Outages one after the other, of which each is a backfill; and as many as there may be.
    let (_, often) = lane_over(options, Life { outages: [vec![30_000], vec![0; 12]].concat(), ..life });
    assert!(often.most_backfills == 8 && often.outages.is_empty(), "{}", often.most_backfills);
    assert!(often.held > 5, "{}", often.held);
}

/// What the backfill has still to read is remembered, and what the other passes may read again; not what lies between.
#[test]
fn a_backfill_of_days_keeps_no_more_than_the_sweeps() {
    let schedule = schedule(Paging::Numbered);
    let stream = StreamIdentity { source: Source::Genauth, tenant: "t".to_owned() };
    let (lane, hour) = (LaneKey::new("s", "k"), 3_600_000);
    let mut cursor = Cursor::new(stream, &schedule, 0);
    cursor.go_past(&schedule, 100 * hour).unwrap();
    let mut map = Map::default();
    let mut commit = |cursor: &mut Cursor, window: Window, time| {
        let raw = bytes::Bytes::from_static(b"{}");
        let found = [Found { fingerprint: Fingerprint([7; 16]), time: Some(time), raw: vec![raw] }];
        let (known, read_at) = (cursor.known.clone(), window.to + 60_000);
        let new = admit(cursor, window, &found, &Delivered::default(), 0);
        let read = ReadAt { window, read_at, schedule: &schedule, found: &found, known: &known };
        let commit = store::commit(&lane, cursor, read, &new, true, &Delivered::default());
        map.apply(&commit.changes);
        *cursor = commit.cursor;
        let deltas = map.0.range(lane.deltas(Window { from: 0, to: 1000 * hour }));
        deltas.map(|(key, _)| LaneKey::interval(key).unwrap().from / hour).collect::<Vec<_>>()
    };
    // What lies near the end of history may be listed there, too.
    let read = |number: Millis| Window { from: number * hour - 60_000, to: (number + 1) * hour - 60_000 };
    let last_of = |number: Millis| (number + 1) * hour - 120_000;
    assert_eq!(commit(&mut cursor, read(100), 100 * hour), [100]);
    for number in 101..104 {
        assert_eq!(commit(&mut cursor, read(number), last_of(number)), [100, number]);
    }
    // After a second outage, also what lies near the start of what is younger.
    let younger = cursor.go_past(&schedule, 200 * hour).unwrap();
    assert_eq!(younger, Window { from: 104 * hour - 60_000, to: 200 * hour });
    assert_eq!(commit(&mut cursor, read(200), 200 * hour), [100, 103, 200]);
    for number in 201..204 {
        assert_eq!(commit(&mut cursor, read(number), last_of(number)), [100, 103, 200, number]);
    }
    let older = Window { from: 0, to: 100 * hour };
    assert_eq!(commit(&mut cursor, older, 5 * hour), [103, 200, 203], "with the last of the older one");
    assert_eq!(commit(&mut cursor, younger, 150 * hour), [203], "all of it is forgotten with the last of history");
}

#[test]
fn a_backfill_needs_one_reading_and_keeps_nothing() {
    let schedule = schedule(Paging::Numbered);
    let stream = StreamIdentity { source: Source::Genauth, tenant: "t".to_owned() };
    let mut cursor = Cursor::new(stream, &schedule, 0);
    let job = cursor.plan(&schedule, 1_000_000, 60_000, false, &Turns::default()).unwrap();
    assert_eq!((job.pass, job.range), (Pass::Live, Window { from: 0, to: 1_000_000 }));
    cursor.advance(&schedule, Window { from: 0, to: 60_000 }, 1_000_000);
    assert_eq!((cursor.live, cursor.floor()), (60_000, 60_000));
    // Near now the passes part.
    cursor.advance(&schedule, Window { from: 60_000, to: 1_000_000 }, 1_000_000);
    assert_eq!((cursor.live, cursor.overlap), (1_000_000, 997_000));
    assert_eq!((cursor.sweeps[&10_000], cursor.sweeps[&60_000], cursor.floor()), (990_000, 940_000, 940_000));
}

#[test]
fn sweeps_have_their_turn_though_the_live_pass_is_always_behind() {
    let schedule = schedule(Paging::Numbered);
    let stream = StreamIdentity { source: Source::Genauth, tenant: "t".to_owned() };
    let mut cursor = Cursor::new(stream, &schedule, 0);
    cursor.advance(&schedule, Window { from: 0, to: 1_000_000 }, 1_000_000);
    let now = 1_100_000;
    let mut turns = Turns::default();
    let first = cursor.plan(&schedule, now, 60_000, false, &turns).unwrap();
    assert_eq!(first.pass, Pass::Live);
    // Its range comes out of the marks alone: whatever the live job did, sweeps are next, the most overdue first.
    turns.took(first.pass);
    let second = cursor.plan(&schedule, now, 60_000, false, &turns).unwrap();
    assert_eq!((second.pass, second.range), (Pass::Sweep(10_000), Window { from: 990_000, to: 1_090_000 }));
    turns.took(second.pass);
    let third = cursor.plan(&schedule, now, 60_000, false, &turns).unwrap();
    assert_eq!(third.pass, Pass::Live);
}

#[test]
fn a_window_that_leaves_a_gap_moves_no_mark() {
    let schedule = schedule(Paging::Numbered);
    let stream = StreamIdentity { source: Source::Genauth, tenant: "t".to_owned() };
    let mut cursor = Cursor::new(stream, &schedule, 0);
    let before = cursor.clone();
    cursor.advance(&schedule, Window { from: 1, to: 60_000 }, 1_000_000);
    assert_eq!(cursor, before);
}

#[test]
fn a_new_sweep_starts_where_everything_is_still_remembered() {
    let mut schedule = schedule(Paging::Numbered);
    let stream = StreamIdentity { source: Source::Genauth, tenant: "t".to_owned() };
    let mut cursor = Cursor::new(stream, &schedule, 0);
    cursor.advance(&schedule, Window { from: 0, to: 1_000_000 }, 1_000_000);
    schedule.sweeps = vec![20_000, 90_000];
    cursor.adopt(&schedule);
    assert_eq!(cursor.sweeps, BTreeMap::from([(20_000, 940_000), (90_000, 940_000)]));
}

#[test]
fn a_record_without_a_time_is_remembered_until_no_pass_can_list_it_again() {
    let schedule = schedule(Paging::Numbered);
    let stream = StreamIdentity { source: Source::Genauth, tenant: "t".to_owned() };
    let (lane, cursor) = (LaneKey::new("s", "k"), Cursor::new(stream.clone(), &schedule, 0));
    let window = Window { from: 0, to: 60_000 };
    let raw = bytes::Bytes::from_static(b"null");
    let found = Found { fingerprint: Fingerprint([7; 16]), time: None, raw: vec![raw] };
    let (found, known) = ([found], Known::default());
    let new = admit(&cursor, window, &found, &Delivered::default(), 0);
    let read = ReadAt { window, read_at: 1_000_000_000, schedule: &schedule, found: &found, known: &known };
    let commit = store::commit(&lane, &cursor, read, &new, true, &Delivered::default());
    let (_, value) = commit.changes.puts.iter().find(|(key, _)| *key == lane.unplaced(Fingerprint([7; 16]))).unwrap();
    // The next window begins where this one ends, and asks for one unit before that.
    assert!(!store::is_forgotten(value, commit.cursor.floor()).unwrap());
    assert!(!store::is_forgotten(value, window.to + schedule.unit).unwrap());
    assert!(store::is_forgotten(value, window.to + 24 * 3_600_000).unwrap());
    assert_eq!(store::unplaced_to_forget(&lane, 0, 1000), None, "not looked for at every commit");
    assert!(store::unplaced_to_forget(&lane, 0, 3_600_000).is_some());
}
