//! Each event exactly once through kills at any moment, with APIs at their worst; and what plain mode promises instead.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use trailcast::event::Millis;
use trailcast::simulate::Simulator;

use crate::broker::{Broker, Options};
use crate::hostile::{SECONDS, assert_hostile, config, hostile};
use crate::ledger::{Difference, Event};
use crate::pipeline::{
    Ends, LETTERS, STREAMS, TOPIC, arrived, differences, exactly_once, finish_exactly_once, into_kafka, seconds_ago,
};
use crate::program::{Config, simulate};

/// How often trailcast is killed; `TRAILCAST_KILLS` says another number.
const KILLS: usize = 20;
/// For each kill, seconds of history that are there at the start, and seconds in which more arrives: so that there is
/// something to deliver after the last one, too, and pages shift until then.
const HISTORY: i64 = 10;
const ARRIVALS: i64 = 2;
/// A page shifts where a record comes late between two requests, which is chance: so many seconds more it is waited for.
const MORE: u64 = 90;

/// APIs at their worst for a test of so many kills; with the begin and the end of what happens, but for what happens for so
/// many seconds `more`.
async fn worst(kills: usize, more: u64) -> (Millis, Millis, Simulator) {
    let kills = i64::try_from(kills).unwrap();
    let (start, seconds) = (seconds_ago(HISTORY * kills), (HISTORY + ARRIVALS) * kills);
    let backlog = u64::try_from(seconds).unwrap();
    let simulator = simulate(hostile(start, backlog + more)).await;
    (start, start + (seconds + Millis::try_from(SECONDS).unwrap() + 1) * 1000, simulator)
}

/// Kills the runs of `config` one after the other; returns how many had sent something.
async fn kill(config: &Config, ends: &Ends, kills: usize, seed: u64) -> usize {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut had_sent = 0;
    for _ in 0..kills {
        let mut program = config.run();
        // After a random number of records, committed or not, or at a random moment if no more come.
        let before = ends.sum();
        let enough = before + rng.random_range(0..800);
        let patience = Duration::from_millis(rng.random_range(50..4000));
        let began = Instant::now();
        while ends.sum() <= enough && began.elapsed() < patience {
            assert!(program.runs(), "{}", program.log());
            tokio::task::yield_now().await;
        }
        program.signal("KILL");
        program.ended().await;
        had_sent += usize::from(ends.sum() > before);
    }
    had_sent
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "a run with another number of kills tells what it saw")]
async fn kills_at_any_moment_and_every_fault_at_once() {
    let kills: usize = std::env::var("TRAILCAST_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let began = Instant::now();
    let (start, end, simulator) = worst(kills, MORE).await;
    let broker = Broker::start(Options::default()).await;
    let java = broker.java();
    let config = exactly_once(config(&simulator, start), &broker.bootstrap());
    let ends = Ends::of(&broker.client(), TOPIC);
    let mut had_sent = kill(&config, &ends, kills, 5).await;
    let mut killed = java.counts(TOPIC).await;
    // On a quick machine all may have fallen between two transactions.
    for seed in 6..60 {
        if killed.all > killed.committed {
            break;
        }
        had_sent += kill(&config, &ends, 1, seed).await;
        killed = java.counts(TOPIC).await;
    }
    let program = config.run();
    // Each wait is for what has happened by then: more kills leave more to come than one wait is long.
    let latest = end + Millis::try_from(MORE).unwrap() * 1000;
    let has_shifted = || simulator.stats().genauth.page_shifts + simulator.stats().scloud.page_shifts > 0;
    while simulator.now() < end || !has_shifted() && simulator.now() < latest {
        program.verified(&STREAMS, "events", simulator.now()).await;
    }
    let end = simulator.now();
    program.verified(&STREAMS, "events", end).await;
    program.drain().await;
    let events = arrived(&java).await;
    let counts = java.counts(TOPIC).await;
    let found = differences(&simulator, end, &events);
    let sum = |count: fn(&Difference) -> usize| found.iter().map(count).sum::<usize>();
    eprintln!(
        "{kills} kills, {had_sent} of runs that had sent; {} records happened, {} events committed, {} records \
         aborted; {} missing, {} ids repeated, {} invented, {} altered; {:.0} s",
        sum(|found| found.expected),
        counts.committed,
        counts.all - counts.committed,
        sum(|found| found.missing.len()),
        sum(|found| found.repeated.len()),
        sum(|found| found.invented.len()),
        sum(|found| found.altered.len()),
        began.elapsed().as_secs_f64(),
    );
    found.iter().for_each(Difference::assert_none);
    assert_hostile(&simulator.stats());
    assert_eq!(java.counts(LETTERS).await.all, 0);
    // The dangerous thing happened: runs were killed while they delivered, and in the middle of transactions.
    assert!(had_sent > kills / 3, "{had_sent} of {kills} runs had sent anything");
    assert!(counts.all > counts.committed, "no kill hit an open transaction: {counts:?}");
    assert!(killed.committed > 0 && killed.committed < counts.committed, "{killed:?}, then {counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_asked_to_end_leaves_no_transaction_open() {
    let start = seconds_ago(60);
    let simulator = simulate(hostile(start, 600)).await;
    let broker = Broker::start(Options::default()).await;
    let config = exactly_once(config(&simulator, start), &broker.bootstrap());
    for _ in 0..3 {
        let program = config.run();
        crate::pipeline::delivers_more(&program, 50.0).await;
        program.drain().await;
    }
    finish_exactly_once([config.run()], &simulator, &broker.java()).await;
    let counts = broker.java().counts(TOPIC).await;
    assert_eq!(counts.all, counts.committed, "what is drained leaves no transaction to be aborted");
}

/// Without transactions: nothing is lost or invented, and what comes twice has one id.
#[tokio::test(flavor = "multi_thread")]
async fn plain_mode_through_kills_repeats_only_with_the_same_id() {
    let (start, end, simulator) = worst(KILLS, MORE).await;
    let broker = Broker::start(Options::default()).await;
    let java = broker.java();
    let config = into_kafka(config(&simulator, start), &broker.bootstrap(), "create: { partitions: 3 }");
    let ends = Ends::of(&broker.client(), TOPIC);
    let mut had_sent = kill(&config, &ends, KILLS, 6).await;
    // On a quick machine none may have fallen between an answer of the broker and the checkpoint after it.
    for seed in 7..60 {
        if repeated(&arrived(&java).await) > 0 {
            break;
        }
        had_sent += kill(&config, &ends, 1, seed).await;
    }
    let program = config.run();
    program.verified(&STREAMS, "events", end.max(simulator.now())).await;
    program.drain().await;
    let events = arrived(&java).await;
    for mut difference in differences(&simulator, end, &events) {
        difference.repeated.clear();
        difference.assert_none();
    }
    let repeated = repeated(&events);
    assert!(had_sent > KILLS / 3 && repeated > 0, "{had_sent} runs had sent anything, {repeated} repeated");
}

fn repeated(events: &[Event]) -> usize {
    let ids: HashSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
    events.len() - ids.len()
}
