//! Over a real socket.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::serve::{CONNECTIONS, GRACE};
use super::*;
use std::time::{Duration, Instant};

use crate::event::{Source, StreamIdentity};
use crate::health::WaitsFor;
use crate::metrics::SinkReason;
use crate::shutdown::{self, Trigger};
use crate::source::FetchReason;

struct Running {
    address: SocketAddr,
    admin: Admin,
    drain: Trigger,
    end: Trigger,
    task: JoinHandle<io::Result<()>>,
}

async fn start() -> Running {
    let (drain, draining) = shutdown::channel();
    let (end, ended) = shutdown::channel();
    let admin =
        Admin { metrics: Metrics::new(), readiness: Readiness::default(), status: StatusBoard::default(), draining };
    let server = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = server.address();
    let task = tokio::spawn(server.serve(admin.clone(), ended));
    Running { address, admin, drain, end, task }
}

impl Running {
    /// The whole answer, its head in lower case.
    async fn get(&self, path: &str, accept: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    }
}

#[tokio::test]
async fn ready_only_between_the_last_latch_and_the_drain() {
    let running = start().await;
    let config = running.admin.readiness.hold("config");
    let checkpoint = running.admin.readiness.hold("checkpoint");
    let (head, body) = running.get("/readyz", "*/*").await;
    assert!(head.starts_with("http/1.1 503"), "{head}");
    assert_eq!(body, "waiting for: config, checkpoint\n");
    config.release();
    assert_eq!(running.get("/readyz", "*/*").await.1, "waiting for: checkpoint\n");
    checkpoint.release();
    assert!(running.get("/readyz", "*/*").await.0.starts_with("http/1.1 200"));
    running.drain.pull();
    let (head, body) = running.get("/readyz", "*/*").await;
    assert!(head.starts_with("http/1.1 503") && body == "draining\n", "{head} {body}");
    assert!(running.get("/livez", "*/*").await.0.starts_with("http/1.1 200"), "alive while draining");
}

#[tokio::test]
async fn metrics_are_served_as_text() {
    let running = start().await;
    running.admin.metrics.stream("users").records(3);
    let (head, body) = running.get("/metrics", "*/*").await;
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("trailcast_records_total{stream=\"users\"} 3\n"), "{body}");
    let (head, body) = running.get("/nothing", "*/*").await;
    assert!(head.starts_with("http/1.1 404") && body.contains("/status"), "{head} {body}");
}

#[tokio::test]
async fn status_shows_streams_and_lanes() {
    let running = start().await;
    let status = &running.admin.status;
    let identity = StreamIdentity { source: Source::Genauth, tenant: "<pool>".to_owned() };
    let stream = status.stream("users", &identity);
    stream.set_clock_offset(500);
    stream.set_clock(500, None);
    stream.set_read_through(1_767_225_600_000);
    stream.set_read_through(1_767_225_500_000);
    stream.failing(FetchReason::Throttled, "asked to wait");
    stream.failing(FetchReason::HttpStatus, "502 <script>alert(\"1\")</script>");
    let lane = status.lane("users", "out", Duration::from_secs(30));
    lane.delivered(5);
    lane.delivered(2);
    lane.set_delivered_through(1_767_225_590_000);
    lane.set_passes(vec![("live".to_owned(), 1_767_225_600_000), ("15m".to_owned(), 1_767_225_000_000)]);
    lane.failing(SinkReason::Io, "disk full");
    lane.ok();

    let (head, body) = running.get("/status", "*/*").await;
    assert!(head.contains("content-type: application/json") && head.contains("cache-control: no-store"), "{head}");
    let mut json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["version"], crate::version::VERSION);
    assert_eq!(json["ready"], true);
    let since = json["streams"][0]["since"].take();
    assert!(since.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{since}");
    for (of, lag) in [("streams", "fetch_lag_seconds"), ("lanes", "delivery_lag_seconds")] {
        assert!(json[of][0][lag].take().as_f64().is_some_and(|lag| lag > 0.0), "{lag} {body}");
    }
    let expected = serde_json::json!([{
        "name": "users", "source": "genauth", "tenant": "<pool>", "running": false, "owner": null, "state": "failing", "reason": "http_status",
        "since": null, "message": "502 <script>alert(\"1\")</script>", "clock_offset_seconds": 0.5,
        "read_through": "2026-01-01T00:00:00Z", "fetch_lag_seconds": null,
    }]);
    assert_eq!(json["streams"], expected, "{body}");
    let expected = serde_json::json!([{
        "stream": "users", "sink": "out", "state": "elsewhere", "delivered": 7, "gaps": 0, "newest_gaps": [],
        "delivered_through": "2025-12-31T23:59:50Z", "delivery_lag_seconds": null, "verified_through": null,
        "passes": { "live": "2026-01-01T00:00:00Z", "15m": "2025-12-31T23:50:00Z" },
    }]);
    assert_eq!(json["lanes"], expected, "{body}");

    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let (head, page) = running.get("/status", browser).await;
    assert!(head.contains("content-type: text/html") && head.contains("content-security-policy: "), "{head}");
    assert!(page.contains("502 &lt;script&gt;alert(&quot;1&quot;)") && page.contains("&lt;pool&gt;"), "{page}");
    assert!(!page.contains("<script") && page.contains("2025-12-31T23:59:50Z"), "{page}");
}

/// A head that does not end, and one that is larger than the server reads.
#[tokio::test]
async fn who_asks_for_too_much_is_sent_away() {
    let running = start().await;
    let mut half = TcpStream::connect(running.address).await.unwrap();
    half.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut large = TcpStream::connect(running.address).await.unwrap();
    large.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nx: ").await.unwrap();
    // It may be refused before all of it is sent.
    let _ = large.write_all(&[b'a'; 300_000]).await;
    let mut answer = Vec::new();
    let refused = large.read_to_end(&mut answer).await;
    assert!(refused.is_err() || answer.starts_with(b"HTTP/1.1 431"), "{:?}", String::from_utf8_lossy(&answer));
    answer.clear();
    // Ends by itself, or this test does not.
    half.read_to_end(&mut answer).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&answer));
    assert_eq!(running.get("/livez", "*/*").await.1, "ok\n");
}

/// More connections than the server serves at a time, all of them idle: who comes after them is answered once their time
/// is over.
#[tokio::test]
async fn idle_connections_keep_nobody_out_for_long() {
    let running = start().await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(running.address).await.unwrap());
    }
    assert_eq!(running.get("/livez", "*/*").await.1, "ok\n");
}

/// A lane that does not move is not `ok`, though nothing that it tries fails.
#[tokio::test]
async fn a_lane_that_does_not_move_says_what_it_waits_for() {
    let running = start().await;
    let status = &running.admin.status;
    let identity = StreamIdentity { source: Source::Genauth, tenant: "pool".to_owned() };
    let stream = status.stream("users", &identity);
    let lane = status.lane("users", "out", Duration::ZERO);
    stream.set_running(true, None);
    lane.set_delivered_through(crate::clock::now() - 60_000);
    lane.waits_for(WaitsFor::Sink);
    let (_, body) = running.get("/status", "*/*").await;
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["lanes"][0]["state"], "stalled", "{body}");
    let message = json["lanes"][0]["message"].as_str().unwrap();
    assert!(message.starts_with("it has waited for the sink for "), "{message}");
    let (_, metrics) = running.get("/metrics", "*/*").await;
    assert!(metrics.contains("trailcast_lane_state{sink=\"out\",state=\"stalled\",stream=\"users\"} 1\n"), "{metrics}");
    let (_, page) = running.get("/status", "text/html").await;
    assert!(page.contains("stalled<br>it has waited for the sink"), "{page}");
}

/// As where the checkpoint is in Kafka and no broker answers; one that another replica runs is that one's to judge.
#[tokio::test]
async fn a_stream_that_nobody_runs_is_not_well() {
    let running = start().await;
    let status = &running.admin.status;
    let identity = StreamIdentity { source: Source::Genauth, tenant: "pool".to_owned() };
    let stream = status.stream("users", &identity);
    let lane = status.lane("users", "out", Duration::ZERO);
    let states = async || {
        let json: serde_json::Value = serde_json::from_str(&running.get("/status", "*/*").await.1).unwrap();
        let state = |of: &str| json[of][0]["state"].as_str().unwrap().to_owned();
        (state("streams"), state("lanes"), json["lanes"][0]["message"].clone())
    };
    lane.failing(SinkReason::Checkpoint, "no broker answers");
    assert_eq!(states().await, ("starting".to_owned(), "failing".to_owned(), "no broker answers".into()));
    lane.ok();
    stream.set_running(false, Some("other"));
    assert_eq!(states().await, ("ok".to_owned(), "elsewhere".to_owned(), serde_json::Value::Null));
}

/// What waits for a person is what has failed for long for such a reason, and gives and stores nothing meanwhile; and as long
/// as any lane may go on, that is waited for.
#[test]
fn a_person_is_waited_for_where_nothing_else_can_help() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let status = StatusBoard::default();
    let identity = StreamIdentity { source: Source::Genauth, tenant: "pool".to_owned() };
    let (users, cloud) = (status.stream("users", &identity), status.stream("cloud", &identity));
    let lanes = ["users", "cloud"].map(|stream| status.lane(stream, "out", PATIENCE));
    let began = Instant::now();
    let later = || Instant::now() + PATIENCE;
    assert!(!status.needs_person(later(), PATIENCE), "nothing runs here");
    users.set_running(true, None);
    cloud.set_running(true, None);
    users.failing(FetchReason::Credentials, "no such key");
    assert!(!status.needs_person(later(), PATIENCE), "the other stream");
    lanes[1].ended(End::CaughtUp);
    assert!(status.needs_person(later(), PATIENCE));
    assert!(!status.needs_person(began + PATIENCE / 2, PATIENCE), "too soon");
    let unfinished = status.unfinished();
    assert!(unfinished.len() == 1 && unfinished[0].stream == "users", "{unfinished:?}");
    assert_eq!((unfinished[0].reason, unfinished[0].message.as_str()), (Some("credentials"), "no such key"));
    users.failing(FetchReason::Connect, "no connection");
    assert!(!status.needs_person(later(), PATIENCE), "that may pass");
    users.failing(FetchReason::Refused, "no right");
    assert!(status.needs_person(later(), PATIENCE));
    // An API that flaps gives pages, and a lane that stores something gets on.
    let before = Instant::now();
    users.heard();
    let heard = Instant::now();
    assert!(!status.needs_person(before + PATIENCE - Duration::from_nanos(1), PATIENCE), "a page came");
    assert!(status.needs_person(heard + PATIENCE, PATIENCE));
    users.ok();
    lanes[0].failing(SinkReason::Refused, "no such topic");
    assert!(status.needs_person(later(), PATIENCE), "a sink");
    lanes[0].set_delivered_through(1_767_225_590_000);
    assert!(!status.needs_person(heard + PATIENCE, PATIENCE));
    // What has caught up stays so.
    lanes[1].ended(End::Asked);
    assert!(status.has_caught_up("cloud", "out") && !status.has_caught_up("users", "out"));
}

#[test]
fn only_who_prefers_html_gets_a_page() {
    for (accept, html) in [
        ("", false),
        ("*/*", false),
        ("application/json", false),
        ("text/html", true),
        ("text/html, application/json", false),
        ("text/html;q=0.5, application/json", false),
        ("application/json;q=0.5, text/*", true),
        ("text/html;q=0", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        assert_eq!(prefers_html(&headers), html, "{accept}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_key() {
    let running = start().await;
    let error = Server::bind(running.address).await.unwrap_err().to_string();
    assert!(error.contains("admin.listen") && error.contains(&running.address.to_string()), "{error}");
}

#[tokio::test]
async fn it_ends_when_asked_whoever_is_still_connected() {
    let running = start().await;
    // All places are taken by those who never finish asking; one more waits in the system's queue.
    let mut idle = Vec::new();
    for _ in 0..=CONNECTIONS {
        let mut connection = TcpStream::connect(running.address).await.unwrap();
        connection.write_all(b"GET /livez HT").await.unwrap();
        idle.push(connection);
    }
    running.end.pull();
    let ended = tokio::time::timeout(GRACE * 5, running.task).await;
    ended.unwrap().unwrap().unwrap();
}
