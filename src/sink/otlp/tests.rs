//! The sink before doubles of receivers, over real sockets: each answer ends as delivered, to be tried again, or a dead
//! letter.

mod double;

use std::time::Duration;

use bytes::Bytes;

use self::double::{Grpc, Http, Say};
use super::*;
use crate::config::{self, SinkConfig};
use crate::dead_letter::DeadLetterReason;
use crate::event::{Admitted, Fingerprint, Source, StreamIdentity};

const EVENTS: usize = 20;

fn stream() -> StreamContext {
    let identity = StreamIdentity { source: Source::Genauth, tenant: "pool".to_owned() };
    StreamContext { identity, name: "users".to_owned() }
}

fn event(n: usize, time: i64, detail: &str) -> New {
    let fingerprint = Fingerprint([u8::try_from(n).unwrap(); 16]);
    let raw =
        Bytes::from(format!(r#"{{"eventType":"login","eventDetail":"{detail}","timestamp":"2026-01-01T00:00:00Z"}}"#));
    let id = EventId::new(&stream().identity, fingerprint, 0);
    New { admitted: Admitted { id, ordinal: 0, late: false, time, raw }, fingerprint, placed: true }
}

/// Recent events, the third of which a double can be told to refuse.
fn part() -> Vec<New> {
    let now = clock::now();
    let time = |n: usize| now - 1000 + i64::try_from(n).unwrap();
    (0..EVENTS).map(|n| event(n, time(n), if n == 2 { "poison" } else { "fine" })).collect()
}

fn sink(keys: &str) -> OtlpSink {
    crate::source::install_tls_provider();
    let text = format!(
        "streams: {{ users: {{ genauth: {{ user_pool_id: p, access_key_id: k, access_key_secret: {{ env: E }} }} }} }}\n\
         sinks: {{ o: {{ otlp: {{ {keys} }} }} }}\n"
    );
    let loaded = config::parse(std::path::Path::new("t.yaml"), &text).unwrap_or_else(|errors| panic!("{errors}"));
    let SinkConfig::Otlp(otlp) = &loaded.config.sinks["o"] else { panic!("{keys}") };
    OtlpSink::new((**otlp).clone())
}

/// How a part ended: what arrived, and the error or what was refused.
#[derive(Debug, PartialEq)]
enum End {
    /// All of it, whole and once the call is over.
    Delivered,
    /// The whole part is to be tried again.
    Retry(SinkReason, Option<Duration>),
    /// These were refused; all others arrived.
    Letters(Vec<usize>, DeadLetterReason),
}

async fn end(sink: &OtlpSink, arrived: impl Fn() -> usize) -> End {
    match sink.deliver(&stream(), &part()).await {
        Ok(refused) => {
            assert_eq!(arrived(), EVENTS - refused.len(), "what is not refused has arrived");
            match refused.first() {
                None => End::Delivered,
                Some(first) => {
                    assert!(refused.iter().all(|refused| refused.reason == first.reason));
                    End::Letters(refused.iter().map(|refused| refused.index).collect(), first.reason)
                }
            }
        }
        Err(error) => End::Retry(error.reason(), error.retry_after()),
    }
}

#[tokio::test]
async fn every_http_answer_ends_as_it_should() {
    use DeadLetterReason::{Dropped, Rejected, TooLarge};
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let all: Vec<usize> = (0..EVENTS).collect();
    let rows = [
        (Say::Status(200), End::Delivered),
        (Say::Status(204), End::Delivered),
        (Say::Status(260), End::Letters(all, Dropped)),
        (Say::Poison(400), End::Letters(vec![2], Rejected)),
        (Say::Poison(422), End::Letters(vec![2], Rejected)),
        (Say::Poison(413), End::Letters(vec![2], TooLarge)),
        (Say::Partial { counted: true }, End::Letters(vec![2], Rejected)),
        (Say::Partial { counted: false }, End::Delivered),
        // Nothing passes: someone must act, and nothing is given up.
        (Say::Status(400), End::Retry(SinkReason::Refused, None)),
        (Say::Status(413), End::Retry(SinkReason::Refused, None)),
        (Say::Blank, End::Retry(SinkReason::Refused, None)),
        (Say::Portal, End::Retry(SinkReason::Refused, None)),
        (Say::Mute, End::Delivered),
        (Say::Json("{}"), End::Delivered),
        (Say::Json("{\"partialSuccess\":{}}"), End::Delivered),
        (Say::Status(401), End::Retry(SinkReason::Credentials, None)),
        (Say::Status(403), End::Retry(SinkReason::Refused, None)),
        (Say::Status(404), End::Retry(SinkReason::Refused, None)),
        (Say::Status(301), End::Retry(SinkReason::Refused, None)),
        (Say::Status(429), End::Retry(SinkReason::Throttled, None)),
        (Say::Wait(429, "7"), End::Retry(SinkReason::Throttled, seconds(7))),
        (Say::Wait(503, "Thu, 01 Jan 1970 00:00:09 GMT"), End::Retry(SinkReason::Unavailable, seconds(9))),
        (Say::Status(500), End::Retry(SinkReason::Unavailable, None)),
        (Say::Status(502), End::Retry(SinkReason::Unavailable, None)),
        (Say::Status(503), End::Retry(SinkReason::Unavailable, None)),
        (Say::Status(504), End::Retry(SinkReason::Unavailable, None)),
        (Say::Page, End::Retry(SinkReason::Refused, None)),
        (Say::Torn, End::Retry(SinkReason::Connect, None)),
        (Say::HangUp, End::Retry(SinkReason::Connect, None)),
        (Say::Nothing, End::Retry(SinkReason::Timeout, None)),
    ];
    for compression in ["gzip", "zstd", "none"] {
        for (say, expected) in &rows {
            // A hang takes as long as the timeout, once.
            if *say == Say::Nothing && compression != "gzip" {
                continue;
            }
            let double = Http::start(say.clone()).await;
            let timeout = if *say == Say::Nothing { "300ms" } else { "30s" };
            let url = double.url();
            let keys = format!("endpoint: \"{url}\", compression: {compression}, request_timeout: {timeout}");
            let ended = end(&sink(&keys), || double.arrived()).await;
            assert_eq!(ended, *expected, "{say:?} with {compression}");
        }
    }
}

#[tokio::test]
async fn every_grpc_answer_ends_as_it_should() {
    use DeadLetterReason::{Rejected, TooLarge};
    use tonic::Code;
    let rows = [
        (Say::Code(Code::Ok), End::Delivered),
        (Say::PoisonCode(Code::InvalidArgument, "no"), End::Letters(vec![2], Rejected)),
        (
            Say::PoisonCode(Code::ResourceExhausted, "grpc: received message larger than max (5 vs. 4)"),
            End::Letters(vec![2], TooLarge),
        ),
        (Say::Partial { counted: true }, End::Letters(vec![2], Rejected)),
        (Say::Partial { counted: false }, End::Delivered),
        (Say::Code(Code::InvalidArgument), End::Retry(SinkReason::Refused, None)),
        // What our own client says of an answer is no verdict on an event.
        (Say::Talkative, End::Retry(SinkReason::Unavailable, None)),
        (Say::Code(Code::Unavailable), End::Retry(SinkReason::Unavailable, None)),
        (Say::Code(Code::ResourceExhausted), End::Retry(SinkReason::Throttled, None)),
        (Say::RetryInfo(3), End::Retry(SinkReason::Throttled, Some(Duration::from_secs(3)))),
        (Say::Code(Code::Unauthenticated), End::Retry(SinkReason::Credentials, None)),
        (Say::Code(Code::PermissionDenied), End::Retry(SinkReason::Refused, None)),
        (Say::Code(Code::Unimplemented), End::Retry(SinkReason::Refused, None)),
        (Say::Code(Code::DeadlineExceeded), End::Retry(SinkReason::Timeout, None)),
        (Say::Code(Code::Internal), End::Retry(SinkReason::Unavailable, None)),
        (Say::Code(Code::Unknown), End::Retry(SinkReason::Unavailable, None)),
        (Say::Nothing, End::Retry(SinkReason::Timeout, None)),
    ];
    for compression in ["gzip", "zstd", "none"] {
        for (say, expected) in &rows {
            if *say == Say::Nothing && compression != "gzip" {
                continue;
            }
            let double = Grpc::start(say.clone()).await;
            let timeout = if *say == Say::Nothing { "300ms" } else { "30s" };
            let keys = format!(
                "endpoint: \"{}\", protocol: grpc, compression: {compression}, request_timeout: {timeout}",
                double.url()
            );
            assert_eq!(end(&sink(&keys), || double.arrived()).await, *expected, "{say:?} with {compression}");
        }
    }
}

/// Time goes on, and nobody waits for it.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Delivers as a lane does, with its clock in place of its waits: what is refused, after how many tries and how long.
async fn in_the_end(sink: &OtlpSink) -> (Vec<Refused>, u32, Duration) {
    let (part, begun) = (part(), Instant::now());
    for tries in 0..200 {
        match sink.deliver(&stream(), &part).await {
            Ok(refused) => return (refused, tries, begun.elapsed()),
            Err(error) => pass(error.retry_after().unwrap_or(Duration::from_secs(1))).await,
        }
    }
    panic!("it is tried without end");
}

#[tokio::test]
async fn an_event_that_fails_alone_is_a_dead_letter_after_minutes_in_which_others_pass() {
    use DeadLetterReason::{Rejected, TooLarge};
    use tonic::Code;
    let minutes = |took: Duration| took >= Duration::from_secs(270) && took < Duration::from_secs(600);
    for (status, reason) in [(429, TooLarge), (500, Rejected), (403, Rejected)] {
        let double = Http::start(Say::Poison(status)).await;
        let sink = sink(&format!("endpoint: \"{}\"", double.url()));
        let (refused, tries, took) = in_the_end(&sink).await;
        assert_eq!(refused.iter().map(|one| (one.index, one.reason)).collect::<Vec<_>>(), [(2, reason)], "{status}");
        assert!(refused[0].message.starts_with(&format!("HTTP {status}")), "{refused:?}");
        assert!(minutes(took) && tries > 8, "{status}: given up after {tries} tries in {took:?}");
        assert_eq!(double.arrived(), EVENTS - 1);
    }
    for (code, reason) in [(Code::ResourceExhausted, TooLarge), (Code::Internal, Rejected)] {
        let double = Grpc::start(Say::PoisonCode(code, "quota: message size per day")).await;
        let sink = sink(&format!("endpoint: \"{}\", protocol: grpc", double.url()));
        let (refused, tries, took) = in_the_end(&sink).await;
        assert_eq!(refused.iter().map(|one| (one.index, one.reason)).collect::<Vec<_>>(), [(2, reason)], "{code:?}");
        assert!(minutes(took) && tries > 8, "{code:?}: given up after {tries} tries in {took:?}");
        assert_eq!(double.arrived(), EVENTS - 1);
    }
}

/// A server that goes away politely, one that talks nonsense, one that hangs up, and none at all.
#[tokio::test]
async fn a_broken_connection_is_tried_again() {
    for protocol in ["http", "grpc"] {
        for say in [Say::GoAway, Say::HangUp, Say::Torn] {
            let double = Http::start(say.clone()).await;
            let sink = sink(&format!("endpoint: \"{}\", protocol: {protocol}, request_timeout: 5s", double.url()));
            let ended = end(&sink, || 0).await;
            assert!(
                matches!(ended, End::Retry(SinkReason::Connect | SinkReason::Unavailable, None)),
                "{say:?} with {protocol}: {ended:?}"
            );
        }
        let sink = sink(&format!("endpoint: \"http://127.0.0.1:1\", protocol: {protocol}"));
        assert_eq!(end(&sink, || 0).await, End::Retry(SinkReason::Connect, None), "{protocol}");
    }
}

/// A server that says goodbye to a request that it has begun to read, and one that says nothing any more: the second is
/// noticed by its silence, long before the request's own timeout.
#[tokio::test]
async fn a_grpc_server_that_leaves_amid_a_request_or_falls_silent_is_noticed() {
    for say in [Say::GoAwayAmid, Say::Nothing] {
        let double = Http::start(say.clone()).await;
        let keys = "connect_timeout: 200ms, keepalive: 100ms, request_timeout: 10m";
        let sink = sink(&format!("endpoint: \"{}\", protocol: grpc, {keys}", double.url()));
        let ended = tokio::time::timeout(Duration::from_secs(60), end(&sink, || 0)).await.expect("it is noticed");
        assert!(matches!(ended, End::Retry(SinkReason::Connect | SinkReason::Unavailable, None)), "{say:?}: {ended:?}");
    }
}

/// A server that says goodbye and then answers what is under way, as for an upgrade: that is delivered, and the next
/// request finds the server that follows.
#[tokio::test]
async fn what_is_under_way_when_a_grpc_server_drains_is_delivered() {
    let draining = Grpc::start(Say::Farewell).await;
    let sink = sink(&format!("endpoint: \"{}\", protocol: grpc", draining.url()));
    assert_eq!(end(&sink, || draining.arrived()).await, End::Delivered);
    let address = draining.address;
    draining.ended().await;
    let next = Grpc::start_at(address, Say::Code(tonic::Code::Ok)).await;
    assert_eq!(end(&sink, || next.arrived()).await, End::Delivered);
}

/// The environment is a whole process's, so this one starts itself anew.
#[tokio::test]
async fn http_goes_through_the_environments_proxy() {
    let proxy = Http::start(Say::Status(204)).await;
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sink::otlp::tests::child_behind_a_proxy", "--ignored"])
        .envs([("HTTP_PROXY", proxy.url()), ("http_proxy", proxy.url())])
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(proxy.arrived(), EVENTS);
    let head = &proxy.heads()[0];
    assert!(head.starts_with("POST http://collector.invalid:4318/v1/logs HTTP/1.1"), "{head}");
}

#[tokio::test]
#[ignore = "a child of http_goes_through_the_environments_proxy"]
async fn child_behind_a_proxy() {
    // Nobody finds a host of this name.
    let sink = sink("endpoint: \"http://collector.invalid:4318\"");
    assert_eq!(sink.deliver(&stream(), &part()).await.unwrap(), []);
}

/// The same client, which lost its connection, finds the server that came back at the same place.
#[tokio::test]
async fn a_receiver_that_comes_back_is_found() {
    for protocol in ["http", "grpc"] {
        let broken = Http::start(Say::GoAway).await;
        let address = broken.address;
        let sink = sink(&format!("endpoint: \"{}\", protocol: {protocol}, request_timeout: 5s", broken.url()));
        assert!(matches!(end(&sink, || 0).await, End::Retry(..)));
        drop(broken);
        let arrived: Box<dyn Fn() -> usize> = if protocol == "http" {
            let double = Http::start_at(address, Say::Status(204)).await;
            Box::new(move || double.arrived())
        } else {
            let double = Grpc::start_at(address, Say::Code(tonic::Code::Ok)).await;
            Box::new(move || double.arrived())
        };
        assert_eq!(end(&sink, arrived).await, End::Delivered, "{protocol}");
    }
}

/// What is sent again is equal to the byte, and what is known stays known.
#[tokio::test]
async fn a_part_is_tried_again_with_the_same_bytes() {
    let double = Http::start(Say::First(Box::new(Say::Status(503)), 2)).await;
    let sink = sink(&format!("endpoint: \"{}\", max_request_events: 10", double.url()));
    // One part, as the lane has it.
    let part = part();
    for _ in 0..2 {
        sink.deliver(&stream(), &part).await.unwrap_err();
    }
    assert_eq!(sink.deliver(&stream(), &part).await.unwrap(), []);
    let bodies = double.bodies();
    assert_eq!(bodies.len(), 4, "thrice the first ten, once the others");
    assert!(bodies[0] == bodies[1] && bodies[1] == bodies[2] && bodies[2] != bodies[3]);
    assert_eq!(double.arrived(), EVENTS);
}

#[tokio::test]
async fn old_events_are_a_stream_of_their_own_or_treated_as_the_policy_says() {
    let now = clock::now();
    let part =
        [event(0, now - 1000, "new"), event(1, now - 2 * 3_600_000, "old"), event(2, now - 48 * 3_600_000, "older")];
    for (keys, requests, refused) in [
        ("", vec![(Some("backfill".to_owned()), 2), (None, 1)], 0),
        ("max_event_age: 1d", vec![(Some("backfill".to_owned()), 1), (None, 1)], 1),
        ("max_event_age: 1d, max_event_age_policy: send", vec![(Some("backfill".to_owned()), 2), (None, 1)], 0),
        ("max_event_age: 1d, max_event_age_policy: clamp", vec![(Some("backfill".to_owned()), 2), (None, 1)], 0),
        ("backfill: { older_than: 100d }", vec![(None, 3)], 0),
    ] {
        let double = Http::start(Say::Status(200)).await;
        let comma = if keys.is_empty() { "" } else { ", " };
        let sink = sink(&format!("endpoint: \"{}\"{comma}{keys}", double.url()));
        let letters = sink.deliver(&stream(), &part).await.unwrap();
        assert_eq!(letters.len(), refused, "{keys}");
        assert!(letters.iter().all(|letter| (letter.index, letter.reason) == (2, DeadLetterReason::TooOld)), "{keys}");
        assert_eq!(double.streams(), requests, "{keys}");
        assert!(double.times().is_sorted(), "{keys}: {:?}", double.times());
        if keys.contains("clamp") {
            let times = double.times();
            assert!(times[0] > now - 25 * 3_600_000 && times[0] % 3_600_000 == 0, "{times:?}");
        }
    }
}

#[tokio::test]
async fn headers_are_sent_and_their_secrets_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "Bearer hunter2\n").unwrap();
    let headers = format!("headers: {{ X-Scope-OrgID: t1, Authorization: {{ file: \"{}\" }} }}", token.display());
    let http = Http::start(Say::EchoRefusal).await;
    let error = end_error(&sink(&format!("endpoint: \"{}\", {headers}", http.url()))).await;
    assert!(error.contains("HTTP 401") && !error.contains("hunter2"), "{error}");
    assert!(http.heads()[0].contains("authorization: Bearer hunter2") && http.heads()[0].contains("x-scope-orgid: t1"));
    let grpc = Grpc::start(Say::EchoRefusal).await;
    let error = end_error(&sink(&format!("endpoint: \"{}\", protocol: grpc, {headers}", grpc.url()))).await;
    assert!(error.contains("look at `headers`") && !error.contains("hunter2"), "{error}");
    std::fs::remove_file(&token).unwrap();
    let error = end_error(&sink(&format!("endpoint: \"{}\", {headers}", http.url()))).await;
    assert!(error.starts_with("headers.authorization: cannot read the secret file"), "{error}");
}

async fn end_error(sink: &OtlpSink) -> String {
    let error = sink.deliver(&stream(), &part()).await.unwrap_err();
    assert_eq!(error.reason(), SinkReason::Credentials);
    format!("{error}")
}

#[tokio::test]
async fn a_probe_delivers_nothing_and_tells_who_is_there() {
    for (say, good) in [
        (Say::Status(200), true),
        (Say::Status(422), true),
        (Say::Status(401), false),
        (Say::Status(404), false),
        (Say::Page, false),
        (Say::Blank, false),
        (Say::Portal, false),
        (Say::Mute, true),
        (Say::HangUp, false),
    ] {
        let double = Http::start(say.clone()).await;
        let result = sink(&format!("endpoint: \"{}\"", double.url())).probe().await;
        assert_eq!(result.is_ok(), good, "{say:?}: {result:?}");
        assert_eq!(double.arrived(), 0);
    }
}

#[tokio::test]
async fn tls_trusts_whom_it_is_told_to_and_shows_what_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (ca, certificate) =
        (file("ca.pem", double::AUTHORITY), file("client.pem", include_str!("tests/tls/client.pem")));
    let key = file("client.key", include_str!("tests/tls/client.key"));
    let mutual = format!("tls: {{ ca_file: \"{ca}\", certificate_file: \"{certificate}\", key_file: \"{key}\" }}");
    let trusting = format!("tls: {{ ca_file: \"{ca}\" }}");
    for (asks, tls, good) in [
        (false, trusting.as_str(), true),
        (false, "tls: {}", false),
        (true, mutual.as_str(), true),
        (true, trusting.as_str(), false),
    ] {
        let double = Grpc::start_secured(asks).await;
        let url = format!("https://localhost:{}", double.address.port());
        let sink = sink(&format!("endpoint: \"{url}\", protocol: grpc, {tls}"));
        let expected = if good { End::Delivered } else { End::Retry(SinkReason::Connect, None) };
        assert_eq!(end(&sink, || double.arrived()).await, expected, "asks: {asks}, {tls}");
    }
    let port = double::https();
    for (tls, good) in [(mutual.as_str(), true), (trusting.as_str(), false), ("tls: {}", false)] {
        let result = sink(&format!("endpoint: \"https://localhost:{port}\", {tls}")).probe().await;
        assert_eq!(result.is_ok(), good, "{tls}: {result:?}");
    }
    let missing = sink("endpoint: https://localhost:1, tls: { ca_file: /none.pem }").probe().await.unwrap_err();
    assert_eq!(missing.reason(), SinkReason::Credentials);
    assert!(missing.to_string().starts_with("tls.ca_file: cannot read `/none.pem`"), "{missing}");
}
