//! trailcast's own traces, as the Collector wrote them down.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;
use trailcast::simulate::genauth;

use crate::program::{Config, Stream, history, simulate};
use crate::receiver::{Collector, attributes};

/// What became of a window that is read again.
const IN_VAIN: [&str; 2] = ["abandoned", "too_full"];

#[derive(Debug)]
struct Span {
    name: String,
    trace: String,
    id: String,
    /// Empty for a root.
    parent: String,
    /// The trace and the span that it points to.
    links: Vec<(String, String)>,
    attributes: BTreeMap<String, String>,
    failed: bool,
    client: bool,
    /// Nanoseconds.
    time: (i128, i128),
}

impl Span {
    fn text(&self, attribute: &str) -> &str {
        self.attributes.get(attribute).map_or("", String::as_str)
    }

    /// An integer, which OTLP's JSON writes as text.
    fn count(&self, attribute: &str) -> usize {
        let value: Value =
            serde_json::from_str(self.text(attribute)).unwrap_or_else(|_| panic!("{attribute}: {self:?}"));
        value["intValue"]
            .as_str()
            .and_then(|count| count.parse().ok())
            .unwrap_or_else(|| panic!("{attribute}: {self:?}"))
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// All spans, by their ids; each comes once.
fn spans(traced: &str) -> HashMap<String, Span> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let nanoseconds = |value: &Value| value.as_str().unwrap().parse().unwrap();
    let mut spans = HashMap::new();
    // What is being written has no end yet.
    for request in traced.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        for resource in list(&request["resourceSpans"]) {
            let labels = attributes(&resource["resource"]["attributes"]);
            assert_eq!(labels["service.name"], "trailcast");
            assert_eq!(labels["service.version"], env!("CARGO_PKG_VERSION"));
            assert!(labels.contains_key("service.instance.id"), "{labels:?}");
            for scope in list(&resource["scopeSpans"]) {
                assert_eq!(scope["scope"]["name"], "trailcast", "a library's own spans");
                for span in list(&scope["spans"]) {
                    assert!(span["events"].is_null() && span["status"]["message"].is_null(), "{span}");
                    let span = Span {
                        name: text(&span["name"]),
                        trace: text(&span["traceId"]),
                        id: text(&span["spanId"]),
                        parent: text(&span["parentSpanId"]),
                        links: list(&span["links"])
                            .map(|link| (text(&link["traceId"]), text(&link["spanId"])))
                            .collect(),
                        attributes: attributes(&span["attributes"]),
                        failed: span["status"]["code"] == 2,
                        client: span["kind"] == 3,
                        time: (nanoseconds(&span["startTimeUnixNano"]), nanoseconds(&span["endTimeUnixNano"])),
                    };
                    let before = spans.insert(span.id.clone(), span);
                    assert!(before.is_none(), "{before:?} twice");
                }
            }
        }
    }
    spans
}

/// What docs/operations.md says of every span, whatever came of it.
fn assert_documented(spans: &HashMap<String, Span>) {
    const STREAM: [&str; 1] = ["trailcast.stream"];
    const LANE: [&str; 2] = ["trailcast.stream", "trailcast.sink"];
    for span in spans.values() {
        let parent = spans.get(&span.parent);
        let within = parent.map_or("", |parent| &parent.name);
        let (always, sometimes, parents): (&[&str], &[&str], &[&str]) = match span.name.as_str() {
            "window" => (
                &["trailcast.pass", "trailcast.window.from", "trailcast.window.to", "trailcast.outcome"],
                &["trailcast.reading", "trailcast.records", "trailcast.events"],
                &[""],
            ),
            "request" => (
                &["http.request.method", "server.address"],
                &["http.response.status_code", "trailcast.records"],
                &["window", ""],
            ),
            "deliver" => (&["trailcast.events", "trailcast.exactly_once"], &["trailcast.refused"], &["window"]),
            "commit" => (&[], &[], &["window"]),
            other => panic!("no span of this name is documented: {other}"),
        };
        let common: &[&str] = if span.name == "request" { &STREAM } else { &LANE };
        let names: BTreeSet<&str> = span.attributes.keys().map(String::as_str).collect();
        let must: BTreeSet<&str> = always.iter().chain(common).copied().collect();
        let may: BTreeSet<&str> = must.iter().chain(sometimes).copied().chain(["error.type"]).collect();
        assert!(names.is_superset(&must) && names.is_subset(&may), "{span:?}");
        assert_eq!(span.failed, names.contains("error.type"), "{span:?}");
        assert_eq!(span.client, matches!(span.name.as_str(), "request" | "deliver"), "{span:?}");
        assert!(span.parent.is_empty() || parent.is_some(), "its parent did not arrive: {span:?}");
        assert!(parents.contains(&within), "within `{within}`: {span:?}");
        if let Some(parent) = parent {
            assert_eq!(parent.trace, span.trace, "{span:?}");
            assert_eq!(parent.text("trailcast.stream"), span.text("trailcast.stream"), "{span:?}");
            assert!(parent.time.0 <= span.time.0 && span.time.1 <= parent.time.1, "outside of its parent: {span:?}");
        }
        for (trace, id) in &span.links {
            let read = &spans[id];
            assert!(read.name == "window" && read.trace == *trace && read.trace != span.trace, "{span:?}");
            for same in ["trailcast.stream", "trailcast.window.from", "trailcast.window.to"] {
                assert_eq!(read.text(same), span.text(same), "{span:?}");
            }
        }
    }
}

/// Every text inside a record that says anything: no clock time, and longer than a code.
fn said(value: &Value, texts: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if text.parse::<jiff::Timestamp>().is_err() && text.chars().count() > 5 => {
            texts.insert(text.clone());
        }
        Value::Array(items) => items.iter().for_each(|item| said(item, texts)),
        Value::Object(members) => members.values().for_each(|member| said(member, texts)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_window_is_a_trace_with_the_documented_spans_and_nobodys_data() {
    let simulator = simulate(history(500)).await;
    let collector = Collector::start().await;
    let mut config = Config::of(&simulator);
    let otlp = format!("{{ otlp: {{ endpoint: \"http://127.0.0.1:{}\" }} }}", collector.http);
    config.sinks = format!("{{ out: {{ stdout: {{ format: native }} }}, copy: {otlp} }}");
    config.traces = Some(collector.traces());
    let answer = config.command(&["check"], &[]).await;
    let found = answer.stdout.lines().any(|line| line.starts_with("ok ") && line.contains(" traces "));
    assert!(answer.code == Some(0) && found, "{}", answer.stdout);
    assert_eq!(collector.traced().matches("spanId").count(), 0, "check traces nothing");
    config.catch_up().await;
    let traced = collector.traced();
    let spans = spans(&traced);
    assert_documented(&spans);

    let named = |name: &'static str| spans.values().filter(move |span| span.name == name);
    let events = config.events();
    assert!(!events.is_empty());
    for sink in ["out", "copy"] {
        let of_sink = |span: &&Span| span.text("trailcast.sink") == sink;
        // What was read in vain was not delivered.
        let all = |name| named(name).filter(of_sink).filter(|span| !IN_VAIN.contains(&span.text("trailcast.outcome")));
        let sum = |name| all(name).map(|span| span.count("trailcast.events")).sum::<usize>();
        assert_eq!((sum("window"), sum("deliver")), (events.len(), events.len()), "{sink}");
    }
    let is_same_lane = |one: &Span, other: &Span| {
        ["trailcast.stream", "trailcast.sink"].iter().all(|name| one.text(name) == other.text(name))
    };
    let time = |window: &Span, bound: &str| window.text(bound).parse::<jiff::Timestamp>().unwrap();
    let begins_within = |one: &Span, other: &Span| {
        let from = time(one, "trailcast.window.from");
        time(other, "trailcast.window.from") <= from && from < time(other, "trailcast.window.to")
    };
    for window in named("window") {
        let within = |name: &str| spans.values().any(|span| span.parent == window.id && span.name == name);
        match window.text("trailcast.outcome") {
            outcome if IN_VAIN.contains(&outcome) => {
                assert!(!within("deliver") && !within("commit"), "{window:?}");
                let committed = named("window").filter(|other| other.text("trailcast.outcome") == "committed");
                let mut of_lane = committed.filter(|other| is_same_lane(other, window));
                assert!(of_lane.any(|other| begins_within(window, other)), "never read again: {window:?}");
                continue;
            }
            outcome => {
                assert_eq!(outcome, "committed", "{window:?}");
                assert!(within("commit"), "{window:?}");
                assert_eq!(within("deliver"), window.count("trailcast.events") > 0, "{window:?}");
            }
        }
        // Either it was read in this trace, or it says in which.
        assert!(within("request") == window.links.is_empty(), "{window:?}");
        for bound in ["trailcast.window.from", "trailcast.window.to"] {
            assert!(window.text(bound).parse::<jiff::Timestamp>().is_ok(), "{window:?}");
        }
        assert!(matches!(window.text("trailcast.pass"), "live" | "sweep" | "backfill"), "{window:?}");
    }
    assert!(named("window").any(|window| !window.links.is_empty()), "no reading was shared");
    for request in named("request") {
        assert_eq!(request.text("server.address"), "127.0.0.1");
        let is_in_vain =
            spans.get(&request.parent).is_some_and(|window| IN_VAIN.contains(&window.text("trailcast.outcome")));
        let has_answer = request.attributes.contains_key("http.response.status_code");
        assert!(has_answer || is_in_vain, "only what is given up has no answer: {request:?}");
        assert!(!has_answer || request.count("http.response.status_code") == 200, "{request:?}");
    }
    assert!(named("deliver").all(|deliver| deliver.count("trailcast.refused") == 0));

    let mut texts = BTreeSet::new();
    for event in &events {
        said(&serde_json::from_str(&event.record).unwrap_or_default(), &mut texts);
    }
    assert!(texts.len() > 1000, "{texts:?}");
    for text in texts {
        assert!(!traced.contains(&text), "{text:?} of a record is in the traces");
    }
    for secret in [genauth::ACCESS_KEY_SECRET, genauth::ACCESS_KEY_ID, genauth::USER_POOL_ID] {
        assert!(!traced.contains(secret));
    }
    simulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_in_the_traces_with_its_reason_and_the_log_leads_there() {
    let simulator = simulate(history(200)).await;
    let collector = Collector::start().await;
    let mut config = Config::of(&simulator);
    let mut refused = Stream::genauth(&simulator.url(), genauth::USER_POOL_ID, "wrong-secret");
    refused.name = "refused";
    config.streams.push(refused);
    // Nobody listens there.
    config.sinks = "{ out: { otlp: { endpoint: \"http://127.0.0.1:1\" } } }".to_owned();
    config.traces = Some(collector.traces());
    let mut program = config.run();
    let failed = |stream: &str, name: &str, reason: &str| {
        let spans = spans(&collector.traced());
        let same = |span: &&Span| span.name == name && span.text("trailcast.stream") == stream && span.failed;
        spans.values().filter(same).any(|span| span.text("error.type") == reason).then_some(())
    };
    // As they fail, while the window is still to be delivered.
    for stream in ["users", "cloud"] {
        program.shows("a failed delivery", async || failed(stream, "deliver", "connect")).await;
    }
    program.shows("a refused request", async || failed("refused", "request", "credentials")).await;
    let both = async || Some(program.logged("could not deliver all")).filter(|lines| lines.len() >= 2);
    let lines = program.shows("that both lanes say so", both).await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    program.signal("TERM");
    // What it had to deliver it could not.
    assert_eq!(program.ended().await.code(), Some(1), "{}", program.log());

    let spans = spans(&collector.traced());
    assert_documented(&spans);
    for line in lines {
        let line: Value = serde_json::from_str(&line).unwrap();
        let trace: Vec<&Span> = spans.values().filter(|span| line["trace_id"] == span.trace).collect();
        let windows: Vec<&&Span> = trace.iter().filter(|span| span.name == "window").collect();
        let [window] = windows[..] else { panic!("{trace:#?}") };
        assert_eq!(window.text("trailcast.stream"), line["stream"]);
        assert_eq!(window.text("trailcast.outcome"), "failed");
        assert_eq!(window.text("error.type"), "not_drained");
        assert!(trace.iter().any(|span| span.name == "deliver" && span.parent == window.id && span.failed));
        assert!(trace.iter().all(|span| span.name != "commit"), "nothing is committed: {trace:#?}");
    }
    for window in spans.values().filter(|span| span.name == "window") {
        match window.text("trailcast.outcome") {
            // From before anything happened.
            "committed" => assert_eq!(window.count("trailcast.events"), 0, "{window:?}"),
            // The second: read ahead in vain.
            outcome => assert!(outcome == "failed" || IN_VAIN.contains(&outcome), "{window:?}"),
        }
    }
    let starts = program.logged("lane runs");
    assert!(!starts.is_empty() && starts.iter().all(|line| !line.contains("trace_id")), "{starts:?}");
    simulator.shutdown().await;
}
