//! `trailcast dead-letters retry` into the double of Loki: what it refused is tried again, the same events under the same ids; what it
//! takes now is taken away, and what it still refuses stays.

use std::collections::BTreeSet;

use trailcast::clock::now;
use trailcast::dead_letter::DeadLetter;
use trailcast::simulate::{Options, Start};

use crate::ledger::assert_all_arrived;
use crate::loki::{events, letters};
use crate::loki_double::Loki;
use crate::program::{Config, simulate};

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
    // All of it is too old, at whatever moment it is sent.
    let start = now() - 9_000_000;
    let options = Options { rate: 0.1, start: Some(Start::At(start)), events: Some(300), ..Options::default() };
    let simulator = simulate(options).await;
    let loki = Loki::start("reject_old_samples_max_age: 1h, max_line_size: 70").await;
    let mut config = Config::of(&simulator).starting_at(start - 60_000);
    config.sinks = loki.sink("");
    let begun = now();
    config.catch_up().await;
    let first = letters(&config);
    assert_eq!((first.len(), loki.entries().len()), (600, 0));

    // As strict as before.
    let (said, code) = retry(&config).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("users to out: 0 accepted, ") && said.contains("cloud to out: 0 accepted, "), "{said}");
    assert_eq!(letters(&config), first);

    // What is not too long passes.
    loki.limit("max_line_size: 70");
    let (said, code) = retry(&config).await;
    assert_eq!(code, Some(1), "{said}");
    let second = letters(&config);
    assert!(second.len() > 100 && second.len() < 500, "{} of {}", second.len(), first.len());
    assert!(second.iter().all(|letter| first.contains(letter)), "what stays is as it was");
    let arrived = loki.entries();
    assert_eq!(arrived.len(), first.len() - second.len(), "{said}");
    let arrived: BTreeSet<String> = arrived.into_iter().map(|one| one.event.id).collect();
    assert_eq!(&ids(&first) - &arrived, ids(&second), "the same ids");

    // With the limits that are shipped.
    loki.limit("");
    let (said, code) = retry(&config).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches(" accepted, 0 refused again").count(), 2, "{said}");
    assert_eq!(letters(&config), []);
    let none = retry(&config).await;
    assert_eq!((none.0.trim(), none.1), ("no dead letters", Some(0)));
    assert_all_arrived(&simulator, begun, &events(&loki.entries()));
    simulator.shutdown().await;
}
