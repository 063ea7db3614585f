//! Into the double of Loki, with the limits that are shipped for it: conservation, and each of its refusals.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use trailcast::clock::now;
use trailcast::dead_letter::DeadLetter;
use trailcast::event::{Millis, Source};
use trailcast::simulate::{Options, Simulator, Start};

use crate::ledger::{Event, compare};
use crate::loki_double::Loki;
use crate::program::{Config, history, simulate};
use crate::receiver::Arrived;

const KILLS: usize = 20;
const HOUR: Millis = 3_600_000;

pub fn events(arrived: &[Arrived]) -> Vec<Event> {
    arrived.iter().map(|arrived| arrived.event.clone()).collect()
}

/// In which attributes, labels or time copies of an event differ from the first. (An event without a time has that of the
/// window that it was read in, which may be another the next time.)
///
/// # Panics
/// If one does not: Loki shows what is equal once.
pub fn copies_differ(arrived: &[Arrived]) -> BTreeMap<String, usize> {
    let mut first: HashMap<&str, &Arrived> = HashMap::new();
    let mut differ = BTreeMap::new();
    for one in arrived {
        let Some(first) = first.get(one.event.id.as_str()) else {
            first.insert(&one.event.id, one);
            continue;
        };
        let names = one.attributes.keys().chain(first.attributes.keys()).collect::<BTreeSet<_>>();
        let mut others: Vec<&str> = names
            .into_iter()
            .filter(|name| one.attributes.get(*name) != first.attributes.get(*name))
            .map(String::as_str)
            .collect();
        if one.labels != first.labels {
            others.push("labels");
        }
        if one.event.time != first.event.time {
            others.push("time");
        }
        assert!(!others.is_empty(), "an equal copy is shown: {one:?}");
        for name in others {
            *differ.entry(name.to_owned()).or_default() += 1;
        }
    }
    differ
}

/// The dead letters in files beside the checkpoint.
pub fn letters(config: &Config) -> Vec<DeadLetter> {
    let folder = config.checkpoint.join("dead-letters");
    let files = std::fs::read_dir(folder).into_iter().flatten();
    let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    texts.flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_in_the_double_of_loki_through_kills() {
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
    let mut loki = Loki::start("").await;
    let mut config = Config::of(&simulator).starting_at(now() - 360_000);
    config.sinks = loki.sink(", max_request_events: 100");
    for kill in 0..KILLS {
        let mut program = config.run();
        if kill == KILLS / 2 {
            loki.stop().await;
            program.says("could not deliver all, trying again").await;
            loki.restart().await;
        }
        let delivers = async || (program.delivered("users", "out").await > 0.0).then_some(());
        program.shows("that it delivers", delivers).await;
        program.signal("KILL");
        program.ended().await;
    }
    let begun = now();
    config.catch_up().await;
    let arrived = loki.entries();
    let shown = events(&arrived);
    let mut repeated = 0;
    for source in [Source::Genauth, Source::Scloud] {
        let difference = compare(&simulator, source, (0, Millis::MAX), begun, &shown);
        let lost = difference.missing.len() + difference.invented.len() + difference.altered.len();
        assert!(difference.expected > 5000 && lost == 0, "{difference}");
        repeated += difference.repeated.len();
    }
    assert!(letters(&config).is_empty());
    let labels: BTreeSet<&str> = arrived.iter().flat_map(|one| one.labels.keys().map(String::as_str)).collect();
    assert_eq!(labels, BTreeSet::from(["service_name", "service_namespace"]));
    let differ = copies_differ(&arrived);
    println!(
        "{KILLS} kills, one restart of the double of Loki: it was sent {} entries and shows {}; {repeated} copies, which \
         differ in {differ:?}",
        loki.received(),
        shown.len(),
    );
    // Equal copies came, and are shown once.
    assert!(loki.received() > shown.len());
    let is_login = |one: &&Arrived| one.attributes.get("genauth_event_type").is_some_and(|act| act == "login");
    let mut logins = arrived.iter().filter(is_login).peekable();
    assert!(logins.peek().is_some() && logins.all(|one| one.attributes["trailcast_type"] == "genauth.user.login"));
    simulator.shutdown().await;
}

/// What arrived and what is kept as dead letters is what happened, each event in one place.
fn refused(simulator: &Simulator, loki: &Loki, config: &Config, begun: Millis) -> (Vec<Arrived>, Vec<DeadLetter>) {
    let arrived = loki.entries();
    let letters = letters(config);
    // Of a request that Loki refuses it keeps what is good; that may have become too old when it is sent alone.
    let crossed = begun - HOUR..now() - HOUR;
    let only_kept = letters.iter().filter(|letter| {
        let arrived = arrived.iter().any(|one| one.event.id == letter.id.to_string());
        !(arrived && letter.reason.label() == "too_old" && crossed.contains(&letter.time.as_millisecond()))
    });
    let kept = only_kept.map(|letter| Event {
        id: letter.id.to_string(),
        source: letter.source,
        time: letter.time.as_millisecond(),
        record: letter.record.clone(),
    });
    let all: Vec<Event> = events(&arrived).into_iter().chain(kept).collect();
    crate::ledger::assert_all_arrived(simulator, begun, &all);
    (arrived, letters)
}

fn reasons(letters: &[DeadLetter]) -> BTreeSet<&'static str> {
    letters.iter().map(|letter| letter.reason.label()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_for_loki_is_a_dead_letter_and_the_rest_is_delivered() {
    // Two and a half hours, and an hour and a half of it is too old.
    let simulator =
        simulate(Options { rate: 0.2, start: Some(Start::At(now() - 9_000_000)), ..Options::default() }).await;
    let loki = Loki::start("reject_old_samples_max_age: 1h").await;
    let mut config = Config::of(&simulator).starting_at(now() - 9_060_000);
    config.sinks = loki.sink("");
    let begun = now();
    config.catch_up().await;
    let (arrived, letters) = refused(&simulator, &loki, &config, begun);
    assert_eq!(reasons(&letters), BTreeSet::from(["too_old"]));
    assert!(letters.len() > 500 && arrived.len() > 200, "{} and {}", letters.len(), arrived.len());
    assert!(letters.iter().all(|letter| letter.message.contains("too old")), "{:?}", letters[0]);
    // Those between fifty minutes and an hour.
    let backfill =
        arrived.iter().filter(|one| one.labels.get("service_instance_id").is_some_and(|id| id == "backfill"));
    assert!(backfill.count() > 20);
    simulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_for_loki_is_a_dead_letter_and_the_rest_is_delivered() {
    let simulator = simulate(history(50)).await;
    let loki = Loki::start("max_line_size: 70").await;
    let mut config = Config::of(&simulator);
    config.sinks = loki.sink("");
    let begun = now();
    config.catch_up().await;
    let (arrived, letters) = refused(&simulator, &loki, &config, begun);
    assert_eq!(reasons(&letters), BTreeSet::from(["too_large"]));
    assert!(!arrived.is_empty() && letters.iter().all(|letter| letter.message.contains("max entry size")));
    println!("{} of {} are too long", letters.len(), letters.len() + arrived.len());
    simulator.shutdown().await;
}

/// One request has more than Loki ever takes at once: 429, however often it is tried.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_above_the_burst_is_halved_until_it_is_not() {
    let simulator = simulate(history(1_000)).await;
    let loki = Loki::start("ingestion_rate_mb: 1, ingestion_burst_size_mb: 0.1").await;
    let mut config = Config::of(&simulator);
    config.sinks = loki.sink(", give_up_after: 8s");
    let begun = now();
    let log = config.catch_up().await;
    let (_, letters) = refused(&simulator, &loki, &config, begun);
    assert_eq!(letters.len(), 0);
    assert!(log.iter().any(|line| line.contains("ingestion rate limit exceeded")), "{log:#?}");
    simulator.shutdown().await;
}

/// What an entry counts for Loki's rate, or a few bytes more: its line and what is beside it.
fn bytes(entry: &Arrived) -> usize {
    entry.line.len() + entry.attributes.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
}

/// A history of eight events of which one is the largest by far; the bytes of the second and of it, and its id.
async fn one_large() -> (Simulator, usize, usize, String) {
    let roomy = Loki::start("").await;
    let mut seen = HashSet::new();
    for seed in 0..50 {
        // Of the same size whenever they are read.
        let simulator = simulate(Options { volatile_share: 0.0, seed, ..history(4) }).await;
        let mut config = Config::of(&simulator);
        config.sinks = roomy.sink("");
        config.catch_up().await;
        let entries = roomy.entries();
        let new = entries.iter().filter(|one| seen.insert(one.event.id.clone()));
        let mut sizes: Vec<_> = new.map(|one| (bytes(one), one.event.id.clone())).collect();
        sizes.sort();
        if let [.., (second, _), (largest, id)] = sizes.as_slice()
            && largest - second > 100
        {
            return (simulator, *second, *largest, id.clone());
        }
        simulator.shutdown().await;
    }
    panic!("the largest of eight is never much larger than the second");
}

/// The burst is below one event's size: that event never passes, and everything else does.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_above_the_burst_is_a_dead_letter_and_the_rest_is_delivered() {
    let (simulator, second, largest, id) = one_large().await;
    #[expect(clippy::cast_precision_loss, reason = "some thousand bytes")]
    let burst = (second + largest) as f64 / 2.0 / f64::from(1 << 20);
    let loki = Loki::start(&format!("ingestion_rate_mb: 1, ingestion_burst_size_mb: {burst}")).await;
    let mut config = Config::of(&simulator);
    config.sinks = loki.sink(", give_up_after: 8s");
    let begun = now();
    config.catch_up().await;
    let (arrived, letters) = refused(&simulator, &loki, &config, begun);
    assert_eq!((arrived.len(), letters.len()), (7, 1));
    assert_eq!((letters[0].id.to_string(), letters[0].reason.label()), (id, "too_large"));
    assert!(letters[0].message.starts_with("HTTP 429: ingestion rate limit exceeded"), "{:?}", letters[0]);
    simulator.shutdown().await;
}

/// Loki answers 260, which is a success to those who only look at its first digit.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_blocked_tenant_sends_is_kept_as_dead_letters() {
    let simulator = simulate(history(200)).await;
    let loki = Loki::start("block_ingestion_until: \"2100-01-01T00:00:00Z\"").await;
    let mut config = Config::of(&simulator);
    config.sinks = loki.sink("");
    let begun = now();
    config.catch_up().await;
    let (arrived, letters) = refused(&simulator, &loki, &config, begun);
    assert_eq!((arrived.len(), reasons(&letters)), (0, BTreeSet::from(["dropped"])));
    assert!(letters[0].message.starts_with("HTTP 260"), "{:?}", letters[0]);
    simulator.shutdown().await;
}
