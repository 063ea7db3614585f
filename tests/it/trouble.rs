//! A stream that fails: seen from outside, said once, and nobody else's trouble. And what the log never says.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use trailcast::event::Millis;
use trailcast::simulate::{Options, Simulator, SourceStats, genauth, scloud};

use crate::ledger::assert_all_arrived;
use crate::program::{Config, Program, Stream, history, simulate};

/// What a gate does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// To the simulator and back.
    Open,
    /// Closes them.
    Shut,
    /// Answers each request with this status and body.
    Says(&'static str, &'static str),
}

/// Stands before a simulator; what is under way when it changes is cut off.
pub async fn gate(simulator: &Simulator, first: Gate) -> (String, watch::Sender<Gate>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, state) = watch::channel(first);
    let behind = simulator.addr();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let mut state = state.clone();
            tokio::spawn(async move {
                let now = *state.borrow_and_update();
                tokio::select! {
                    () = serve(connection, now, behind) => {}
                    _ = state.changed() => {}
                }
            });
        }
    });
    (url, sender)
}

async fn serve(mut connection: TcpStream, gate: Gate, behind: std::net::SocketAddr) {
    match gate {
        Gate::Open => {
            if let Ok(mut to) = TcpStream::connect(behind).await {
                let _ = copy_bidirectional(&mut connection, &mut to).await;
            }
        }
        Gate::Shut => {}
        Gate::Says(status, body) => {
            let mut request = [0; 16_384];
            let _ = connection.read(&mut request).await;
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    }
}

fn errors(stream: &str, reason: &str) -> String {
    format!("trailcast_fetch_errors_total{{reason=\"{reason}\",stream=\"{stream}\"}}")
}

/// Waits until `users` fails for `reason`, its lag grows, and `cloud` has delivered its history all the same.
async fn users_fail_alone(program: &Program, reason: &str) {
    let failing = async || {
        let stream = program.stream("users").await;
        (stream["state"] == "failing" && stream["reason"] == reason).then_some(stream)
    };
    let stream = program.shows("users failing", failing).await;
    assert!(stream["message"].as_str().is_some_and(|message| !message.is_empty()), "{stream}");
    assert!(program.metric(&errors("users", reason)).await.unwrap() >= 1.0);
    let lag = async || program.metric("trailcast_fetch_lag_seconds{stream=\"users\"}").await;
    let first = program.shows("a lag of the stuck stream", lag).await;
    program.shows("a lag that grows", async || lag().await.filter(|now| *now > first + 1.0)).await;
    let other = async || (program.delivered("cloud", "out").await >= 500.0).then_some(());
    program.shows("delivery of the other stream", other).await;
    assert_eq!(program.stream("cloud").await["state"], "ok");
    assert_eq!(program.get("/readyz").await, "ready\n", "a restart would not mend an API");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_stop_one_stream_alone() {
    let simulator = simulate(history(500)).await;
    let wrong = Stream::genauth(&simulator.url(), genauth::USER_POOL_ID, "not-the-secret");
    let config = Config::new([wrong, Stream::cloud(&simulator.url())]);
    let program = config.run();
    users_fail_alone(&program, "credentials").await;
    let lines = program.drain().await;
    let said: Vec<_> = lines.iter().filter(|line| line.contains("\"ERROR\"")).collect();
    assert!(said.len() == 1 && said[0].contains("access_key_secret"), "{said:?}");
    assert!(!lines.join("\n").contains("not-the-secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_down_stops_one_stream_until_it_is_up() {
    let simulator = simulate(history(500)).await;
    let (url, state) = gate(&simulator, Gate::Shut).await;
    let config = Config::new([Stream::users(&url), Stream::cloud(&simulator.url())]);
    let program = config.run();
    users_fail_alone(&program, "connect").await;
    assert_eq!(program.logged("cannot read from the API, trying again").len(), 1, "{}", program.log());
    state.send_replace(Gate::Open);
    program.says("\"reads from the API again\"").await;
    let well = async || (program.stream("users").await["state"] == "ok").then_some(());
    program.shows("users well", well).await;
    let all = async || (program.delivered("users", "out").await >= 500.0).then_some(());
    program.shows("delivery", all).await;
    program.drain().await;
    assert_all_arrived(&simulator, Millis::MAX, &config.events());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_refuses_stops_one_stream_alone() {
    let simulator = simulate(history(500)).await;
    let (url, _state) = gate(&simulator, Gate::Says("403 Forbidden", "{\"statusCode\":403,\"message\":\"no\"}")).await;
    let config = Config::new([Stream::users(&url), Stream::cloud(&simulator.url())]);
    let program = config.run();
    let failing = async || (program.stream("users").await["state"] == "failing").then_some(());
    program.shows("users failing", failing).await;
    let reason = program.stream("users").await["reason"].as_str().unwrap().to_owned();
    assert!(["refused", "credentials"].contains(&reason.as_str()), "{reason}");
    users_fail_alone(&program, &reason).await;
    assert_eq!(program.logged("\"ERROR\"").len(), 1, "{}", program.log());
    // It can be asked to end while it waits for an API that never answers.
    program.drain().await;
}

/// A script must see that it was not done: asked to end, or not through in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_before_it_has_caught_up_says_so_and_ends_with_1() {
    let simulator = simulate(history(500)).await;
    let (url, state) = gate(&simulator, Gate::Shut).await;
    let config = Config::new([Stream::users(&url), Stream::cloud(&simulator.url())]);
    for (more, why) in [
        (&["--until-caught-up"][..], "asked to end before it had caught up"),
        (&["--until-caught-up", "--timeout", "20s"], "not caught up within 20s"),
    ] {
        let mut program = config.start(more, config.append());
        let cloud = async || {
            let status = program.status().await;
            let lane = status["lanes"].as_array()?.iter().find(|lane| lane["stream"] == "cloud")?.clone();
            (lane["state"] == "ended").then_some(())
        };
        program.shows("the other lane's end", cloud).await;
        program.says("cannot read from the API, trying again").await;
        if more.len() == 1 {
            program.signal("TERM");
        }
        assert_eq!(program.ended().await.code(), Some(1), "{}", program.log());
        let told = program.logged("\"not caught up: ");
        assert!(told.len() == 1 && told[0].contains("\"users\""), "{}", program.log());
        assert!(told[0].contains("\"connect\""), "{}", program.log());
        assert_eq!(program.logged(why).len(), 1, "{}", program.log());
        assert!(program.logged("\"drained\"").is_empty() && program.logged("\"caught up\"").is_empty());
    }
    state.send_replace(Gate::Open);
    config.catch_up().await;
    assert_all_arrived(&simulator, Millis::MAX, &config.events());
}

/// A key that is refused stays so until a person acts: after a minute of tries there is nothing to wait for. The other stream
/// has caught up meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_to_catch_up_does_not_wait_for_a_person() {
    let simulator = simulate(history(500)).await;
    let wrong = Stream::genauth(&simulator.url(), genauth::USER_POOL_ID, "not-the-secret");
    let config = Config::new([wrong, Stream::cloud(&simulator.url())]);
    let began = std::time::Instant::now();
    let mut program = config.start(&["--until-caught-up"], config.append());
    assert_eq!(program.ended().await.code(), Some(1), "{}", program.log());
    assert!(began.elapsed() >= trailcast::retry::PATIENCE, "{:?}", began.elapsed());
    assert_eq!(program.logged("before a person has done something").len(), 1, "{}", program.log());
    let told = program.logged("\"not caught up: ");
    assert!(told.len() == 1 && told[0].contains("\"users\"") && told[0].contains("\"credentials\""), "{told:?}");
    assert!(told[0].contains("access_key_secret"), "{told:?}");
    assert!(simulator.stats().genauth.requests >= 4, "{:?}", simulator.stats());
    let delivered = config.events();
    assert!(delivered.len() >= 500, "{}", delivered.len());
}

/// Nothing fails, and it does not get on: the likely cause is named.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_slow_says_why() {
    let simulator = simulate(history(4_000)).await;
    let config = Config::new([Stream::users(&simulator.url()).with("rate_limit", "0.3")]);
    let program = config.run();
    let line = program.says("the lane is not on schedule").await;
    assert!(line.contains("it has waited for the API for "), "{line}");
    assert!(line.contains("requests wait for their turn: rate_limit or concurrency is reached"), "{line}");
    assert!(!line.contains("for_seconds"), "it has just begun to be so: {line}");
    program.drain().await;
}

/// Every other answer is a refusal, in six words of the API, for good: each reason is told once, and the stream is not
/// called well in between.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_flaps_is_told_seldom() {
    let simulator = simulate(Options { refusals: 0.5, rate: 10.0, ..Options::default() }).await;
    let config = Config::of(&simulator).starting_at(simulator.now() - 20_000);
    let program = config.run();
    let flapped = async || {
        let stats = simulator.stats();
        let least = |of: SourceStats| of.refusals.min(of.pages);
        (least(stats.genauth).min(least(stats.scloud)) >= 8).then_some(())
    };
    program.shows("refusals and pages in turn", flapped).await;
    for stream in ["users", "cloud"] {
        let failing = async || (program.stream(stream).await["state"] == "failing").then_some(());
        program.shows("that it fails", failing).await;
        let of_stream = |line: &&String| line.contains(&format!("\"stream\":\"{stream}\""));
        let said = ["cannot read from the API", "reads from the API again", "not on schedule", "on schedule again"];
        let about = |line: &&String| said.iter().any(|said| line.contains(said));
        let lines: Vec<_> = program.lines().into_iter().filter(|line| of_stream(&line) && about(&line)).collect();
        // At each flap it would be twenty at least.
        assert!((1..=10).contains(&lines.len()), "{lines:?}");
    }
    program.drain_or_not().await;
}

/// No request is ever answered. Nothing says "ok" of that, neither before the first has run out nor after, and what is said
/// then names the cause. A restart would not mend it, so the process is ready all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_never_answers_is_never_well() {
    for start in ["now", "15m"] {
        let hangs = Options { hang: 1.0, hang_for: Duration::from_secs(3600), ..history(300) };
        let simulator = simulate(hangs).await;
        let streams = [Stream::users(&simulator.url()), Stream::cloud(&simulator.url())];
        let config = Config::new(streams.map(|stream| stream.with("start", start).with("request_timeout", "4s")));
        let program = config.run();
        let mut seen = std::collections::BTreeSet::new();
        let failing = async || {
            let hung = simulator.stats().genauth.hung.min(simulator.stats().scloud.hung);
            let status = program.status().await;
            let states: Vec<_> = ["streams", "lanes"]
                .into_iter()
                .flat_map(|all| status[all].as_array().unwrap().clone())
                .map(|one| format!("{} {}", one["state"].as_str().unwrap(), one["reason"].as_str().unwrap_or_default()))
                .collect();
            seen.extend(states.iter().map(|state| (hung > 0, state.clone())));
            states.iter().all(|state| state == "failing timeout").then_some(hung)
        };
        let hung = program.shows("streams and lanes that fail for it", failing).await;
        // Three in a row tell more than a busy machine.
        assert!((3..=4).contains(&hung), "{hung} requests without an answer, {seen:?}");
        let states: std::collections::BTreeSet<_> = seen.iter().map(|(_, state)| state.as_str()).collect();
        assert_eq!(states, ["failing timeout", "starting "].into(), "{start}: {seen:?}");
        assert!(seen.contains(&(true, "starting ".to_owned())), "it was not looked at while a request hung: {seen:?}");
        assert_eq!(program.get("/readyz").await, "ready\n");
        let of = |name: &str| format!("trailcast_lane_state{{sink=\"out\",state=\"failing\",stream=\"{name}\"}}");
        for name in ["users", "cloud"] {
            assert_eq!(program.metric(&of(name)).await, Some(1.0));
        }
        assert_eq!(
            program.logged("cannot read from the API, trying again").len(),
            2,
            "once for each: {}",
            program.log()
        );
        program.drain_or_not().await;
    }
}

/// More than the process may have of files at all stand before the admin server, and others come for those that it sends
/// away: the work has what it needs, and the low soft limit that shells give is not all that it takes.
#[tokio::test(flavor = "multi_thread")]
async fn connections_of_others_leave_the_work_its_files() {
    const FILES: usize = 96;
    let simulator = simulate(history(500)).await;
    let (url, state) = gate(&simulator, Gate::Shut).await;
    let config = Config::new([Stream::users(&url), Stream::cloud(&url)]);
    let limits = format!("ulimit -S -n 32 && ulimit -H -n {FILES}");
    let mut program = config.start_after(&limits, &["--until-caught-up"], config.append());
    let admin = program.admin().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.id())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().take(2).collect::<Vec<_>>(), ["96"; 2], "the soft limit is raised");
    let open = || std::fs::read_dir(format!("/proc/{}/fd", program.id())).unwrap().count();
    let before = open();
    let idle: Vec<_> = (0..FILES + 24)
        .map(|_| {
            tokio::spawn(async move {
                while let Ok(mut connection) = TcpStream::connect(admin).await {
                    // Says nothing until it is sent away.
                    let _ = connection.read(&mut [0]).await;
                }
            })
        })
        .collect();
    program.shows("idle connections", async || (open() >= before + FILES / 8).then_some(())).await;
    state.send_replace(Gate::Open);
    assert_eq!(program.ended().await.code(), Some(0), "{}", program.log());
    idle.iter().for_each(tokio::task::JoinHandle::abort);
    assert_all_arrived(&simulator, Millis::MAX, &config.events());
}

/// A run in which everything goes wrong, as talkative as it can be: secrets and persons stay out of the log.
async fn log_at(level: &'static str) {
    let options = Options { faults: true, hang: 0.0, refusals: 0.02, rate: 20.0, ..history(500) };
    let simulator = Arc::new(simulate(options).await);
    let (url, _state) = gate(&simulator, Gate::Says("401 Unauthorized", "{\"statusCode\":401}")).await;
    let mut config = Config::of(&simulator);
    for auth in ["token", "signature"] {
        let source = &mut config.streams[0].source;
        *source = source.replace("auth: token, ", "").replace("{ ", &format!("{{ auth: {auth}, "));
        let mut refused = Stream::users(&url);
        refused.name = "refused";
        config.streams.truncate(2);
        config.streams.push(refused);
        config.level = level;
        let program = config.run();
        let some = async || {
            let both = program.delivered("users", "out").await.min(program.delivered("cloud", "out").await);
            (both >= 300.0).then_some(())
        };
        if auth == "token" {
            program.shows("delivery", some).await;
        }
        program.says("refused").await;
        let lines = program.drain().await;
        for line in &lines {
            let json: Result<Value, _> = serde_json::from_str(line);
            assert!(json.is_ok_and(|json| json["level"].is_string() && json["timestamp"].is_string()), "{line}");
        }
        let log = lines.join("\n");
        for secret in [genauth::ACCESS_KEY_SECRET, scloud::PRIVATE_KEY, "Bearer ", "Signature=", "eyJ"] {
            assert!(!log.contains(secret), "the log tells {secret:?}");
        }
        for event in config.events() {
            let record: Value = serde_json::from_str(&event.record).unwrap();
            for field in ["userId", "clientIp", "userAgent", "UserEmail", "UserName", "RemoteIP", "requestId"] {
                let Some(said) = record[field].as_str().filter(|said| said.len() > 4) else { continue };
                let found = lines.iter().find(|line| line.contains(said));
                assert!(found.is_none(), "the log tells {field} {said:?}: {found:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_json_and_tells_no_secret_and_nobodys_data() {
    log_at("debug").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn not_even_at_the_level_trace() {
    log_at("trace").await;
}
