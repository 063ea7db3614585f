//! Dead letters in files, and what receivers say: a letter is dropped only when that was asked for, a receiver that is busy
//! is waited for, and nothing repeats a secret that a receiver repeated.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use trailcast::dead_letter::{DeadLetter, DeadLetterReason};
use trailcast::event::{EventId, Fingerprint, Source, StreamIdentity};

use crate::program::{Answer, Config, history, simulate};

/// A receiver of OTLP over HTTP that is sent nothing compressed: `says` has the records of a request, and the words of a
/// refusal if it is one.
pub async fn receiver(says: impl FnMut(Vec<LogRecord>) -> Option<(StatusCode, String)> + Send + 'static) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let says = Arc::new(Mutex::new(says));
    let answer = move |body: Bytes| {
        let request = ExportLogsServiceRequest::decode(body).unwrap();
        let scopes = request.resource_logs.into_iter().flat_map(|logs| logs.scope_logs);
        let records = scopes.flat_map(|scope| scope.log_records).collect();
        let said = (says.lock().unwrap())(records);
        async move {
            match said {
                None => (StatusCode::OK, [(CONTENT_TYPE, "application/json")], "{}".to_owned()),
                Some((status, words)) => (status, [(CONTENT_TYPE, "text/plain")], words),
            }
        }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    url
}

fn letter(stream: &str, sink: &str, number: u8) -> DeadLetter {
    let identity = StreamIdentity { source: Source::Genauth, tenant: "pool".to_owned() };
    let record = format!("{{\"eventType\":\"login\",\"requestId\":\"{number}\"}}");
    DeadLetter {
        id: EventId::new(&identity, Fingerprint([number; 16]), 0),
        reason: DeadLetterReason::Rejected,
        message: "HTTP 400".to_owned(),
        sink: sink.to_owned(),
        stream: stream.to_owned(),
        source: identity.source,
        tenant: identity.tenant,
        time: jiff::Timestamp::UNIX_EPOCH,
        late: false,
        ordinal: 0,
        refused_at: jiff::Timestamp::UNIX_EPOCH,
        record_bytes: record.len(),
        record,
    }
}

fn kept(config: &Config) -> Vec<DeadLetter> {
    let text = std::fs::read_to_string(config.checkpoint.join("dead-letters/dead-letters-000001.ndjson"));
    text.unwrap_or_default().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A config with the sink `out` at `url`, and letters of two streams and of a sink that is gone.
fn with_letters(url: &str) -> (Config, Vec<DeadLetter>) {
    let mut config = Config::new([crate::program::Stream::users("http://127.0.0.1:1")]);
    config.sinks = format!("{{ out: {{ otlp: {{ endpoint: \"{url}\", compression: none }} }} }}");
    let letters = vec![
        letter("users", "out", 1),
        letter("cloud", "out", 2),
        letter("users", "gone", 3),
        letter("users", "out", 4),
    ];
    let folder = config.checkpoint.join("dead-letters");
    std::fs::create_dir_all(&folder).unwrap();
    let lines: String = letters.iter().map(|letter| String::from_utf8(letter.to_json()).unwrap() + "\n").collect();
    std::fs::write(folder.join("dead-letters-000001.ndjson"), lines).unwrap();
    (config, letters)
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_dropped_only_when_asked_for_and_only_those() {
    let (config, letters) = with_letters("http://127.0.0.1:1");
    let drop = async |more: &[&str]| config.command(&["dead-letters", "drop"], more).await;
    let unasked = drop(&[]).await;
    assert!(unasked.code == Some(2) && unasked.stderr.contains("--yes"), "{unasked:?}");
    assert_eq!(kept(&config), letters, "nobody was asked");
    let listed = config.command(&["dead-letters", "list"], &["--sink", "out", "--reason", "invalid"]).await;
    assert_eq!(listed.stdout.trim(), "no dead letters refused by sink out, refused as invalid", "{listed:?}");
    let none = drop(&["--stream", "others", "--yes"]).await;
    assert!(none.code == Some(2) && none.stderr.contains("--stream others: no dead letter is of it"), "{none:?}");
    assert_eq!(kept(&config), letters);
    for (which, left) in [
        (&["--sink", "gone"][..], &[0, 1, 3][..]),
        (&["--stream", "users", "--reason", "rejected"], &[1]),
        (&["--reason", "too_large"], &[1]),
        (&[], &[]),
    ] {
        let dropped = drop(&[which, &["--yes"]].concat()).await;
        assert_eq!(dropped.code, Some(0), "{dropped:?}");
        let left: Vec<_> = left.iter().map(|place| letters[*place].clone()).collect();
        assert_eq!(kept(&config), left, "{which:?}: {dropped:?}");
    }
}

/// Such as `head`.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    let (config, _) = with_letters("http://127.0.0.1:1");
    for words in [&["dead-letters", "list"][..], &["cursor", "show"]] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_trailcast"));
        let piped = std::process::Stdio::piped;
        let mut child =
            command.args(words).arg("-c").arg(config.file()).stdout(piped()).stderr(piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
    }
}

/// A backfill of what is too old to be sent: each lane says it once, not once a batch, and the end says how many there are.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_of_a_run_are_summed_up_and_counted_at_its_end() {
    let url = receiver(|_| None).await;
    let simulator = simulate(history(3000)).await;
    let mut config = Config::of(&simulator).starting_at(simulator.now() - 3_600_000);
    config.sinks = format!(
        "{{ out: {{ otlp: {{ endpoint: \"{url}\", compression: none, max_event_age: 30s, max_request_events: 100 }} }} }}"
    );
    let log: Vec<serde_json::Value> =
        config.catch_up().await.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kept = kept(&config);
    assert!(kept.len() > 2_000, "{}", kept.len());
    let said: Vec<_> =
        log.iter().filter(|line| line["message"].as_str().unwrap().contains("kept as dead letters: ")).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    for line in said {
        let message = line["message"].as_str().unwrap();
        assert!(message.starts_with("not sent, kept as dead letters: older than `max_event_age`, 30s"), "{line}");
    }
    let last = log.last().unwrap();
    assert_eq!(
        (last["level"].as_str(), last["dead_letters"].as_u64()),
        (Some("WARN"), Some(kept.len() as u64)),
        "{last}"
    );
    let command = format!("`trailcast dead-letters list -c {}", config.folder.path().join("trailcast.yaml").display());
    assert!(last["message"].as_str().unwrap().contains(&command), "{last}");
    let caught_up = &log[log.len() - 2];
    assert!(caught_up["message"] == "caught up" && caught_up["delivered"].is_u64(), "{caught_up}");
}

/// It says that it is busy, twice; what it has no place for stays, each of another lane, and the table says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_busy_is_waited_for_and_each_lane_has_its_line() {
    let (mut busy, taken) = (2, Arc::new(Mutex::new(0)));
    let takes = Arc::clone(&taken);
    let url = receiver(move |records| {
        if busy > 0 {
            busy -= 1;
            return Some((StatusCode::SERVICE_UNAVAILABLE, "busy".to_owned()));
        }
        *takes.lock().unwrap() += records.len();
        None
    })
    .await;
    let (config, letters) = with_letters(&url);
    let Answer { code, stdout, stderr } = config.command(&["dead-letters", "retry"], &[]).await;
    assert_eq!(code, Some(1), "one is left: {stdout}{stderr}");
    for line in [
        "cloud to out: 1 accepted, 0 refused again",
        "users to out: 2 accepted, 0 refused again",
        "users to gone: 0 accepted, 0 refused again, 1 left: no such sink in the config",
    ] {
        assert!(stdout.contains(line), "{line}: {stdout}");
    }
    assert_eq!((*taken.lock().unwrap(), kept(&config)), (3, vec![letters[2].clone()]));
}

/// Neither the log, nor `/status`, nor `check`, nor a dead letter says what a receiver said of the credentials.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_a_receiver_repeats_shows_nowhere() {
    const PIECES: [&str; 4] = ["sk-live", "4f9a", "carol77", "zebra"];
    let words = "unknown token sk-live-4f9a, pair carol77:zebra-9, header Bearer sk-live-4f9a";
    let lets_in = Arc::new(Mutex::new(false));
    let door = Arc::clone(&lets_in);
    let mut bad: Option<LogRecord> = None;
    let url = receiver(move |records| {
        if !*door.lock().unwrap() {
            return Some((StatusCode::UNAUTHORIZED, words.to_owned()));
        }
        let first = records.first()?;
        // Whatever comes first is refused, then and ever after.
        let bad = bad.get_or_insert_with(|| first.clone());
        records.contains(bad).then(|| (StatusCode::BAD_REQUEST, words.to_owned()))
    })
    .await;
    let simulator = simulate(history(50)).await;
    let mut config = Config::of(&simulator);
    config.streams.truncate(1);
    config.level = "debug";
    let secret = |name: &str, text: &str| {
        let path = config.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("{{ file: \"{}\" }}", path.display())
    };
    let token = secret("token", "Bearer sk-live-4f9a");
    let pair = secret("pair", &format!("Basic {}", BASE64.encode("carol77:zebra-9")));
    config.sinks = format!(
        "{{ out: {{ otlp: {{ endpoint: \"{url}\", compression: none, headers: {{ Authorization: {token}, X-Pair: {pair} }} }} }} }}"
    );
    let shows_none = |what: &str, text: &str| {
        for piece in PIECES {
            assert!(!text.contains(piece), "{what} shows {piece}: {text}");
        }
    };
    let program = config.run();
    let failing = async || {
        let status = program.get("/status").await;
        let json: serde_json::Value = serde_json::from_str(&status).unwrap();
        let lane = &json["lanes"][0];
        (lane["state"] == "failing" && lane["reason"] == "credentials").then_some(status)
    };
    let status = program.shows("a lane that is not let in", failing).await;
    assert!(status.contains("HTTP 401") && status.contains("unknown token"), "it is said all the same: {status}");
    shows_none("/status", &status);
    let checked = config.command(&["check"], &[]).await;
    assert!(checked.code == Some(1) && checked.stdout.contains("HTTP 401"), "{checked:?}");
    shows_none("check", &(checked.stdout + &checked.stderr));
    *lets_in.lock().unwrap() = true;
    let refused = "trailcast_dead_letters_total{reason=\"rejected\",sink=\"out\",stream=\"users\"}";
    program.shows("a dead letter", async || program.metric(refused).await.filter(|count| *count == 1.0)).await;
    shows_none("/metrics", &program.get("/metrics").await);
    let log = program.drain().await.join("\n");
    assert!(log.contains("HTTP 401"), "{log}");
    shows_none("the log", &log);
    let letters = kept(&config);
    assert!(letters.len() == 1 && letters[0].message.starts_with("HTTP 400: unknown token"), "{letters:?}");
    shows_none("the letter", &letters[0].message);
}

/// It says that it is busy to every other request: told once, and not called well in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_flaps_is_told_seldom() {
    let said = Arc::new(Mutex::new((0_u32, 0_u32)));
    let count = Arc::clone(&said);
    let url = receiver(move |_| {
        let mut said = count.lock().unwrap();
        if said.0 > said.1 {
            said.1 += 1;
            return None;
        }
        said.0 += 1;
        Some((StatusCode::SERVICE_UNAVAILABLE, "busy".to_owned()))
    })
    .await;
    let simulator = simulate(trailcast::simulate::Options { rate: 20.0, ..Default::default() }).await;
    let mut config = Config::of(&simulator).starting_at(simulator.now() - 20_000);
    config.streams.truncate(1);
    config.sinks = format!("{{ out: {{ otlp: {{ endpoint: \"{url}\", compression: none }} }} }}");
    let program = config.run();
    let flapped = async || {
        let (busy, taken) = *said.lock().unwrap();
        (busy >= 15 && taken >= 15).then_some(())
    };
    program.shows("deliveries that fail and work in turn", flapped).await;
    assert!(program.delivered("users", "out").await >= 10.0, "events arrive all the same");
    let lane = program.status().await["lanes"][0].clone();
    assert_eq!(lane["state"], "failing", "{lane}");
    let lines = program.lines();
    let about = ["could not deliver", "delivers and commits again", "on schedule"];
    let lines: Vec<_> = lines.iter().filter(|line| about.iter().any(|about| line.contains(about))).collect();
    // It fails, works at once, and fails again; from then on that it works has to hold first.
    assert_eq!(lines.len(), 3, "{lines:?}");
    program.drain_or_not().await;
}
