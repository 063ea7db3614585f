//! Connections to the admin server: few, short, and with small heads, so that whoever can reach it cannot take the memory
//! or the descriptors that the work needs.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::shutdown::Shutdown;

/// Connections at a time; more wait in the system's queue.
pub(super) const CONNECTIONS: usize = 64;
/// A share of the descriptors that this process may have is all that connections may take.
const SHARE: u64 = 4;
/// How long the head of a request may take.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of a head, the longest that the server reads at once.
const LARGEST_HEAD: usize = 16 << 10;
/// How long a connection lasts: whoever reads more slowly must come again.
const LASTS: Duration = Duration::from_secs(60);
/// How long open requests may go on once the server is asked to end, or the connection's time is over.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// How long no connection is taken after one could not be, for want of descriptors.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Answers with `router` until `end` is requested, then lets open requests finish for [`GRACE`].
pub(super) async fn serve(listener: TcpListener, router: Router, end: Shutdown) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(places(descriptors())));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            // Waited for before it is accepted: what waits in the system's queue costs no descriptor.
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            biased;
            () = end.requested() => break,
            Some(_) = connections.join_next() => {}
            (place, accepted) = accepted => match accepted {
                Ok((stream, _)) => {
                    let (router, end) = (router.clone(), end.clone());
                    connections.spawn(async move {
                        let _place = place;
                        connection(stream, router, end).await;
                    });
                }
                Err(_) => tokio::time::sleep(AFTER_FAILURE).await,
            },
        }
    }
    let all_ended = async { while connections.join_next().await.is_some() {} };
    // What is still open then is dropped with the set.
    let _ = tokio::time::timeout(GRACE, all_ended).await;
    Ok(())
}

async fn connection(stream: TcpStream, router: Router, end: Shutdown) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        // One request each: a connection that is closed for its age would now and then be closed on a request.
        .keep_alive(false)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = pin!(serving);
    let over = async {
        tokio::select! {
            () = end.requested() => {}
            () = tokio::time::sleep(LASTS) => {}
        }
    };
    tokio::select! {
        // However it ends, there is nobody to tell.
        _ = serving.as_mut() => return,
        () = over => serving.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(GRACE, serving).await;
}

/// How many connections may be open at a time where the process may have so many descriptors.
fn places(descriptors: Option<u64>) -> usize {
    let share = descriptors.map_or(u64::MAX, |descriptors| (descriptors / SHARE).max(1));
    usize::try_from(share).unwrap_or(CONNECTIONS).min(CONNECTIONS)
}

/// How many descriptors this process may have; `None` where there is no limit.
fn descriptors() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::places;

    #[test]
    fn the_work_keeps_most_descriptors() {
        assert_eq!((places(None), places(Some(1024)), places(Some(64)), places(Some(2))), (64, 64, 16, 1));
    }
}
