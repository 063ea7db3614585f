//! A lane that lives by this clock, in a model: records happen, an API lists what has happened, and clocks lie. Afterwards
//! everything was delivered, once, and no mark was ever ahead of the true time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::estimate::Estimate;
use super::estimate::tests::{START, Spell, answer, record, spell};
use crate::event::{Millis, Source, StreamIdentity};
use crate::state::cursor::Cursor;
use crate::state::fore::Fore;
use crate::state::schedule::{Pass, Schedule, Turns};
use crate::window::Window;

/// The longest window that is asked for; the tail beyond what is surely over is asked for at once.
const COMFORTABLE: Millis = 60_000;

struct Model {
    schedule: Schedule,
    estimate: Estimate,
    cursor: Cursor,
    fore: Fore,
    /// The true time, which is steady time here, too.
    now: Millis,
    /// By time, every record so far.
    happened: BTreeMap<Millis, u64>,
    remembered: BTreeSet<Millis>,
    delivered: BTreeMap<Millis, u32>,
    late: u32,
    calls: u64,
    furthest: i64,
    fore_calls: u64,
}

impl Model {
    fn new(wall: i64) -> Self {
        let schedule =
            Schedule { unit: 1, poll: 2_000, phase: 0, settle: 0, overlap: 3_000, sweeps: vec![10_000, 40_000] };
        let stream = StreamIdentity { source: Source::Genauth, tenant: "t".to_owned() };
        let estimate = Estimate::new(wall, START);
        let start = estimate.now(START).sure.min(START);
        Self {
            cursor: Cursor::new(stream, &schedule, start),
            schedule,
            estimate,
            fore: Fore::default(),
            now: START,
            happened: BTreeMap::new(),
            remembered: BTreeSet::new(),
            delivered: BTreeMap::new(),
            late: 0,
            calls: 0,
            furthest: i64::MIN,
            fore_calls: 0,
        }
    }

    /// Time passes, in which a record happens every `every` ms, if any does.
    fn pass(&mut self, millis: Millis, every: Option<Millis>) {
        for at in self.now..self.now + millis {
            if every.is_some_and(|every| at % every == 0) {
                self.happened.insert(at, at.unsigned_abs());
            }
        }
        self.now += millis;
    }

    /// One window, as a lane does it.
    fn read(&mut self, window: Window, off: i64, wall: i64, every: Option<Millis>) -> Vec<Millis> {
        let sure = |model: &Self| model.estimate.now(model.now).sure - model.now;
        let (at, before) = (self.now, sure(self));
        self.calls += 1;
        let listed: Vec<Millis> = self.happened.range(window.from..window.to).map(|(at, _)| *at).collect();
        let dated = answer(self.now, off, 1, 1);
        self.pass(2, every);
        self.estimate.observe(dated, wall);
        let read_at = at + before.min(sure(self));
        for &time in &listed {
            if self.remembered.insert(time) {
                *self.delivered.entry(time).or_default() += 1;
                // Every record is readable at once.
                self.late += u32::from(self.cursor.has_read(time));
            }
        }
        for &time in listed.iter().rev().take(8) {
            self.estimate.witness(record(time.unsigned_abs()), time - self.now);
        }
        self.cursor.advance(&self.schedule, window, read_at);
        let floor = self.cursor.floor();
        self.remembered.retain(|time| *time >= floor);
        self.furthest = self.furthest.max(self.cursor.marks().into_iter().max().unwrap() - self.now);
        listed
    }

    /// One turn of the lane's loop, as `Lane::run` takes it.
    fn turn(&mut self, off: i64, wall: i64, every: Option<Millis>, turns: &mut Turns) {
        let now = self.estimate.now(self.now);
        if self.cursor.is_ahead_of(now.claimed) {
            self.cursor.put_back(&self.schedule, now);
        }
        let tick = self.schedule.tick(now.sure);
        if self.cursor.go_past(&self.schedule, tick).is_some() {
            turns.took(Pass::Live);
        }
        let live_is_due = self.cursor.plan_live(&self.schedule, tick).is_some();
        let beyond = self.fore.plan(&self.cursor, &self.schedule, now, false);
        let has_turn = turns.last() == Some(Pass::Live) || !live_is_due && turns.last() != Some(Pass::Fore);
        let beyond = beyond.filter(|_| has_turn);
        let planned = beyond.or_else(|| self.cursor.plan(&self.schedule, tick, COMFORTABLE, false, turns));
        let wait = |model: &mut Self| {
            let wait = (tick + model.schedule.poll - model.estimate.now(model.now).sure).clamp(1, model.schedule.poll);
            model.pass(wait, every);
        };
        let Some(job) = planned else {
            turns.waited();
            return wait(self);
        };
        turns.took(job.pass);
        let before = self.cursor.marks();
        let mut listed = Vec::new();
        let mut from = job.range.from;
        while from < job.range.to {
            let to = if job.pass == Pass::Fore { job.range.to } else { job.range.to.min(from + COMFORTABLE) };
            listed.extend(self.read(Window { from, to }, off, wall, every));
            from = to;
        }
        if job.pass == Pass::Fore {
            self.fore_calls += 1;
            self.fore.read(&self.schedule, job.range, now, listed);
        } else if self.cursor.marks() == before {
            wait(self);
        }
    }

    fn live(&mut self, spells: &[Spell]) {
        let mut turns = Turns::default();
        for spell in spells {
            let end = self.now + spell.seconds * 1000;
            let every = (spell.records > 0).then(|| 4_001 / i64::try_from(spell.records * spell.records).unwrap());
            let mut turn = 0;
            while self.now < end {
                let off = spell.nodes[turn % spell.nodes.len()];
                turn += 1;
                self.turn(off, spell.wall(), every, &mut turns);
            }
        }
    }

    fn quiet(seconds: i64) -> Spell {
        Spell { seconds, every: 0, nodes: vec![0], wall: 0, records: 0, absurd: None }
    }

    fn missing(&self) -> usize {
        self.happened.keys().filter(|time| !self.delivered.contains_key(time)).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_lie_about_the_time_loses_or_repeats_an_event(spells in prop::collection::vec(spell(), 1..6)) {
        let mut model = Model::new(0);
        model.live(&spells);
        // The lies are over, and so is whatever they left behind.
        model.live(&[Model::quiet(420)]);
        prop_assert_eq!(model.missing(), 0, "of {}", model.happened.len());
        prop_assert!(model.delivered.values().all(|count| *count == 1), "an event twice");
        prop_assert!(model.furthest <= 0, "a mark {} ms ahead", model.furthest);
        prop_assert_eq!(model.late, 0, "late, of {}", model.happened.len());
        let polls = u64::try_from((model.now - START) / model.schedule.poll).unwrap() + 1;
        // The live pass, what lies beyond it, and two sweeps, each at most once a poll; and long windows are cut.
        let cut = u64::try_from((model.now - START) / COMFORTABLE).unwrap() + 1;
        prop_assert!(model.calls <= 4 * polls + 8 * cut, "{} calls in {polls} polls", model.calls);
    }

    /// Nothing that is readable waits, though a mark does: a machine whose clock is behind, and servers that are right.
    #[test]
    fn what_is_readable_beyond_a_doubt_is_delivered(behind in 6_000_i64..100_000_000) {
        let mut model = Model::new(-behind);
        let spell = |seconds| Spell { seconds, every: 0, nodes: vec![0], wall: -behind, records: 2, absurd: None };
        model.live(&[spell(30)]);
        let waits = model.happened.keys().rev().take_while(|time| !model.delivered.contains_key(time)).count();
        prop_assert!(model.fore_calls > 5, "{}", model.fore_calls);
        // A record a second, and a poll every two.
        prop_assert!(waits <= 4, "{waits} wait");
        model.live(&[spell(300), Spell { records: 0, ..spell(60) }]);
        prop_assert_eq!(model.missing(), 0, "of {}", model.happened.len());
        prop_assert!(model.delivered.values().all(|count| *count == 1));
        prop_assert!(model.now - model.cursor.live < 5_000, "{} behind", model.now - model.cursor.live);
    }
}

/// A lane that begins, or goes on, where this machine's clock has not been yet: it asks all the same.
#[test]
fn a_lane_that_stands_beyond_a_clock_that_is_behind_asks() {
    let mut model = Model::new(-3_600_000);
    model.cursor.set_to(START - 20_000);
    model.estimate.observe(answer(START, 0, 1, 1), -3_600_000);
    let spell = |seconds, records| Spell { seconds, every: 0, nodes: vec![0], wall: -3_600_000, records, absurd: None };
    model.live(&[spell(60, 2)]);
    let waits = model.happened.keys().rev().take_while(|time| !model.delivered.contains_key(time)).count();
    assert!(waits <= 4, "{waits} wait");
    model.live(&[spell(100, 0)]);
    assert_eq!(model.missing(), 0, "of {}", model.happened.len());
}

#[test]
fn a_cursor_of_the_future_is_put_back_to_what_was_read() {
    let mut model = Model::new(0);
    let busy = |seconds| Spell { seconds, every: 0, nodes: vec![0], wall: 0, records: 2, absurd: None };
    model.live(&[busy(100)]);
    // As if by hand, or by a version that believed a `Date`: every mark.
    let begun = model.cursor.begun;
    model.cursor.set_to(START + 86_400_000);
    model.cursor.begun = begun;
    assert!(model.cursor.is_ahead_of(model.now));
    model.live(&[busy(100), Model::quiet(120)]);
    assert_eq!(model.missing(), 0, "of {}", model.happened.len());
    assert!(model.delivered.values().all(|count| *count == 1));
}
