//! APIs that succeed and do not tell the truth, for a while or for good: nothing is lost, nothing comes twice, and a
//! stream that cannot get on says so.

use std::time::Duration;

use serde_json::Value;
use trailcast::clock::now;
use trailcast::event::{Millis, Source};
use trailcast::simulate::{Lie, Options, Simulator, Start};

use crate::ledger::{assert_all_arrived, compare};
use crate::memory::BESIDE;
use crate::program::{Config, Program, history, simulate};

/// Everything is old: no pass reads it a second time.
fn old(events: u64) -> Options {
    Options { start: Some(Start::At(now() - 900_000)), ..history(events) }
}

fn config(simulator: &Simulator) -> Config {
    let mut config = Config::of(simulator).starting_at(now() - 1_200_000);
    for stream in &mut config.streams {
        // Slowly enough that the lie falls into it.
        stream.keys.extend([("rate_limit", "15".to_owned()), ("concurrency", "2".to_owned())]);
    }
    config
}

fn requests(simulator: &Simulator) -> u64 {
    simulator.stats().genauth.requests + simulator.stats().scloud.requests
}

async fn survives(lie: Lie, after: Duration, length: Option<Duration>) -> (Simulator, Vec<String>) {
    let options = Options { lie: vec![lie], lie_after: after, lie_for: length, ..old(3000) };
    let simulator = simulate(options).await;
    let config = config(&simulator);
    let lines = config.catch_up().await;
    let stats = simulator.stats();
    let both = [Lie::Maintenance, Lie::Empty].contains(&lie);
    let lies = (stats.genauth.lies, stats.scloud.lies);
    assert!(if both { lies.0.min(lies.1) } else { lies.0 + lies.1 } > 0, "{lie:?}: {stats:?}");
    assert_all_arrived(&simulator, Millis::MAX, &config.events());
    (simulator, lines)
}

/// Begins amid the reading of history, and lasts.
const AMID: Duration = Duration::from_millis(1000);
const LASTS: Option<Duration> = Some(Duration::from_secs(4));

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_says_nothing_for_a_while_is_not_believed() {
    for lie in [Lie::Maintenance, Lie::Empty] {
        let (from_start, amid) = tokio::join!(survives(lie, Duration::ZERO, LASTS), survives(lie, AMID, LASTS));
        for (simulator, _) in [from_start, amid] {
            assert!(requests(&simulator) < 1_000, "{lie:?}: {} requests", requests(&simulator));
        }
    }
}

/// A cache, or a connection that is mixed up: what adds up in itself is not what was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_another_request_is_not_believed() {
    survives(Lie::OtherAnswer, AMID, LASTS).await;
    // Now and then, for good.
    let simulator = simulate(Options { lie: vec![Lie::OtherAnswer], lie_share: 0.01, ..old(3000) }).await;
    let config = config(&simulator);
    config.catch_up().await;
    let stats = simulator.stats();
    assert!(stats.genauth.lies.min(stats.scloud.lies) > 0, "{stats:?}");
    assert_all_arrived(&simulator, Millis::MAX, &config.events());
}

/// Count and list agree, and are not all that there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_nobody_tells_is_found_out() {
    // A round number, and one that is not and is less than a page.
    // Of the first, more than three windows may hold.
    let each = [(100, 16_000), (100, 12_000), (47, 6_000)].map(|(cap, records)| async move {
        let simulator = simulate(Options { cap, ..old(records) }).await;
        let config = Config::of(&simulator).starting_at(now() - 1_200_000);
        let lines = config.catch_up().await;
        let told = lines.iter().filter(|line| line.contains("so many records of a query and no more"));
        let right = format!("\"cap\":{cap},");
        assert!(told.clone().count() <= 2 && told.clone().all(|line| line.contains(&right)), "{lines:#?}");
        // A window that is cut down to clock units lists nothing beside it, whatever its parts do.
        assert!(!lines.iter().any(|line| line.contains("other records for parts")), "{lines:#?}");
        // It is known for good once it has cut three windows in a row.
        assert!(cap < 100 || told.count() == 2, "{lines:#?}");
        let stats = simulator.stats();
        assert!(stats.genauth.clipped > 10 && stats.scloud.clipped > 10, "{stats:?}");
        assert_all_arrived(&simulator, Millis::MAX, &config.events());
    });
    futures_util::future::join_all(each).await;
}

/// List and count agree, and what lies beyond is as if it were not: found out before a window is too long. Nor is one that is
/// refused for its length given up.
#[tokio::test(flavor = "multi_thread")]
async fn an_interval_that_is_answered_in_part_is_too_long() {
    const HONEST: u64 = 8;
    let part = Duration::from_secs(1200);
    let sparse = || Options { rate: 0.005, start: Some(Start::At(now() - 24 * 3_600_000)), ..history(400) };
    let clips = [1_200_000, -1_200_000].map(|clip| Options { clip, ..sparse() });
    let honest = (1..=HONEST).map(|seed| Options { seed, ..sparse() });
    let cases = clips.into_iter().chain([Options { refuse_longer: Some(part), ..sparse() }]).chain(honest);
    let each = cases.map(|options| async move {
        let (clip, refuses) = (options.clip, options.refuse_longer.is_some());
        let simulator = simulate(options).await;
        let config = Config::of(&simulator).starting_at(now() - 25 * 3_600_000);
        config.catch_up().await;
        assert_all_arrived(&simulator, Millis::MAX, &config.events());
        let stats = [simulator.stats().genauth, simulator.stats().scloud];
        for stats in &stats {
            assert!((stats.clipped > 0) == (clip != 0) && (stats.too_long > 0) == refuses, "{stats:?}");
            // A window of about three minutes each, two readings of some.
            assert!(stats.requests < 1_200, "clip {clip}, refuses {refuses}: {} requests", stats.requests);
        }
        if clip != 0 || refuses { 0 } else { stats.iter().map(|stats| stats.requests).sum() }
    });
    // Windows of hours, but for an API whose few records happen to lie at one end of them: of 96 readings 5 took some 770 requests.
    let requests: u64 = futures_util::future::join_all(each).await.into_iter().sum();
    assert!(requests < 2 * HONEST * 400, "{requests} requests");
}

/// What an API begins to hide is hidden until a window is read in parts, too: what it hid until then is told.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_api_begins_to_hide_is_told() {
    let long = || Options { rate: 0.5, start: Some(Start::At(now() - 18_000_000)), ..history(7_200) };
    let thin = |hide_after| Options { thin: Some(Duration::from_secs(600)), hide_after, ..long() };
    let random = |seed| Options { cap: 80, cap_random: 40, seed, ..old(6_000) };
    let cases = [
        (Options { cap: 23, hide_after: 100, ..old(6_000) }, true),
        (thin(20), true),
        (thin(60), true),
        (thin(80), true),
        (random(1), true),
        (random(2), true),
        (random(3), true),
        (Options { hide_after: 30, ..old(6_000) }, false),
    ];
    let each = cases.map(|(options, hides)| async move {
        let simulator = simulate(options.clone()).await;
        let config = Config::of(&simulator).starting_at(now() - 25 * 3_600_000);
        let mut program = config.start(&["--until-caught-up"], config.append());
        let code = program.ended().await.code();
        let all_gaps = [gaps(&config, "contradiction").await, gaps(&config, "too_deep").await].concat();
        let events = config.events();
        let (mut given_up, mut by_chance) = (false, (0, 0));
        let stats = simulator.stats();
        for (source, stream, stats) in
            [(Source::Genauth, "users", stats.genauth), (Source::Scloud, "cloud", stats.scloud)]
        {
            let difference = compare(&simulator, source, (0, Millis::MAX), Millis::MAX, &events);
            assert!(difference.repeated.is_empty() && difference.invented.is_empty(), "{options:?} {difference}");
            let gaps: Vec<_> = all_gaps.iter().filter(|(of, _)| of == stream).map(|(_, gap)| gap).collect();
            let is_told = |at: Millis| gaps.iter().any(|gap| gap.contains(&at));
            let untold = difference.missing.iter().filter(|truth| !is_told(truth.listed_at)).count();
            if options.cap_random > 0 {
                by_chance = (by_chance.0 + untold, by_chance.1 + difference.expected);
            } else {
                assert_eq!(untold, 0, "{options:?} {difference} {gaps:?}");
            }
            assert!(stats.clipped > 0 && hides || gaps.is_empty(), "{options:?} {stream} {gaps:?}");
            given_up |= !gaps.is_empty();
        }
        assert_eq!(code, Some(i32::from(given_up)), "{options:?}\n{}", program.log());
        by_chance
    });
    let by_chance = futures_util::future::join_all(each).await;
    // Another limit hides from the parts of a window of some seconds just what it hides from the whole: seldom, but then all
    // of that window, up to 120 records.
    let (untold, of) = by_chance.into_iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    assert!(of == 36_000 && untold <= of / 100, "{untold} of {of}");
}

/// Longer than anybody waits for an API that has never listed anything: what it called empty is read again.
#[tokio::test(flavor = "multi_thread")]
async fn silence_before_the_first_record_is_no_evidence() {
    let options = Options { lie: vec![Lie::Empty], lie_for: Some(Duration::from_secs(15)), ..old(600) };
    let simulator = simulate(options).await;
    let config = Config::of(&simulator).starting_at(now() - 1_200_000);
    let program = config.run();
    let told = async || (program.logged("has not listed a single record yet").len() == 2).then_some(());
    program.shows("that nothing is listed", told).await;
    program.verified(&["users", "cloud"], "out", now() - 900_000).await;
    let arrived = async || {
        let events = config.events();
        let lacks = |source| compare(&simulator, source, (0, Millis::MAX), Millis::MAX, &events).missing.len();
        (lacks(Source::Genauth) + lacks(Source::Scloud) == 0).then_some(())
    };
    program.shows("what it called empty", arrived).await;
    assert_eq!(program.logged("the API lists its first records").len(), 2, "{}", program.log());
    program.drain().await;
    assert_all_arrived(&simulator, Millis::MAX, &config.events());
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_and_lists_that_contradict_each_other_are_no_proof() {
    let lies = [Lie::NoData, Lie::ZeroCount, Lie::PageCount, Lie::CountAlone, Lie::ShortList, Lie::EmptyLaterPages];
    for lies in lies.chunks(3) {
        futures_util::future::join_all(lies.iter().map(|lie| survives(*lie, AMID, LASTS))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_could_hold_sizes_nothing() {
    // One by one: large answers keep the simulator busy, too.
    for lie in [Lie::HugeCount, Lie::LongTokens, Lie::Padded, Lie::ManyRows, Lie::MistypedToken, Lie::EndlessTokens] {
        survives(lie, AMID, LASTS).await;
    }
}

/// For good: each is read in a way that works, and what does not work is said.
#[tokio::test(flavor = "multi_thread")]
async fn pages_that_never_come_are_asked_for_differently() {
    let forever = async |lie| survives(lie, Duration::ZERO, None).await;
    let (deep, refused, spelled) =
        tokio::join!(forever(Lie::DeepErrors), forever(Lie::RefusedTokens), forever(Lie::Spelled));
    for (_, lines) in [&deep, &refused] {
        assert!(lines.iter().any(|line| line.contains("later pages cannot be had")), "{lines:?}");
        assert!(lines.iter().filter(|line| line.contains("cannot read")).count() < 12, "few lines: {lines:?}");
    }
    assert!(!spelled.1.iter().any(|line| line.contains("cannot read")), "nothing is wrong: {:?}", spelled.1);
}

/// For good, and of every interval: no second of it is known to be read completely, so each is a gap, and that is told. It
/// is asked for less and less, what it lists arrives all the same, and the other stream never notices.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_never_end_are_told_and_asked_for_less_and_less() {
    let simulator = simulate(Options { lie: vec![Lie::EndlessTokens], rate: 10.0, ..Options::default() }).await;
    let start = simulator.now().div_euclid(1000) * 1000 - 1_000;
    let config = Config::of(&simulator).starting_at(start);
    let program = config.run();
    fails_everywhere(&program, "cloud", "malformed", "page after page with nothing new and no end").await;
    let counted = "trailcast_gaps_total{sink=\"out\",stream=\"cloud\"}";
    program.shows("a gap", async || program.metric(counted).await.filter(|gaps| *gaps >= 1.0)).await;
    // Nothing limits the rate, and a run that does not end takes a hundred requests.
    let (before, end) = (simulator.stats().scloud.requests, simulator.now() + 30_000);
    while simulator.now() < end {
        assert_eq!(program.stream("cloud").await["state"], "failing");
        let other = program.stream("users").await;
        assert!(other["state"] == "ok" && other["fetch_lag_seconds"].as_f64().unwrap() < 10.0, "{other}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let asked = simulator.stats().scloud.requests - before;
    assert!(asked < 1000, "{asked} requests in 30 s");
    assert!(program.peak() <= BESIDE, "{} MiB", program.peak());
    let arrived = async || (program.delivered("users", "out").await >= 300.0).then_some(());
    program.shows("what the other stream has", arrived).await;
    assert!(program.delivered("cloud", "out").await >= 10.0, "what is listed arrives");
    let told = program.logged("\"cloud\"").len();
    assert!(told < 40, "{told} lines: {}", program.log());
    program.drain_or_not().await;
    let gaps = gaps(&config, "endless").await;
    assert!(gaps.iter().any(|(stream, gap)| stream == "cloud" && gap.contains(&start)), "{gaps:?}");
    let stats = simulator.stats().scloud;
    assert!(stats.lies > 300 && stats.lies == stats.pages, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_are_too_large_are_asked_for_in_smaller_ones() {
    let simulator = simulate(old(300)).await;
    let mut config = Config::of(&simulator).starting_at(now() - 1_200_000);
    for stream in &mut config.streams {
        stream.keys.push(("max_response_size", "8KiB".to_owned()));
    }
    config.catch_up().await;
    assert_all_arrived(&simulator, Millis::MAX, &config.events());
}

/// Such a record's place is told as a gap. What an API that counts its pages lists beside it arrives; where a token leads
/// from page to page nothing leads past it, and the gap is all of its second.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_alone_is_a_gap_and_the_others_arrive() {
    // Some stand beside others in one millisecond.
    let simulator = simulate(Options { large_share: 0.03, burst: 200, ..old(2_400) }).await;
    let mut config = Config::of(&simulator).starting_at(now() - 1_200_000);
    for stream in &mut config.streams {
        stream.keys.push(("max_response_size", "32KiB".to_owned()));
    }
    let mut program = config.start(&["--until-caught-up"], config.append());
    assert_eq!(program.ended().await.code(), Some(1), "{}", program.log());
    let gaps = gaps(&config, "too_large").await;
    for (source, stream) in [(Source::Genauth, "users"), (Source::Scloud, "cloud")] {
        let large = simulator.truth(source, 0, Millis::MAX).filter(|truth| truth.large).count();
        let difference = compare(&simulator, source, (0, Millis::MAX), Millis::MAX, &config.events());
        let missing = &difference.missing;
        assert!(large > 2 && missing.iter().filter(|missing| missing.large).count() == large, "{large}: {difference}");
        assert!(difference.repeated.is_empty() && difference.invented.is_empty(), "{difference}");
        assert!(source == Source::Scloud || missing.len() == large, "{large} too large: {difference}");
        // Of a burst, tokens lead no further than to the first that is too large: where that lies is chance.
        assert!(missing.len() < difference.expected * 3 / 4, "{difference}");
        for missing in missing.iter().filter_map(|missing| missing.time) {
            assert!(gaps.iter().any(|(of, gap)| of == stream && gap.contains(&missing)), "{missing}: {gaps:?}");
        }
        let told = program.logged("given up: not all that lies between could be read");
        let told = told.iter().filter(|line| line.contains(stream) && line.contains("too_large")).count();
        assert!((1..=large).contains(&told), "{told} gaps are told of {large}: {}", program.log());
    }
}

/// What docs/gaps.md says: where gaps show, with one number in all places; a run that finds old ones alone does not fail; and
/// once the cause is mended, `cursor set` to where they begin reads them.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_told_everywhere_and_read_again_once_its_cause_is_mended() {
    let simulator = simulate(Options { large_share: 0.01, ..old(600) }).await;
    let mut config = Config::of(&simulator).starting_at(now() - 1_200_000);
    for stream in &mut config.streams {
        stream.keys.push(("max_response_size", "32KiB".to_owned()));
    }
    let mut program = config.start(&["--until-caught-up"], config.append());
    assert_eq!(program.ended().await.code(), Some(1), "{}", program.log());
    let ends = program.logged("caught up, but not all that lies between could be read");
    assert!(
        ends.len() == 2 && ends.iter().all(|line| line.contains("trailcast cursor set -c FILE --stream ")),
        "{ends:?}"
    );
    let listed = gaps(&config, "too_large").await;
    for stream in ["users", "cloud"] {
        let told: Vec<Value> = program
            .logged("is given up and kept as a gap")
            .iter()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|line: &Value| line["stream"] == stream)
            .collect();
        let kept = listed.iter().filter(|(of, _)| of == stream).count() as u64;
        let new: u64 = told.iter().map(|line| line["new"].as_u64().unwrap()).sum();
        assert!(kept > 0 && new >= kept && told.last().unwrap()["gaps"] == kept, "{kept} {told:?}");
    }
    let shown = config.command(&["cursor", "show"], &[]).await;
    assert_eq!(shown.stdout.matches("trailcast cursor set -c FILE").count(), 1, "{shown:?}");

    // They are of a run before.
    let lines = config.catch_up().await;
    let says = |text: &str| lines.iter().filter(|line| line.contains("\"WARN\"") && line.contains(text)).count();
    assert_eq!((says("gaps of runs before"), says("runs before have given up parts of the log")), (2, 1), "{lines:?}");
    let program = config.run();
    for stream in ["users", "cloud"] {
        let kept: Vec<_> = listed.iter().filter(|(of, _)| of == stream).map(|(_, gap)| gap).collect();
        let labels = format!("{{sink=\"out\",stream=\"{stream}\"}}");
        let counted = async || program.metric(&format!("trailcast_gaps{labels}")).await.filter(|gaps| *gaps > 0.0);
        assert_eq!(program.shows("the gaps", counted).await, kept.len() as f64);
        assert_eq!(program.metric(&format!("trailcast_gaps_total{labels}")).await, Some(0.0), "none is new");
        let status = program.status().await;
        let lane = status["lanes"].as_array().unwrap().iter().find(|lane| lane["stream"] == stream).unwrap();
        assert_eq!(lane["gaps"], kept.len(), "{lane}");
        let newest = lane["newest_gaps"].as_array().unwrap();
        assert_eq!(newest.len(), kept.len().min(10), "{lane}");
        let last = newest.last().unwrap();
        let from: jiff::Timestamp = last["from"].as_str().unwrap().parse().unwrap();
        assert!(from.as_millisecond() == kept.last().unwrap().start && last["reason"] == "too_large", "{lane}");
    }
    program.drain().await;

    for stream in &mut config.streams {
        stream.keys.retain(|(key, _)| *key != "max_response_size");
    }
    for stream in ["users", "cloud"] {
        let first = listed.iter().filter(|(of, _)| of == stream).map(|(_, gap)| gap.start).min().unwrap();
        let to = jiff::Timestamp::from_millisecond(first).unwrap().to_string();
        let lane = ["--stream", stream, "--sink", "out", "--to", &to, "--yes"];
        let set = config.command(&["cursor", "set"], &lane).await;
        assert_eq!(set.code, Some(0), "{set:?}");
    }
    let lines = config.catch_up().await;
    assert!(!lines.iter().any(|line| line.contains("gap")), "{lines:?}");
    assert_eq!(gaps(&config, "too_large").await, []);
    for source in [Source::Genauth, Source::Scloud] {
        let difference = compare(&simulator, source, (0, Millis::MAX), Millis::MAX, &config.events());
        assert!(difference.missing.is_empty() && difference.invented.is_empty(), "{difference}");
    }
}

/// Each window lists them, of whatever time: they arrive once, also when others are read later, and after a kill.
#[tokio::test(flavor = "multi_thread")]
async fn records_without_a_time_that_every_window_lists_arrive_once() {
    let options = Options { timeless_everywhere: true, odd_share: 0.005, rate: 10.0, ..Options::default() };
    let simulator = simulate(options).await;
    let start = simulator.now().div_euclid(1000) * 1000 - 3_700_000;
    let config = Config::of(&simulator).starting_at(start);
    config.catch_up().await;
    let mut program = config.run();
    program.verified(&["users", "cloud"], "out", simulator.now() + 5_000).await;
    program.signal("KILL");
    program.ended().await;
    let end = simulator.now() / 1000 * 1000 + 5_000;
    let program = config.run();
    program.verified(&["users", "cloud"], "out", end).await;
    program.drain().await;
    let stats = simulator.stats();
    for (source, stats) in [(Source::Genauth, stats.genauth), (Source::Scloud, stats.scloud)] {
        let timeless = simulator.truth(source, 0, end).filter(|truth| truth.time.is_none()).count();
        assert!(timeless > 50 && stats.odd_records > 10 * timeless as u64, "{timeless} without a time: {stats:?}");
        let difference = compare(&simulator, source, (0, Millis::MAX), end, &config.events());
        assert!(difference.missing.is_empty() && difference.invented.is_empty(), "{difference}");
        assert!(difference.repeated.is_empty() && difference.altered.is_empty(), "{difference}");
    }
}

/// The API goes by another time than its records show: the same for all, or more or less from one to the next.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_time_the_api_goes_by_each_event_arrives_once() {
    let skews = [(2000, 0), (20_000, 0), (-20_000, 0), (59_000, 0), (90_000, 0), (-30_000, 60)];
    for skews in skews.chunks(3) {
        let each = skews.iter().map(async |&(filed_later, spread)| {
            // More than one window may hold, so that windows meet amid them.
            let options = Options { filed_later, filed_spread: Duration::from_secs(spread), ..old(8000) };
            let simulator = simulate(options).await;
            let config = Config::of(&simulator).starting_at(now() - 1_200_000);
            let lines = config.catch_up().await;
            assert_all_arrived(&simulator, Millis::MAX, &config.events());
            let told = lines.iter().filter(|line| line.contains("does not go by the time that its records show"));
            assert_eq!(told.count(), 2, "once for each stream: {lines:?}");
        });
        futures_util::future::join_all(each).await;
    }
}

/// The gaps of this reason in the stored cursors, each with its stream.
async fn gaps(config: &Config, reason: &str) -> Vec<(String, std::ops::Range<Millis>)> {
    let shown = config.command(&["cursor", "show"], &["--json"]).await.stdout;
    let lanes: Vec<Value> = serde_json::from_str(&shown).unwrap();
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
    let of_lane = |lane: &Value| {
        let of = lane["stream"].as_str().unwrap().to_owned();
        let those = lane["gaps"].as_array().unwrap().iter().filter(|gap| gap["reason"] == reason);
        those.map(|gap| (of.clone(), time(&gap["from"])..time(&gap["to"]))).collect::<Vec<_>>()
    };
    lanes.iter().flat_map(of_lane).collect()
}

/// What it does not list is gone: that is a gap, and no run that has one ends as if all were well.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_ignores_bounds_is_told_and_what_it_does_not_list_is_a_gap() {
    let simulator = simulate(Options { ignore_bounds: true, ..old(400) }).await;
    let config = Config::of(&simulator).starting_at(now() - 1_200_000);
    let mut program = config.start(&["--until-caught-up"], config.append());
    assert_eq!(program.ended().await.code(), Some(1), "{}", program.log());
    let told = |text| program.logged(text).iter().filter(|line| line.contains("\"ERROR\"")).count();
    assert_eq!(told("whatever bounds are asked for"), 2, "once for each stream: {}", program.log());
    assert_eq!(told("caught up, but not all that lies between could be read"), 2, "{}", program.log());
    let gaps = gaps(&config, "bounds").await;
    for (source, stream) in [(Source::Genauth, "users"), (Source::Scloud, "cloud")] {
        let difference = compare(&simulator, source, (0, Millis::MAX), Millis::MAX, &config.events());
        assert_eq!(difference.missing.len(), 350, "the newest 50 of 400: {difference}");
        assert!(difference.repeated.is_empty() && difference.invented.is_empty(), "{difference}");
        for missing in difference.missing.iter().filter_map(|missing| missing.time) {
            assert!(gaps.iter().any(|(of, gap)| of == stream && gap.contains(&missing)), "{missing}: {gaps:?}");
        }
    }
}

/// It may list more than it was asked for, as long as it lists that.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_generous_with_bounds_has_no_gap() {
    let simulator = simulate(Options { round_bounds: Duration::from_secs(300), ..old(400) }).await;
    let config = Config::of(&simulator).starting_at(now() - 1_200_000);
    let lines = config.catch_up().await;
    assert!(lines.iter().any(|line| line.contains("does not go by the time that its records show")), "{lines:?}");
    assert_all_arrived(&simulator, Millis::MAX, &config.events());
    assert!(!lines.iter().any(|line| line.contains("whatever bounds are asked for")), "{lines:?}");
}

/// A lane's and its stream's state are one, under one name, wherever it shows.
async fn fails_everywhere(program: &Program, stream: &str, reason: &str, cause: &str) {
    let failing = async || {
        let status = program.status().await;
        let lanes = status["lanes"].as_array()?;
        let both = [program.stream(stream).await, lanes.iter().find(|lane| lane["stream"] == stream)?.clone()];
        let says = |shown: &Value| shown["message"].as_str().is_some_and(|message| message.contains(cause));
        let fails = |shown: &Value| shown["state"] == "failing" && shown["reason"] == reason && says(shown);
        both.iter().all(fails).then_some(())
    };
    // Of several passes that fail, each says its own.
    program.shows(&format!("{stream} failing, {reason}: {cause}"), failing).await;
    let metric = async |name: &str, label: &str| {
        let series = format!("{name}{{{label},stream=\"{stream}\"}}");
        program.metric(&series).await.unwrap()
    };
    assert!(metric("trailcast_lane_state", "sink=\"out\",state=\"failing\"").await >= 1.0);
    assert!(metric("trailcast_fetch_errors_total", &format!("reason=\"{reason}\"")).await >= 1.0);
    assert!(program.says(cause).await.contains(&format!("\"reason\":\"{reason}\"")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_completely_is_failing_under_one_name_everywhere() {
    let ignores = simulate(Options { ignore_bounds: true, ..old(400) }).await;
    let config = Config::of(&ignores).starting_at(now() - 1_200_000);
    let program = config.run();
    for stream in ["users", "cloud"] {
        fails_everywhere(&program, stream, "doubtful", "whatever bounds are asked for").await;
        let gaps = format!("trailcast_gaps_total{{sink=\"out\",stream=\"{stream}\"}}");
        program.shows("gaps", async || program.metric(&gaps).await.filter(|gaps| *gaps >= 1.0)).await;
    }
    program.drain().await;
    for lie in [Lie::ShortList, Lie::PageCount] {
        // Long enough that it shows, however slow the machine.
        let lies = Options { lie: vec![lie], lie_for: Some(Duration::from_secs(15)), ..old(3000) };
        let simulator = simulate(lies).await;
        let config = config_of_users(&simulator);
        let program = config.run();
        fails_everywhere(&program, "users", "malformed", "counts other records than it lists").await;
        let well = async || {
            let lanes = program.status().await["lanes"].as_array()?.clone();
            (lanes[0]["state"] == "ok" && program.delivered("users", "out").await >= 3000.0).then_some(())
        };
        program.shows("that it is over", well).await;
        assert_eq!(program.stream("users").await["state"], "ok");
        program.drain().await;
        let difference = compare(&simulator, Source::Genauth, (0, Millis::MAX), Millis::MAX, &config.events());
        difference.assert_none();
    }
}

fn config_of_users(simulator: &Simulator) -> Config {
    let mut config = Config::of(simulator).starting_at(now() - 1_200_000);
    config.streams.truncate(1);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_filter_is_refused_with_what_to_do() {
    let simulator = simulate(old(300)).await;
    let mut config = Config::of(&simulator).starting_at(now() - 1_200_000);
    config.streams.truncate(1);
    let all = config.streams[0].source.clone();
    config.streams[0].source = all.replace(" }", ", filter: { event_type: login } }");
    config.catch_up().await;
    let some = config.events().len();
    assert!((1..300).contains(&some), "{some} of 300");
    config.streams[0].source = all;
    let check = config.command(&["check"], &[]).await;
    let failed: Vec<_> = check.stdout.lines().filter(|line| line.starts_with("FAILED")).collect();
    assert!(check.code == Some(1) && failed.len() == 1 && failed[0].contains("another filter"), "{}", check.stdout);
    let answer = config.command(&["run"], &["--until-caught-up"]).await;
    assert_ne!(answer.code, Some(0));
    assert!(answer.stderr.contains("another filter") && answer.stderr.contains("cursor set"), "{}", answer.stderr);
    let set = config.command(&["cursor", "set"], &["--to", "2020-01-01T00:00:00Z", "--stream", "users", "--yes"]).await;
    assert_eq!(set.code, Some(0), "{}", set.stderr);
    config.catch_up().await;
    let difference = compare(&simulator, Source::Genauth, (0, Millis::MAX), Millis::MAX, &config.events());
    assert!(difference.missing.is_empty(), "{difference}");
}
