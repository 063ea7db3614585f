//! The commands beside `run`: what they print, where, and how they end.

use serde_json::Value;
use trailcast::simulate::{Options, genauth};

use crate::program::{Config, Stream, history, simulate, trailcast};

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_works_and_what_to_do_where_it_does_not() {
    let simulator = simulate(history(300)).await;
    let mut config = Config::of(&simulator);
    let good = config.command(&["check"], &[]).await;
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(!good.stdout.contains("FAILED"), "{good:?}");
    for part in ["streams.users", "streams.cloud", "sinks.out", "checkpoint"] {
        assert_eq!(good.stdout.lines().filter(|line| line.contains(&format!(" {part} "))).count(), 1, "{good:?}");
    }

    config.streams[0] = Stream::genauth(&simulator.url(), genauth::USER_POOL_ID, "not-the-secret");
    let bad = config.command(&["check"], &[]).await;
    assert_eq!(bad.code, Some(1), "{bad:?}");
    let failed: Vec<_> = bad.stdout.lines().filter(|line| line.starts_with("FAILED")).collect();
    assert!(failed.len() == 1 && failed[0].contains("streams.users"), "{bad:?}");
    assert!(failed[0].contains("look at access_key_id and access_key_secret"), "{bad:?}");
    assert!(!(bad.stdout + &bad.stderr).contains("not-the-secret"));

    let json = config.command(&["check"], &["--json"]).await;
    let findings: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json.code, Some(1));
    let states: Vec<_> =
        findings.as_array().unwrap().iter().map(|finding| finding["state"].as_str().unwrap()).collect();
    assert_eq!(states.iter().filter(|state| **state == "failed").count(), 1, "{findings}");

    let requests = simulator.stats().genauth.requests;
    let offline = config.command(&["check"], &["--offline"]).await;
    assert_eq!(offline.code, Some(0), "{offline:?}");
    assert_eq!(simulator.stats().genauth.requests, requests, "offline asks nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_shows_how_far_clocks_are_apart() {
    let simulator = simulate(Options { clock_offset: 90_000, ..history(300) }).await;
    let answer = Config::of(&simulator).command(&["check"], &["--json"]).await;
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let findings: Value = serde_json::from_str(&answer.stdout).unwrap();
    for stream in ["streams.users", "streams.cloud"] {
        let finding = findings.as_array().unwrap().iter().find(|finding| finding["part"] == stream).unwrap();
        assert_eq!(finding["state"], "warning", "{finding}");
        let message = finding["message"].as_str().unwrap();
        let offset = message.split_once("its clock is ").unwrap().1.split_once(" ms").unwrap().0;
        let offset: i64 = offset.parse().unwrap();
        assert!((88_900..=91_100).contains(&offset), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_there_ends_run_at_its_start() {
    let mut config = Config::new([Stream::users("http://127.0.0.1:1")]);
    let source = &mut config.streams[0].source;
    *source = source.replace(&format!("\"{}\"", genauth::ACCESS_KEY_SECRET), "{ env: NO_SUCH_VARIABLE }");
    let answer = config.command(&["run"], &[]).await;
    assert_eq!(answer.code, Some(2), "{answer:?}");
    assert!(answer.stderr.contains("streams.users.genauth.access_key_secret"), "{answer:?}");
    assert!(answer.stderr.contains("`NO_SUCH_VARIABLE` is not set"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_config_is_told_all_at_once() {
    let mut config =
        Config::new([Stream::users("http://127.0.0.1:1").with("pol_interval", "1s").with("settle", "soon")]);
    config.sinks = "{ out: { stdout: { format: xml } } }".to_owned();
    for words in ["check", "run"] {
        let answer = config.command(&[words], &[]).await;
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(2), ""), "{answer:?}");
        for key in ["pol_interval", "poll_interval", "settle", "format"] {
            assert!(answer.stderr.contains(key), "{key}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_writes_events_alone_to_stdout() {
    for more in [&[][..], &["--faults", "--format", "native"][..]] {
        let demo = trailcast(&[&["demo", "--for", "2s"], more].concat()).await;
        assert_eq!(demo.code, Some(0), "{}", demo.stderr);
        assert!(demo.stdout.lines().count() > 10, "{}", demo.stderr);
        for line in demo.stdout.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            assert!(event["metadata"]["uid"].is_string() || event["id"].is_string(), "{line}");
        }
        assert!(demo.stderr.contains("SIMULATED"), "{}", demo.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_go_to_stdout_and_mistakes_to_stderr() {
    let schema = trailcast(&["schema"]).await;
    assert_eq!((schema.code, schema.stderr.as_str()), (Some(0), ""));
    let schema: Value = serde_json::from_str(&schema.stdout).unwrap();
    assert!(schema["properties"]["streams"].is_object(), "{schema}");

    let version = trailcast(&["--version"]).await;
    assert_eq!(version.code, Some(0));
    assert!(version.stdout.starts_with(concat!("trailcast ", env!("CARGO_PKG_VERSION"))), "{version:?}");

    for wrong in [&["rum"][..], &[], &["run"], &["run", "-c", "/no/such/file.yaml"], &["demo", "--for", "2"]] {
        let answer = trailcast(wrong).await;
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(2), ""), "{wrong:?}: {answer:?}");
        assert!(!answer.stderr.is_empty(), "{wrong:?}");
    }
}
