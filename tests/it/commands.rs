//! The commands beside `run`: what they print, where, and how they end.

use serde_json::Value;
use trailcast::simulate::{Lie, Options, genauth};

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
async fn check_tries_where_the_admin_server_listens() {
    let simulator = simulate(history(300)).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config::of(&simulator);
    // One of nobody's, for documentation (RFC 5737).
    for (address, state, says) in [
        (taken.local_addr().unwrap().to_string(), "warning", "is in use"),
        ("192.0.2.1:9464".to_owned(), "FAILED", "one of this machine's"),
    ] {
        let text = std::fs::read_to_string(config.file()).unwrap();
        let file = config.folder.path().join("elsewhere.yaml");
        std::fs::write(&file, text.replace("127.0.0.1:0", &address)).unwrap();
        let answer = crate::program::trailcast(&["check", "-c", file.to_str().unwrap()]).await;
        let line = answer.stdout.lines().find(|line| line.contains(" admin.listen ")).unwrap_or(&answer.stdout);
        assert!(line.starts_with(state) && line.contains(&address) && line.contains(says), "{line}");
    }
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
        let offset = message.split_once("its clock is ").unwrap().1.split_once(" s from").unwrap().0;
        let offset: f64 = offset.parse().unwrap();
        assert!((88.9..=91.1).contains(&offset), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_that_no_answer_has_a_date() {
    let simulator = simulate(Options { date_unreadable: true, ..history(300) }).await;
    let answer = Config::of(&simulator).command(&["check"], &[]).await;
    assert_eq!(answer.code, Some(0), "{answer:?}");
    for stream in [" streams.users ", " streams.cloud "] {
        let line = answer.stdout.lines().find(|line| line.contains(stream)).unwrap();
        assert!(line.contains("its answers have no Date that can be read") && !line.contains("its clock is"), "{line}");
        assert!(line.starts_with("warning"), "{line}");
    }
}

/// What `check` says of a source whose answers lie so, and how it ends.
async fn checked(lies: Options, source: &str) -> (Value, Option<i32>) {
    let simulator = simulate(lies).await;
    let mut config = Config::of(&simulator);
    config.streams.retain(|stream| stream.source.starts_with(source));
    let answer = config.command(&["check"], &["--json"]).await;
    let findings: Vec<Value> = serde_json::from_str(&answer.stdout).unwrap();
    let of_stream = |finding: &&Value| finding["part"].as_str().unwrap().starts_with("streams.");
    (findings.iter().find(of_stream).unwrap().clone(), answer.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn check_does_not_say_ok_to_what_contradicts_itself() {
    let lies = |lie| Options { lie: vec![lie], ..history(300) };
    let none = "no record in the last day";
    let bounds = Options { ignore_bounds: true, ..history(300) };
    for (lies, source, state, says) in [
        (history(300), "genauth", "ok", "300 records in the last hour"),
        (history(300), "scloud", "ok", "records in the last hour"),
        (history(0), "genauth", "warning", none),
        (history(0), "scloud", "warning", none),
        (lies(Lie::Empty), "genauth", "warning", none),
        (lies(Lie::Empty), "scloud", "warning", none),
        (lies(Lie::Maintenance), "genauth", "failed", "malformed"),
        (lies(Lie::Maintenance), "scloud", "warning", "not even an empty list"),
        (lies(Lie::ShortList), "genauth", "failed", "it counts 300 records and lists 20"),
        (lies(Lie::PageCount), "genauth", "failed", "it counts 50 records and lists more"),
        (lies(Lie::ZeroCount), "genauth", "failed", "malformed"),
        (lies(Lie::EmptyLaterPages), "genauth", "failed", "it counts 300 records and lists 50"),
        (lies(Lie::DeepErrors), "scloud", "failed", "its second page cannot be had"),
        (lies(Lie::RefusedTokens), "scloud", "failed", "its second page cannot be had"),
        (bounds.clone(), "genauth", "failed", "ignores the bounds"),
        (bounds, "scloud", "failed", "ignores the bounds"),
    ] {
        let what = format!("{source} {:?} {}", lies.lie, lies.ignore_bounds);
        let (finding, code) = checked(lies, source).await;
        assert!(finding["state"] == state && finding["message"].as_str().unwrap().contains(says), "{what}: {finding}");
        assert_eq!(code, Some(i32::from(state == "failed")), "{what}: {finding}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_beside_a_running_trailcast_says_so_and_checks_the_rest() {
    let simulator = simulate(history(300)).await;
    let config = Config::of(&simulator);
    let program = config.run();
    program.says("lane runs").await;
    let answer = config.command(&["check"], &[]).await;
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let line = answer.stdout.lines().find(|line| line.contains(" checkpoint ")).unwrap();
    assert!(line.contains(&format!("a trailcast (pid {}) runs on ", program.id())), "{line}");
    for part in ["streams.users", "streams.cloud", "sinks.out"] {
        let said = answer.stdout.lines().filter(|line| line.starts_with("ok ") && line.contains(&format!(" {part} ")));
        assert_eq!(said.count(), 1, "{answer:?}");
    }
    program.drain().await;
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
