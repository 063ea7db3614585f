//! What nobody may hold, and whom nobody waits for.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::FutureExt as _;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;

use super::*;

const KIB: u64 = 1024;

fn budget() -> Budget {
    // Shares of 384 KiB: 128 KiB of it for what is read ahead, 192 KiB for bodies; 256 KiB are common.
    Budget::new(1024 * KIB, 512 * KIB, 2)
}

fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    future.now_or_never()
}

#[test]
fn the_budget_is_shared_out_evenly() {
    assert_eq!(budget().share().size(), 384 * KIB);
    assert_eq!(Budget::new(1024 * KIB, 512 * KIB, 1).share().size(), 512 * KIB, "a stream has a limit of its own");
    assert_eq!(Budget::largest_body(128 << 20), 16 << 20);
}

#[test]
fn what_is_read_ahead_waits_for_room_and_what_is_waited_for_does_not() {
    let share = budget().share();
    let held = share.hold(120 * KIB);
    let ahead = Awaited::ahead();
    let mut waits = Box::pin(share.room(256 * KIB, &ahead));
    assert!(at_once(waits.as_mut()).is_none(), "120 KiB and a body are more than a third");
    assert!(at_once(share.room(256 * KIB, &Awaited::now())).is_some());
    ahead.come();
    assert!(at_once(waits.as_mut()).is_some(), "its turn has come");

    let ahead = Awaited::ahead();
    let mut waits = Box::pin(share.room(256 * KIB, &ahead));
    assert!(at_once(waits.as_mut()).is_none());
    drop(held);
    assert!(at_once(waits.as_mut()).is_some(), "there is room");
    assert_eq!(share.held(), 0);
}

#[test]
fn a_share_that_is_full_is_no_other_streams_trouble() {
    let budget = budget();
    let (full, other) = (budget.share(), budget.share());
    let _held = full.hold(10_000 * KIB);
    assert!(at_once(other.room(256 * KIB, &Awaited::ahead())).is_some());
    assert!(at_once(full.room(256 * KIB, &Awaited::now())).is_some(), "and it can go on itself");
}

#[test]
fn bodies_that_a_share_has_no_room_for_take_turns_in_the_common_part() {
    let budget = budget();
    let (one, two) = (budget.share(), budget.share());
    let mut first = at_once(one.room(128 * KIB, &Awaited::now())).expect("room");
    assert!(first.grow(128 * KIB) && first.grow(192 * KIB), "its own");
    assert!(first.grow(256 * KIB), "what is common is free");
    assert_eq!((first.bytes(), one.held()), (256 * KIB, 256 * KIB));
    let mut second = at_once(two.room(128 * KIB, &Awaited::now())).expect("room");
    assert!(second.grow(192 * KIB));
    assert!(!second.grow(200 * KIB), "it is taken");
    second.outgrown(200 * KIB);
    assert_eq!(two.held(), 0, "it waits with empty hands");
    let mut ready = Box::pin(second.ready());
    assert!(at_once(ready.as_mut()).is_none());
    drop(first);
    assert!(at_once(ready.as_mut()).is_some());
    drop(ready);
    second.took(200 * KIB);
    drop(second);
    assert_eq!((one.held(), two.held()), (0, 0));
    // The next is reckoned at as much: it is not in the share at all, and not before it is sent.
    let mut next = at_once(two.room(128 * KIB, &Awaited::now())).expect("room");
    assert_eq!(next.bytes(), 0);
    assert!(at_once(two.room(128 * KIB, &Awaited::ahead())).is_none(), "one read ahead has no need of it yet");
    assert!(at_once(next.ready()).is_some());
    assert_eq!(next.bytes(), 250 * KIB);
}

#[test]
fn holds_go_where_the_bytes_go() {
    let share = budget().share();
    let mut all = Hold::default();
    all.add(share.hold(3));
    all.add(share.hold(4));
    assert_eq!((all.bytes(), share.held()), (7, 7));
    all.resize(2);
    assert_eq!(share.held(), 2);
    drop(all);
    assert_eq!(share.held(), 0);
}

#[test]
fn a_room_that_nobody_waits_for_any_more_leaves_the_line() {
    let share = budget().share();
    let held = share.hold(1000 * KIB);
    let ahead = Awaited::ahead();
    let mut gives_up = Box::pin(share.room(256 * KIB, &ahead));
    let mut next = Box::pin(share.room(256 * KIB, &ahead));
    assert!(at_once(gives_up.as_mut()).is_none() && at_once(next.as_mut()).is_none());
    drop(held);
    drop(gives_up);
    assert!(at_once(next).is_some());
}

/// Streams, their lanes and windows, in pure code: pages of any size that are read ahead, in order, by the rules that the
/// program keeps, while some sinks take nothing for ever.
#[derive(Debug, Clone)]
struct Plan {
    seed: u64,
    process: u64,
    streams: usize,
    lanes: usize,
    depth: usize,
    windows: usize,
    pages: usize,
    in_flight: usize,
    /// Of so many lanes one has a sink that never takes anything.
    stuck: usize,
}

prop_compose! {
    fn plans()(
        seed in any::<u64>(), process in 64u64..2048, streams in 1usize..7, lanes in 1usize..4, depth in 1usize..9,
        windows in 1usize..12, pages in 1usize..6, in_flight in 1usize..5, stuck in 2usize..6,
    ) -> Plan {
        Plan { seed, process: process * KIB, streams, lanes, depth, windows, pages, in_flight, stuck }
    }
}

/// The most that was held of each share.
type Peaks = Arc<Mutex<Vec<u64>>>;

struct ModelLane {
    plan: Plan,
    stream: usize,
    share: Arc<Share>,
    limiter: Arc<Semaphore>,
    peaks: Peaks,
    rng: StdRng,
}

impl ModelLane {
    fn looks(share: &Share, peaks: &Peaks, stream: usize) {
        let mut peaks = peaks.lock().unwrap();
        peaks[stream] = peaks[stream].max(share.held());
    }

    fn read(&mut self) -> (Awaited, JoinHandle<Hold>) {
        let awaited = Awaited::ahead();
        let largest = Budget::largest_body(self.plan.process);
        let sizes: Vec<(u64, u64, u64)> = (0..self.rng.random_range(1..=self.plan.pages))
            .map(|_| {
                let size = self.rng.random_range(1..=largest);
                let size = if self.rng.random_bool(0.7) { size / 64 + 1 } else { size };
                (size, self.rng.random_range(0..=size), self.rng.random_range(0..50))
            })
            .collect();
        let (share, limiter, peaks, stream) =
            (Arc::clone(&self.share), Arc::clone(&self.limiter), Arc::clone(&self.peaks), self.stream);
        let this = awaited.clone();
        let read = async move {
            let mut held = Hold::default();
            for (size, kept, millis) in sizes {
                let mut room = share.room(largest, &this).await;
                let _in_flight = limiter.acquire().await.unwrap();
                'sent: loop {
                    room.ready().await;
                    let mut come = 1;
                    while come < size {
                        come = (2 * come).min(size);
                        if !room.grow(come) {
                            room.outgrown(largest);
                            continue 'sent;
                        }
                        Self::looks(&share, &peaks, stream);
                        tokio::time::sleep(Duration::from_millis(millis / 4)).await;
                    }
                    break;
                }
                room.took(size);
                held.add(room.hold(kept));
            }
            held
        };
        (awaited, tokio::spawn(read))
    }

    async fn run(mut self, stuck: bool) {
        let mut ahead = VecDeque::new();
        let mut begun = 0;
        while begun < self.plan.windows || !ahead.is_empty() {
            while begun < self.plan.windows && ahead.len() < self.plan.depth {
                ahead.push_back(self.read());
                begun += 1;
            }
            let Some((awaited, read)) = ahead.pop_front() else { return };
            awaited.come();
            let held = read.await.unwrap();
            let _part = self.share.hold(held.bytes());
            Self::looks(&self.share, &self.peaks, self.stream);
            if stuck {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..100))).await;
        }
    }
}

async fn model(plan: &Plan) -> (bool, Vec<u64>, u64) {
    let budget = Budget::new(plan.process, plan.process / 2, plan.streams);
    let peaks: Peaks = Arc::new(Mutex::new(vec![0; plan.streams]));
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let (mut run, mut stand) = (Vec::new(), Vec::new());
    for stream in 0..plan.streams {
        let (share, limiter) = (budget.share(), Arc::new(Semaphore::new(plan.in_flight)));
        for lane in 0..plan.lanes {
            let stuck = (stream * plan.lanes + lane).is_multiple_of(plan.stuck);
            let lane = ModelLane {
                plan: plan.clone(),
                stream,
                share: Arc::clone(&share),
                limiter: Arc::clone(&limiter),
                peaks: Arc::clone(&peaks),
                rng: StdRng::seed_from_u64(rng.random()),
            };
            let task = tokio::spawn(lane.run(stuck));
            if stuck { stand.push(task) } else { run.push(task) }
        }
    }
    // Time stands still while anybody can go on: so this ends only where nobody can.
    let all = tokio::time::timeout(Duration::from_secs(1_000_000), futures_util::future::join_all(run)).await;
    stand.iter().for_each(JoinHandle::abort);
    let peaks = peaks.lock().unwrap().clone();
    (all.is_ok(), peaks, budget.share().size())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// No lane stands but for its own sink, and no stream holds more than its share and what cannot be less.
    #[test]
    fn nobody_stands_for_another_and_what_is_held_is_bounded(plan in plans()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (ended, peaks, share) = runtime.block_on(model(&plan));
        prop_assert!(ended, "somebody waits for ever");
        let page = Budget::largest_body(plan.process);
        // For each lane a window and its part; and pages under way: of those that are waited for, and of those sent ahead
        // that turn out larger than was reckoned with.
        let pages = (plan.lanes * 2 * plan.pages + plan.in_flight) as u64;
        for peak in peaks {
            prop_assert!(peak <= share + pages * page, "{peak} of {share}, pages of {page}");
        }
    }
}
