//! Conservation: what came out is what happened, through every fault and through kills.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use trailcast::clock::now;
use trailcast::event::Millis;
use trailcast::simulate::{Options, Order, Simulator, SourceStats, Start, Stats};

use crate::exporter::Place;
use crate::ledger::{Verdict, compare};

/// Records a second of each source, and for how many seconds they arrive while the exporter runs.
const RATE: f64 = 40.0;
const SECONDS: u64 = 20;
/// Shorter than the age of the oldest sweep.
const LATE: Duration = Duration::from_secs(5);

const STREAM: [&str; 6] = [
    "poll_interval: 1s",
    "overlap: 2s",
    "sweeps: [3s, 8s]",
    "request_timeout: 1s",
    "rate_limit: 400",
    "concurrency: 4",
];

/// Everything hostile at once.
fn hostile(start: Millis, backlog: u64) -> Options {
    Options {
        rate: RATE,
        seed: 11,
        start: Some(Start::At(start)),
        events: Some((backlog + SECONDS) * 40),
        burst: 120,
        twin_share: 0.1,
        late_share: 0.2,
        late_max: LATE,
        odd_share: 0.01,
        volatile_share: 0.5,
        order: Order::Newest,
        unstable: true,
        empty_pages: 0.05,
        token_ttl: Duration::from_secs(3),
        next_token_ttl: Duration::from_secs(3),
        throttle: 0.01,
        throttle_retry_after: 0.003,
        errors: 0.02,
        refusals: 0.001,
        torn: 0.02,
        hang: 0.002,
        hang_for: Duration::from_secs(3),
        html: 0.01,
        close: 0.02,
        latency: Duration::from_millis(2),
        ..Options::default()
    }
}

/// The dangerous things happened, to one source or the other; what only one of them can show, to that one.
fn assert_hostile(stats: &Stats) {
    let both = |count: fn(&SourceStats) -> u64| count(&stats.genauth) + count(&stats.scloud);
    for (what, count) in [
        ("late records", both(|stats| stats.late_records)),
        ("twins", both(|stats| stats.twin_records)),
        ("odd records", both(|stats| stats.odd_records)),
        ("twins cut by a page boundary", both(|stats| stats.twins_cut)),
        ("page shifts", both(|stats| stats.page_shifts)),
        ("equal times in another order", both(|stats| stats.shuffled_pages)),
        ("more than a page in one clock unit", both(|stats| stats.crowded_pages)),
        ("throttled", both(|stats| stats.throttled + stats.throttled_retry_after)),
        ("errors to retry", both(|stats| stats.errors)),
        ("torn bodies", both(|stats| stats.torn)),
        ("bodies that are no JSON", both(|stats| stats.truncated)),
        ("hangs", both(|stats| stats.hung)),
        ("a gateway's pages", both(|stats| stats.html)),
        ("closed connections", both(|stats| stats.closed)),
        ("management tokens", stats.genauth.tokens_issued - 1),
        ("empty pages with a token", stats.scloud.empty_pages),
    ] {
        assert!(count > 0, "the test proves nothing: no {what} in {stats:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_and_no_kill_delivers_each_event_once() {
    let start = now() / 1000 * 1000 - 20_000;
    let simulator = Simulator::start(hostile(start, 20)).await.unwrap();
    let place = Place::new(&simulator.url(), start, &STREAM);
    let mut exporter = place.start();
    let end = start + Millis::try_from((20 + SECONDS) * 1000).unwrap() + 1000;
    exporter.verified_through(end).await;
    assert!(exporter.terminate().success());
    assert_hostile(&simulator.stats());
    let verdict = compare(&place.events(), &simulator, start, now());
    assert!(verdict.truth > 1000, "{verdict:?}");
    assert_eq!(verdict, Verdict { truth: verdict.truth, ..Verdict::default() });
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_lose_nothing_and_repeat_only_with_the_same_id() {
    const KILLS: usize = 20;
    let start = now() / 1000 * 1000 - 60_000;
    let simulator = Simulator::start(hostile(start, 60)).await.unwrap();
    let place = Place::new(&simulator.url(), start, &STREAM);
    let mut rng = StdRng::seed_from_u64(5);
    for _ in 0..KILLS {
        let mut exporter = place.start();
        // At a random amount of output further, or at a random moment if nothing comes out any more.
        let enough = place.size() + rng.random_range(0..200_000);
        let patience = Duration::from_millis(rng.random_range(20..1500));
        let began = std::time::Instant::now();
        while place.size() < enough && began.elapsed() < patience {
            assert!(!exporter.has_ended(), "{}", exporter.log());
            tokio::task::yield_now().await;
        }
        exporter.kill();
    }
    let killed_at = place.size();
    let mut exporter = place.start();
    let end = start + Millis::try_from((60 + SECONDS) * 1000).unwrap() + 1000;
    exporter.verified_through(end).await;
    assert!(exporter.terminate().success());
    let verdict = compare(&place.events(), &simulator, start, now());
    assert!(killed_at > 100_000, "kills must hit a run that delivers: {killed_at} bytes");
    assert!(verdict.torn <= KILLS, "{verdict:?}");
    let Verdict { truth, repeated, torn, .. } = verdict;
    println!("{truth} records, {KILLS} kills: {repeated} repeated, {torn} torn lines");
    assert_eq!(verdict, Verdict { truth, repeated, torn, ..Verdict::default() });
}
