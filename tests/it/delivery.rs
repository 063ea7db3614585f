//! Everything is delivered, once, whatever the APIs do: each hostile habit on its own.

use std::time::Duration;

use serde_json::Value;
use trailcast::clock::now;
use trailcast::event::{Millis, Source};
use trailcast::simulate::{Options, Order, Simulator, SourceStats, Start, Stats};

use crate::ledger::{Event, assert_all_arrived, assert_arrived, compare, counted};
use crate::program::{Config, Program, Stream, history, simulate, until};

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
    all_arrive(Options { exclusive_bounds: true, burst: 20, ..history(3_000) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn newest_first_with_twins() {
    // A second of the SCloud API fits a page: only then are twins on its boundary sure to be counted.
    let options = Options { order: Order::Newest, twin_share: 0.1, odd_share: 0.01, burst: 20, ..history(6_000) };
    let stats = all_arrive(options).await;
    for SourceStats { twin_records, twins_cut, odd_records, .. } in [stats.genauth, stats.scloud] {
        assert!(twin_records > 0 && twins_cut > 0 && odd_records > 0, "{stats:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_lie_too_deep() {
    // Fewer rows than a comfortable window has: found out by being refused.
    let options = Options { max_rows: 300, ..history(4_000) };
    let stats = all_arrive(options.clone()).await;
    assert!(stats.genauth.too_deep > 0);
    // Known from the config: a window that is too deep is cut before it is read.
    let stats = all_arrive_with(options, |mut config| {
        config.streams[0].source = config.streams[0].source.replace("{ ", "{ max_rows: 300, ");
        config
    })
    .await;
    assert_eq!(stats.genauth.too_deep, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_pages_with_a_token() {
    let stats = all_arrive(Options { empty_pages: 0.3, ..history(3_000) }).await;
    assert!(stats.scloud.empty_pages > 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn next_tokens_expire() {
    // Some answers take longer than tokens live.
    let options = Options {
        next_token_ttl: Duration::from_millis(60),
        latency: Duration::from_millis(50),
        rate: 40.0,
        ..history(1_500)
    };
    let stats = all_arrive(options).await;
    assert!(stats.scloud.expired_next_tokens > 0, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn management_tokens_expire() {
    let options = Options { token_ttl: Duration::from_secs(1), latency: Duration::from_millis(100), ..history(1_500) };
    let stats = all_arrive_with(options, |mut config| {
        config.streams[0].keys.push(("concurrency", "1".to_owned()));
        config
    })
    .await;
    assert!(stats.genauth.tokens_issued > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_take_long() {
    all_arrive(Options { latency: Duration::from_millis(300), ..history(1_000) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_limited() {
    let stats = all_arrive(Options { requests_per_second: 10, ..history(1_000) }).await;
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
    let struck = |SourceStats { throttled, errors, torn, truncated, hung, html, closed, .. }: SourceStats| {
        throttled + errors + torn + truncated + hung + html + closed
    };
    assert!(struck(stats.genauth) > 0 && struck(stats.scloud) > 0, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_delivers_only_what_is_new() {
    let simulator = simulate(Options { rate: 20.0, ..Options::default() }).await;
    let start = (simulator.now() - 30_000).div_euclid(1000) * 1000;
    let config = Config::of(&simulator).starting_at(start);
    let mut seen = 0;
    for _ in 0..2 {
        // What had happened before the run began, but for an unfinished clock unit.
        let begun = simulator.now().div_euclid(1000) * 1000;
        config.catch_up().await;
        let events = config.events();
        assert_arrived_between(&simulator, (start, begun), &events);
        assert!(counted(&events).values().all(|&times| times == 1), "no event comes twice");
        assert!(events.len() > seen, "each run delivers something");
        seen = events.len();
        let new = || (simulator.now() > begun + 3000).then_some(());
        until("something new", String::new, async || new()).await;
    }
}

/// What happened between these times arrived, once; what else arrived is looked at by nobody.
fn assert_arrived_between(simulator: &Simulator, (from, to): (Millis, Millis), events: &[Event]) {
    let events: Vec<Event> = events.iter().filter(|event| (from..to).contains(&event.time)).cloned().collect();
    assert_arrived(simulator, (from, to), Millis::MAX, 0, &events);
}

/// Waits until both lanes have delivered all that happened before `time`.
async fn delivered_through(program: &Program, time: Millis) {
    let look = async || {
        let status = program.status().await;
        let through = |lane: &serde_json::Value| {
            let text = lane["delivered_through"].as_str()?;
            Some(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
        };
        let lanes = status["lanes"].as_array().unwrap();
        lanes.iter().all(|lane| through(lane).is_some_and(|through| through >= time)).then_some(())
    };
    program.shows("both lanes' delivery of what had happened", look).await;
}

async fn a_clock_that_is_off(offset: Millis) {
    let simulator = simulate(Options { rate: 20.0, clock_offset: offset, ..Options::default() }).await;
    let start = (simulator.now() - 20_000).div_euclid(1000) * 1000;
    let config = Config::of(&simulator).starting_at(start);
    let program = config.run();
    // Through two sweeps at least.
    let by = (simulator.now() + 8_000).div_euclid(1000) * 1000;
    delivered_through(&program, by).await;
    for stream in ["users", "cloud"] {
        let series = |name: &str| format!("trailcast_{name}_seconds{{stream=\"{stream}\"}}");
        let shown = program.metric(&series("clock_offset")).await.unwrap();
        #[expect(clippy::cast_precision_loss, reason = "an offset of minutes")]
        let off = shown - offset as f64 / 1000.0;
        assert!(off.abs() < 1.1, "{shown} for {offset} ms");
        let small = async || (program.metric(&series("fetch_lag")).await.unwrap() < 4.0).then_some(());
        program.shows("a small lag", small).await;
    }
    program.drain().await;
    assert_arrived_between(&simulator, (start, by), &config.events());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_ahead() {
    a_clock_that_is_off(90_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_behind() {
    a_clock_that_is_off(-90_000).await;
}

/// A window that held too much is asked for again, shorter, by both lanes: none is left with the reading that failed.
#[tokio::test(flavor = "multi_thread")]
async fn two_lanes_of_a_stream_get_past_a_window_that_holds_too_much() {
    let simulator = simulate(Options { rate: 2_000.0, events: Some(20_000), ..Options::default() }).await;
    let mut config = Config::new([Stream::users(&simulator.url())]);
    config.sinks = "{ a: { stdout: { format: native } }, b: { stdout: { format: native } } }".to_owned();
    config.catch_up().await;
    let events = config.events();
    assert_eq!(events.len(), 40_000);
    assert!(counted(&events).values().all(|&times| times == 2), "each event once for each lane");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lanes_of_a_stream_share_its_requests() {
    let begins = now() - 355_000;
    let windows = async |config: &mut Config| {
        config.level = "info,trailcast=debug";
        let said = config.catch_up().await;
        said.iter().filter(|line| line.contains("\"window read\"")).count()
    };
    let alone = simulate(history(6_000)).await;
    let one = windows(&mut Config::of(&alone).starting_at(begins)).await;

    let shared = simulate(history(6_000)).await;
    let mut config = Config::of(&shared).starting_at(begins);
    config.sinks = "{ a: { stdout: { format: native } }, b: { stdout: { format: ocsf } } }".to_owned();
    let two = windows(&mut config).await;
    let lines = std::fs::read_to_string(config.out()).unwrap();
    let (ocsf, native): (Vec<_>, Vec<_>) = lines.lines().partition(|line| line.contains("\"metadata\":{"));
    let native: Vec<Event> = native.into_iter().map(Event::parse).collect();
    assert_all_arrived(&shared, Millis::MAX, &native);
    let uid = |line: &&str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    let mut others: Vec<String> = ocsf.iter().map(uid).collect();
    let mut ids: Vec<String> = native.into_iter().map(|event| event.id).collect();
    others.sort_unstable();
    ids.sort_unstable();
    assert_eq!(others, ids, "both lanes deliver each event once, with the same id");

    // Each for itself they would read all windows twice. On a busy machine one gets ahead of the other for a while.
    assert!(two < one * 3 / 2, "{two} windows for two lanes, {one} for one");
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

const DAY: Millis = 86_400_000;

fn kept_since() -> Millis {
    now() - 365 * DAY
}

/// Some days of records, of which SCloud no longer keeps the first ten minutes, and nothing since. Days, because no longer
/// intervals are believed of it than it has been seen to answer up to both ends.
async fn long_ago() -> Simulator {
    let start = Some(Start::At(kept_since() - 600_000));
    simulate(Options { rate: 0.05, start, events: Some(12_000), ..Options::default() }).await
}

fn cloud(simulator: &Simulator, start: &str) -> Config {
    Config::new([Stream::cloud(&simulator.url()).with("start", start).with("rate_limit", "500")])
}

/// A lane that begins where SCloud's 365 days do, or before, reads all of them, and nothing is missing that was promised.
#[tokio::test(flavor = "multi_thread")]
async fn all_that_an_api_keeps_is_read() {
    let simulator = &long_ago().await;
    let from = async |start: &str| {
        let config = cloud(simulator, start);
        let lines = config.catch_up().await;
        assert_eq!(lines.iter().filter(|line| line.contains("as far back as the API keeps")).count(), 1, "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains("the API no longer gives")), "{lines:#?}");
        // But for a minute, which the API is to keep while it is asked for the first of it.
        let range = (kept_since() + 60_000, Millis::MAX);
        let events: Vec<_> = config.events().into_iter().filter(|event| event.time >= range.0).collect();
        let difference = compare(simulator, Source::Scloud, range, Millis::MAX, &events);
        assert!(difference.expected > 250, "{start}: {difference}");
        difference.assert_none();
    };
    tokio::join!(from("365d"), from("500d"));
}

/// A lane that stands before that gives up what lies between, and the gap is that, from and to.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_api_no_longer_keeps_is_a_gap_from_where_the_lane_stood() {
    let simulator = long_ago().await;
    let config = cloud(&simulator, "1m");
    config.catch_up().await;
    let stands = jiff::Timestamp::from_millisecond((kept_since() - DAY).div_euclid(1000) * 1000).unwrap();
    let set = config.command(&["cursor", "set"], &["--to", &stands.to_string(), "--yes"]).await;
    assert_eq!(set.code, Some(0), "{set:?}");
    let before = kept_since();
    let mut program = config.start(&["--until-caught-up"], config.append());
    assert_eq!(program.ended().await.code(), Some(1), "{}", program.log());
    let lanes: Value = serde_json::from_str(&config.command(&["cursor", "show"], &["--json"]).await.stdout).unwrap();
    let gaps = lanes[0]["gaps"].as_array().unwrap();
    assert!(gaps.len() == 1 && gaps[0]["reason"] == "expired", "{lanes}");
    let time = |member: &str| gaps[0][member].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(time("from"), stands, "{lanes}");
    let to = time("to").as_millisecond();
    assert!((before..kept_since() + 60_000).contains(&to), "{lanes}");
    // What lies a clock unit before it may be listed with it.
    let events: Vec<_> = config.events().into_iter().filter(|event| event.time >= to).collect();
    let difference = compare(&simulator, Source::Scloud, (to, Millis::MAX), Millis::MAX, &events);
    assert!(difference.expected > 250, "{difference}");
    difference.assert_none();
}

/// What docs/reading.md says a stream costs: a request for each poll, and for each sweep; one more where an empty window is read for
/// the last time.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_costs_a_request_a_poll() {
    let simulator = simulate(Options { rate: 0.2, ..Options::default() }).await;
    let quiet = |stream: Stream| stream.with("start", "now").with("sweeps", "[8s]");
    let (users, cloud) = (Stream::users(&simulator.url()), Stream::cloud(&simulator.url()));
    let config = Config::new([quiet(users), quiet(cloud)]);
    let program = config.run();
    program.verified(&["users", "cloud"], "out", simulator.now()).await;
    let (begun, before) = (simulator.now(), simulator.stats());
    program.verified(&["users", "cloud"], "out", begun).await;
    let (ran, after) = ((simulator.now() - begun).unsigned_abs().div_ceil(1000), simulator.stats());
    assert!(ran >= 8, "{ran} s");
    for (before, after) in [(before.genauth, after.genauth), (before.scloud, after.scloud)] {
        let asked = after.requests - before.requests;
        assert!((ran..=3 * ran + 6).contains(&asked), "{asked} requests in {ran} s");
    }
}
