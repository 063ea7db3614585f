//! The rules with made-up time, and the line with stopped time.

use std::collections::VecDeque;

use proptest::prelude::*;
use tokio::sync::mpsc;

use super::pace::{KEPT, SLOW, SLOWEST};
use super::*;
use crate::retry::LONGEST_RETRY_AFTER;

#[derive(Debug, Clone)]
enum Step {
    Pass(Duration),
    Send,
    Succeed,
    Throttle(Option<Duration>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u64..2_000).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
        6 => Just(Step::Send),
        4 => Just(Step::Succeed),
        1 => prop::option::of(0_u64..1_000).prop_map(|s| Step::Throttle(s.map(Duration::from_secs))),
    ]
}

proptest! {
    #[test]
    fn no_second_and_no_pause_sees_more_than_it_may(
        rate in prop_oneof![0.1_f64..2.0, 2.0..100.0], in_flight in 1_u32..10, steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut now = Instant::now();
        let mut pace = Pace::new(rate, in_flight, now);
        let mut sent: Vec<Instant> = Vec::new();
        let mut out: VecDeque<Instant> = VecDeque::new();
        let mut paused_until = now;
        for step in steps {
            match step {
                Step::Pass(time) => now += time,
                Step::Send => {
                    let ready = pace.ready(now, true);
                    if let Ready::At(later) = ready {
                        prop_assert!(later > now, "would wait for the past");
                        // The wait is just long enough, unless someone says otherwise meanwhile.
                        prop_assert_eq!(pace.ready(later, true), Ready::Now);
                        now = later;
                    }
                    if ready == Ready::WhenReturned {
                        prop_assert_eq!(out.len(), in_flight as usize);
                        continue;
                    }
                    prop_assert!(now >= paused_until, "sent during a pause");
                    pace.take(now);
                    sent.push(now);
                    out.push_back(now);
                    let second = sent.iter().filter(|at| now - **at < Duration::from_secs(1)).count();
                    // The burst, and what a second refills.
                    prop_assert!(second as f64 <= 2.0 * rate.max(1.0) + 1.0, "{second} in a second at {rate}");
                }
                Step::Succeed => if let Some(at) = out.pop_front() {
                    pace.succeeded(now);
                    pace.give_back(now, at);
                },
                Step::Throttle(retry_after) => if let Some(at) = out.pop_front() {
                    pace.throttled(now, at, retry_after);
                    pace.give_back(now, at);
                    if let Some(asked) = retry_after {
                        paused_until = paused_until.max(now + asked.min(LONGEST_RETRY_AFTER));
                    }
                },
            }
            prop_assert!(pace.rate <= rate && pace.rate >= rate * SLOWEST, "rate {} of {rate}", pace.rate);
            prop_assert!(pace.tokens <= rate.max(1.0));
        }
    }
}

#[test]
fn a_throttled_pace_halves_once_and_recovers() {
    let start = Instant::now();
    let mut pace = Pace::new(16.0, 8, start);
    for _ in 0..4 {
        pace.take(start);
    }
    let told = start + Duration::from_millis(50);
    for _ in 0..4 {
        pace.throttled(told, start, Some(Duration::from_secs(2)));
        pace.give_back(told, start);
    }
    assert!((pace.rate - 8.0).abs() < 1e-9, "four answers to one burst are one refusal: {}", pace.rate);
    let resumes = told + Duration::from_secs(2);
    assert_eq!(pace.ready(told + Duration::from_secs(1), true), Ready::At(resumes));
    assert_eq!(pace.ready(resumes, true), Ready::Now);
    pace.take(resumes);
    assert!(matches!(pace.ready(resumes, true), Ready::At(at) if at > resumes), "nothing is saved up during a pause");
    for _ in 0..10 {
        pace.succeeded(resumes);
    }
    assert!((pace.rate - 16.0).abs() < 1e-9, "recovered: {}", pace.rate);
}

#[test]
fn a_retry_after_of_a_year_is_clamped() {
    let start = Instant::now();
    let mut pace = Pace::new(10.0, 1, start);
    pace.take(start);
    pace.throttled(start, start, Some(Duration::from_secs(365 * 24 * 3600)));
    pace.give_back(start, start);
    assert_eq!(pace.ready(start, true), Ready::At(start + LONGEST_RETRY_AFTER));
}

/// Sends `name` when its turn has come, and hands the permit over.
fn wait_for_turn(
    limiter: &Limiter,
    priority: Priority,
    name: &'static str,
    served: &mpsc::UnboundedSender<(&'static str, Permit)>,
) -> tokio::task::JoinHandle<()> {
    let (limiter, served) = (limiter.clone(), served.clone());
    tokio::spawn(async move {
        let permit = limiter.acquire(limiter.rank(priority)).await;
        served.send((name, permit)).expect("the test listens");
    })
}

/// Lets every task run until it waits.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn live_goes_before_sweeps_before_catch_up_and_first_come_first() {
    let limiter = Limiter::new(1000.0, 1);
    let (served, mut turns) = mpsc::unbounded_channel();
    let mut permit = Some(limiter.acquire(limiter.rank(Priority::CatchUp)).await);
    for (priority, name) in [
        (Priority::CatchUp, "catch-up 1"),
        (Priority::Sweep, "sweep 1"),
        (Priority::CatchUp, "catch-up 2"),
        (Priority::Live, "live 1"),
        (Priority::Sweep, "sweep 2"),
        (Priority::Live, "live 2"),
    ] {
        wait_for_turn(&limiter, priority, name, &served);
        settle().await;
    }
    for expected in ["live 1", "live 2", "sweep 1", "sweep 2", "catch-up 1", "catch-up 2"] {
        settle().await;
        assert!(turns.try_recv().is_err(), "more than one in flight");
        drop(permit.take());
        let (name, next) = turns.recv().await.expect("served");
        assert_eq!(name, expected);
        permit = Some(next);
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_of_one_stream_waits_for_one_request_of_another() {
    let hot = Limiter::new(1000.0, 1);
    let quiet = hot.for_another();
    let (served, mut turns) = mpsc::unbounded_channel();
    let permit = hot.acquire(hot.rank(Priority::Live)).await;
    for _ in 0..20 {
        wait_for_turn(&hot.clone(), Priority::Live, "hot", &served);
        settle().await;
    }
    wait_for_turn(&quiet, Priority::Live, "quiet", &served);
    settle().await;
    drop(permit);
    let (first, permit) = turns.recv().await.expect("served");
    drop(permit);
    let (second, _) = turns.recv().await.expect("served");
    assert!([first, second].contains(&"quiet"), "{first}, {second}");
}

/// While a place is kept the live pass is next, whatever else is due; once it no longer is, who slept for it finds another in
/// its place.
#[tokio::test(start_paused = true)]
async fn who_is_no_longer_first_wakes_who_is() {
    let limiter = Limiter::new(0.5, 2);
    let (served, mut turns) = mpsc::unbounded_channel();
    let slow = limiter.acquire(limiter.rank(Priority::Live)).await;
    tokio::time::sleep(SLOW).await;
    drop(slow);
    let kept_until = tokio::time::Instant::now() + SLOW * KEPT;
    let _in_flight = limiter.acquire(limiter.rank(Priority::Live)).await;
    wait_for_turn(&limiter, Priority::Sweep, "sweep", &served);
    let mut before = 0;
    while tokio::time::Instant::now() + Duration::from_secs(2) < kept_until {
        drop(limiter.acquire(limiter.rank(Priority::Live)).await);
        before += 1;
    }
    assert!(before > 8, "{before}");
    wait_for_turn(&limiter, Priority::Live, "live", &served);
    for expected in ["sweep", "live"] {
        let turn = tokio::time::timeout(Duration::from_secs(60), turns.recv()).await;
        assert_eq!(turn.expect("somebody is awake").expect("served").0, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_window_keeps_its_place_from_page_to_page() {
    let limiter = Limiter::new(1000.0, 1);
    let (first, second) = (limiter.rank(Priority::CatchUp), limiter.rank(Priority::CatchUp));
    let permit = limiter.acquire(first).await;
    let later = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.acquire(second).await }
    });
    settle().await;
    // Its next page comes after the other's first in time, but not in line.
    let next = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.acquire(first).await }
    });
    settle().await;
    drop(permit);
    let permit = next.await.expect("served first");
    settle().await;
    assert!(!later.is_finished());
    drop(permit);
    later.await.expect("served in the end");
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_line_holds_nobody_up() {
    let limiter = Limiter::new(1000.0, 1);
    let (served, mut turns) = mpsc::unbounded_channel();
    let permit = limiter.acquire(limiter.rank(Priority::Live)).await;
    let leaves = wait_for_turn(&limiter, Priority::Live, "leaves", &served);
    settle().await;
    wait_for_turn(&limiter, Priority::Live, "stays", &served);
    settle().await;
    // Woken and then dropped, before it could use its turn.
    drop(permit);
    leaves.abort();
    let mut names = Vec::new();
    while names.last() != Some(&"stays") {
        names.push(turns.recv().await.expect("served").0);
    }
    settle().await;
    assert!(limiter.state().line.is_empty());
    assert_eq!(limiter.state().pace.in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn requests_come_at_the_configured_rate() {
    let limiter = Limiter::new(10.0, 100);
    let start = tokio::time::Instant::now();
    for _ in 0..110 {
        limiter.acquire(limiter.rank(Priority::Live)).await.succeeded();
    }
    let took = start.elapsed().as_secs_f64();
    // Ten at once, a hundred at ten a second; the runtime's timer has milliseconds.
    assert!((9.9..10.3).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_throttled_credential_pauses_everyone() {
    let limiter = Limiter::new(10.0, 4);
    let (served, mut turns) = mpsc::unbounded_channel();
    let start = tokio::time::Instant::now();
    limiter.acquire(limiter.rank(Priority::CatchUp)).await.throttled(Some(Duration::from_secs(7)));
    wait_for_turn(&limiter, Priority::Live, "live", &served);
    turns.recv().await.expect("served").1.succeeded();
    assert!(start.elapsed() >= Duration::from_secs(7));
    assert!(limiter.rate() < 10.0);
}

#[test]
fn after_requests_that_hung_one_place_is_the_live_passes() {
    let (start, second) = (Instant::now(), Duration::from_secs(1));
    let hung = |most: u32, took: Duration| {
        let mut pace = Pace::new(100.0, most, start);
        (0..most).for_each(|_| pace.take(start));
        let now = start + took;
        (0..most).for_each(|_| pace.give_back(now, start));
        (pace, now)
    };
    let (mut pace, now) = hung(2, 60 * second);
    assert_eq!(pace.ready(now, false), Ready::Now);
    pace.take(now);
    assert_eq!([false, true].map(|is_live| pace.ready(now, is_live)), [Ready::WhenReturned, Ready::Now]);
    assert_eq!(pace.ready(now + 239 * second, false), Ready::WhenReturned);
    assert_eq!(pace.ready(now + 240 * second, false), Ready::Now);
    let (mut quick, now) = hung(2, 5 * second - Duration::from_millis(1));
    quick.take(now);
    assert_eq!(quick.ready(now, false), Ready::Now);
    let (mut alone, now) = hung(1, 60 * second);
    assert_eq!(alone.ready(now, false), Ready::Now, "where there is but one");
}
