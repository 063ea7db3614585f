//! History and what is new: neither waits for the other, and each event comes once.

use std::time::Duration;

use serde_json::Value;
use trailcast::clock::now;
use trailcast::event::{Millis, Source};
use trailcast::simulate::{Lie, Options, Start};

use crate::ledger::{Event, assert_all_arrived, compare};
use crate::program::{Config, Program, simulate};

/// Waits until some events of each source have come that are younger than `since`, and says where the lanes stand.
async fn fresh(config: &Config, program: &Program, since: Millis) -> Vec<Value> {
    let look = async || {
        let text = std::fs::read_to_string(config.out()).unwrap();
        // The last line is being written.
        let events: Vec<_> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(Event::parse).collect();
        let of = |source| events.iter().filter(|event| event.source == source && event.time > since).count();
        (of(Source::Genauth).min(of(Source::Scloud)) > 5).then_some(())
    };
    program.shows("what is new", look).await;
    program.status().await["lanes"].as_array().unwrap().clone()
}

/// Hours of history and few requests: what is new comes all the same, also in the next run.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_does_not_wait_for_history() {
    let options =
        Options { rate: 2.0, start: Some(Start::Ago(Duration::from_hours(6))), twin_share: 0.05, ..Options::default() };
    let simulator = simulate(Options { late_share: 0.05, late_max: Duration::from_secs(2), ..options }).await;
    let mut config = Config::of(&simulator);
    for stream in &mut config.streams {
        stream.keys.extend([("start", "6h".to_owned()), ("rate_limit", "30".to_owned())]);
    }
    for _ in 0..2 {
        let program = config.run();
        for lane in fresh(&config, &program, now()).await {
            let state = lane["state"].as_str().unwrap();
            assert!(!lane["passes"]["backfill"].is_null() && state == "catching_up", "{lane:#}");
        }
        program.drain().await;
    }
    // What is late is so by less than the sweep, and all of that is done.
    let end = now();
    config.catch_up().await;
    assert_all_arrived(&simulator, end - 10_000, &config.events());
}

/// For a while requests for some old minutes fail: that is said, and what is new comes; what is old comes afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_range_that_cannot_be_read_stops_nothing() {
    let ago = |minutes| Start::Ago(Duration::from_mins(minutes));
    let lasts = Duration::from_secs(20);
    let options = Options { rate: 5.0, start: Some(ago(15)), ..Options::default() };
    let began = now();
    let simulator =
        simulate(Options { unreadable: Some((ago(10), ago(5))), unreadable_for: Some(lasts), ..options }).await;
    let config = Config::of(&simulator);
    let program = config.run();
    for lane in fresh(&config, &program, now()).await.into_iter().chain(fresh(&config, &program, now()).await) {
        assert!(!lane["passes"]["backfill"].is_null() && lane["state"] != "ok", "{lane:#}");
    }
    assert!(now() < began + 20_000, "it lasted");
    let unreadable = began - 590_000..began - 310_000;
    assert!(!config.events().iter().any(|event| unreadable.contains(&event.time)));
    let stats = simulator.stats();
    assert!(stats.genauth.unreadable.min(stats.scloud.unreadable) > 3, "{stats:?}");
    let end = now();
    program.verified(&["users", "cloud"], "out", end).await;
    program.drain().await;
    assert_all_arrived(&simulator, end, &config.events());
}

/// What becomes unreadable just where the live pass reads it is gone past, too, while older history is still read.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_the_live_pass_cannot_read_is_left_to_a_second_backfill() {
    let began = now();
    let unreadable = (Start::At(began + 15_000), Start::At(began + 20_000));
    let lasts = Duration::from_secs(110);
    let options = Options { rate: 3.0, start: Some(Start::Ago(Duration::from_hours(2))), ..Options::default() };
    let simulator = simulate(Options { unreadable: Some(unreadable), unreadable_for: Some(lasts), ..options }).await;
    let mut config = Config::of(&simulator);
    for stream in &mut config.streams {
        stream.keys.extend([("start", "2h".to_owned()), ("rate_limit", "4".to_owned())]);
    }
    let program = config.run();
    // The live pass reads all but that.
    fresh(&config, &program, began + 10_000).await;
    for stream in ["users", "cloud"] {
        let failing = async || (program.stream(stream).await["state"] == "failing").then_some(());
        program.shows("that it cannot be read", failing).await;
    }
    assert_eq!(program.logged("the lane is behind").len(), 2, "when each began");
    let waits = async || (program.stream("users").await["fetch_lag_seconds"].as_f64() > Some(40.0)).then_some(());
    program.shows("that the live pass waits there", waits).await;
    let behind = async || (program.logged("the lane is behind").len() == 4).then_some(());
    program.shows("that it goes on from now", behind).await;
    for lane in fresh(&config, &program, now()).await {
        assert!(!lane["passes"]["backfill"].is_null(), "{lane:#}");
    }
    program.drain().await;
    let answer = config.command(&["cursor", "show"], &["--json"]).await;
    let lanes: Value = serde_json::from_str(&answer.stdout).expect("JSON");
    for lane in lanes.as_array().unwrap() {
        assert_eq!(lane["backfills"].as_array().map(Vec::len), Some(2), "{lane:#}");
    }
    assert!(now() < began + 110_000, "it lasted");
    assert!(simulator.stats().genauth.unreadable.min(simulator.stats().scloud.unreadable) > 3);
    // Both are read in the end, also by the next run.
    config.streams.iter_mut().for_each(|stream| stream.keys.clear());
    let program = config.run();
    let end = now();
    program.verified(&["users", "cloud"], "out", end).await;
    let gaps = program.logged("given up and kept as a gap").len();
    program.drain().await;
    for source in [Source::Genauth, Source::Scloud] {
        let found = compare(&simulator, source, (0, Millis::MAX), end, &config.events());
        assert!(found.invented.is_empty() && found.altered.is_empty() && found.repeated.is_empty(), "{found}");
        // What failed for so long may be given up, second by second: that is told.
        let is_given_up = |time| (began + 14_000..began + 21_000).contains(&time);
        let all = found.missing.iter().all(|truth| truth.time.is_some_and(is_given_up));
        assert!(all && (found.missing.is_empty() || gaps > 0), "{gaps} gaps: {found}");
    }
}

/// An API that says at first that there is nothing: none of what was read ahead then counts, in no pass, for no sink.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_called_empty_at_first_is_read_again_for_each_sink() {
    let lie_for = Some(Duration::from_secs(11));
    let start = Some(Start::Ago(Duration::from_hours(24)));
    let simulator = simulate(Options { rate: 0.1, start, lie: vec![Lie::Empty], lie_for, ..Options::default() }).await;
    let mut config = Config::of(&simulator).starting_at(now() - 87_000_000);
    config.sinks = "{ out: { stdout: { format: native } }, more: { stdout: { format: native } } }".to_owned();
    for stream in &mut config.streams {
        let keys = [
            ("poll_interval", "2s"),
            ("overlap", "30s"),
            ("sweeps", "[40s]"),
            ("concurrency", "64"),
            ("rate_limit", "60"),
        ];
        stream.keys.extend(keys.map(|(key, value)| (key, value.to_owned())));
    }
    let program = config.run();
    let lied = async || (simulator.stats().genauth.lies.min(simulator.stats().scloud.lies) > 10).then_some(());
    program.shows("lies", lied).await;
    let history = async || {
        let lanes = program.status().await["lanes"].as_array().unwrap().clone();
        lanes
            .iter()
            .all(|lane| lane["passes"]["backfill"].is_null() && lane["delivered"].as_u64() > Some(8_000))
            .then_some(())
    };
    program.shows("all of history", history).await;
    let end = now();
    program.drain().await;
    let mut both: Vec<Event> = config.events();
    both.sort_by(|one, other| one.id.cmp(&other.id));
    let (once, again): (Vec<_>, Vec<_>) =
        both.chunk_by(|one, other| one.id == other.id).map(|same| (same[0].clone(), same.len())).unzip();
    assert!(again.iter().filter(|times| **times != 2).count() < 50, "each sink has what was not just happening");
    assert_all_arrived(&simulator, end - 10_000, &once);
}
