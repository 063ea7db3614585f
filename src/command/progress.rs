//! A line on the terminal while something long runs: events, rate, lag.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::app::App;
use crate::config::units;
use crate::metrics::{LaneMetrics, Metrics};

/// Shows progress until dropped.
pub struct Progress(JoinHandle<()>);

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.abort();
        let _ = writeln!(std::io::stderr());
    }
}

/// Shows the progress of all lanes of `app` on stderr, twice a second.
#[must_use]
pub fn progress(app: &App) -> Progress {
    let lanes = lanes(&app.metrics, &app.lanes);
    Progress(tokio::spawn(async move {
        let began = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_millis(500));
        loop {
            ticks.tick().await;
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", line(&lanes, began.elapsed()));
        }
    }))
}

/// Says on a terminal what is being done, in place of what was said before; nothing clears it.
pub(super) fn step(what: &str) {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[K{what}");
        let _ = std::io::stderr().flush();
    }
}

pub(super) fn lanes(metrics: &Metrics, names: &[(String, String)]) -> Vec<LaneMetrics> {
    names.iter().map(|(stream, sink)| metrics.lane(stream, sink)).collect()
}

/// `12345 events, 678/s, 3s behind`
pub(super) fn line(lanes: &[LaneMetrics], elapsed: Duration) -> String {
    let events: u64 = lanes.iter().map(LaneMetrics::delivered_so_far).sum();
    #[expect(clippy::cast_precision_loss, reason = "for a person's eye")]
    let rate = events as f64 / elapsed.as_secs_f64().max(0.001);
    let lag = lanes.iter().filter_map(LaneMetrics::delivery_lag).fold(0.0, f64::max);
    let lag = Duration::from_secs(Duration::from_secs_f64(lag).as_secs());
    format!("{events} events, {rate:.0}/s, {} behind", units::duration_text(lag))
}
