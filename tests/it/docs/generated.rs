//! What of the pages is made of the code: the table of keys, the mapping of events, and samples.
//!
//! `TRAILCAST_WRITE_DOCS=1 cargo test --test it docs::` writes it anew.

use std::collections::BTreeSet;

use bytes::Bytes;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use serde_json::Value;
use trailcast::config;
use trailcast::encode::{Format, encode, event_name, otel};
use trailcast::event::{Admitted, EventId, Source, StreamContext, StreamIdentity};
use trailcast::normalize::{Event, normalize};
use trailcast::record::identify;

use super::pages::{Page, code_spans, page, read, repository};

/// The records of the samples.
const GENAUTH: &str = r#"{"userId":"65f0c0ffee00000000000001","userDisplayName":"Maria Rossi","userLoginsCount":17,"appId":"65f0c0ffee00000000000002","appName":"Console","clientIp":"203.0.113.7","eventType":"login","eventDetail":"wrong password","success":false,"userAgent":"Mozilla/5.0 (Windows NT 10.0; Win64; x64)","parsedUserAgent":{"device":"Desktop","browser":"Chrome","os":"Windows"},"geoip":{"location":{"lon":9.19,"lat":45.46},"country_name":"Italy","country_code2":"IT","region_name":"Lombardy","region_code":"25","city_name":"Milan","continent_code":"EU","timezone":"Europe/Rome"},"timestamp":"2026-01-31T10:00:00.188+01:00","requestId":"example-request"}"#;
const SCLOUD: &str = r#"{"Region":"sg","Api":"TerminateUHostInstance","IsSuccess":true,"OperateTime":1769850000,"UserName":"maria","UserEmail":"maria@example.com","RelatedResource":[{"ResourceId":"uhost-example","ResourceName":"web"}],"RemoteIP":"203.0.113.7","AccessKeyID":"key-example"}"#;

/// Runs `take` with the event that a record becomes.
fn with_event<T>(source: Source, raw: &str, take: impl FnOnce(&Event<'_>) -> T) -> T {
    let (name, tenant) = match source {
        Source::Genauth => ("users", "65f0c0ffee0000000000cafe"),
        Source::Scloud => ("cloud", "org-example"),
    };
    let identity = StreamIdentity { source, tenant: tenant.to_owned() };
    let stream = StreamContext { identity, name: name.to_owned() };
    let found = identify(source, raw);
    let admitted = Admitted {
        id: EventId::new(&stream.identity, found.fingerprint, 0),
        ordinal: 0,
        late: false,
        time: found.time.unwrap_or(1_769_850_000_000),
        raw: Bytes::copy_from_slice(raw.as_bytes()),
    };
    take(&normalize(&stream, &admitted))
}

fn written(format: Format, with_raw: bool, source: Source, raw: &str) -> Value {
    let mut line = Vec::new();
    with_event(source, raw, |event| encode(format, with_raw, event, &mut line));
    serde_json::from_slice(&line).unwrap()
}

/// Parts of a page between `<!-- name: …` and `<!-- end -->` are as given, or become so.
fn hold(page: &Page, parts: &[(&str, String)]) {
    let mut text = page.text.clone();
    for (name, made) in parts {
        let (before, rest) = text.split_once(&format!("<!-- {name}: ")).unwrap_or_else(|| panic!("{name}"));
        let (mark, rest) = rest.split_once('\n').unwrap();
        let (_, after) = rest.split_once("<!-- end -->").unwrap();
        text = format!("{before}<!-- {name}: {mark}\n\n{}\n\n<!-- end -->{after}", made.trim());
    }
    if std::env::var_os("TRAILCAST_WRITE_DOCS").is_some() {
        std::fs::write(repository(&page.path), text).unwrap();
    } else {
        let differ = page.text.lines().zip(text.lines()).find(|(is, made)| is != made);
        assert!(
            page.text == text,
            "{} is not what the code says; TRAILCAST_WRITE_DOCS=1 writes it\n{differ:#?}",
            page.path
        );
    }
}

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rule = vec!["---".to_owned(); head.len()];
    let rows = rows.into_iter().map(|cells| line(&cells));
    [line(&head), line(&rule)].into_iter().chain(rows).collect()
}

fn code(words: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    words.into_iter().map(|word| format!("`{}`", word.as_ref())).collect::<Vec<_>>().join(", ")
}

/// The keys of one mapping, and where it stands in a config.
struct Section {
    places: Vec<String>,
    name: String,
    schema: Value,
}

/// Each mapping of the schema once, in the order in which a config has them.
struct Sections {
    root: Value,
    found: Vec<Section>,
}

impl Sections {
    fn target<'a>(&'a self, schema: &'a Value) -> (&'a str, &'a Value) {
        let Some(reference) = schema["$ref"].as_str() else { return ("", schema) };
        (reference.rsplit('/').next().unwrap(), self.root.pointer(&reference[1..]).unwrap())
    }

    fn walk(&mut self, place: &str, schema: &Value) {
        let (name, target) = self.target(schema);
        let (name, target) = (name.to_owned(), target.clone());
        if let Some(known) = self.found.iter_mut().find(|section| !name.is_empty() && section.name == name) {
            known.places.push(place.to_owned());
        } else if target["properties"].is_object() {
            self.found.push(Section { places: vec![place.to_owned()], name, schema: target.clone() });
        }
        for (key, property) in target["properties"].as_object().into_iter().flatten() {
            let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
            let (_, inner) = self.target(property);
            let inner = inner.clone();
            if inner["properties"].is_object() {
                self.walk(&place, property);
            } else if let Some(each) = inner.get("additionalProperties")
                && self.target(each).1["properties"].is_object()
            {
                self.walk(&format!("{place}.NAME"), each);
            }
        }
    }

    /// What stands for a key, in a word or two.
    fn kind(&self, schema: &Value) -> String {
        let (name, target) = self.target(schema);
        if name == "SecretEntry" {
            return "secret".to_owned();
        }
        if let Some(choices) = target["oneOf"].as_array().filter(|choices| choices[0]["const"].is_string()) {
            return code(choices.iter().map(|choice| choice["const"].as_str().unwrap()));
        }
        if let Some(choices) = target["enum"].as_array() {
            return code(choices.iter().map(|choice| choice.as_str().unwrap()));
        }
        if target["properties"].is_object() {
            return "keys".to_owned();
        }
        let bound = |key: &str| target[key].as_f64();
        match (target["type"].as_str(), target["format"].as_str()) {
            (Some("string"), Some("trailcast-duration")) => "duration".to_owned(),
            (Some("string"), Some("trailcast-size")) => "size".to_owned(),
            (Some("string"), Some("trailcast-start")) => "time, age or `now`".to_owned(),
            (Some("string"), Some("trailcast-broker")) => "`HOST:PORT`".to_owned(),
            (Some("string"), Some("uri")) => "URL".to_owned(),
            (Some("string"), _) => "text".to_owned(),
            (Some("boolean"), _) => "`true`, `false`".to_owned(),
            (Some("array"), _) => format!("list of {}", self.kind(&target["items"])),
            (Some("object"), _) if target["additionalProperties"] == false => "`{}`".to_owned(),
            (Some("object"), _) => match self.kind(&target["additionalProperties"]).as_str() {
                "keys" => "names with keys".to_owned(),
                each => format!("names with {each}"),
            },
            (Some("integer" | "number"), _) => match (bound("minimum"), bound("maximum"), bound("exclusiveMinimum")) {
                (Some(least), Some(most), _) => format!("{least} to {most}"),
                (Some(least), None, _) => format!("number, {least} or more"),
                (None, _, Some(more)) => format!("number above {more}"),
                _ => "number".to_owned(),
            },
            _ => "text, number or boolean".to_owned(),
        }
    }
}

fn keys() -> String {
    let root = config::schema();
    let mut sections = Sections { root: root.clone(), found: Vec::new() };
    sections.walk("", &root);
    let mut text = String::new();
    for section in &sections.found {
        let places = if section.places == [""] { "The whole file".to_owned() } else { code(&section.places) };
        let about = section.schema["description"].as_str().unwrap();
        let properties = section.schema["properties"].as_object().unwrap();
        text += &format!("### {places}\n\n{about}\n\n");
        if properties.is_empty() {
            continue;
        }
        let required: BTreeSet<&str> =
            section.schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let rows = properties.iter().map(|(key, property)| {
            let meaning = property["description"].as_str().unwrap();
            let default = match property.get("default") {
                _ if required.contains(key.as_str()) => "**required**".to_owned(),
                Some(Value::String(text)) => format!("`{text}`"),
                Some(default) => format!("`{default}`"),
                None if meaning.contains("Default: ") => "see the meaning".to_owned(),
                None => "–".to_owned(),
            };
            vec![format!("`{key}`"), sections.kind(property), default, meaning.replace('|', "\\|")]
        });
        text += &table(&["key", "value", "default", "meaning"], rows);
        text += "\n";
    }
    text
}

#[test]
fn the_tables_of_keys_are_the_schema() {
    hold(page("docs/configuration.md"), &[("keys", keys())]);
}

/// The quoted words after `begins`, up to `ends`, of each part of the table `KINDS` in a source file.
fn of_kinds(file: &str, begins: &str, ends: char) -> Vec<Vec<String>> {
    let text = read(file);
    let (_, table) = text.split_once("\nconst KINDS").unwrap();
    let (table, _) = table.split_once("\n];").unwrap();
    let parts = table.split(begins).skip(1).map(|part| part.split(ends).next().unwrap());
    let words = |part: &str| part.split('"').skip(1).step_by(2).map(ToOwned::to_owned).collect::<Vec<_>>();
    parts.map(words).filter(|words| !words.is_empty()).collect()
}

/// What an act is in each schema's words.
fn kind_cells(event: &Event<'_>) -> (Vec<String>, Vec<String>) {
    let kind = event.kind;
    let ocsf = vec![
        format!("{} ({})", kind.class.name(), kind.class.uid()),
        format!("{} ({})", kind.activity_name, kind.activity),
    ];
    (ocsf, vec![code(kind.category), code(kind.types)])
}

fn genauth_kinds() -> String {
    let types = of_kinds("src/normalize/genauth.rs", "\n    (", ',');
    assert!(types.len() > 15, "{types:?}");
    let rows = types.into_iter().flatten().map(|event_type| {
        let raw = format!(r#"{{"eventType":"{event_type}","timestamp":1769850000188}}"#);
        with_event(Source::Genauth, &raw, |event| {
            let (ocsf, ecs) = kind_cells(event);
            [vec![code([&event_type])], ocsf, ecs, vec![code([event_name(event)])]].concat()
        })
    });
    table(
        &[
            "`eventType`",
            "OCSF class",
            "OCSF activity",
            "ECS `event.category`",
            "ECS `event.type`",
            "OTLP `trailcast.type`",
        ],
        rows,
    )
}

fn scloud_kinds() -> String {
    let kinds = of_kinds("src/normalize/scloud.rs", "(&[", ']');
    assert!(kinds.len() > 3, "{kinds:?}");
    let rows = kinds.into_iter().map(|verbs| {
        let raw = format!(r#"{{"Api":"{}UHostInstance","OperateTime":1769850000}}"#, verbs[0]);
        with_event(Source::Scloud, &raw, |event| {
            let (ocsf, ecs) = kind_cells(event);
            [vec![code(&verbs)], ocsf[1..].to_vec(), ecs].concat()
        })
    });
    table(&["verbs", "OCSF activity", "ECS `event.category`", "ECS `event.type`"], rows)
}

fn outcomes() -> String {
    let rows = [
        ("`success` or `IsSuccess` is `true`", r#"{"eventType":"login","timestamp":1769850000188,"success":true}"#),
        ("it is `false`", r#"{"eventType":"login","timestamp":1769850000188,"success":false}"#),
        ("it says neither", r#"{"eventType":"login","timestamp":1769850000188}"#),
        ("it has no readable time, or is no record", "?"),
    ];
    let rows = rows.map(|(what, raw)| {
        let (ocsf, ecs) =
            (written(Format::Ocsf, false, Source::Genauth, raw), written(Format::Ecs, false, Source::Genauth, raw));
        let severity = with_event(Source::Genauth, raw, |event| otel::record(event, false, None).severity_text);
        let [status, level] = ["status", "severity"].map(|key| ocsf[key].as_str().unwrap().to_owned());
        vec![what.to_owned(), status, level, code(ecs["event"]["outcome"].as_str()), code([severity])]
    });
    table(&["record", "OCSF `status`", "OCSF `severity`", "ECS `event.outcome`", "OTLP severity"], rows)
}

fn value_text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => format!("{text:?}"),
        Some(Any::BoolValue(truth)) => truth.to_string(),
        Some(Any::IntValue(number)) => number.to_string(),
        Some(Any::DoubleValue(number)) => number.to_string(),
        Some(Any::ArrayValue(list)) => {
            format!("[{}]", list.values.iter().map(|value| value_text(Some(value))).collect::<Vec<_>>().join(", "))
        }
        other => panic!("{other:?}"),
    }
}

/// A log record, as text.
fn log_record(event: &Event<'_>) -> String {
    let record = otel::record(event, false, None);
    let resource = otel::resource(&event.stream.identity, []);
    let mut text = String::new();
    for attribute in &resource.attributes {
        text += &format!("resource {} = {}\n", attribute.key, value_text(attribute.value.as_ref()));
    }
    text += &format!(
        "Timestamp = {}\nSeverity = {} {}\n",
        record.time_unix_nano, record.severity_number, record.severity_text
    );
    text += &format!("EventName = {:?}\nBody = {}\n", record.event_name, value_text(record.body.as_ref()));
    for attribute in &record.attributes {
        text += &format!("{} = {}\n", attribute.key, value_text(attribute.value.as_ref()));
    }
    text
}

fn pretty(value: &Value) -> String {
    format!("```json\n{}\n```\n\n", serde_json::to_string_pretty(value).unwrap())
}

fn samples() -> String {
    let mut text = String::new();
    for (source, raw, name) in [(Source::Genauth, GENAUTH, "GenAuth"), (Source::Scloud, SCLOUD, "SCloud")] {
        text += &format!("### {name}: the record\n\n{}", pretty(&serde_json::from_str(raw).unwrap()));
        for (format, title) in [(Format::Ocsf, "OCSF"), (Format::Ecs, "ECS"), (Format::Native, "native")] {
            text += &format!("### {name} as {title}\n\n{}", pretty(&written(format, false, source, raw)));
        }
        let record = with_event(source, raw, log_record);
        text += &format!("### {name} as an OTLP log record\n\n```text\n{record}```\n\n");
    }
    text
}

#[test]
fn the_mapping_and_the_samples_are_what_the_code_makes() {
    let parts =
        [("genauth", genauth_kinds()), ("scloud", scloud_kinds()), ("outcome", outcomes()), ("samples", samples())];
    hold(page("docs/events.md"), &parts);
}

/// A path with dots, in nested objects; lists are not gone into.
fn has(value: &Value, path: &str) -> bool {
    path.split('.').try_fold(value, |value, key| value.get(key)).is_some()
}

/// Whether each member of `part` is in `whole`, and the same.
fn is_part(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            part.iter().all(|(key, value)| whole.get(key).is_some_and(|whole| is_part(value, whole)))
        }
        _ => part == whole,
    }
}

#[test]
fn the_events_in_the_readme_are_parts_of_the_samples() {
    let blocks = page("README.md").blocks("json");
    assert!(!blocks.is_empty());
    for block in blocks {
        let part: Value = serde_json::from_str(&block).unwrap();
        let whole = written(Format::Ocsf, true, Source::Genauth, GENAUTH);
        assert!(is_part(&part, &whole), "{part:#}\n{whole:#}");
    }
}

/// Each place that the table names is one of the samples', and what a source says has a place in its own sample.
#[test]
fn the_table_of_places_is_where_things_are() {
    let sources = [(Source::Genauth, GENAUTH), (Source::Scloud, SCLOUD)];
    let records = sources.map(|(_, raw)| serde_json::from_str::<Value>(raw).unwrap());
    let formats = [Format::Native, Format::Ocsf, Format::Ecs];
    let samples = sources.map(|(source, raw)| formats.map(|format| written(format, true, source, raw)));
    let attributes = sources.map(|(source, raw)| {
        with_event(source, raw, |event| {
            let record = otel::record(event, true, None).attributes;
            let all = record.into_iter().chain(otel::resource(&event.stream.identity, []).attributes);
            all.map(|attribute| attribute.key).collect::<BTreeSet<_>>()
        })
    });
    let rows = page("docs/events.md").table("| what | GenAuth |");
    assert!(rows.len() > 15, "{rows:?}");
    for row in rows {
        let said = [0, 1].map(|source| {
            let mut fields = code_spans(row[1 + source]).peekable();
            let says = fields.peek().is_some();
            for field in fields {
                assert!(has(&records[source], field), "{row:?}: no {field} in the record");
            }
            says
        });
        for (column, cell) in row[3..].iter().enumerate() {
            let is_there = |source: usize, path: &str| match column {
                3 => attributes[source].contains(path),
                _ => has(&samples[source][column], path),
            };
            let paths: Vec<&str> = code_spans(cell).collect();
            for path in &paths {
                assert!(is_there(0, path) || is_there(1, path), "{row:?}: no {path} in any sample");
            }
            for source in [0, 1] {
                let any = paths.iter().any(|path| is_there(source, path));
                assert!(any || paths.is_empty() || !said[source], "{row:?}: not in the sample of source {source}");
            }
        }
    }
}
