//! APIs at their worst, and streams that read them.

use std::time::Duration;

use trailcast::event::Millis;
use trailcast::simulate::{Options, Order, Simulator, SourceStats, Start, Stats};

use crate::program::Config;

/// Records a second of each source, so that a second of SCloud fits a page; and for how many seconds they arrive while
/// the exporter runs.
pub const RATE: u32 = 25;
pub const SECONDS: u64 = 20;
/// Shorter than the age of the oldest sweep.
const LATE: Duration = Duration::from_secs(5);

/// Both streams of `simulator` from `start`, with sweeps that outlast what is late.
pub fn config(simulator: &Simulator, start: Millis) -> Config {
    let mut config = Config::of(simulator);
    let start = jiff::Timestamp::from_millisecond(start).expect("a time of this century").to_string();
    let keys = [("start", start.as_str()), ("sweeps", "[3s, 8s]"), ("request_timeout", "1s"), ("concurrency", "4")];
    for stream in &mut config.streams {
        stream.keys.extend(keys.map(|(key, value)| (key, value.to_owned())));
    }
    config
}

/// Everything hostile at once.
pub fn hostile(start: Millis, backlog: u64) -> Options {
    Options {
        rate: f64::from(RATE),
        seed: 11,
        start: Some(Start::At(start)),
        events: Some((backlog + SECONDS) * u64::from(RATE)),
        twin_share: 0.1,
        late_share: 0.2,
        late_max: LATE,
        odd_share: 0.01,
        volatile_share: 0.5,
        order: Order::Newest,
        unstable: true,
        empty_pages: 0.1,
        token_ttl: Duration::from_secs(3),
        next_token_ttl: Duration::from_secs(3),
        throttle: 0.03,
        throttle_retry_after: 0.005,
        errors: 0.04,
        refusals: 0.003,
        torn: 0.08,
        hang: 0.01,
        hang_for: Duration::from_secs(3),
        html: 0.03,
        close: 0.04,
        latency: Duration::from_millis(2),
        ..Options::default()
    }
}

/// The dangerous things happened, to one source or the other; what only one of them can show, to that one.
pub fn assert_hostile(stats: &Stats) {
    let both = |count: fn(&SourceStats) -> u64| count(&stats.genauth) + count(&stats.scloud);
    for (what, count) in [
        ("late records", both(|stats| stats.late_records)),
        ("twins", both(|stats| stats.twin_records)),
        ("odd records", both(|stats| stats.odd_records)),
        ("twins cut by a page boundary", both(|stats| stats.twins_cut)),
        ("page shifts", both(|stats| stats.page_shifts)),
        ("equal times in another order", both(|stats| stats.shuffled_pages)),
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
