//! This machine's clock steps while the program runs, and the servers' clocks are right. The library libfaketime stands
//! between the program and the wall clock; elapsed time it leaves alone, as a real step does. Nothing may come of it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use trailcast::event::Millis;
use trailcast::simulate::{Options, Simulator};

use crate::ledger::{Event, assert_arrived};
use crate::program::{Config, Program, simulate};
use crate::time::{assert_not_ahead, lacking};

/// Records a second of each source: one comes with every poll.
const RATE: f64 = 10.0;
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Where Debian's package `faketime` and others leave it.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = folders.chain(["/usr/lib", "/usr/lib64"].map(PathBuf::from));
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
}

/// Sets the clock of whoever reads `file` ahead by so many seconds.
fn set(file: &Path, ahead: i64) {
    let next = file.with_extension("next");
    std::fs::write(&next, format!("{ahead:+}\n")).unwrap();
    std::fs::rename(next, file).unwrap();
}

fn time_of(line: &str) -> Millis {
    let line: Value = serde_json::from_str(line).unwrap();
    line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

/// Marks not ahead of now, no lag, and nothing wrong.
async fn assert_well(program: &Program, simulator: &Simulator, what: &str) {
    assert_not_ahead(program, simulator, what).await;
    let status = program.status().await;
    assert!(status["uptime_seconds"].as_u64().unwrap() < 200, "{what}: {status}");
    for lane in status["lanes"].as_array().unwrap() {
        assert_eq!(lane["state"], "ok", "{what}: {lane}");
        assert!(lane["delivery_lag_seconds"].as_f64().unwrap() < 15.0, "{what}: {lane}");
    }
    for stream in status["streams"].as_array().unwrap() {
        assert_eq!(stream["state"], "ok", "{what}: {stream}");
        assert!(stream["fetch_lag_seconds"].as_f64().unwrap() < 15.0, "{what}: {stream}");
    }
}

/// The clock is ahead by each of `steps` in turn, each for some polls.
async fn holds(library: &Path, what: &str, steps: &[i64]) {
    let simulator = simulate(Options { rate: RATE, ..Options::default() }).await;
    let start = simulator.now().div_euclid(1000) * 1000 - 20_000;
    let mut config = Config::of(&simulator).starting_at(start);
    config.streams = config.streams.into_iter().map(|stream| stream.with("sweeps", "[5s, 10s]")).collect();
    let clock = config.folder.path().join("clock");
    set(&clock, 0);
    let faked = format!(
        "export LD_PRELOAD='{}' FAKETIME_TIMESTAMP_FILE='{}' FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1",
        library.display(),
        clock.display()
    );
    let program = config.start_after(&faked, &[], config.append());
    program.verified(&["users", "cloud"], "out", simulator.now() - 8_000).await;
    assert_well(&program, &simulator, what).await;
    let began = simulator.now();
    for step in steps {
        set(&clock, *step);
        // It has happened: the servers' clocks are behind this machine's by so much now.
        for name in ["users", "cloud"] {
            let series = format!("trailcast_clock_offset_seconds{{stream=\"{name}\"}}");
            #[expect(clippy::cast_precision_loss, reason = "days")]
            let seen = async || program.metric(&series).await.filter(|offset| (offset + *step as f64).abs() < 2.0);
            program.shows(&format!("{what}: a clock that is {step} s ahead"), seen).await;
        }
        let end = simulator.now() + 6_000;
        while simulator.now() < end {
            assert_well(&program, &simulator, what).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    let end = simulator.now() / 1000 * 1000;
    let arrived = async || (lacking(&simulator, &config, (start, end)) == 0).then_some(());
    program.shows(&format!("{what}: all that happened"), arrived).await;
    assert!(simulator.now() - end < 8_000, "{what}: it took {} ms more", simulator.now() - end);
    // Sweeps go on, too.
    program.verified(&["users", "cloud"], "out", end).await;
    assert_well(&program, &simulator, what).await;
    let ran = u64::try_from((simulator.now() - began) / 1000).unwrap();
    let stats = simulator.stats();
    for (name, stats) in [("users", stats.genauth), ("cloud", stats.scloud)] {
        let late = format!("trailcast_events_late_total{{sink=\"out\",stream=\"{name}\"}}");
        assert_eq!(program.metric(&late).await, Some(0.0), "{what}: {name} has late events");
        assert!(stats.requests < 10 * ran + 120, "{what}: {stats:?} in {ran} s");
    }
    assert!(stats.genauth.tokens_issued <= 2, "{what}: a token lives as long as ever: {stats:?}");
    let lines = program.drain().await;
    // What the log says of when it was is by this machine's clock, however wrong.
    let last = lines.last().map(|line| time_of(line)).unwrap();
    let off = last - simulator.now() - steps.last().unwrap() * 1000;
    assert!(off.abs() < 60_000, "{what}: the test proves nothing: the log's time is {last}");
    let wrong = |line: &&String| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
    let wrong = lines.iter().filter(wrong).filter(|line| !line.contains("the secret stands in the config"));
    assert_eq!(wrong.collect::<Vec<_>>(), Vec::<&String>::new(), "{what}");
    let events: Vec<Event> = config.events().into_iter().filter(|event| event.time < end).collect();
    assert_arrived(&simulator, (start, end), Millis::MAX, 100, &events);
}

/// T5, T6: for good, for a while, and there and back.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_steps_while_it_runs_changes_nothing() {
    let Some(library) = library() else {
        let mut out = std::io::stdout().lock();
        writeln!(out, "NOT REACHED: a clock that steps while it runs, for want of libfaketime").unwrap();
        return;
    };
    join_all([
        holds(&library, "an hour back", &[-HOUR]),
        holds(&library, "a day ahead", &[DAY]),
        holds(&library, "an hour ahead for a while", &[HOUR, 0]),
        holds(&library, "back, ahead and back", &[-DAY, 30 * DAY, -HOUR]),
    ])
    .await;
}
