//! A panic is a fault of ours, and it stays where it was: whatever ran is begun again, and nobody else notices.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::task::{JoinError, JoinSet};

use super::{Kept, Lane, LaneError, Until};
use crate::admin::End;
use crate::metrics::SinkReason;
use crate::retry::Waits;
use crate::shutdown::Shutdown;

/// Makes a lane whose state is kept there.
pub type LaneMaker = Arc<dyn Fn(Kept) -> Lane + Send + Sync>;

/// Makes a lane and runs it; should it panic, it is made anew.
///
/// # Errors
/// See [`Lane::run`].
pub async fn run(make: LaneMaker, kept: Kept, until: Until, shutdown: Shutdown) -> Result<(), LaneError> {
    let failed = AtomicBool::new(false);
    let begin = || {
        let lane = make(kept.clone());
        // So that it says when it works again.
        if failed.load(Ordering::Relaxed) {
            lane.voice().failed(SinkReason::Fault, Instant::now());
        }
        lane.run(until, shutdown.clone())
    };
    let told = || {
        failed.store(true, Ordering::Relaxed);
        let lane = make(kept.clone());
        let (stream, sink) = (&lane.feed.stream.name, &lane.sink_name);
        tracing::error!(stream, sink, "a fault of trailcast itself ended the lane, it is begun again");
        lane.metrics.sink_error(SinkReason::Fault);
        lane.board.failing(SinkReason::Fault, "a fault of trailcast itself: the log says where; please report it");
    };
    let ended = supervise(begin, told, &shutdown).await;
    // One that has caught up has said so.
    match &ended {
        Ok(()) => make(kept).board.ended(End::Asked),
        // It is begun again.
        Err(LaneError::Lost) => {}
        Err(_) => make(kept).board.ended(End::Failed),
    }
    ended
}

/// What `begin` comes to; should it panic, `told` is called, and it is begun again after a wait. What it was delivering is
/// delivered again, as after a crash.
///
/// # Errors
/// Those of `begin`.
pub async fn supervise<F>(begin: impl Fn() -> F, told: impl Fn(), shutdown: &Shutdown) -> Result<(), LaneError>
where
    F: Future<Output = Result<(), LaneError>> + Send + 'static,
{
    let mut waits = Waits::new();
    loop {
        // A set of one: dropped, it takes the task with it.
        let mut task = JoinSet::new();
        task.spawn(begin());
        match task.join_next().await {
            Some(Ok(ended)) => return ended,
            Some(Err(ended)) if JoinError::is_panic(&ended) => told(),
            // Nobody cancels it but who drops this future.
            Some(Err(_)) | None => return Ok(()),
        }
        if shutdown.unless(tokio::time::sleep(waits.next_wait())).await.is_none() {
            return Err(LaneError::NotDrained);
        }
    }
}

/// Says where a panic was, in the log and never with its message: that may quote a record.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "a fault of trailcast itself, a panic: please report where it was");
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::shutdown;

    #[tokio::test(start_paused = true)]
    async fn what_panics_is_begun_again_until_it_ends() {
        let (_trigger, shutdown) = shutdown::channel();
        let (begun, told) = (Arc::new(AtomicU32::new(0)), AtomicU32::new(0));
        let begin = || {
            let begun = Arc::clone(&begun);
            async move {
                assert!(begun.fetch_add(1, Ordering::Relaxed) >= 3, "a fault that passes");
                Err(LaneError::Lost)
            }
        };
        let ended = supervise(begin, || _ = told.fetch_add(1, Ordering::Relaxed), &shutdown).await;
        assert!(matches!(ended, Err(LaneError::Lost)));
        assert_eq!((begun.load(Ordering::Relaxed), told.load(Ordering::Relaxed)), (4, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_always_panics_ends_with_the_process() {
        let (trigger, shutdown) = shutdown::channel();
        let begun = Arc::new(AtomicU32::new(0));
        let begin = || {
            if begun.fetch_add(1, Ordering::Relaxed) == 10 {
                trigger.pull();
            }
            async { panic!("a fault that stays") }
        };
        let ended = supervise(begin, || {}, &shutdown).await;
        assert!(matches!(ended, Err(LaneError::NotDrained)), "what it was delivering is not known to be delivered");
        assert_eq!(begun.load(Ordering::Relaxed), 11);
    }
}
