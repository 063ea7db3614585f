//! The Collector and Loki as a test needs them: started, stopped, killed, started again, and asked what they have. Alone
//! knows how they are started.
//!
//! Ports lie below those that the system hands out to outgoing connections, so that a receiver that was killed finds
//! them free again.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::RngExt;
use serde_json::Value;
use tempfile::TempDir;
use trailcast::event::{Millis, Source};

use crate::ledger::Event;
use crate::program::{BOUND, until};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/otlp");
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// Entries to ask Loki for at once: it gives 5,000, and no more than 4 MiB.
const PAGE: usize = 1000;

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

fn free_port() -> u16 {
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
    /// Of the resource, or Loki's labels.
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
        Self::start_with(None).await
    }

    /// One that passes on to Loki what it is given, by the pipeline that is shipped for it, and answers when Loki has.
    pub async fn into_loki(loki: &Loki) -> Self {
        Self::start_with(Some(loki.url("/otlp"))).await
    }

    async fn start_with(loki: Option<String>) -> Self {
        let (grpc, http) = (free_port(), free_port());
        let arguments = [grpc.to_string(), http.to_string()].into_iter().chain(loki).collect();
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

fn source(name: &str) -> Source {
    match name {
        "genauth" => Source::Genauth,
        "scloud" => Source::Scloud,
        other => panic!("{other}"),
    }
}

/// Loki, with the limits that are shipped for it and those that a test gives it.
pub struct Loki {
    server: Server,
    port: u16,
    client: reqwest::Client,
    overrides_file: PathBuf,
}

impl Loki {
    /// `overrides` are limits as Loki writes them: `max_line_size: 1KB`.
    pub async fn start(overrides: &str) -> Self {
        let (http, grpc) = (free_port(), free_port());
        let folder = tempfile::tempdir().unwrap();
        let overrides_file = folder.path().join("overrides.yaml");
        let arguments = vec![http.to_string(), grpc.to_string(), overrides_file.display().to_string()];
        let server = Server { folder, script: "loki", arguments, child: None };
        let mut loki = Self { server, port: http, client: client(), overrides_file };
        loki.limit(overrides);
        loki.restart().await;
        loki
    }

    /// Other `overrides` from when it is started again.
    pub fn limit(&self, overrides: &str) {
        std::fs::write(&self.overrides_file, format!("overrides: {{ fake: {{ {overrides} }} }}\n")).unwrap();
    }

    pub async fn restart(&mut self) {
        self.server.start();
        let ready = async || {
            let answer = self.client.get(self.url("/ready")).send().await.ok()?;
            (answer.status() == 200).then_some(())
        };
        until("Loki", || self.server.log(), ready).await;
    }

    /// As it is meant to be ended: it keeps what it took.
    pub async fn stop(&mut self) {
        self.server.signal("TERM");
        self.server.ended().await;
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The sink that leads here.
    pub fn sink(&self, more: &str) -> String {
        format!("{{ out: {{ otlp: {{ endpoint: \"{}\"{more} }} }} }}", self.url("/otlp"))
    }

    /// Every entry, as a query shows it, of the last two hours or so.
    pub async fn entries(&self, query: &str) -> Vec<Arrived> {
        let end = trailcast::clock::now() + 600_000;
        let mut start = i128::from(end - 6 * 3_600_000) * 1_000_000;
        let mut all = Vec::new();
        loop {
            let mut page = self.page(query, start, end).await;
            page.sort_by_key(|(time, _)| *time);
            let full = page.len() == PAGE;
            let last = page.last().map_or(0, |(time, _)| *time);
            // What has the last one's time may go on behind the page.
            let whole = page.into_iter().filter(|(time, _)| !full || *time < last);
            all.extend(whole.map(|(_, entry)| entry));
            if !full {
                return all;
            }
            assert!(last > start, "more entries of one time than a page has");
            start = last;
        }
    }

    async fn page(&self, query: &str, start: i128, end: i64) -> Vec<(i128, Arrived)> {
        let end = format!("{end}000000");
        let (start, limit) = (start.to_string(), PAGE.to_string());
        let words = [("query", query), ("start", &start), ("end", &end), ("limit", &limit), ("direction", "forward")];
        let mut entries = Vec::new();
        for stream in self.ask("query_range", &words).await {
            let labels = texts(&stream["stream"]);
            for value in stream["values"].as_array().unwrap() {
                let time: i128 = value[0].as_str().unwrap().parse().unwrap();
                let attributes = texts(&value[2]["structuredMetadata"]);
                let event = Event {
                    id: attributes["log_record_uid"].clone(),
                    source: source(&labels["service_name"]),
                    time: i64::try_from(time / 1_000_000).unwrap(),
                    record: attributes["log_record_original"].clone(),
                };
                let line = value[1].as_str().unwrap().to_owned();
                entries.push((time, Arrived { event, line, labels: labels.clone(), attributes }));
            }
        }
        entries
    }

    /// What a query for numbers gives at a time: each series, by the value of its one label, and its number.
    pub async fn numbers(&self, query: &str, at: Millis) -> BTreeMap<String, u64> {
        let series = self.ask("query", &[("query", query), ("time", &format!("{at}000000"))]).await;
        let number = |series: &Value| {
            let labels = texts(&series["metric"]);
            assert!(labels.len() <= 1, "{query}: {labels:?}");
            let number = series["value"][1].as_str().and_then(|number| number.parse().ok());
            (labels.into_values().next().unwrap_or_default(), number.unwrap_or_else(|| panic!("{series}")))
        };
        series.iter().map(number).collect()
    }

    /// The series or streams of an answer.
    async fn ask(&self, path: &str, words: &[(&str, &str)]) -> Vec<Value> {
        let mut url = reqwest::Url::parse(&self.url("/loki/api/v1/")).unwrap().join(path).unwrap();
        url.query_pairs_mut().extend_pairs(words);
        // Labels and an entry's own metadata apart.
        let flags = ("X-Loki-Response-Encoding-Flags", "categorize-labels");
        let answer = self.client.get(url).header(flags.0, flags.1).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let mut answer: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{words:?}: {text}"));
        serde_json::from_value(answer["data"]["result"].take()).unwrap()
    }

    /// A counter of its own, over all its series.
    pub async fn counter(&self, name: &str) -> f64 {
        let text = self.client.get(self.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let series = text.lines().filter(|line| line.starts_with(name));
        series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}

fn texts(map: &Value) -> BTreeMap<String, String> {
    let one = |(name, value): (&String, &Value)| (name.clone(), value.as_str().unwrap().to_owned());
    map.as_object().into_iter().flatten().map(one).collect()
}
