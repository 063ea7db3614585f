//! Asking the process to end: a trigger that is pulled once, and handles that see it.
//!
//! Nothing here ends anything (but for a second signal): whoever holds a [`Shutdown`] finishes what it must.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Pulled to ask for the end. Cloned where several may ask; once pulled it stays so.
#[derive(Debug, Clone)]
pub struct Trigger(Arc<watch::Sender<bool>>);

/// Sees whether the end was asked for.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// A trigger and its first handle; the others are clones.
#[must_use]
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(Arc::new(sender)), Shutdown(receiver))
}

impl Trigger {
    /// Asks for the end.
    pub fn pull(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Whether the end was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the end is asked for, at once if it was. Can be dropped and called again. A trigger that was
    /// dropped without being pulled will never ask: then this waits for ever.
    pub async fn requested(&self) {
        if self.0.clone().wait_for(|requested| *requested).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What `future` comes to, or `None` if the end was asked for first; the future is then dropped.
    pub async fn unless<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.requested() => None,
            value = future => Some(value),
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Not where whoever started the process wants it ignored, as `nohup` does.
    hangup: Option<Signal>,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            Some(_) = async { self.hangup.as_mut()?.recv().await } => "SIGHUP",
        }
    }
}

/// Whether SIGHUP is ignored: known on Linux alone. Elsewhere it does what it did.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    // The first bit is that of signal 1, SIGHUP.
    ignored.is_none_or(|ignored| ignored & 1 == 1)
}

/// Signals so soon after the first are the same one: a terminal and who runs the process both send it on.
pub const SAME: Duration = Duration::from_millis(500);

/// Takes SIGTERM, SIGINT and SIGHUP (which else would kill: a terminal that closes sends it, and so does who expects a config
/// to be read again) over from the system, so call it before there is anything to drain. The future pulls
/// the trigger at the first of them and calls `give_up`, which for a process is [`exit`], at the second, which comes no
/// sooner than [`SAME`]: spawn it.
///
/// # Errors
/// When the system refuses to hand the signals over; at once, before anything waits.
pub fn signals<F: FnOnce(&'static str)>(trigger: Trigger, give_up: F) -> io::Result<impl Future<Output = ()>> {
    let mut signals = Signals::new()?;
    Ok(async move {
        let first = signals.next().await;
        tracing::info!(signal = first, "asked to end: draining; a second signal ends at once");
        trigger.pull();
        let asked = Instant::now();
        loop {
            let again = signals.next().await;
            if asked.elapsed() >= SAME {
                return give_up(again);
            }
        }
    })
}

/// Ends the process at once with status 1 and one line: for a second signal.
pub fn exit(signal: &'static str) {
    tracing::error!(signal, "asked a second time to end: not drained");
    std::process::exit(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_pulled_trigger_is_seen_by_all_before_and_after() {
        let (trigger, shutdown) = channel();
        let (early, late) = (shutdown.clone(), shutdown);
        let waiting = tokio::spawn(async move { early.requested().await });
        assert!(!late.is_requested());
        assert!(tokio::time::timeout(LONG, late.requested()).await.is_err());
        trigger.clone().pull();
        trigger.pull();
        assert!(late.is_requested());
        tokio::time::timeout(LONG, waiting).await.unwrap().unwrap();
        drop(trigger);
        tokio::time::timeout(LONG, late.requested()).await.unwrap();
    }

    #[tokio::test]
    async fn the_first_signal_asks_and_the_second_gives_up() {
        let kill = |signal: &str| {
            let status = std::process::Command::new("kill").args([signal, &std::process::id().to_string()]).status();
            assert!(status.unwrap().success());
        };
        let (trigger, shutdown) = channel();
        let (give_up, mut gave_up) = tokio::sync::oneshot::channel();
        tokio::spawn(signals(trigger, |signal| give_up.send(signal).unwrap()).unwrap());
        assert!(!shutdown.is_requested());
        kill("-TERM");
        shutdown.requested().await;
        // The same one, sent twice.
        kill("-HUP");
        tokio::time::sleep(SAME + Duration::from_millis(200)).await;
        assert!(gave_up.try_recv().is_err());
        kill("-INT");
        assert_eq!(gave_up.await.unwrap(), "SIGINT");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_trigger_asks_for_nothing() {
        let (trigger, shutdown) = channel();
        drop(trigger);
        assert!(tokio::time::timeout(LONG, shutdown.requested()).await.is_err());
        assert!(!shutdown.is_requested());
    }
}
