//! Into VictoriaLogs, with the flags that are shipped for it: conservation by what it shows; what becomes there of late, old,
//! large and repeated events; what it refuses, and what it loses in silence. config/victorialogs.yaml says the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trailcast::clock::now;
use trailcast::event::{Millis, Source};
use trailcast::simulate::{Options, Start};

use crate::ledger::{Event, assert_all_arrived, compare, counted};
use crate::loki::{events, letters};
use crate::loki_rules::{record, request, resource, text};
use crate::program::{Config, history, simulate, until};
use crate::receiver::VictoriaLogs;

const KILLS: usize = 20;
const DAY: Millis = 86_400_000;
/// What is shown of each event that there are copies of.
const ONCE: &str = "* | first 1 by (_time) partition by (log.record.uid)";

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_in_the_store_through_kills() {
    let options = Options {
        rate: 25.0,
        start: Some(Start::At(now() - 300_000)),
        twin_share: 0.1,
        late_share: 0.1,
        late_max: Duration::from_secs(2),
        odd_share: 0.02,
        ..Options::default()
    };
    let simulator = simulate(options).await;
    let mut store = VictoriaLogs::start(&[]).await;
    let mut config = Config::of(&simulator).starting_at(now() - 360_000);
    config.sinks = store.sink(", max_request_events: 100");
    for kill in 0..KILLS {
        let mut program = config.run();
        if kill == KILLS / 2 {
            store.stop().await;
            program.says("could not deliver all, trying again").await;
            store.restart().await;
        }
        let delivers = async || (program.delivered("users", "out").await > 0.0).then_some(());
        program.shows("that it delivers", delivers).await;
        program.signal("KILL");
        program.ended().await;
    }
    let begun = now();
    config.catch_up().await;
    let arrived = store.entries().await;
    let shown = events(&arrived);
    let mut repeated = BTreeSet::new();
    let mut expected = 0;
    for source in [Source::Genauth, Source::Scloud] {
        let difference = compare(&simulator, source, (0, Millis::MAX), begun, &shown);
        let lost = difference.missing.len() + difference.invented.len() + difference.altered.len();
        assert!(difference.expected > 5000 && lost == 0, "{difference}");
        expected += difference.expected;
        repeated.extend(difference.repeated);
    }
    assert!(!repeated.is_empty(), "no kill came between a delivery and its commit, so nothing was shown");
    assert!(letters(&config).is_empty());
    let labels: BTreeSet<&str> = arrived.iter().flat_map(|one| one.labels.keys().map(String::as_str)).collect();
    assert_eq!(labels, BTreeSet::from(["service.name", "service.namespace"]));
    // Copies have one id, and are told by it.
    let ids = counted(&shown);
    let copied: BTreeSet<&str> = ids.iter().filter(|(_, count)| **count > 1).map(|(id, _)| *id).collect();
    assert_eq!(copied, repeated.iter().map(String::as_str).collect());
    assert_eq!(store.rows(ONCE, None).await.len(), ids.len());
    println!(
        "{KILLS} kills, one restart of the store: {expected} events had to arrive; it has {} rows of {} ids, {} of them more \
         than once; 0 missing, 0 invented",
        shown.len(),
        ids.len(),
        copied.len(),
    );
    simulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_arrives_with_each_compression() {
    let simulator = simulate(history(100)).await;
    for compression in ["gzip", "zstd", "none"] {
        let store = VictoriaLogs::start(&[]).await;
        let mut config = Config::of(&simulator);
        config.sinks = store.sink(&format!(", compression: {compression}"));
        let answer = config.command(&["check"], &[]).await;
        assert_eq!(answer.code, Some(0), "{}", answer.stdout);
        assert_eq!(store.entries().await.len(), 0, "check delivers nothing");
        let begun = now();
        config.catch_up().await;
        assert_all_arrived(&simulator, begun, &events(&store.entries().await));
    }
    simulator.shutdown().await;
}

/// It keeps each copy, equal or not.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_delivered_twice_is_there_twice_with_one_id() {
    let simulator = simulate(Options { twin_share: 0.1, ..history(500) }).await;
    let store = VictoriaLogs::start(&[]).await;
    let mut config = Config::of(&simulator);
    config.sinks = store.sink("");
    let begun = now();
    config.catch_up().await;
    assert_all_arrived(&simulator, begun, &events(&store.entries().await));
    let answer = config.command(&["cursor", "delete"], &["--yes"]).await;
    assert_eq!(answer.code, Some(0), "{answer:?}");
    config.catch_up().await;
    let all = events(&store.entries().await);
    let copies: BTreeSet<usize> = counted(&all).into_values().collect();
    assert_eq!((all.len(), copies), (2000, BTreeSet::from([2])));
    let once = store.rows(ONCE, None).await;
    let ids: BTreeSet<&String> = once.iter().map(|row| &row["log.record.uid"]).collect();
    assert_eq!((once.len(), ids.len()), (1000, 1000));
    simulator.shutdown().await;
}

/// Rows in memory and rows on disk. What has just come is in neither until it is shown.
async fn rows(store: &VictoriaLogs) -> [f64; 2] {
    let memory = store.metric("vl_storage_rows{type=\"storage/inmemory\"}").await;
    [memory, store.metric("vl_storage_rows{type=\"storage/").await - memory]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_disk_outlives_a_kill_of_the_store() {
    let simulator = simulate(history(500)).await;
    let mut store = VictoriaLogs::start(&[]).await;
    let mut config = Config::of(&simulator);
    config.sinks = store.sink("");
    let begun = now();
    config.catch_up().await;
    assert_eq!(store.entries().await.len(), 1000);
    let saved = async || (rows(&store).await == [0.0, 1000.0]).then_some(());
    until("that all is on disk", || store.log(), saved).await;
    store.kill().await;
    store.restart().await;
    assert_all_arrived(&simulator, begun, &events(&store.entries().await));
    simulator.shutdown().await;
}

/// It has answered 200, and shown them: killed before they are on disk, it has lost them, and nobody knows. Delivered again,
/// as config/victorialogs.yaml says to do, they are there.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_store_had_in_memory_is_lost_until_it_is_delivered_again() {
    let simulator = simulate(history(500)).await;
    let mut store = VictoriaLogs::start(&["-inmemoryDataFlushInterval=1h"]).await;
    let mut config = Config::of(&simulator);
    config.sinks = store.sink("");
    let begun = now();
    config.catch_up().await;
    assert_all_arrived(&simulator, begun, &events(&store.entries().await));
    store.kill().await;
    store.restart().await;
    config.catch_up().await;
    let left = store.entries().await.len();
    assert!(left < 1000, "all was on disk, so nothing was shown");
    println!("of 1000 events that were answered with 200 a killed store has {left}");
    let before = jiff::Timestamp::from_millisecond(begun - DAY).unwrap().to_string();
    let answer = config.command(&["cursor", "set"], &["--to", &before, "--yes"]).await;
    assert_eq!(answer.code, Some(0), "{answer:?}");
    config.catch_up().await;
    let once: BTreeMap<String, Event> =
        events(&store.entries().await).into_iter().map(|event| (event.id.clone(), event)).collect();
    assert_all_arrived(&simulator, begun, &once.into_values().collect::<Vec<_>>());
    simulator.shutdown().await;
}

/// With the retention that is shipped; no order is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_many_months_ago_are_taken_as_any_other() {
    let start = now() - 300 * DAY;
    let options = Options { rate: 0.0001, start: Some(Start::At(start)), events: Some(300), ..Options::default() };
    let simulator = simulate(options).await;
    let store = VictoriaLogs::start(&[]).await;
    let mut config = Config::of(&simulator).starting_at(start - 60_000);
    config.sinks = store.sink(", max_event_age: 399d");
    let begun = now();
    config.catch_up().await;
    let arrived = store.entries().await;
    assert_all_arrived(&simulator, begun, &events(&arrived));
    let span = arrived.iter().map(|one| one.event.time).max().unwrap() - start;
    println!("300 events of each source, from 300 days ago on, over {} days", span / DAY);
    simulator.shutdown().await;
}

/// What is older than its retention it throws away, and answers 200. `max_event_age` keeps it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_outside_the_retention_is_lost_in_silence_unless_its_age_is_looked_at() {
    let start = now() - 4 * DAY;
    let options = Options { rate: 0.001, start: Some(Start::At(start)), events: Some(340), ..Options::default() };
    let simulator = simulate(options).await;
    for (more, kept) in [("", false), (", max_event_age: 1d", true)] {
        let store = VictoriaLogs::start(&["-retentionPeriod=2d"]).await;
        let mut config = Config::of(&simulator).starting_at(start - 60_000);
        config.sinks = store.sink(more);
        let begun = now();
        config.catch_up().await;
        let (arrived, letters) = (events(&store.entries().await), letters(&config));
        let dropped = store.metric("vl_rows_dropped_total{reason=\"too_small_timestamp\"}").await;
        println!("{more:?}: {} arrived, {} dead letters, {dropped} thrown away", arrived.len(), letters.len());
        if kept {
            assert_eq!(dropped, 0.0);
            assert!(letters.iter().all(|letter| letter.reason.label() == "too_old"));
            let as_event = |letter: &trailcast::dead_letter::DeadLetter| Event {
                id: letter.id.to_string(),
                source: letter.source,
                time: letter.time.as_millisecond(),
                record: letter.record.clone(),
            };
            let all: Vec<Event> = arrived.into_iter().chain(letters.iter().map(as_event)).collect();
            assert_all_arrived(&simulator, begun, &all);
        } else {
            assert!(letters.is_empty() && dropped > 100.0, "{dropped}");
            #[expect(clippy::cast_precision_loss, reason = "some hundred events")]
            let gone = 680.0 - arrived.len() as f64;
            assert_eq!(gone, dropped, "it counts what it throws away");
        }
    }
    simulator.shutdown().await;
}

/// One that is larger than 2 MiB with all its fields, or too far ahead, is answered with 200, and is not there.
#[tokio::test(flavor = "multi_thread")]
async fn large_ones_are_kept_to_the_byte_and_larger_ones_are_lost_in_silence() {
    let store = VictoriaLogs::start(&[]).await;
    let large = |id: &str, size: usize| record(id, now(), "", vec![text("filler", &"x".repeat(size))]);
    let sizes = [("64KiB", 64 << 10), ("1MiB", 1 << 20), ("2MiB-1KiB", (2 << 20) - 1024), ("2MiB", 2 << 20)];
    for (id, size) in sizes {
        let genauth = vec![text("service.name", "genauth")];
        assert_eq!(store.post(request(vec![resource(genauth, vec![large(id, size)])])).await, (200, String::new()));
    }
    let genauth = vec![text("service.name", "genauth")];
    let ahead = record("ahead", now() + 3 * DAY, "", vec![]);
    let both = request(vec![resource(genauth, vec![ahead, record("good", now(), "", vec![])])]);
    assert_eq!(store.post(both).await, (200, String::new()));
    let stored: BTreeMap<String, usize> = store
        .entries()
        .await
        .into_iter()
        .map(|one| (one.event.id, one.attributes.get("filler").map_or(0, String::len)))
        .collect();
    let there = sizes[..3].iter().map(|(id, size)| ((*id).to_owned(), *size));
    assert_eq!(stored, there.chain([("good".to_owned(), 0)]).collect());
    // Of the first no metric speaks, of the second one does.
    assert!(store.log().contains("ignoring too long log entry"), "{}", store.log());
    assert_eq!(store.metric("vl_rows_dropped_total{").await, 1.0);
    assert_eq!(store.metric("vl_rows_dropped_total{reason=\"too_big_timestamp\"}").await, 1.0);
}

/// Why config/victorialogs.yaml sets a header.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_header_each_type_of_event_is_a_stream() {
    let store = VictoriaLogs::start(&[]).await;
    let mut one = record("a", now(), "", vec![]);
    "genauth.user.login".clone_into(&mut one.event_name);
    assert_eq!(store.post(request(vec![resource(vec![text("service.name", "genauth")], vec![one])])).await.0, 200);
    let entries = store.entries().await;
    assert_eq!(entries[0].labels.keys().collect::<Vec<_>>(), ["event_name", "service.name"]);
}

/// A request of more bytes than it takes is 400, whatever is in it: trailcast finds the size that passes.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_large_for_it_is_halved() {
    let simulator = simulate(history(100)).await;
    let store = VictoriaLogs::start(&["-opentelemetry.maxRequestSize=16KB"]).await;
    let mut config = Config::of(&simulator);
    config.sinks = store.sink("");
    let begun = now();
    config.catch_up().await;
    assert!(store.log().contains("too big data size exceeding"), "nothing was too large");
    assert!(letters(&config).is_empty());
    assert_all_arrived(&simulator, begun, &events(&store.entries().await));
    simulator.shutdown().await;
}

/// It answers 429 then, to everything, and trailcast waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_room_is_waited_for() {
    let simulator = simulate(history(200)).await;
    let mut store = VictoriaLogs::start(&["-storage.minFreeDiskSpaceBytes=1000TB"]).await;
    let full = async || (store.metric("vl_storage_is_read_only").await > 0.0).then_some(());
    until("that it has no room", || store.log(), full).await;
    let mut config = Config::of(&simulator);
    config.sinks = store.sink("");
    let begun = now();
    let mut program = config.run();
    program.says("read-only mode").await;
    store.stop().await;
    store.restart_with(&[]).await;
    // What it took before it ended and did not answer comes twice.
    let once = async || {
        let once = events(&store.entries().await).into_iter().map(|event| (event.id.clone(), event));
        once.collect::<BTreeMap<String, Event>>()
    };
    let there = async || (once().await.len() == 400).then_some(());
    program.shows("all in the store", there).await;
    program.signal("TERM");
    program.ended().await;
    assert!(letters(&config).is_empty());
    assert_all_arrived(&simulator, begun, &once().await.into_values().collect::<Vec<_>>());
    simulator.shutdown().await;
}
