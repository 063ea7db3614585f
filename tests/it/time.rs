//! Time is not believed: servers whose `Date` lies, machines that do not know what time it is, cursors of the future, and
//! records that write their time in another way. Each ends with 0 missing, none twice, none falsely late.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::future::join_all;
use serde_json::Value;
use trailcast::event::{Millis, Source};
use trailcast::simulate::{Options, Simulator, SourceStats, Times};

use crate::ledger::{Event, assert_all_arrived, assert_arrived, compare, counted};
use crate::program::{Config, Program, Stream, history, simulate, until};
use crate::trouble::{Gate, gate};

/// Records a second of each source: one comes with every poll.
const RATE: f64 = 10.0;
const HOUR: Millis = 3_600_000;
const DAY: Millis = 24 * HOUR;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Answers whose `Date` is off begin when all is well and has been for a while.
fn lying(date_off: Millis) -> Options {
    Options { rate: RATE, date_off, date_after: seconds(4), ..Options::default() }
}

/// What a lie may do to a stream while it lasts.
struct Case {
    what: &'static str,
    options: Options,
    /// For how long it is looked at.
    lasts: u64,
    /// How a stream shows that its clock is in doubt, if it does.
    shows: bool,
    adapt: fn(Stream) -> Stream,
}

fn case(what: &'static str, options: Options, lasts: u64, shows: bool) -> Case {
    Case { what, options, lasts, shows, adapt: |stream| stream }
}

/// Marks as `/status` tells them; none may be ahead of the servers' clock, which it asks after.
pub async fn assert_not_ahead(program: &Program, simulator: &Simulator, what: &str) {
    let status = program.status().await;
    let now = simulator.now();
    for lane in status["lanes"].as_array().expect("lanes") {
        for (pass, mark) in lane["passes"].as_object().expect("passes") {
            let mark: jiff::Timestamp = mark.as_str().expect("a time").parse().expect("RFC 3339");
            assert!(
                mark.as_millisecond() <= now,
                "{what}: {pass} is at {mark}, {} ms ahead",
                mark.as_millisecond() - now
            );
        }
    }
}

/// How many of what happened from `start` until before `end` have not arrived.
pub fn lacking(simulator: &Simulator, config: &Config, (start, end): (Millis, Millis)) -> usize {
    let text = std::fs::read_to_string(config.out()).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let events: Vec<Event> = whole.lines().map(Event::parse).collect();
    let lacks = |source| compare(simulator, source, (start, end), Millis::MAX, &events).missing.len();
    lacks(Source::Genauth) + lacks(Source::Scloud)
}

async fn holds(Case { what, options, lasts, shows, adapt }: Case) {
    let asked = options.clone();
    let simulator = simulate(options).await;
    // This machine's clock has been there, too.
    let start = simulator.now().div_euclid(1000) * 1000 - 20_000 - asked.clock_offset.max(0);
    let mut config = Config::of(&simulator).starting_at(start);
    config.streams = config.streams.into_iter().map(|stream| adapt(stream.with("sweeps", "[5s, 10s]"))).collect();
    let program = config.run();
    let end = simulator.now() + Millis::try_from(lasts * 1000).unwrap();
    let mut doubted = [false; 2];
    while simulator.now() < end {
        assert_not_ahead(&program, &simulator, what).await;
        let status = program.status().await;
        let find = |all: &str, key: &str, name: &str| {
            status[all].as_array().unwrap().iter().find(|found| found[key] == name).unwrap()
        };
        for (doubted, name) in doubted.iter_mut().zip(["users", "cloud"]) {
            let (stream, lane) = (find("streams", "name", name), find("lanes", "stream", name));
            assert!(stream["state"] != "failing" || stream["reason"] == "clock", "{what}: {stream}");
            if stream["reason"] == "clock" {
                *doubted = true;
                assert!(stream["message"].as_str().unwrap().contains("in doubt until a"), "{stream}");
                // A lane that reads it is no better.
                assert_eq!(
                    ["state", "reason", "message"].map(|key| &stream[key]),
                    ["state", "reason", "message"].map(|key| &lane[key])
                );
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let range = (start, end / 1000 * 1000);
    // Two polls and what a request takes: nothing waits for a clock.
    let arrived = async || (lacking(&simulator, &config, range) == 0).then_some(());
    program.shows(&format!("{what}: all that happened"), arrived).await;
    let waited = simulator.now() - end;
    let stats = simulator.stats();
    for (name, SourceStats { requests, dates_off, .. }) in [("users", stats.genauth), ("cloud", stats.scloud)] {
        assert!(dates_off > 0, "{what}: the test proves nothing");
        let ran = u64::try_from((simulator.now() - end) / 1000).unwrap() + lasts;
        // Live with its overlap, what lies beyond it, and two sweeps, a second and of two pages each.
        // What there was to begin with is asked for in shorter and shorter windows until one is read within a poll.
        let backlog = asked.clock_offset.max(0).unsigned_abs() * 10 / 1000 / 50;
        let most = 10 * ran + 60 + 4 * backlog;
        assert!(requests < most, "{what}: {requests} requests of {name} in {ran} s, {asked:?}");
        let late = format!("trailcast_events_late_total{{sink=\"out\",stream=\"{name}\"}}");
        assert_eq!(program.metric(&late).await, Some(0.0), "{what}: {name} has late events");
    }
    assert_not_ahead(&program, &simulator, what).await;
    let lines = program.drain().await;
    // The tests' own secrets stand in the config, and are warned of.
    let said = |line: &&String| !line.contains("the secret stands in the config");
    let about = |level: &str| lines.iter().filter(|line| line.contains(level)).filter(said).collect::<Vec<_>>();
    let (warnings, errors) = (about("\"WARN\""), about("\"ERROR\""));
    assert!(errors.is_empty(), "{what}: {errors:?}");
    assert_eq!(warnings.len(), 2, "{what}: one for each stream: {warnings:?}");
    assert!(warnings.iter().all(|line| line.contains("the clock is in doubt")), "{what}: {warnings:?}");
    assert_eq!(doubted, [shows; 2], "{what}");
    assert!(waited < 8_000, "{what}: it took {waited} ms more");
    let events: Vec<Event> = config.events().into_iter().filter(|event| event.time < range.1).collect();
    assert_arrived(&simulator, range, Millis::MAX, 100, &events);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_that_is_wrong_for_a_while_changes_nothing() {
    let for_a_while = |off, lasts| Options { date_for: Some(seconds(lasts)), ..lying(off) };
    // So many answers, and not so long: on a busy machine there may be none in a second.
    let some = |off, date_answers| Options { date_answers, ..lying(off) };
    join_all([
        // T1
        holds(case("one answer 60 s ahead", some(60_000, 1), 16, false)),
        holds(case("one answer 8 h ahead", some(8 * HOUR, 1), 16, false)),
        // T2
        holds(case("a day ahead for 12 s", for_a_while(DAY, 12), 24, true)),
        // T3
        holds(case("90 s ahead for a dozen answers", some(90_000, 12), 20, true)),
        // T4
        holds(case("an hour behind for some answers", some(-HOUR, 4), 16, true)),
        holds(case("a day behind for some answers", some(-DAY, 4), 16, true)),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_that_is_wrong_for_good_is_lived_with() {
    let random = Options { date_random: seconds(3600), ..lying(0) };
    join_all([
        // T8
        holds(case("ten years ahead for good", lying(3650 * DAY), 45, true)),
        holds(case("ten years behind for good", lying(-3650 * DAY), 45, true)),
        holds(case("an hour ahead from the start", Options { date_after: Duration::ZERO, ..lying(HOUR) }, 45, true)),
        holds(case("an hour behind from the start", Options { date_after: Duration::ZERO, ..lying(-HOUR) }, 45, true)),
        holds(case("another hour in each answer", Options { date_after: Duration::ZERO, ..random }, 30, true)),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_whose_clocks_differ_make_no_event_late() {
    // T9
    let nodes = |off| Options { date_share: 0.5, date_after: Duration::ZERO, ..lying(off) };
    join_all([
        holds(case("one node 30 s ahead", nodes(30_000), 25, true)),
        holds(case("one node 30 s behind", nodes(-30_000), 25, true)),
    ])
    .await;
    // Too little to be told, and too little to be late.
    for off in [3_000, -3_000] {
        let simulator = simulate(nodes(off)).await;
        let start = simulator.now().div_euclid(1000) * 1000 - 10_000;
        let config = Config::of(&simulator).starting_at(start);
        let program = config.run();
        let end = simulator.now() + 15_000;
        program.verified(&["users", "cloud"], "out", end).await;
        for name in ["users", "cloud"] {
            let late = format!("trailcast_events_late_total{{sink=\"out\",stream=\"{name}\"}}");
            assert_eq!(program.metric(&late).await, Some(0.0), "{name} has late events, nodes {off} ms apart");
        }
        assert!(simulator.stats().genauth.dates_off > 5 && simulator.stats().scloud.dates_off > 5);
        assert_eq!(program.drain().await.iter().filter(|line| line.contains("in doubt")).count(), 0);
        let events: Vec<Event> = config.events().into_iter().filter(|event| event.time < end).collect();
        for source in [Source::Genauth, Source::Scloud] {
            compare(&simulator, source, (start, end), Millis::MAX, &events).assert_none();
        }
    }
}

/// This machine's clock is wrong from the start, and the servers' is right: seen from here, all of their time is off.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_clock_is_wrong_from_the_start_loses_nothing() {
    let off = |clock_offset: Millis| async move {
        let simulator = simulate(Options { rate: RATE, clock_offset, ..Options::default() }).await;
        let start = simulator.now().div_euclid(1000) * 1000 - 20_000;
        let config = Config::of(&simulator).starting_at(start);
        let program = config.run();
        let end = simulator.now() / 1000 * 1000 + 45_000;
        while simulator.now() < end {
            assert_not_ahead(&program, &simulator, "a wrong machine").await;
            // What is readable does not wait for it to be known what time it is.
            let due = (start, simulator.now() - 10_000);
            if simulator.now() > end - 30_000 {
                assert_eq!(lacking(&simulator, &config, due), 0, "{clock_offset}");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        // Records bear out what the server says, so the marks get there, too.
        program.verified(&["users", "cloud"], "out", end - 10_000).await;
        for name in ["users", "cloud"] {
            let late = format!("trailcast_events_late_total{{sink=\"out\",stream=\"{name}\"}}");
            assert_eq!(program.metric(&late).await, Some(0.0), "{name}, {clock_offset}");
            let offset = program.metric(&format!("trailcast_clock_offset_seconds{{stream=\"{name}\"}}")).await;
            #[expect(clippy::cast_precision_loss, reason = "hours")]
            let right = offset.is_some_and(|offset| (offset - clock_offset as f64 / 1000.0).abs() < 1.5);
            assert!(right, "{name} is said to be off by {offset:?} s, {clock_offset}");
        }
        let ran = u64::try_from(simulator.now() - end).unwrap() / 1000 + 45;
        assert!(simulator.stats().genauth.requests < 10 * ran + 60, "{ran} s, {:?}", simulator.stats());
        program.drain().await;
        let range = (start, end - 10_000);
        let events: Vec<Event> = config.events().into_iter().filter(|event| event.time < range.1).collect();
        for source in [Source::Genauth, Source::Scloud] {
            compare(&simulator, source, range, Millis::MAX, &events).assert_none();
        }
    };
    join_all([HOUR, -HOUR, 420_000, -420_000, 1_500, -1_500].map(off)).await;
}

/// T7: the year that no `Date` can go beyond, with requests that are signed with one.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_year_that_there_is_ends_nothing() {
    fn signed(mut stream: Stream) -> Stream {
        stream.source = stream.source.replace("genauth: { ", "genauth: { auth: signature, ");
        stream
    }
    let last = |after| Options { date_year: Some(9999), date_after: seconds(after), ..lying(0) };
    let once = Options { date_answers: 1, ..last(4) };
    join_all([
        holds(Case { adapt: signed, ..case("the year 9999 from the start", last(0), 15, true) }),
        holds(Case { adapt: signed, ..case("the year 9999 for good", last(4), 15, true) }),
        holds(Case { adapt: signed, ..case("the year 9999 once", once, 15, false) }),
    ])
    .await;
}

/// T13: no answer says what time it is, so this machine's clock does; where that is right, or behind, all the same arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_date_that_nobody_can_read_is_told_and_a_machine_behind_loses_nothing() {
    let unreadable = |clock_offset| Options { date_unreadable: true, rate: RATE, clock_offset, ..Options::default() };
    join_all([
        holds(case("no Date", unreadable(0), 20, true)),
        holds(case("no Date, and a machine that is behind", unreadable(300_000), 20, true)),
    ])
    .await;
}

/// T10: where a lane begins is settled when it first runs, and outlasts an API that is down, a wrong `Date` and a restart.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_lane_begins_waits_for_nothing() {
    let ahead = Options { date_off: 60_000, date_answers: 6, rate: RATE, ..Options::default() };
    let simulator = std::sync::Arc::new(simulate(ahead).await);
    let (url, door) = gate(&simulator, Gate::Says("503 Service Unavailable", "busy")).await;
    let streams = [Stream::users(&url), Stream::cloud(&url)].map(|stream| stream.with("start", "now"));
    let config = Config::new(streams);
    let program = config.run();
    program.admin().await;
    let begun = simulator.now() + 1;
    let failing = async || {
        let both = [program.stream("users").await, program.stream("cloud").await];
        both.iter().all(|stream| stream["state"] == "failing").then_some(())
    };
    program.shows("streams that cannot read", failing).await;
    // Nothing has been read, so nothing was committed but where it begins.
    let mut killed = program;
    killed.signal("KILL");
    killed.ended().await;
    let program = config.run();
    program.admin().await;
    until("some seconds without an API", String::new, async || (simulator.now() > begun + 5_000).then_some(())).await;
    door.send_replace(Gate::Open);
    let end = simulator.now() + 8_000;
    program.verified(&["users", "cloud"], "out", end).await;
    program.drain().await;
    assert!(simulator.stats().genauth.dates_off > 0 && simulator.stats().scloud.dates_off > 0);
    let events: Vec<Event> = config.events().into_iter().filter(|event| (begun..end).contains(&event.time)).collect();
    assert_arrived(&simulator, (begun, end), Millis::MAX, 50, &events);
}

/// T11
#[tokio::test(flavor = "multi_thread")]
async fn no_cursor_is_set_ahead_of_now_and_none_forward_unasked() {
    let simulator = simulate(history(300)).await;
    let config = Config::of(&simulator);
    config.catch_up().await;
    let shown = async || config.command(&["cursor", "show"], &["--json"]).await.stdout;
    let before = shown().await;
    let ahead = config.command(&["cursor", "set"], &["--to", "2099-01-01T00:00:00Z", "--yes", "--skip"]).await;
    assert_eq!((ahead.code, ahead.stdout.as_str()), (Some(2), ""), "{ahead:?}");
    assert!(ahead.stderr.contains("ahead of now"), "{ahead:?}");

    let stands: Value = serde_json::from_str(&before).unwrap();
    let live: jiff::Timestamp = stands[0]["live"].as_str().unwrap().parse().unwrap();
    until("a later time", String::new, async || (simulator.now() > live.as_millisecond() + 3_000).then_some(())).await;
    let later = jiff::Timestamp::from_millisecond(live.as_millisecond() + 2_000).unwrap().to_string();
    let forward = config.command(&["cursor", "set"], &["--to", &later, "--yes"]).await;
    assert_eq!(forward.code, Some(2), "{forward:?}");
    assert!(forward.stderr.contains("all records between") && forward.stderr.contains("--skip"), "{forward:?}");
    assert_eq!(shown().await, before, "nothing was changed");
    let meant = config.command(&["cursor", "set"], &["--to", &later, "--yes", "--skip"]).await;
    assert_eq!(meant.code, Some(0), "{meant:?}");
    // What is passed over leaves a trace, until it is read all the same.
    let lanes: Value = serde_json::from_str(&shown().await).unwrap();
    for (lane, stood) in lanes.as_array().unwrap().iter().zip(stands.as_array().unwrap()) {
        let gap = &lane["gaps"][0];
        assert_eq!((gap["reason"].as_str(), gap["to"].as_str()), (Some("skipped"), Some(later.as_str())), "{lane}");
        assert_eq!(gap["from"], stood["verified_through"], "{lane}");
    }
    let program = config.run();
    let kept = async || (program.status().await["lanes"][0]["gaps"] == 1).then_some(());
    program.shows("the gap on /status", kept).await;
    program.drain().await;
    let back = config.command(&["cursor", "set"], &["--to", "1999-01-01T00:00:00Z", "--yes"]).await;
    assert_eq!(back.code, Some(0), "{back:?}");
    assert!(back.stderr.contains("scloud keeps 365 days") && back.stderr.contains("is gone"), "{back:?}");
    assert!(back.stderr.contains("genauth is asked for each of"), "{back:?}");
    let lanes: Value = serde_json::from_str(&shown().await).unwrap();
    assert!(lanes.as_array().unwrap().iter().all(|lane| lane["gaps"] == serde_json::json!([])), "{lanes}");
}

/// Puts every mark of every stored cursor to a time, as version 0.1.0 did.
async fn put_ahead(config: &Config, time: Millis, as_old: bool) {
    let exported = config.command(&["cursor", "export"], &[]).await.stdout;
    let mut lines = Vec::new();
    for line in exported.lines() {
        let mut entry: Value = serde_json::from_str(line).unwrap();
        let bytes = |member: &Value| BASE64.decode(member.as_str().unwrap_or_default()).unwrap();
        if bytes(&entry["key"]).starts_with(b"c") {
            let mut cursor: Value = serde_json::from_slice(&bytes(&entry["value"])).unwrap();
            for mark in ["live", "overlap"] {
                cursor[mark] = time.into();
            }
            for (_, mark) in cursor["sweeps"].as_object_mut().unwrap() {
                *mark = time.into();
            }
            if as_old {
                let members = cursor.as_object_mut().unwrap();
                members.remove("read_at");
                members.remove("begun");
            }
            entry["value"] = BASE64.encode(cursor.to_string()).into();
        }
        lines.push(entry.to_string());
    }
    // The last line says what is before it.
    lines.pop();
    let before = lines.join("\n") + "\n";
    let end = serde_json::json!({ "entries": lines.len() - 1, "blake3": blake3::hash(before.as_bytes()).to_string() });
    let path = config.folder.path().join("ahead.ndjson");
    std::fs::write(&path, format!("{before}{end}")).unwrap();
    let imported = config.command(&["cursor", "import"], &["--from", path.to_str().unwrap(), "--yes"]).await;
    assert_eq!(imported.code, Some(0), "{imported:?}");
}

/// T11: at load, whoever put it there.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_the_future_is_put_back_and_said() {
    for as_old in [false, true] {
        let simulator = simulate(Options { rate: RATE, ..Options::default() }).await;
        let start = simulator.now().div_euclid(1000) * 1000 - 20_000;
        // The oldest sweep reaches back to before the first run ended.
        let mut config = Config::of(&simulator).starting_at(start);
        config.streams = config.streams.into_iter().map(|stream| stream.with("sweeps", "[5s, 1m]")).collect();
        config.catch_up().await;
        put_ahead(&config, simulator.now() + 30 * DAY, as_old).await;
        let program = config.run();
        let failing = async || {
            let status = program.status().await;
            let lanes = status["lanes"].as_array()?.clone();
            lanes
                .iter()
                .all(|lane| {
                    lane["state"] == "failing" && lane["message"].as_str().is_some_and(|m| m.contains("put back"))
                })
                .then_some(())
        };
        program.shows("lanes that say so", failing).await;
        let end = simulator.now() / 1000 * 1000;
        let arrived = async || (lacking(&simulator, &config, (start, end)) == 0).then_some(());
        program.shows("all that happened", arrived).await;
        assert_not_ahead(&program, &simulator, "put back").await;
        let lines = program.drain().await;
        let errors: Vec<_> = lines.iter().filter(|line| line.contains("\"ERROR\"")).collect();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors.iter().all(|line| line.contains("put back to")), "{errors:?}");
        let events = config.events();
        if !as_old {
            assert!(counted(&events).values().all(|times| *times == 1), "what was read is known");
        }
    }
}

/// T12: plain to a reader, so read. `Times::Documented` shows that the comparison itself holds.
#[tokio::test(flavor = "multi_thread")]
async fn times_in_another_unit_or_form_are_read() {
    let of = |times| async move {
        let simulator = simulate(Options { times, ..history(600) }).await;
        let config = Config::of(&simulator);
        config.catch_up().await;
        assert_all_arrived(&simulator, Millis::MAX, &config.events());
    };
    join_all([Times::Documented, Times::OtherUnit, Times::Exponent, Times::Text].map(of)).await;
}

/// `--until-caught-up` waits for what was readable when it began and is left to settle.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_to_settle_is_waited_for() {
    let simulator = simulate(Options { rate: RATE, ..Options::default() }).await;
    let start = simulator.now().div_euclid(1000) * 1000 - 20_000;
    let mut config = Config::of(&simulator).starting_at(start);
    config.streams = config.streams.into_iter().map(|stream| stream.with("settle", "6s")).collect();
    let begun = simulator.now() / 1000 * 1000;
    config.catch_up().await;
    assert_eq!(lacking(&simulator, &config, (start, begun)), 0);
}
