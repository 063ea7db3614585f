//! What brokers refuse for good is kept as dead letters, exactly once as well.

use std::collections::HashSet;
use std::path::Path;

use trailcast::event::{Millis, Source};
use trailcast::simulate::{self, Simulator};

use crate::broker::{Broker, Isolation, Java, Options};
use crate::ledger::{Event, compare};
use crate::pipeline::{LETTERS, Letter, STREAMS, TOPIC, arrived, in_kafka, into_kafka};
use crate::program::{Config, Program, history, simulate};

/// Both streams into a topic, which is there; exactly once, or with the checkpoint in a file.
fn pipeline(simulator: &Simulator, broker: &Broker, keys: &str, exactly_once: bool) -> Config {
    let config = into_kafka(Config::of(simulator), &broker.bootstrap(), keys);
    if exactly_once { in_kafka(config, &broker.bootstrap(), "session_timeout: 10s") } else { config }
}

/// A history of which nothing else happens, and the sizes of its events in the format `native`.
async fn measured(history: simulate::Options) -> (Simulator, Vec<usize>) {
    let simulator = simulate(history).await;
    let config = Config::of(&simulator).starting_at(simulator.now() - 7_200_000);
    config.catch_up().await;
    let text = std::fs::read_to_string(config.out()).unwrap();
    let mut sizes: Vec<usize> = text.lines().map(str::len).collect();
    sizes.sort_unstable();
    (simulator, sizes)
}

async fn letters_in_topic(java: &Java) -> Vec<Letter> {
    let records = java.consume(LETTERS, Isolation::Committed).await;
    let letter = |record: &crate::broker::Record| {
        let letter = Letter::parse(record.value.as_deref().unwrap());
        assert_eq!(record.key, Some(format!("{}/{}/{}", letter.stream, letter.sink, letter.id)));
        letter
    };
    records.iter().map(letter).collect()
}

fn letters_in(folder: &Path) -> Vec<Letter> {
    let mut letters = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        letters.extend(text.lines().map(Letter::parse));
    }
    letters
}

/// Each event arrived once or is a dead letter once; some are this and some that. Letters are of `reason`, with what the
/// broker or the topic's limit says.
fn assert_divided(simulator: &Simulator, events: &[Event], letters: &[Letter], reason: &str, words: &[&str]) {
    assert!(!events.is_empty() && !letters.is_empty(), "{} events, {} letters", events.len(), letters.len());
    for letter in letters {
        assert_eq!((&*letter.reason, &*letter.sink), (reason, "events"), "{letter:?}");
        assert!(words.iter().any(|words| letter.message.contains(words)), "{letter:?}");
        assert_eq!(letter.record.len(), letter.record_bytes, "{letter:?}");
    }
    // A letter is as good as an event that arrived: it has the id and the whole record. Its time is of no account here.
    let as_event = |letter: &Letter| Event {
        id: letter.id.clone(),
        source: if letter.stream == "users" { Source::Genauth } else { Source::Scloud },
        time: Millis::MIN,
        record: letter.record.clone(),
    };
    let kept: HashSet<&str> = letters.iter().map(|letter| letter.id.as_str()).collect();
    assert_eq!(kept.len(), letters.len(), "a letter is kept twice");
    assert!(events.iter().all(|event| !kept.contains(event.id.as_str())), "a letter's event arrived, too");
    let all: Vec<Event> = events.iter().cloned().chain(letters.iter().map(as_event)).collect();
    for source in [Source::Genauth, Source::Scloud] {
        let mut difference = compare(simulator, source, (0, Millis::MAX), Millis::MAX, &all);
        difference.altered.retain(|event| event.time != Millis::MIN);
        assert!(difference.expected > 0);
        difference.assert_none();
    }
}

/// Waits until both lanes are through and drains; what `trailcast_dead_letters_total` says of `reason`, of both.
async fn finish(program: Program, simulator: &Simulator, reason: &str) -> f64 {
    program.verified(&STREAMS, "events", simulator.now()).await;
    let mut count = 0.0;
    for stream in STREAMS {
        let series = format!("trailcast_dead_letters_total{{reason=\"{reason}\",sink=\"events\",stream=\"{stream}\"}}");
        count += program.metric(&series).await.unwrap_or(0.0);
    }
    program.drain().await;
    count
}

#[expect(clippy::cast_precision_loss, reason = "thousands")]
fn as_count(letters: &[Letter]) -> f64 {
    letters.len() as f64
}

/// Through kills: dead letters are in the transactions of their neighbours, so none is there twice or without them.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_kept_in_the_transaction_of_its_neighbours() {
    let (simulator, sizes) = measured(history(3_000)).await;
    let broker = Broker::start(Options::default()).await;
    let java = broker.java();
    // The largest hundredth does not fit; beside the value a record has headers, and a batch its head.
    let limit = format!("max.message.bytes={}", sizes[sizes.len() * 99 / 100] + 350);
    java.create(TOPIC, 3, 1, &[&limit]).await;
    let mut config = pipeline(&simulator, &broker, "", true);
    config.streams.iter_mut().for_each(|stream| stream.keys.push(("rate_limit", "20".to_owned())));
    for _ in 0..4 {
        let mut program = config.run();
        crate::pipeline::delivers_more(&program, 100.0).await;
        program.signal("KILL");
        program.ended().await;
    }
    let before = java.counts(TOPIC).await;
    config.streams.iter_mut().for_each(|stream| drop(stream.keys.pop()));
    let counted = finish(config.run(), &simulator, "too_large").await;
    let (events, letters) = (arrived(&java).await, letters_in_topic(&java).await);
    assert!(before.committed < java.counts(TOPIC).await.committed, "all was there before the last run");
    let words = ["where the topic's max.message.bytes is", "Message size too large"];
    assert_divided(&simulator, &events, &letters, "too_large", &words);
    assert!(counted <= as_count(&letters));
}

/// The topic's limit is lowered and raised again while it runs: what fits is no dead letter, whatever stood beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_changes_while_it_runs_costs_no_event_that_fits() {
    for exactly_once in [true, false] {
        // Over so long that the first windows are delivered long before the last are read.
        let history = simulate::Options { rate: 2.0, ..history(2_000) };
        let (simulator, sizes) = measured(history).await;
        let broker = Broker::start(Options::default()).await;
        let java = broker.java();
        java.create(TOPIC, 3, 1, &[]).await;
        let config = pipeline(&simulator, &broker, "", exactly_once);
        let mut config = config.starting_at(simulator.now() - 1_700_000);
        config.streams.iter_mut().for_each(|stream| stream.keys.push(("rate_limit", "4".to_owned())));
        let program = config.run();
        crate::pipeline::delivers_more(&program, 50.0).await;
        // The largest twentieth does not fit, and far fewer together than before.
        let limit = sizes[sizes.len() * 95 / 100] + 350;
        java.configure(TOPIC, &[&format!("max.message.bytes={limit}")]).await;
        let counted = finish(program, &simulator, "too_large").await;
        let letters = match exactly_once {
            true => letters_in_topic(&java).await,
            false => letters_in(&config.folder.path().join("state/dead-letters")),
        };
        assert_eq!(counted, as_count(&letters));
        let words = ["where the topic's max.message.bytes is", "Message size too large"];
        assert_divided(&simulator, &arrived(&java).await, &letters, "too_large", &words);
        // Beside the value there are headers and a head: none is a letter that is smaller by far.
        let smallest = letters.iter().map(|letter| letter.record.len()).min().unwrap();
        println!("{} letters above {limit}, the smallest record {smallest}", letters.len());
        assert!(letters.len() < 150, "{} of {}", letters.len(), sizes.len());
        // Raised again: it is looked up before an event is refused for it.
        java.configure(TOPIC, &["max.message.bytes=1048588"]).await;
        let retried = config.command(&["dead-letters", "retry"], &[]).await;
        assert_eq!(retried.code, Some(0), "{retried:?}");
    }
}

/// Where only the broker can tell, since what is sent is compressed.
async fn what_is_too_large_when_compressed(events: u64, exactly_once: bool) {
    let simulator = simulate(history(events)).await;
    let broker = Broker::start(Options::default()).await;
    let java = broker.java();
    // Compressed, SCloud's events are smaller than that, and many of GenAuth's are not.
    java.create(TOPIC, 3, 1, &["max.message.bytes=900"]).await;
    let config = pipeline(&simulator, &broker, "properties: { compression.type: zstd }", exactly_once);
    let program = config.run();
    program.verified(&STREAMS, "events", simulator.now()).await;
    let log = program.log();
    let counted = finish(program, &simulator, "too_large").await;
    let letters = if exactly_once {
        letters_in_topic(&java).await
    } else {
        letters_in(&config.folder.path().join("state/dead-letters"))
    };
    assert_eq!(counted, as_count(&letters));
    assert_divided(&simulator, &arrived(&java).await, &letters, "too_large", &["Message size too large"]);
    // What a refusal leaves behind in the client is nobody's trouble.
    assert!(!log.contains("could not deliver all"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_when_compressed_is_found_out_by_the_broker() {
    what_is_too_large_when_compressed(300, false).await;
}

/// A message that is refused costs its transaction and, in the client, the next one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_when_compressed_is_found_out_in_transactions() {
    what_is_too_large_when_compressed(80, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_for_the_topic_is_invalid() {
    // Slow, so that what happens meanwhile leaves most of it young enough.
    let simulator = simulate(simulate::Options { rate: 2.0, ..history(6000) }).await;
    let first = simulator.truth(Source::Genauth, 0, Millis::MAX).filter_map(|truth| truth.time).min().unwrap();
    let broker = Broker::start(Options::default()).await;
    let java = broker.java();
    // All before this is too old by now; as time goes on, some more will be.
    let most = format!("message.timestamp.before.max.ms={}", trailcast::clock::now() - first - 10_000);
    java.create(TOPIC, 3, 1, &[&most]).await;
    let mut config = pipeline(&simulator, &broker, "", true).starting_at(simulator.now() - 7_200_000);
    config.level = "debug";
    let program = config.run();
    // What had been submitted after a part that failed is not committed before that part.
    program.says("left out: what it is built on is not so").await;
    let counted = finish(program, &simulator, "invalid").await;
    let letters = letters_in_topic(&java).await;
    assert_eq!(counted, as_count(&letters));
    assert_divided(&simulator, &arrived(&java).await, &letters, "invalid", &["imestamp"]);
}

/// A full store stops its lane, and says so; nothing is lost once there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_of_dead_letters_stops_the_lane() {
    let (simulator, sizes) = measured(history(1_000)).await;
    let broker = Broker::start(Options::default()).await;
    let java = broker.java();
    let limit = format!("max.message.bytes={}", sizes[sizes.len() * 97 / 100] + 350);
    java.create(TOPIC, 3, 1, &[&limit]).await;
    let mut config = pipeline(&simulator, &broker, "", false);
    let folder = config.folder.path().join("letters");
    let dead_letters = |size: &str| {
        Some(format!("{{ file: {{ path: \"{}\", max_file_size: 4KiB, max_size: {size} }} }}", folder.display()))
    };
    config.dead_letters = dead_letters("4KiB");
    let program = config.run();
    program.says("have reached `dead_letters.file.max_size`").await;
    let errors = program.logged("dead_letters.file.max_size");
    assert!(errors[0].contains("\"ERROR\"") && errors[0].contains("\"dead_letters\""), "{errors:?}");
    let lanes = program.status().await["lanes"].clone();
    let stopped = lanes.as_array().unwrap().iter().find(|lane| lane["reason"] == "dead_letters").unwrap().clone();
    assert_eq!(stopped["state"], "failing");
    let stream = stopped["stream"].as_str().unwrap();
    let before = program.delivered(stream, "events").await;
    let series = format!("trailcast_sink_errors_total{{reason=\"dead_letters\",sink=\"events\",stream=\"{stream}\"}}");
    program.shows("another try", async || program.metric(&series).await.filter(|count| *count >= 3.0)).await;
    assert_eq!(program.delivered(stream, "events").await, before, "the lane goes on");
    program.signal("TERM");
    let mut program = program;
    assert_eq!(program.ended().await.code(), Some(1), "{}", program.log());

    config.dead_letters = dead_letters("4MiB");
    finish(config.run(), &simulator, "too_large").await;
    // Without transactions both may be there more than once, with the same id.
    let mut events = arrived(&java).await;
    let mut seen = HashSet::new();
    events.retain(|event| seen.insert(event.id.clone()));
    let mut letters = letters_in(&folder);
    letters.retain(|letter| seen.insert(letter.id.clone()));
    assert_divided(
        &simulator,
        &events,
        &letters,
        "too_large",
        &["where the topic's max.message.bytes is", "Message size"],
    );
}
