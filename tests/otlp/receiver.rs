//! The Collector and VictoriaLogs as a test needs them: started, stopped, killed, started again, and asked what they have.
//! Alone knows how they are started.
//!
//! Ports lie below those that the system hands out to outgoing connections, so that a receiver that was killed finds
//! them free again.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::RngExt;
use serde_json::Value;
use tempfile::TempDir;
use trailcast::event::{Millis, Source};

use crate::ledger::Event;
use crate::loki_double::Loki;
use crate::program::{BOUND, until};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/otlp");
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// A process that is killed when dropped.
struct Server {
    folder: TempDir,
    script: &'static str,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Server {
    fn start(&mut self) {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(self.folder.path().join("log")).unwrap();
        let mut command = Command::new(format!("{SCRIPTS}/{}", self.script));
        command.arg(self.folder.path()).args(&self.arguments).stdin(Stdio::null());
        self.child = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn signal(&self, name: &str) {
        let Some(child) = &self.child else { return };
        Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    }

    /// Waits for its end.
    async fn ended(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let wait = tokio::task::spawn_blocking(move || child.wait().unwrap());
        tokio::time::timeout(BOUND, wait).await.expect("it ends").unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn free_port() -> u16 {
    loop {
        let port = rand::rng().random_range(PORTS);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn client() -> reqwest::Client {
    trailcast::source::install_tls_provider();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap()
}

/// An event of a log record, and the resource that it came with.
#[derive(Debug, Clone)]
pub struct Arrived {
    pub event: Event,
    /// The body.
    pub line: String,
    /// Of the resource; Loki's labels, or the fields that make VictoriaLogs' streams.
    pub labels: BTreeMap<String, String>,
    pub attributes: BTreeMap<String, String>,
}

/// The OpenTelemetry Collector, which writes down what it is given.
pub struct Collector {
    server: Server,
    pub grpc: u16,
    pub http: u16,
    client: reqwest::Client,
}

impl Collector {
    pub async fn start() -> Self {
        Self::start_with([]).await
    }

    /// One that passes on what it is given, by the pipelines that are shipped for it, and answers when both have.
    pub async fn into_stores(loki: &Loki, store: &VictoriaLogs) -> Self {
        Self::start_with([loki.url("/otlp"), store.url("/insert/opentelemetry")]).await
    }

    async fn start_with(stores: impl IntoIterator<Item = String>) -> Self {
        let (grpc, http) = (free_port(), free_port());
        let arguments = [grpc.to_string(), http.to_string()].into_iter().chain(stores).collect();
        let folder = tempfile::tempdir().unwrap();
        let server = Server { folder, script: "collector", arguments, child: None };
        let mut collector = Self { server, grpc, http, client: client() };
        collector.restart().await;
        collector
    }

    pub async fn restart(&mut self) {
        self.server.start();
        let port = self.http;
        let there = async || tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok().map(drop);
        until("the Collector", || self.server.log(), there).await;
    }

    /// At once, as a power cut would.
    pub async fn kill(&mut self) {
        self.server.signal("KILL");
        self.server.ended().await;
    }

    /// The sink that leads here.
    pub fn sink(&self, protocol: &str, more: &str) -> String {
        let port = if protocol == "grpc" { self.grpc } else { self.http };
        format!("{{ out: {{ otlp: {{ endpoint: \"http://127.0.0.1:{port}\", protocol: {protocol}{more} }} }} }}")
    }

    /// Posts a request to it as it is.
    ///
    /// # Panics
    /// Unless it takes it.
    pub async fn post(&self, request: Vec<u8>) {
        let url = format!("http://127.0.0.1:{}/v1/logs", self.http);
        let post = self.client.post(url).header("content-type", "application/x-protobuf").body(request);
        let answer = post.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}\n{}", answer.text().await.unwrap(), self.server.log());
    }

    /// All that it has written down.
    pub fn arrived(&self) -> Vec<Arrived> {
        let text = std::fs::read_to_string(self.server.folder.path().join("out/logs.json")).unwrap_or_default();
        text.lines().filter_map(request).flat_map(|request| records(&request)).collect()
    }

    /// What stands below `traces` to have them sent here.
    pub fn traces(&self) -> String {
        format!("{{ otlp: {{ endpoint: \"http://127.0.0.1:{}\" }} }}", self.grpc)
    }

    /// All traces that it has written down, as it wrote them: a request a line.
    pub fn traced(&self) -> String {
        std::fs::read_to_string(self.server.folder.path().join("out/traces.json")).unwrap_or_default()
    }
}

/// A line; where a kill has torn one, the next goes on behind it.
fn request(line: &str) -> Option<Value> {
    let mut begins = line.rmatch_indices("{\"resourceLogs\"").map(|(at, _)| at);
    begins.find_map(|at| serde_json::from_str(&line[at..]).ok())
}

fn records(request: &Value) -> Vec<Arrived> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut arrived = Vec::new();
    let resources = list(&request["resourceLogs"]);
    assert_eq!(resources.len(), 1, "one resource a request");
    for resource in resources {
        let labels = attributes(&resource["resource"]["attributes"]);
        for record in list(&resource["scopeLogs"]).iter().flat_map(|scope| list(&scope["logRecords"])) {
            assert_eq!(record["observedTimeUnixNano"].as_str().unwrap_or("0"), "0");
            let attributes = attributes(&record["attributes"]);
            assert_eq!(record["eventName"].as_str(), attributes.get("trailcast.type").map(String::as_str));
            let time: i64 = record["timeUnixNano"].as_str().unwrap().parse().unwrap();
            let event = Event {
                id: attributes["log.record.uid"].clone(),
                source: source(&labels["service.name"]),
                time: time / 1_000_000,
                record: attributes["log.record.original"].clone(),
            };
            let line = record["body"]["stringValue"].as_str().unwrap().to_owned();
            arrived.push(Arrived { event, line, labels: labels.clone(), attributes });
        }
    }
    arrived
}

pub fn attributes(list: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value["stringValue"].as_str().map_or_else(|| value.to_string(), str::to_owned);
    let one = |one: &Value| (one["key"].as_str().unwrap().to_owned(), text(&one["value"]));
    list.as_array().into_iter().flatten().map(one).collect()
}

pub fn source(name: &str) -> Source {
    match name {
        "genauth" => Source::Genauth,
        "scloud" => Source::Scloud,
        other => panic!("{other}"),
    }
}

/// VictoriaLogs, with the flags that are shipped for it and those that a test gives it.
pub struct VictoriaLogs {
    server: Server,
    port: u16,
    client: reqwest::Client,
}

impl VictoriaLogs {
    /// `flags` are of VictoriaLogs; each wins over a shipped one of its name.
    pub async fn start(flags: &[&str]) -> Self {
        let port = free_port();
        let arguments = std::iter::once(port.to_string()).chain(flags.iter().map(ToString::to_string)).collect();
        let server = Server { folder: tempfile::tempdir().unwrap(), script: "victorialogs", arguments, child: None };
        let mut store = Self { server, port, client: client() };
        store.restart().await;
        store
    }

    /// With other `flags`, after its end.
    pub async fn restart_with(&mut self, flags: &[&str]) {
        self.server.arguments.truncate(1);
        self.server.arguments.extend(flags.iter().map(ToString::to_string));
        self.restart().await;
    }

    pub async fn restart(&mut self) {
        self.server.start();
        let ready = async || {
            let answer = self.client.get(self.url("/health")).send().await.ok()?;
            (answer.status() == 200).then_some(())
        };
        until("VictoriaLogs", || self.server.log(), ready).await;
    }

    /// As it is meant to be ended.
    pub async fn stop(&mut self) {
        self.server.signal("TERM");
        self.server.ended().await;
    }

    /// At once, as when memory ran out.
    pub async fn kill(&mut self) {
        self.server.signal("KILL");
        self.server.ended().await;
    }

    pub fn log(&self) -> String {
        self.server.log()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The sink that leads here, with the headers that are shipped for it.
    pub fn sink(&self, more: &str) -> String {
        let endpoint = self.url("/insert/opentelemetry");
        let headers = "headers: { VL-Stream-Fields: \"service.name,service.namespace\" }";
        format!("{{ out: {{ otlp: {{ endpoint: \"{endpoint}\", {headers}{more} }} }} }}")
    }

    /// Posts a request of OTLP, as anyone may; the status and the body of its answer.
    pub async fn post(&self, request: Vec<u8>) -> (u16, String) {
        let url = self.url("/insert/opentelemetry/v1/logs");
        let post = self.client.post(url).header("content-type", "application/x-protobuf").body(request);
        let answer = post.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Every row that it has, copies and all.
    pub async fn entries(&self) -> Vec<Arrived> {
        self.rows("*", None).await.iter().map(stored).collect()
    }

    /// The rows that a query gives of what was taken until now. It is asked at a time: `_time:1h` is the hour that ends with
    /// it.
    pub async fn rows(&self, query: &str, at: Option<Millis>) -> Vec<BTreeMap<String, String>> {
        // What has just come is not shown for a second or so, unless that is asked for.
        self.get("/internal/force_flush", &[]).await;
        // It takes what comes before that time, and not what comes with it.
        let time = at.map(|at| ("time", format!("{at}000001")));
        let words: Vec<_> = [("query", query.to_owned())].into_iter().chain(time).collect();
        let text = self.get("/select/logsql/query", &words).await;
        text.lines().map(|line| texts(&serde_json::from_str(line).unwrap())).collect()
    }

    /// What a query for numbers gives at a time: each number, by the value of the one field beside it.
    pub async fn numbers(&self, query: &str, at: Millis) -> BTreeMap<String, u64> {
        let number = |mut row: BTreeMap<String, String>| {
            let number = row.remove("events").and_then(|number| number.parse().ok());
            assert!(row.len() == 1, "{query}: {row:?}");
            (row.into_values().next().unwrap(), number.unwrap_or_else(|| panic!("{query}")))
        };
        self.rows(query, Some(at)).await.into_iter().map(number).collect()
    }

    /// A counter or gauge of its own, over all series that begin so.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics", &[]).await;
        let series = text.lines().filter(|line| line.starts_with(name));
        series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    async fn get(&self, path: &str, words: &[(&str, String)]) -> String {
        let mut url = reqwest::Url::parse(&self.url(path)).unwrap();
        url.query_pairs_mut().extend_pairs(words);
        let answer = self.client.get(url).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 200, "{words:?}: {text}");
        text
    }
}

/// A row as an event; its stream's fields are its labels.
fn stored(row: &BTreeMap<String, String>) -> Arrived {
    let time: jiff::Timestamp = row["_time"].parse().unwrap();
    let event = Event {
        id: row["log.record.uid"].clone(),
        source: source(&row["service.name"]),
        time: time.as_millisecond(),
        record: row["log.record.original"].clone(),
    };
    let stream = row["_stream"].trim_start_matches('{').trim_end_matches("\"}");
    let labels = stream.split("\",").filter_map(|one| one.split_once("=\""));
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let own = |name: &str| !name.starts_with('_');
    let attributes = row.iter().filter(|(name, _)| own(name)).map(|(name, value)| (name.clone(), value.clone()));
    Arrived { event, line: row["_msg"].clone(), labels, attributes: attributes.collect() }
}

fn texts(map: &Value) -> BTreeMap<String, String> {
    let one = |(name, value): (&String, &Value)| (name.clone(), value.as_str().unwrap().to_owned());
    map.as_object().into_iter().flatten().map(one).collect()
}
