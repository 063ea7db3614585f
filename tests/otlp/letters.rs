//! `trailcast dead-letters retry` into Loki: what it refused is tried again, the same events under the same ids; what it
//! takes now is taken away, and what it still refuses stays.

use std::collections::BTreeSet;

use trailcast::clock::now;
use trailcast::dead_letter::DeadLetter;
use trailcast::simulate::{Options, Start};

use crate::ledger::assert_all_arrived;
use crate::loki::{ALL, events, letters};
use crate::program::{Config, simulate};
use crate::receiver::Loki;

fn ids(letters: &[DeadLetter]) -> BTreeSet<String> {
    letters.iter().map(|letter| letter.id.to_string()).collect()
}

/// Tries all again; what it says of each lane, and its status.
async fn retry(config: &Config) -> (String, Option<i32>) {
    let answer = config.command(&["dead-letters", "retry"], &[]).await;
    (answer.stdout, answer.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_loki_takes_after_all_is_taken_away_and_the_rest_stays() {
    let start = now() - 7_200_000;
    let simulator = simulate(Options { rate: 0.1, start: Some(Start::At(start)), ..Options::default() }).await;
    let mut loki = Loki::start("reject_old_samples_max_age: 1h, max_line_size: 70").await;
    let mut config = Config::of(&simulator).starting_at(start - 60_000);
    config.sinks = loki.sink("");
    let begun = now();
    config.catch_up().await;
    let first = letters(&config);
    let reason = |name: &str| first.iter().filter(|letter| letter.reason.label() == name).count();
    assert!(reason("too_old") > 100 && reason("too_large") > 20, "{} and {}", reason("too_old"), reason("too_large"));

    // As strict as before.
    let (said, code) = retry(&config).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("users to out: 0 accepted, ") && said.contains("cloud to out: 0 accepted, "), "{said}");
    assert_eq!(letters(&config), first);

    // The old ones pass, but for those that are too long, too.
    loki.stop().await;
    loki.limit("max_line_size: 70");
    loki.restart().await;
    let before = loki.entries(ALL).await.len();
    let (said, code) = retry(&config).await;
    assert_eq!(code, Some(1), "{said}");
    let second = letters(&config);
    assert!(second.len() > reason("too_large") && second.len() < first.len(), "{} of {}", second.len(), first.len());
    assert!(second.iter().all(|letter| first.contains(letter)), "what stays is as it was");
    let arrived = loki.entries(ALL).await;
    assert_eq!(arrived.len() - before, first.len() - second.len(), "{said}");
    let arrived: BTreeSet<String> = arrived.into_iter().map(|one| one.event.id).collect();
    assert_eq!(&ids(&first) - &arrived, ids(&second), "the same ids");

    // With the limits that are shipped.
    loki.stop().await;
    loki.limit("");
    loki.restart().await;
    let (said, code) = retry(&config).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches(" accepted, 0 refused again").count(), 2, "{said}");
    assert_eq!(letters(&config), []);
    let none = retry(&config).await;
    assert_eq!((none.0.trim(), none.1), ("no such dead letter", Some(0)));
    assert_all_arrived(&simulator, begun, &events(&loki.entries(ALL).await));
    simulator.shutdown().await;
}
