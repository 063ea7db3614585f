//! Everything is delivered, once, whatever the APIs do: each hostile habit on its own.

use std::time::Duration;

use trailcast::event::{Millis, Source};
use trailcast::simulate::{Options, Order, SourceStats, Stats};

use crate::ledger::{Event, assert_all_arrived, compare, counted};
use crate::program::{Config, Stream, history, simulate};

/// Runs until caught up with such APIs, and compares what arrived with what happened.
async fn all_arrive(options: Options) -> Stats {
    all_arrive_with(options, |config| config).await
}

async fn all_arrive_with(options: Options, adapt: impl FnOnce(Config) -> Config) -> Stats {
    let simulator = simulate(options).await;
    let config = adapt(Config::of(&simulator));
    config.catch_up().await;
    assert_all_arrived(&simulator, Millis::MAX, &config.events());
    simulator.stats()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_as_documented() {
    all_arrive(history(3_000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exclusive_bounds() {
    // Bursts put records onto every bound.
    all_arrive(Options { exclusive_bounds: true, burst: 40, ..history(3_000) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn newest_first_twins_and_bursts() {
    let options = Options { order: Order::Newest, twin_share: 0.1, burst: 300, odd_share: 0.01, ..history(6_000) };
    let stats = all_arrive(options).await;
    for SourceStats { twin_records, twins_cut, odd_records, crowded_pages, .. } in [stats.genauth, stats.scloud] {
        assert!(twin_records > 0 && twins_cut > 0 && odd_records > 0 && crowded_pages > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_pages_are_refused() {
    // Fewer rows than fit a comfortable window, and not told: found out by being refused.
    let options = Options { max_rows: 300, ..history(4_000) };
    let limited = |mut config: Config| {
        config.streams[0].source = config.streams[0].source.replace("{ ", "{ max_rows: 300, ");
        config
    };
    let stats = all_arrive_with(options, limited).await;
    assert_eq!(stats.genauth.too_deep, 0, "a window that is too deep is halved before it is read");
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_pages_with_a_token() {
    let stats = all_arrive(Options { empty_pages: 0.3, ..history(3_000) }).await;
    assert!(stats.scloud.empty_pages > 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn next_tokens_expire() {
    // Answers take longer than tokens live, most times.
    let options =
        Options { next_token_ttl: Duration::from_millis(40), latency: Duration::from_millis(35), ..history(1_500) };
    let stats = all_arrive(options).await;
    assert!(stats.scloud.expired_next_tokens > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn management_tokens_expire() {
    let options = Options { token_ttl: Duration::from_secs(1), latency: Duration::from_millis(200), ..history(2_000) };
    let stats = all_arrive_with(options, |mut config| {
        config.streams[0].keys.push(("concurrency", "1".to_owned()));
        config
    })
    .await;
    assert!(stats.genauth.tokens_issued > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_take_long() {
    all_arrive(Options { latency: Duration::from_millis(300), ..history(2_000) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_limited() {
    let stats = all_arrive(Options { requests_per_second: 10, ..history(1_500) }).await;
    assert!(stats.genauth.over_limit > 0 && stats.scloud.over_limit > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_every_kind() {
    // A clock unit of more than a page whose order is another at each request can be read completely by nobody, so
    // a second of the SCloud API holds less than a page here.
    let options = Options {
        faults: true,
        refusals: 0.0,
        hang: 0.01,
        hang_for: Duration::from_secs(1),
        rate: 10.0,
        burst: 20,
        ..history(3_000)
    };
    let stats = all_arrive(options).await;
    let SourceStats { throttled, errors, torn, truncated, hung, html, closed, .. } = stats.scloud;
    assert!(throttled + errors + torn + truncated + hung + html + closed > 10, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_delivers_only_what_is_new() {
    let simulator = simulate(Options { rate: 50.0, ..Options::default() }).await;
    let config = Config::new([
        Stream::users(&simulator.url()).with("start", "30s"),
        Stream::cloud(&simulator.url()).with("start", "30s"),
    ]);
    // What happened before the run began and is no part of an unfinished clock unit, which is a second at most.
    let mut seen = Vec::new();
    for _ in 0..2 {
        let begun = simulator.now();
        config.catch_up().await;
        let events = config.events();
        for source in [Source::Genauth, Source::Scloud] {
            let from = events.iter().filter(|event| event.source == source).map(|event| event.time).min().unwrap();
            let through = begun.div_euclid(1000) * 1000;
            let of = |event: &&Event| event.source == source && event.time < through;
            let until_then: Vec<_> = events.iter().filter(of).cloned().collect();
            compare(&simulator, source, (from, through), Millis::MAX, &until_then).assert_none();
        }
        assert!(counted(&events).values().all(|&times| times == 1));
        assert!(events.len() > seen.len(), "the second run delivered something");
        seen = events;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_ahead_and_one_behind() {
    for offset in [90_000, -90_000] {
        let simulator = simulate(Options { rate: 50.0, clock_offset: offset, ..Options::default() }).await;
        let config = Config::new([
            Stream::users(&simulator.url()).with("start", "20s"),
            Stream::cloud(&simulator.url()).with("start", "20s"),
        ]);
        let program = config.run();
        let enough = program.shows("300 events of each stream", async || {
            (program.delivered("users", "out").await >= 1200.0 && program.delivered("cloud", "out").await >= 1200.0)
                .then_some(())
        });
        enough.await;
        let by = simulator.now();
        for stream in ["users", "cloud"] {
            let series = |name: &str| format!("trailcast_{name}_seconds{{stream=\"{stream}\"}}");
            let shown = program.metric(&series("clock_offset")).await.unwrap();
            assert!((shown - offset as f64 / 1000.0).abs() < 1.1, "{shown}");
            program
                .shows("a small lag", async || {
                    (program.metric(&series("fetch_lag")).await.unwrap() < 4.0).then_some(())
                })
                .await;
        }
        // All that had happened by then, once the next polls are through.
        for stream in ["users", "cloud"] {
            program
                .shows("delivery of what had happened", async || {
                    let lane = &program.status().await["lanes"];
                    let lanes = lane.as_array().unwrap();
                    let lane = lanes.iter().find(|lane| lane["stream"] == stream).unwrap();
                    let through: jiff::Timestamp = lane["delivered_through"].as_str().unwrap().parse().unwrap();
                    (through.as_millisecond() >= by).then_some(())
                })
                .await;
        }
        program.drain().await;
        let events = config.events();
        for source in [Source::Genauth, Source::Scloud] {
            let times = events.iter().filter(|event| event.source == source).map(|event| event.time);
            let from = times.min().unwrap();
            let to = by.div_euclid(1000) * 1000;
            let of: Vec<_> = events.iter().filter(|event| event.source == source && event.time < to).cloned().collect();
            let difference = compare(&simulator, source, (from, to), Millis::MAX, &of);
            assert!(difference.expected > 1000);
            difference.assert_none();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lanes_of_a_stream_share_its_requests() {
    let alone = simulate(history(3_000)).await;
    let config = Config::of(&alone);
    config.catch_up().await;

    let shared = simulate(history(3_000)).await;
    let mut config = Config::of(&shared);
    config.sinks = "{ a: { stdout: { format: native } }, b: { stdout: { format: ocsf } } }".to_owned();
    config.catch_up().await;
    let text = std::fs::read_to_string(config.out()).unwrap();
    let (ocsf, native): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.contains("\"metadata\":{"));
    let native: Vec<Event> = native.into_iter().map(Event::parse).collect();
    assert_all_arrived(&shared, Millis::MAX, &native);
    let mut others: Vec<String> = ocsf
        .iter()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["metadata"]["uid"].as_str().unwrap().into()
        })
        .collect();
    others.sort_unstable();
    let ids: Vec<&str> = counted(&native).into_keys().collect();
    assert_eq!(others, ids, "both lanes deliver each event once, with the same id");

    let (one, two) = (alone.stats(), shared.stats());
    for (one, two) in [(one.genauth.pages, two.genauth.pages), (one.scloud.pages, two.scloud.pages)] {
        assert!(two < one + one / 4, "{two} pages for two lanes, {one} for one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_comparison_sees_every_kind_of_difference() {
    let simulator = simulate(Options { twin_share: 0.2, odd_share: 0.05, ..history(500) }).await;
    let config = Config::of(&simulator);
    config.catch_up().await;
    let whole: Vec<Event> = config.events().into_iter().filter(|event| event.source == Source::Genauth).collect();
    let compared = |change: &dyn Fn(&mut Vec<Event>)| {
        let mut events = whole.clone();
        change(&mut events);
        let found = compare(&simulator, Source::Genauth, (0, Millis::MAX), Millis::MAX, &events);
        (found.missing.len(), found.invented.len(), found.altered.len(), found.repeated.len())
    };
    let id = |n: u8| format!("{n:032x}");
    assert_eq!(compared(&|_| {}), (0, 0, 0, 0));
    assert_eq!(compared(&|events| drop(events.remove(7))), (1, 0, 0, 0));
    assert_eq!(compared(&|events| events.push(events[7].clone())), (0, 0, 0, 1));
    assert_eq!(compared(&|events| events.push(Event { id: id(1), ..events[7].clone() })), (0, 1, 0, 0));
    assert_eq!(compared(&|events| events[7].record = "{}".to_owned()), (1, 1, 0, 0));
    assert_eq!(compared(&|events| events[7].id = events[300].id.clone()), (1, 0, 1, 0));
    let timed = whole.iter().position(|event| event.record.contains("\"userAgent\"")).unwrap();
    assert_eq!(compared(&|events| events[timed].time += 1), (0, 0, 1, 0));
}
