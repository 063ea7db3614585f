//! The commands beside `run`: what they print, where, and how they end.

use serde_json::Value;
use trailcast::simulate::{Lie, Options, genauth, scloud};

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
    let address = taken.local_addr().unwrap();
    // Something that is no trailcast answers there, or nothing does.
    std::thread::spawn(move || while taken.accept().is_ok() {});
    let config = Config::of(&simulator);
    let program = config.run();
    let running = program.admin().await;
    let mut other = Config::of(&simulator);
    other.streams.pop();
    // One of nobody's, for documentation (RFC 5737).
    for (config, address, state, says) in [
        (&config, address.to_string(), "FAILED", "in use by something else"),
        (&config, running.to_string(), "warning", "by a trailcast with these streams"),
        (&other, running.to_string(), "FAILED", "in use by something else"),
        (&config, "192.0.2.1:9464".to_owned(), "FAILED", "one of this machine's"),
    ] {
        let text = std::fs::read_to_string(config.file()).unwrap();
        let file = config.folder.path().join("elsewhere.yaml");
        std::fs::write(&file, text.replace("127.0.0.1:0", &address)).unwrap();
        let answer = crate::program::trailcast(&["check", "-c", file.to_str().unwrap()]).await;
        let line = answer.stdout.lines().find(|line| line.contains(" admin.listen ")).unwrap_or(&answer.stdout);
        assert!(line.starts_with(state) && line.contains(&address) && line.contains(says), "{line}");
        assert_eq!(answer.code, Some(i32::from(state == "FAILED")), "{answer:?}");
    }
    program.drain().await;
}

/// Each says where it asked, and what to look at.
#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_may_be_wrong_with_an_endpoint() {
    let simulator = simulate(history(300)).await;
    let plain = simulator.url();
    for (url, says) in [
        ("http://127.0.0.1:1".to_owned(), "look at the host and port of endpoint"),
        (
            plain.replace("http:", "https:"),
            "does not speak TLS: look at the port, or whether endpoint is to begin with http://",
        ),
        (format!("{plain}/wrong/path"), "look at endpoint"),
    ] {
        for stream in [Stream::users(&url), Stream::cloud(&url)] {
            let answer = Config::new([stream]).command(&["check"], &[]).await;
            assert_eq!(answer.code, Some(1), "{answer:?}");
            let line = answer.stdout.lines().find(|line| line.starts_with("FAILED")).unwrap();
            assert!(line.contains(" streams.") && line.contains(&url) && line.contains(says), "{url}: {line}");
            assert!(!url.ends_with("/path") || line.contains("path right") || line.contains("its path"), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_in_memory_has_no_cursors_to_show_or_change() {
    let simulator = simulate(history(300)).await;
    let mut config = Config::of(&simulator);
    config.store = Some("{ memory: {} }".to_owned());
    let show = config.command(&["cursor", "show"], &[]).await;
    assert_eq!(show.code, Some(0), "{show:?}");
    assert!(show.stdout.contains("in memory") && !show.stdout.contains("when it first runs"), "{show:?}");
    assert_eq!(config.command(&["cursor", "show"], &["--json"]).await.stdout.trim(), "[]");
    for (command, more) in
        [("set", &["--to", "1h", "--yes"][..]), ("delete", &["--yes"]), ("export", &[]), ("accept", &["--yes"])]
    {
        let answer = config.command(&["cursor", command], more).await;
        assert!(answer.code == Some(2) && answer.stderr.contains("in memory"), "{command}: {answer:?}");
    }
    let check = config.command(&["check"], &["--offline"]).await;
    assert!(check.stdout.ends_with(": 2 streams, 1 sink\n"), "{check:?}");
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
    // At its address, with another checkpoint.
    let text = std::fs::read_to_string(config.file()).unwrap();
    let admin = program.admin().await;
    let text = text.replace("127.0.0.1:0", &admin.to_string());
    let other = config.folder.path().join("other.yaml");
    for (state, code, said) in [
        (config.checkpoint.clone(), 0, "as it should be while it runs"),
        (config.folder.path().join("another"), 1, "and another checkpoint, and `run` would not start"),
    ] {
        let text = text.replace(config.checkpoint.to_str().unwrap(), state.to_str().unwrap());
        std::fs::write(&other, text).unwrap();
        let answer = trailcast(&["check", "-c", other.to_str().unwrap()]).await;
        assert!(answer.code == Some(code) && answer.stdout.contains(said), "{answer:?}");
    }
    program.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_not_there_ends_run_at_its_start() {
    let mut config = Config::new([Stream::users("http://127.0.0.1:1")]);
    let source = &mut config.streams[0].source;
    *source = source.replace(&format!("\"{}\"", genauth::ACCESS_KEY_SECRET), "{ env: NO_SUCH_VARIABLE }");
    for command in ["run", "check"] {
        let answer = config.command(&[command], &[]).await;
        assert_eq!(answer.code, Some(2), "{answer:?}");
        let said = answer.stdout + &answer.stderr;
        assert!(said.contains("streams.users") && said.contains("genauth.access_key_secret"), "{said}");
        assert!(said.contains("`NO_SUCH_VARIABLE` is not set"), "{said}");
    }
}

/// Whoever reads the log has the end of it, too.
#[tokio::test(flavor = "multi_thread")]
async fn why_run_does_not_start_is_a_line_of_its_log() {
    let mut config = Config::new([Stream::users("http://127.0.0.1:1").with("ca_file", "/no/such.pem")]);
    config.sinks = "{ out: { otlp: { endpoint: \"http://127.0.0.1:1\" } } }".to_owned();
    let answer = config.command(&["run"], &[]).await;
    let last: Value = serde_json::from_str(answer.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((answer.code, last["level"].as_str()), (Some(2), Some("ERROR")), "{answer:?}");
    assert!(last["message"].as_str().unwrap().starts_with("streams.users.ca_file: "), "{last}");
    // Before there is a log, each line says whose it is.
    config.streams[0] = config.streams[0].clone().with("sweep", "1s").with("settel", "1s");
    let answer = config.command(&["run"], &[]).await;
    let lines: Vec<_> = answer.stderr.lines().collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.starts_with("trailcast: ")), "{answer:?}");
}

/// Whether behind the preface of HTTP/2 there is a frame of headers.
fn has_asked(read: &[u8]) -> bool {
    let mut at = 24;
    while let Some(head) = read.get(at..at + 9) {
        if head[3] == 1 {
            return true;
        }
        at += 9 + (usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]));
    }
    false
}

/// What it reads first of an HTTP server's answer says nothing to a person.
#[tokio::test(flavor = "multi_thread")]
async fn check_says_that_a_port_does_not_speak_grpc() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            // Who answers before anything was asked only seems to hang up.
            let (mut read, mut buffer) = (Vec::new(), [0; 1024]);
            while !has_asked(&read) {
                let count = connection.read(&mut buffer).unwrap();
                assert_ne!(count, 0, "it hangs up without a request");
                read.extend_from_slice(&buffer[..count]);
            }
            let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
            // To the end: what is closed with something unread takes its answer along.
            let _ = std::io::copy(&mut connection, &mut std::io::sink());
        }
    });
    let simulator = simulate(history(10)).await;
    let mut config = Config::of(&simulator);
    config.sinks = format!("{{ out: {{ otlp: {{ endpoint: \"http://{address}\", protocol: grpc }} }} }}");
    let answer = config.command(&["check"], &[]).await;
    let says = "what answers there does not speak gRPC: look at the port of `endpoint`, and at `protocol`";
    assert!(answer.code == Some(1) && answer.stdout.contains(says), "{answer:?}");
}

/// Whoever looks, perhaps as another user than the one that will run it, makes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn to_look_at_a_checkpoint_that_is_not_there_makes_nothing() {
    let simulator = simulate(history(300)).await;
    let config = Config::of(&simulator);
    let show = config.command(&["cursor", "show"], &[]).await;
    assert!(show.code == Some(0) && show.stdout.contains("no cursor is stored yet"), "{show:?}");
    assert_eq!(config.command(&["cursor", "show"], &["--json"]).await.stdout.trim(), "[]");
    let delete = config.command(&["cursor", "delete"], &["--yes"]).await;
    assert!(delete.code == Some(2) && delete.stderr.contains("no cursor is stored yet"), "{delete:?}");
    let export = config.command(&["cursor", "export"], &[]).await;
    assert!(export.code == Some(0) && export.stdout.contains("\"entries\":0"), "{export:?}");
    let accept = config.command(&["cursor", "accept"], &[]).await;
    assert!(accept.code == Some(0) && accept.stdout.starts_with("nothing to accept"), "{accept:?}");
    let check = config.command(&["check"], &[]).await;
    assert!(check.code == Some(0) && check.stdout.contains("is not there yet; `run` makes it"), "{check:?}");
    assert!(!config.checkpoint.exists());
    std::fs::create_dir(&config.checkpoint).unwrap();
    let check = config.command(&["check"], &[]).await;
    assert!(check.code == Some(0) && check.stdout.contains("nothing is kept in"), "{check:?}");
    assert_eq!(std::fs::read_dir(&config.checkpoint).unwrap().count(), 0);
    config.catch_up().await;
}

/// One part that does not work out keeps nobody from hearing of the others.
#[tokio::test(flavor = "multi_thread")]
async fn check_goes_on_behind_a_file_that_cannot_be_read() {
    let simulator = simulate(history(300)).await;
    let mut config = Config::of(&simulator);
    config.streams[0] = config.streams[0].clone().with("ca_file", "/no/such.pem");
    let answer = config.command(&["check"], &[]).await;
    assert_eq!(answer.code, Some(1), "{answer:?}");
    let line = |part: &str| answer.stdout.lines().find(|line| line.contains(&format!(" {part} "))).unwrap_or_default();
    let of_file = line("streams.users");
    let says = "ca_file: cannot read /no/such.pem: No such file";
    assert!(of_file.starts_with("FAILED") && of_file.contains(says), "{answer:?}");
    for part in ["streams.cloud", "sinks.out", "checkpoint"] {
        assert!(line(part).starts_with("ok "), "{part}: {answer:?}");
    }
    let run = config.command(&["run"], &[]).await;
    assert!(run.code == Some(2) && run.stderr.contains(&format!("streams.users.{says}")), "{run:?}");
}

/// No variable appears in a process that runs; a file may. Each is named, not the first alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_variable_of_a_sink_that_is_not_set_ends_run_and_a_file_may_still_come() {
    let mut config = Config::new([Stream::users("http://127.0.0.1:1"), Stream::cloud("http://127.0.0.1:1")]);
    let source = &mut config.streams[1].source;
    *source = source.replace(&format!("\"{}\"", scloud::PRIVATE_KEY), "{ env: NO_SUCH_KEY }");
    let sinks = |authorization: &str| {
        format!(
            "{{ out: {{ otlp: {{ endpoint: \"http://127.0.0.1:1\", headers: {{ Authorization: {authorization} }} }} }} }}"
        )
    };
    config.sinks = sinks("{ env: NO_SUCH_TOKEN }");
    for command in ["run", "check"] {
        let answer = config.command(&[command], &[]).await;
        assert_eq!(answer.code, Some(2), "{answer:?}");
        let said = answer.stdout + &answer.stderr;
        for missing in
            ["`NO_SUCH_KEY` is not set", "headers.authorization: the environment variable `NO_SUCH_TOKEN` is not"]
        {
            assert!(said.contains(missing), "{missing}: {said}");
        }
    }
    config.streams.truncate(1);
    config.sinks = sinks("{ file: /no/such/file }");
    let mut program = config.run();
    program.says("\"admin\":").await;
    assert!(program.runs(), "{}", program.log());
    assert_eq!(config.command(&["check"], &[]).await.code, Some(1));
    program.drain_or_not().await;
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
    let answer = config.command(&["check"], &["--json"]).await;
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(2), ""), "{answer:?}");
    let mistakes: Vec<Value> = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(mistakes.len(), 3, "{mistakes:?}");
    for mistake in &mistakes {
        assert_eq!(
            (mistake["part"].as_str(), mistake["state"].as_str()),
            (Some("config"), Some("failed")),
            "{mistake}"
        );
        assert!(mistake["line"].is_u64() && mistake["column"].is_u64() && mistake["message"].is_string(), "{mistake}");
    }
    assert_eq!(mistakes[2]["key"], "sinks.out.stdout.format", "{mistakes:?}");
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
