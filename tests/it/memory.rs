//! What is held is bounded, whatever comes: everything arrives, nobody stands for another, and the process stays small.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use trailcast::event::Millis;
use trailcast::simulate::{Lie, Options, Simulator};

use crate::ledger::{assert_all_arrived, counted};
use crate::program::{Config, Program, Stream, history, simulate};

/// What the program takes beside what the budget counts, MiB: itself, its connections, the checkpoint's cache. As the
/// docs/guarantees.md says.
pub const BESIDE: u64 = 40;

/// So many streams of each source, all of one simulator.
fn many(simulator: &Simulator, names: &[(&'static str, &'static str)]) -> Config {
    let url = simulator.url();
    let both = names.iter().flat_map(|(users, cloud)| {
        [Stream { name: users, ..Stream::users(&url) }, Stream { name: cloud, ..Stream::cloud(&url) }]
    });
    Config::new(both)
}

async fn all_delivered(program: &Program, streams: &[&str], events: u32) {
    for stream in streams {
        let all = async || (program.delivered(stream, "out").await >= f64::from(events)).then_some(());
        program.shows(&format!("all of {stream}"), all).await;
    }
}

/// Six streams whose pages all are of 8 MiB, where 80 MiB may be held: a fifth of what would be in flight otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn large_pages_of_many_streams_take_turns() {
    const EVENTS: u64 = 400;
    let simulator = simulate(Options { lie: vec![Lie::Padded], ..history(EVENTS) }).await;
    let mut config = many(&simulator, &[("u1", "c1"), ("u2", "c2"), ("u3", "c3")]);
    config.memory = Some("{ process: 80MiB }".to_owned());
    let program = config.run();
    all_delivered(&program, &["u1", "c1", "u2", "c2", "u3", "c3"], 400).await;
    let peak = program.peak();
    let waited = program.metric("trailcast_memory_wait_seconds_total{stream=\"u1\"}").await;
    assert!(waited.is_some());
    program.drain().await;
    let stats = simulator.stats();
    assert!(stats.genauth.lies > 30 && stats.scloud.lies > 30, "{stats:?}");
    assert!(peak <= 80 + BESIDE, "{peak} MiB");
    let events = config.events();
    let counted = counted(&events);
    assert_eq!(counted.len(), 2 * 400);
    assert!(counted.values().all(|&times| times == 3), "each event once for each stream");
}

/// All arrive of a history of so many events with so much to hold them in, MiB, and it takes no more.
async fn is_read_in_passes(options: Options, events: u32, budget: u64) {
    let simulator = simulate(options).await;
    let mut config = Config::of(&simulator);
    config.memory = Some(format!("{{ process: {budget}MiB }}"));
    config.level = "debug";
    let program = config.run();
    all_delivered(&program, &["users", "cloud"], events).await;
    let peak = program.peak();
    assert!(peak <= budget + BESIDE, "{peak} MiB");
    let lines = program.drain().await;
    let parts = lines.iter().filter(|line| line.contains("too large to be held at once")).count();
    assert!(parts > 0, "the test proves nothing: nothing was too large");
    assert_all_arrived(&simulator, Millis::MAX, &config.events());
}

/// A budget so small that not even a window of a page fits it, and seconds that hold many times as much.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_unit_that_is_larger_than_the_budget_is_read_in_passes() {
    is_read_in_passes(Options { burst: 900, ..history(5_000) }, 5_000, 1).await;
}

/// The same of large records: seconds of 19 MiB each, where 16 MiB may be held in all.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_unit_of_large_records_is_read_in_passes_and_takes_no_more() {
    is_read_in_passes(Options { burst: 300, large_share: 1.0, ..history(1_200) }, 1_200, 16).await;
}

/// The most memory that it takes to read a history of which answers lie for some seconds, and how many did.
async fn peak_of(lie: Option<Lie>) -> (u64, u64) {
    let lasts = Some(Duration::from_secs(4));
    let options = Options { lie: lie.into_iter().collect(), lie_for: lasts, ..history(3_000) };
    let simulator = simulate(options).await;
    let mut config = Config::of(&simulator);
    config.memory = Some("{ process: 80MiB }".to_owned());
    let program = config.run();
    all_delivered(&program, &["users", "cloud"], 3_000).await;
    let peak = program.peak();
    program.drain().await;
    assert_all_arrived(&simulator, Millis::MAX, &config.events());
    let stats = simulator.stats();
    (peak, stats.genauth.lies + stats.scloud.lies)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_could_hold_takes_no_memory() {
    let (honest, lies) = peak_of(None).await;
    assert_eq!(lies, 0);
    for (lie, more) in [(Lie::HugeCount, 8), (Lie::LongTokens, 40), (Lie::ManyRows, 40), (Lie::EndlessTokens, 8)] {
        let (peak, lies) = peak_of(Some(lie)).await;
        assert!(lies > 3, "{lie:?}: the test proves nothing: {lies} lies");
        assert!(peak <= honest + more, "{lie:?}: {peak} MiB, {honest} MiB without");
    }
}

/// One stream's sink is down and its share full: it holds that, and no more, and the others never notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_sink_is_down_keeps_its_share_and_no_more() {
    // So large that a few of them fill the share, however short windows are when the sink is found down.
    let simulator = simulate(Options { large_share: 1.0, ..history(400) }).await;
    let mut config = Config::of(&simulator);
    // Nobody listens there.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    config.sinks = format!(
        "{{ out: {{ stdout: {{ format: native }} }}, gone: {{ otlp: {{ endpoint: \"http://{gone}\", protocol: http }} }} }}"
    );
    config.streams[0] = config.streams[0].clone().with("sinks", "[gone]");
    config.streams[1] = config.streams[1].clone().with("sinks", "[out]");
    config.memory = Some("{ process: 2MiB }".to_owned());
    let program = config.run();
    all_delivered(&program, &["cloud"], 400).await;
    let held = async || program.metric("trailcast_memory_held_bytes{stream=\"users\"}").await;
    let share = program.metric("trailcast_memory_share_bytes{stream=\"users\"}").await.unwrap();
    // Two records at least.
    program.shows("a share that is used", async || (held().await? > share / 6.0).then_some(())).await;
    let held = held().await.unwrap();
    assert!(held <= share, "{held} of {share}");
    program.drain_or_not().await;
}

/// What an API that never comes to the end of an answer sends, again and again.
const ENDLESS: [(&str, &str, &str); 5] = [
    ("heads that say to go on", "", "HTTP/1.1 100 Continue\r\n\r\n"),
    ("other heads of the kind", "", "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"),
    ("members of a head", "HTTP/1.1 200 OK\r\n", "x-more: and more and more and more\r\n"),
    ("a body", "HTTP/1.1 200 OK\r\n\r\n", "                                                                "),
    (
        "trailers",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
        "x-more: and more and more and more\r\n",
    ),
];

async fn endless(first: &'static str, again: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 16_384];
                let _ = connection.read(&mut request).await;
                let _ = connection.write_all(first.as_bytes()).await;
                let again = again.repeat(1000);
                while connection.write_all(again.as_bytes()).await.is_ok() {}
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_is_given_up_and_takes_no_memory() {
    for (what, first, again) in ENDLESS {
        let simulator = simulate(history(300)).await;
        let stream = Stream::users(&endless(first, again).await).with("request_timeout", "1s");
        let config = Config::new([stream, Stream::cloud(&simulator.url())]);
        let program = config.run();
        let errors = async || {
            let text = program.get("/metrics").await;
            let errors = text.lines().filter(|line| line.starts_with("trailcast_fetch_errors_total{"));
            let count: f64 = errors
                .filter(|line| line.contains("users"))
                .filter_map(|line| line.split(' ').nth(1)?.parse::<f64>().ok())
                .sum();
            (count >= 3.0).then_some(())
        };
        program.shows(&format!("{what} given up three times"), errors).await;
        all_delivered(&program, &["cloud"], 300).await;
        assert!(program.peak() <= 40 + BESIDE, "{what}: {} MiB", program.peak());
        let stream = program.stream("users").await;
        assert_eq!(stream["state"], "failing", "{what}: {stream}");
        tokio::time::timeout(Duration::from_secs(60), program.drain_or_not()).await.expect("it ends");
    }
}
