//! Config files as users write them, good and bad.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::*;

/// 2026-01-01T00:00:00Z.
const NOW: Millis = 1_767_225_600_000;

fn errors(text: &str) -> String {
    parse_at(Path::new("t.yaml"), text, NOW).unwrap_err().to_string()
}

#[test]
fn no_value_is_ever_quoted() {
    let sample: Vec<&str> = include_str!("../../config/trailcast.yaml").lines().collect();
    let mut tried = 0;
    for (index, line) in sample.iter().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#')) {
        // In the place of the whole value, and of the last one inside it.
        for (key, _) in [line.split_once(": "), line.rsplit_once(": ")].into_iter().flatten() {
            for wrong in [
                "hunter2",
                "\"hunter2",
                "'hunter2",
                "[hunter2]",
                "[hunter2",
                "*hunter2",
                "!hunter2 x",
                "@hunter2",
                "|x hunter2",
            ] {
                let mut lines = sample.clone();
                let line = format!("{key}: {wrong}");
                lines[index] = &line;
                let said = match parse_at(Path::new("t.yaml"), &lines.join("\n"), NOW) {
                    Ok(loaded) => format!("{:?}", loaded.warnings),
                    Err(errors) => errors.to_string(),
                };
                assert!(!said.contains("hunter2"), "line {}: {line}\n{said}", index + 1);
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "{tried}");
    let said = errors(&genauth("").replace("{ env: E }", "{ hunter2 }"));
    assert!(said.contains("access_key_secret: unknown key; known: `env`, `file`"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    let said = errors(&genauth("").replace("{ env: E }", "true"));
    assert!(said.contains("access_key_secret: expected a secret: ") && said.ends_with("found a boolean"), "{said}");
    assert!(parse_at(Path::new("t.yaml"), &genauth("").replace("{ env: E }", "'true'"), NOW).is_ok());
}

proptest::proptest! {
    /// Whatever a slip of the hand does to a config, it is answered: good, or bad with at least one mistake.
    #[test]
    fn a_slip_of_the_hand_never_panics(at in 0_usize..6_000, cut in 0_usize..12, put in "[ -~\n\t]{0,6}") {
        let mut sample: Vec<char> = include_str!("../../config/trailcast.yaml").chars().collect();
        let at = at.min(sample.len());
        let end = (at + cut).min(sample.len());
        sample.splice(at..end, put.chars());
        let text: String = sample.into_iter().collect();
        if let Err(errors) = parse_at(Path::new("t.yaml"), &text, NOW) {
            assert!(!errors.0.is_empty(), "{text}");
        }
    }
}

fn good(text: &str) -> Loaded {
    parse_at(Path::new("t.yaml"), text, NOW).unwrap_or_else(|errors| panic!("{errors}"))
}

/// A config with one GenAuth stream, `extra` at its end.
fn genauth(extra: &str) -> String {
    format!(
        "sinks: {{ out: {{ stdout: }} }}\nstreams:\n  users:\n    genauth: {{ user_pool_id: p, access_key_id: k, \
         access_key_secret: {{ env: E }} }}\n{extra}"
    )
}

/// A config with one SCloud stream, `extra` at its end.
fn scloud(extra: &str) -> String {
    format!(
        "sinks: {{ out: {{ stdout: }} }}\nstreams:\n  cloud:\n    scloud: {{ public_key: k, private_key: {{ file: f }} \
         }}\n{extra}"
    )
}

#[test]
fn every_structural_mistake_is_reported_at_once() {
    let text = r#"
streams:
  users:
    genauth:
      brnad: genauth
      user_pool_id: ""
      auth: hunter2
      access_key_secret: { env: A, file: B }
      filter: { success: maybe }
    poll_interval: hunter2
    sweeps: [1m, [2m]]
    concurrency: 0
    rate_limit: 0
    overlap: 10
    start: hunter2
    max_response_size: 1MB
  both:
    genauth: { user_pool_id: p, access_key_id: k, access_key_secret: 5 }
    scloud: { public_key: k, private_key: [hunter2] }
  text: hunter2
sinks:
  out:
    kafak: { brokers: [k] }
  out:
    stdout: {}
checkpoint: {}
admin: { listen: localhost }
log: { level: "trailcast=hunter2", format: }
hunter: 1
"#;
    let errors = errors(text);
    let expected = "\
t.yaml:4:5: streams.users.genauth: the key `access_key_id` is missing; expected text
t.yaml:5:7: streams.users.genauth.brnad: unknown key; did you mean `brand`? known: `endpoint`, `brand`, `user_pool_id`, `auth`, `access_key_id`, `access_key_secret`, `filter`, `max_rows`
t.yaml:6:7: streams.users.genauth.user_pool_id: must not be empty
t.yaml:7:7: streams.users.genauth.auth: expected one of `token`, `signature`, found another text
t.yaml:8:7: streams.users.genauth.access_key_secret: expected exactly one of the keys `env`, `file`, found 2
t.yaml:9:17: streams.users.genauth.filter.success: expected `true` or `false`, found text
t.yaml:10:5: streams.users.poll_interval: expected a duration such as `500ms`, `15s`, `1h30m` or `30d`, found another text
t.yaml:11:18: streams.users.sweeps[1]: expected a duration such as `500ms`, `15s`, `1h30m` or `30d`, found a list
t.yaml:12:5: streams.users.concurrency: expected a whole number from 1 to 64, found another number
t.yaml:13:5: streams.users.rate_limit: expected a number above 0, found another number
t.yaml:14:5: streams.users.overlap: expected a duration such as `500ms`, `15s`, `1h30m` or `30d`, found a number alone
t.yaml:15:5: streams.users.start: expected `now`, an age such as `30d`, or a time such as `2026-01-31T00:00:00Z`, found another text
t.yaml:16:5: streams.users.max_response_size: expected a size such as `512KiB` or `16MiB`, found another text
t.yaml:17:3: streams.both: expected exactly one of the keys `genauth`, `scloud`, found 2
t.yaml:19:30: streams.both.scloud.private_key: expected a mapping with `env` or `file` or text, found a list
t.yaml:20:3: streams.text: expected a mapping with `genauth` or `scloud`, found text
t.yaml:22:3: sinks.out: expected exactly one of the keys `kafka`, `otlp`, `stdout`, found none
t.yaml:23:5: sinks.out.kafak: unknown key; did you mean `kafka`? known: `kafka`, `otlp`, `stdout`
t.yaml:24:3: the key `out` is already given in line 22
t.yaml:26:1: checkpoint: expected exactly one of the keys `file`, `kafka`, `memory`, found none
t.yaml:27:10: admin.listen: expected an IP address and a port such as `127.0.0.1:9464` or `[::]:9464`, found another text
t.yaml:28:8: log.level: expected `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,trailcast::source=debug`, found another text
t.yaml:28:36: log.format: expected one of `text`, `json`, found nothing
t.yaml:29:1: hunter: unknown key; known: `streams`, `sinks`, `checkpoint`, `dead_letters`, `admin`, `log`, `traces`, `memory`";
    assert_eq!(errors, expected, "\n{errors}");
    assert!(!errors.contains("hunter2"), "no value is ever shown");
}

#[test]
fn every_mistake_across_keys_is_reported_at_once() {
    let text = r#"
streams:
  users:
    genauth:
      endpoint: http://api.example.com
      user_pool_id: p
      access_key_id: k
      access_key_secret: { env: E }
    poll_interval: 0s
    sweeps: [15m, 1m, 0s, 15m]
    request_timeout: 0s
    connect_timeout: 0
    max_response_size: 0
    sinks: [out, uot, out]
  bad name:
    scloud:
      endpoint: https://user:hunter2@api.example.com/?x=1
      public_key: k
      private_key: { file: f }
    poll_interval: 1500ms
    settle: 500ms
    overlap: 10ms
  mail:
    scloud: { endpoint: "mailto:x@example.com", public_key: k, private_key: { file: f } }
sinks:
  out: { stdout: }
  -out: { stdout: }
"#;
    let errors = errors(text);
    let name = "a name has 1 to 63 letters, digits, `-` and `_`, a letter or digit first: it is a label in metrics";
    let expected = format!(
        "\
t.yaml:5:7: streams.users.genauth.endpoint: must begin with `https://`: credentials and audit records would cross the network in the clear (`allow_http: true` in the stream accepts that)
t.yaml:9:5: streams.users.poll_interval: must be above zero
t.yaml:10:19: streams.users.sweeps[1]: must be above the one before it: sweeps are ascending
t.yaml:10:23: streams.users.sweeps[2]: must be above zero
t.yaml:10:27: streams.users.sweeps[3]: must be above the one before it: sweeps are ascending
t.yaml:11:5: streams.users.request_timeout: must be above zero
t.yaml:12:5: streams.users.connect_timeout: must be above zero
t.yaml:13:5: streams.users.max_response_size: must be above zero, and at most 16MiB, which is an eighth of `memory.process`
t.yaml:14:18: streams.users.sinks[1]: no such sink; did you mean `out`? known: `-out`, `out`
t.yaml:14:23: streams.users.sinks[2]: is listed twice
t.yaml:15:3: streams.bad name: {name}
t.yaml:17:7: streams.bad name.scloud.endpoint: must hold no user name or password: secrets have keys of their own
t.yaml:17:7: streams.bad name.scloud.endpoint: must end with the host or a path: no `?` and no `#`
t.yaml:20:5: streams.bad name.poll_interval: must be in whole seconds: SCloud's clock has no finer unit
t.yaml:21:5: streams.bad name.settle: must be in whole seconds: SCloud's clock has no finer unit
t.yaml:22:5: streams.bad name.overlap: must be in whole seconds: SCloud's clock has no finer unit
t.yaml:24:15: streams.mail.scloud.endpoint: must begin with `https://`
t.yaml:27:3: sinks.-out: {name}"
    );
    assert_eq!(errors, expected, "\n{errors}");
}

#[test]
fn text_that_is_no_config() {
    assert_eq!(
        errors(""),
        "t.yaml:1:1: the key `streams` is missing; expected a mapping\n\
         t.yaml:1:1: the key `sinks` is missing; expected a mapping"
    );
    for (text, error) in [
        ("streams: [", "not YAML"),
        ("streams: {}\n---\n{}", "t.yaml:3:1: expected one YAML document, found a second"),
        ("a: &a [*a]", "an alias inside its own anchor"),
        ("streams: !!map {}", "YAML tags have no meaning here"),
        ("? [a]\n: b", "a key must be text"),
        ("streams: {}", "t.yaml:1:1: streams: expected at least one entry"),
        ("- a", "expected a mapping, found a list"),
    ] {
        let errors = errors(text);
        assert!(errors.contains(error), "{text}: {errors}");
    }
    let deep = "[".repeat(100) + &"]".repeat(100);
    assert!(errors(&deep).contains("nested too deeply"));
    let mut laughs = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..8 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    assert!(errors(&laughs).contains("aliases copy too much"));
    let missing = load(Path::new("/no/such/trailcast.yaml")).unwrap_err().to_string();
    assert!(missing.starts_with("/no/such/trailcast.yaml: cannot read the config: "), "{missing}");
}

#[test]
fn defaults_are_the_documented_ones() {
    let Config { streams, sinks, checkpoint, dead_letters, admin, log, traces, memory } = good(&genauth("")).config;
    let stream = &streams["users"];
    let SourceConfig::Genauth(source) = &stream.source else { panic!("{stream:?}") };
    assert_eq!(source.endpoint.as_str(), "https://api.genauth.ai/");
    assert_eq!((source.brand, source.auth), (GenauthBrand::Genauth, GenauthAuth::Token));
    assert_eq!((&source.filter, source.max_rows), (&GenauthFilter::default(), 10_000));
    let seconds = Duration::from_secs;
    assert_eq!(stream.start, Start::Age(seconds(30 * 86_400)));
    assert_eq!((stream.poll_interval, stream.settle, stream.overlap), (seconds(10), seconds(0), seconds(10)));
    assert_eq!(stream.sweeps, [seconds(60), seconds(900), seconds(21_600)]);
    assert_eq!((stream.concurrency, stream.max_response_size), (4, 16 << 20));
    assert!((stream.rate_limit - 20.0).abs() < f64::EPSILON);
    assert_eq!((stream.connect_timeout, stream.request_timeout), (seconds(10), seconds(60)));
    assert_eq!((&stream.ca_file, stream.allow_http), (&None, false));
    assert_eq!(stream.sinks, ["out"]);
    let SinkConfig::Stdout(out) = &sinks["out"] else { panic!("{sinks:?}") };
    assert_eq!(*out, StdoutConfig { format: Format::Ocsf, raw: true });
    assert!(matches!(checkpoint, CheckpointConfig::File { path } if path == Path::new("/var/lib/trailcast/state")));
    let DeadLettersConfig::Files { path, max_file_size, max_size } = dead_letters else { panic!("{dead_letters:?}") };
    assert_eq!(path, Path::new("/var/lib/trailcast/state/dead-letters"));
    assert_eq!((max_file_size, max_size), (64 << 20, 1 << 30));
    assert_eq!(admin.listen.to_string(), "127.0.0.1:9464");
    assert_eq!((log.format, log.level.as_str()), (None, "info"));
    assert!(traces.is_none());
    assert_eq!((memory.process, memory.stream), (128 << 20, 64 << 20));

    let Config { streams, .. } = good(&scloud("")).config;
    let SourceConfig::Scloud(source) = &streams["cloud"].source else { panic!("{streams:?}") };
    assert_eq!(source.endpoint.as_str(), "https://api.scloudsg.com/");
    assert_eq!((&source.project_id, &source.filter, source.max_rows), (&None, &ScloudFilter::default(), 10_000));
}

#[test]
fn what_is_written_is_what_counts() {
    let text = "
streams:
  users:
    genauth: &g
      brand: authing
      user_pool_id: 0123
      access_key_id: 65e7
      access_key_secret: { file: /run/secrets/key }
      auth: signature
      filter: { event_type: no, success: false }
    start: 2026-01-01T00:00:00Z
    rate_limit: 0.5
  more: { genauth: *g, start: now }
sinks: { out: { stdout: { format: native, raw: false } } }
checkpoint: { memory: }
admin:
log: { format: text, level: 'info,trailcast=debug' }
";
    let Config { streams, sinks, checkpoint, log, .. } = good(text).config;
    let stream = &streams["users"];
    let SourceConfig::Genauth(source) = &stream.source else { panic!("{stream:?}") };
    assert_eq!(source.endpoint.as_str(), "https://api.authing.cn/");
    assert_eq!((source.brand, source.auth), (GenauthBrand::Authing, GenauthAuth::Signature));
    assert_eq!((source.user_pool_id.as_str(), source.access_key_id.as_str()), ("0123", "65e7"));
    assert!(matches!(&source.access_key_secret, Secret::File(path) if path == Path::new("/run/secrets/key")));
    assert_eq!(source.filter.event_type.as_deref(), Some("no"));
    assert_eq!(source.filter.success, Some(false));
    assert_eq!(stream.start, Start::At(NOW));
    assert!((stream.rate_limit - 0.5).abs() < f64::EPSILON);
    assert_eq!(streams["more"].start, Start::Now);
    let SinkConfig::Stdout(out) = &sinks["out"] else { panic!("{sinks:?}") };
    assert_eq!(*out, StdoutConfig { format: Format::Native, raw: false });
    assert!(matches!(checkpoint, CheckpointConfig::Memory));
    assert_eq!((log.format, log.level.as_str()), (Some(LogFormat::Text), "info,trailcast=debug"));
}

#[test]
fn http_is_for_loopback_unless_allowed() {
    let with = |endpoint: &str, allow: bool| {
        let text = genauth(&format!("    allow_http: {allow}\n"))
            .replace("user_pool_id: p", &format!("user_pool_id: p, endpoint: \"{endpoint}\""));
        parse_at(Path::new("t.yaml"), &text, NOW).is_ok()
    };
    for endpoint in ["http://127.0.0.1:8080", "http://[::1]:1", "http://localhost", "https://x.example"] {
        assert!(with(endpoint, false), "{endpoint}");
    }
    for endpoint in ["http://x.example", "http://10.0.0.1", "http://localhost.x.example"] {
        assert!(!with(endpoint, false), "{endpoint}");
        assert!(with(endpoint, true), "{endpoint}");
    }
}

/// A key that is right and in the wrong place is told where it belongs.
#[test]
fn a_key_in_the_wrong_section_is_told_where_it_belongs() {
    for (config, belongs) in [
        (
            genauth("    endpoint: https://x\n"),
            "it belongs in `streams.users.genauth` or `streams.users.scloud`; known: ",
        ),
        (genauth("    event_type: login\n"), "it belongs in `streams.users.genauth.filter`; known: "),
        (genauth("    format: ocsf\n"), "`sinks.NAME.stdout`"),
        (genauth("listen: 127.0.0.1:1\n"), "it belongs in `admin`; known: "),
        (genauth("").replace("stdout: }", "stdout: { topic: t } }"), "it belongs in `sinks.out.kafka`; known: "),
    ] {
        let errors = errors(&config);
        assert!(errors.contains(&format!("unknown key; {belongs}")) || errors.contains(belongs), "{belongs}: {errors}");
    }
    assert!(!errors(&genauth("nothing: 1\n")).contains("belongs"));
}

/// Keys that must be there say so.
#[test]
fn the_sample_says_which_keys_are_required() {
    fn required(root: &Json, section: &Json, node: &tree::Node, lines: &[&str], seen: &mut usize) {
        let section = check::resolve(root, section);
        let tree::Value::Map(entries) = &node.value else { return };
        for (key, value) in entries {
            let line = key.at.line - 1;
            if section["required"].as_array().is_some_and(|names| names.iter().any(|name| *name == *key.name)) {
                // What is said above it, and above the keys before it that stand close.
                let above = lines[..line].iter().rev().skip_while(|line| !line.trim_start().starts_with('#'));
                let above: Vec<_> = above.take_while(|line| line.trim_start().starts_with('#')).collect();
                assert!(above.iter().any(|line| line.contains("equired")), "{}: {}", key.at.line, lines[line]);
                *seen += 1;
            }
            let known = &section["properties"][key.name.as_str()];
            let known = if known.is_null() { &section["additionalProperties"] } else { known };
            required(root, known, value, lines, seen);
        }
    }
    let text = include_str!("../../config/trailcast.yaml");
    let (Some(tree), _) = tree::parse(text) else { panic!("not YAML") };
    let (schema, lines, mut seen) = (schema(), text.lines().collect::<Vec<_>>(), 0);
    required(&schema, &schema, &tree, &lines, &mut seen);
    assert!(seen >= 9, "{seen}");
}

#[test]
fn doubts_are_warnings() {
    let warnings = |text: &str| good(text).warnings.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        warnings(&genauth("    start: 400d\n").replace("{ env: E }", "hunter2")),
        ["t.yaml:4:51: streams.users.genauth.access_key_secret: the secret stands in the config; `{ env: NAME }` or \
          `{ file: PATH }` keeps it out"]
    );
    let variable = warnings(&genauth("").replace("{ env: E }", "$SECRET"));
    assert!(variable.len() == 1 && variable[0].contains("no variable is put in its place"), "{variable:?}");
    let old = "t.yaml:5:5: streams.cloud.start: is more than 365 days ago: SCloud keeps no events older than that";
    assert_eq!(warnings(&scloud("    start: 366d\n")), [old]);
    assert_eq!(warnings(&scloud("    start: 2024-12-31T00:00:00Z\n")), [old]);
    assert!(warnings(&scloud("    start: 365d\n")).is_empty());
    let twice =
        genauth("  again:\n    genauth: { user_pool_id: p, access_key_id: other, access_key_secret: { env: E } }\n");
    assert_eq!(
        warnings(&twice),
        ["t.yaml:3:3: streams.users: reads the same as the stream `again` into the same sink: each event comes twice"]
    );
    let more = |number| {
        format!(
            "  more-{number}:\n    genauth: {{ user_pool_id: p, access_key_id: k, access_key_secret: {{ env: E }} }}\n"
        )
    };
    assert_eq!(warnings(&genauth(&(0..9).map(more).collect::<String>())).len(), 9, "once for each but one");
    assert!(warnings(&twice.replace("access_key_id: other", "access_key_id: k, filter: { success: true }")).is_empty());
    let future = "t.yaml:5:5: streams.cloud.start: lies in the future: nothing is delivered until then";
    assert_eq!(warnings(&scloud("    start: 2026-01-01T00:00:01Z\n")), [future]);
}

/// A config with one stream into Kafka; `sink` and `rest` are more of the sink and of the file.
fn kafka(sink: &str, rest: &str) -> String {
    genauth(&format!("sinks: {{ k: {{ kafka: {{ brokers: [\"b:1\", \"a:1\"], topic: t{sink} }} }} }}\n{rest}\n"))
        .replacen("sinks: { out: { stdout: } }\n", "", 1)
}

fn is_exactly_once(text: &str) -> bool {
    let SinkConfig::Kafka(kafka) = &good(text).config.sinks["k"] else { panic!("{text}") };
    kafka.exactly_once
}

#[test]
fn exactly_once_is_what_the_checkpoint_allows() {
    let state = |more: &str| format!("checkpoint: {{ kafka: {{ brokers: [\"a:1\", \"b:1\"]{more} }} }}");
    let memory = "checkpoint: { memory: {} }";
    assert!(is_exactly_once(&kafka("", &state(""))), "the same brokers, in whatever order");
    assert!(is_exactly_once(&kafka(", exactly_once: true", &state(""))));
    assert!(!is_exactly_once(&kafka(", exactly_once: false", &state(""))));
    assert!(!is_exactly_once(&kafka("", memory)));
    assert!(!is_exactly_once(&kafka("", "checkpoint: { kafka: { brokers: [\"c:1\"] } }")), "another cluster");
    for (sink, rest, error) in [
        (", exactly_once: true", memory.to_owned(), "sinks.k.kafka.exactly_once: needs `checkpoint.kafka`"),
        (
            ", exactly_once: true",
            "checkpoint: { kafka: { brokers: [\"c:1\"] } }".to_owned(),
            "needs the cluster of `checkpoint.kafka`",
        ),
        (", exactly_once: true, tls: {}", state(""), "needs the cluster of `checkpoint.kafka`"),
        (
            ", properties: { linger.ms: 5 }",
            state(", properties: { linger.ms: 6 }"),
            "sinks.k.kafka.properties.linger.ms: is another value elsewhere",
        ),
    ] {
        let errors = errors(&kafka(sink, &rest));
        assert!(errors.contains(error), "{error}\n{errors}");
    }
    let Config { checkpoint, dead_letters, .. } = good(&kafka("", &state(""))).config;
    let CheckpointConfig::Kafka(checkpoint) = checkpoint else { panic!("{checkpoint:?}") };
    assert_eq!((checkpoint.topic.as_str(), checkpoint.group.as_str()), ("trailcast-state", "trailcast"));
    assert_eq!((checkpoint.partitions, checkpoint.session_timeout), (8, Duration::from_secs(45)));
    assert_eq!(checkpoint.transaction_timeout, Duration::from_secs(60));
    assert!(matches!(dead_letters, DeadLettersConfig::Topic(topic) if topic == "trailcast-state-dead-letters"));
}

#[test]
fn what_kafka_cannot_have_is_told_with_the_reason() {
    for (sink, error) in [
        (", properties: { acks: 1 }", "properties.acks: is trailcast's own: delivering each event"),
        (", properties: { enable.idempotence: false }", "is trailcast's own: delivering each event"),
        (", properties: { transactional.id: x }", "is trailcast's own: delivering each event"),
        (", properties: { group.id: x }", "is trailcast's own: how replicas share"),
        (", properties: { sasl.password: hunter2 }", "is trailcast's own: the key `sasl`"),
        (", properties: { security.protocol: ssl }", "is trailcast's own: the key `tls`"),
        (", properties: { bootstrap.servers: x }", "is trailcast's own: the key `brokers`"),
        (", properties: { lingr.ms: 5 }", "properties.lingr.ms: librdkafka has no such property"),
        (", properties: { linger.ms: hunter2 }", "properties.linger.ms: librdkafka does not accept this value"),
        (
            ", sasl: { mechanism: PLAIN, username: u }",
            "this mechanism needs `username` and `password`; `password` is missing",
        ),
        (
            ", sasl: { mechanism: PLAIN, password: { env: P } }",
            "this mechanism needs `username` and `password`; `username` is missing",
        ),
        (", sasl: { mechanism: PLAIN }", "this mechanism needs `username` and `password`; both are missing"),
        (", sasl: { mechanism: OAUTHBEARER, username: u }", "OAUTHBEARER needs `token`"),
        (", sasl: { mechanism: GSSAPI }", "expected one of `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`, `OAUTHBEARER`"),
        (", tls: { key_file: k }", "`certificate_file` and `key_file` go together"),
        (", create: {}", "the key `partitions` is missing"),
    ] {
        let errors = errors(&kafka(sink, "checkpoint: { memory: {} }"));
        assert!(errors.contains(error) && !errors.contains("hunter2"), "{error}\n{errors}");
    }
    let text = kafka("", "checkpoint: { memory: {} }\ndead_letters: { kafka: { topic: x } }");
    assert!(errors(&text).contains("dead_letters.kafka: needs `checkpoint.kafka`"));
    for (from, to, error) in [
        ("topic: t", "topic: 'a b'", "expected the name of a topic"),
        ("b:1", "b", "expected a host and a port"),
        ("b:1", "b:99999", "expected a host and a port"),
    ] {
        let errors = errors(&kafka("", "checkpoint: { memory: {} }").replace(from, to));
        assert!(errors.contains(error), "{error}\n{errors}");
    }
    let clear = kafka(", sasl: { mechanism: PLAIN, username: u, password: { env: P } }", "checkpoint: { memory: {} }");
    let warnings = good(&clear).warnings;
    assert!(warnings[0].message.contains("without `tls` the secret crosses the network in the clear"), "{warnings:?}");
}

#[test]
fn no_secret_shows_in_debug() {
    let loaded = good(&genauth("").replace("{ env: E }", "hunter2"));
    assert!(!format!("{loaded:?}").contains("hunter2"));
}

/// A config with one stream into an OTLP receiver.
fn otlp(sink: &str) -> String {
    genauth(&format!("sinks: {{ o: {{ otlp: {{ {sink} }} }} }}\n")).replacen("sinks: { out: { stdout: } }\n", "", 1)
}

fn otlp_config(sink: &str) -> OtlpConfig {
    let SinkConfig::Otlp(otlp) = &good(&otlp(sink)).config.sinks["o"] else { panic!("{sink}") };
    (**otlp).clone()
}

#[test]
fn an_otlp_endpoint_is_one_for_logs() {
    for (sink, url) in [
        ("endpoint: http://loki:3100/otlp", "http://loki:3100/otlp/v1/logs"),
        ("endpoint: http://loki:3100/otlp/", "http://loki:3100/otlp/v1/logs"),
        ("endpoint: http://c:4318", "http://c:4318/v1/logs"),
        ("endpoint: https://c/v1/logs", "https://c/v1/logs"),
        ("endpoint: http://c:4317, protocol: grpc", "http://c:4317/"),
    ] {
        assert_eq!(otlp_config(sink).endpoint.as_str(), url, "{sink}");
    }
    let OtlpConfig { compression, raw, max_request_size, max_event_age, max_event_age_policy, backfill, .. } =
        otlp_config("endpoint: http://c:4318");
    assert_eq!((compression, raw, max_request_size, max_event_age), (Compression::Gzip, true, 1 << 20, None));
    assert_eq!(max_event_age_policy, MaxEventAgePolicy::DeadLetter);
    assert_eq!((backfill.older_than, backfill.instance_id.as_str()), (Duration::from_secs(3000), "backfill"));
    // The contract's own example.
    let example = "endpoint: \"http://loki:3100/otlp\", protocol: http, compression: gzip, \
                   headers: { X-Scope-OrgID: t1 }, max_event_age: 7d";
    assert_eq!(good(&otlp(example)).warnings, []);
}

#[test]
fn what_otlp_cannot_have_is_told_with_the_reason() {
    for (sink, error) in [
        ("protocol: http", "the key `endpoint` is missing"),
        ("endpoint: 'mailto:x'", "must begin with `http://` or `https://` and name a host"),
        ("endpoint: https://u:hunter2@c", "must hold no user name or password"),
        ("endpoint: https://c?a=hunter2", "must end with the host or a path"),
        ("endpoint: https://c/otlp, protocol: grpc", "must end with the port: gRPC has no path"),
        ("endpoint: https://c, protocol: udp", "expected one of `http`, `grpc`"),
        ("endpoint: https://c, headers: { 'a b': hunter2 }", "headers.a b: is no name of a header"),
        ("endpoint: https://c, headers: { Content-Type: hunter2 }", "headers.Content-Type: is trailcast's own"),
        ("endpoint: https://c, headers: { X-A: \"a\\nhunter2\" }", "headers.X-A: holds characters that no header may"),
        (
            "endpoint: https://c, resource: { service.name: x }",
            "resource.service.name: is trailcast's own: it is the so",
        ),
        ("endpoint: https://c, max_request_size: 4MiB", "max_request_size: must be from `1KiB` to `4032KiB`"),
        ("endpoint: https://c, max_request_events: 1001", "max_request_events: expected a whole number from 1 to 1000"),
        ("endpoint: https://c, request_timeout: 0s", "request_timeout: must be above zero"),
        ("endpoint: http://c, tls: {}", "tls: needs an `endpoint` that begins with `https://`"),
        ("endpoint: https://c, tls: { key_file: k }", "`certificate_file` and `key_file` go together"),
        ("endpoint: https://c, backfill: { older: 1h }", "backfill.older: unknown key"),
    ] {
        let errors = errors(&otlp(sink));
        assert!(errors.contains(error) && !errors.contains("hunter2"), "{error}\n{errors}");
    }
    let stdout = genauth("").replace("stdout: }", "stdout: { format: otlp } }");
    assert!(errors(&stdout).contains("sinks.out.stdout.format: `otlp` is no text"), "{}", errors(&stdout));
    let kafka = kafka(", format: otlp", "checkpoint: { memory: {} }");
    assert!(matches!(&good(&kafka).config.sinks["k"], SinkConfig::Kafka(kafka) if kafka.format == Format::Otlp));
}

#[test]
fn secrets_in_headers_are_warned_of_where_they_are_open() {
    for (sink, warning) in [
        ("endpoint: http://loki:3100, headers: { A: { env: A } }", Some("cross the network in the clear")),
        ("endpoint: http://127.0.0.1:3100, headers: { A: { env: A } }", None),
        ("endpoint: https://loki, headers: { A: { env: A } }", None),
        ("endpoint: https://loki, headers: { Authorization: hunter2 }", Some("the secret stands in the config")),
        ("endpoint: http://loki:3100, headers: { X-Scope-OrgID: a }", None),
    ] {
        let loaded = good(&otlp(sink));
        assert!(!format!("{loaded:?}").contains("hunter2"), "{sink}");
        let said: Vec<_> = loaded.warnings.iter().map(|warning| warning.message.clone()).collect();
        assert!(said.len() == usize::from(warning.is_some()), "{sink}: {said:?}");
        assert!(warning.is_none_or(|warning| said[0].contains(warning)), "{sink}: {said:?}");
    }
}

/// A config with traces.
fn traces(otlp: &str) -> String {
    genauth(&format!("traces: {{ otlp: {{ {otlp} }} }}\n"))
}

#[test]
fn traces_go_where_the_config_says() {
    // The contract's own example.
    let loaded = good(&genauth("traces: { otlp: { endpoint: \"http://collector:4317\" } }\n"));
    assert_eq!(loaded.warnings, []);
    let traces_config = loaded.config.traces.unwrap();
    assert_eq!(traces_config.endpoint.as_str(), "http://collector:4317/");
    assert!(traces_config.headers.is_empty() && (traces_config.sample_ratio - 1.0).abs() < f64::EPSILON);
    let some = "endpoint: https://c:4317, sample_ratio: 0.25, headers: { X-Team: a, Authorization: { env: A } }";
    let traces_config = good(&traces(some)).config.traces.unwrap();
    assert!((traces_config.sample_ratio - 0.25).abs() < f64::EPSILON);
    assert_eq!(traces_config.headers.keys().collect::<Vec<_>>(), ["authorization", "x-team"]);
    let loaded = good(&traces("endpoint: http://c:4317, headers: { Authorization: { env: A } }"));
    assert!(loaded.warnings[0].message.contains("cross the network in the clear"), "{:?}", loaded.warnings);
    let loaded = good(&traces("endpoint: https://c:4317, headers: { Authorization: hunter2 }"));
    assert!(
        loaded.warnings[0].key == "traces.otlp.headers.Authorization" && !format!("{loaded:?}").contains("hunter2")
    );
}

#[test]
fn what_traces_cannot_have_is_told_with_the_reason() {
    for (otlp, error) in [
        ("sample_ratio: 1", "traces.otlp: the key `endpoint` is missing; expected a URL such as"),
        ("endpoint: hunter2", "traces.otlp.endpoint: expected a URL such as"),
        ("endpoint: collector:4317", "traces.otlp.endpoint: must begin with `http://` or `https://` and name a host"),
        ("endpoint: https://u:hunter2@c", "traces.otlp.endpoint: must hold no user name or password: `headers` is"),
        ("endpoint: https://c?a=hunter2", "traces.otlp.endpoint: must end with the host or a path"),
        ("endpoint: https://c/v1/traces", "traces.otlp.endpoint: must end with the port: gRPC has no path"),
        ("endpoint: https://c, sample_ratio: 1.5", "traces.otlp.sample_ratio: expected a number from 0 to 1, found"),
        ("endpoint: https://c, sample_ratio: -0.1", "traces.otlp.sample_ratio: expected a number from 0 to 1, found"),
        ("endpoint: https://c, headers: { te: hunter2 }", "traces.otlp.headers.te: is trailcast's own"),
        ("endpoint: https://c, smaple_ratio: 1", "unknown key; did you mean `sample_ratio`?"),
    ] {
        let errors = errors(&traces(otlp));
        assert!(errors.contains(error) && !errors.contains("hunter2"), "{error}\n{errors}");
    }
    assert!(errors(&genauth("traces: {}\n")).contains("traces: the key `otlp` is missing; expected a mapping"));
}

#[test]
fn the_samples_load() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for name in [
        "trailcast.yaml",
        "kafka.yaml",
        "otlp.yaml",
        "minimal-genauth.yaml",
        "minimal-kafka.yaml",
        "minimal-scloud.yaml",
    ] {
        let loaded = load(&folder.join(name)).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(loaded.warnings, [], "{name}");
    }
}

/// Every key path of the schema, names that users choose written as `*`.
fn schema_keys(root: &Json, schema: &Json, path: &str, keys: &mut BTreeSet<String>) {
    let target = check::resolve(root, schema);
    for (name, property) in target["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        schema_keys(root, property, &path, keys);
        keys.insert(path);
    }
    if target["additionalProperties"].is_object() {
        schema_keys(root, &target["additionalProperties"], &format!("{path}.*"), keys);
    }
    for branch in target["anyOf"].as_array().into_iter().flatten() {
        schema_keys(root, branch, path, keys);
    }
}

fn tree_keys(node: &tree::Node, path: &str, keys: &mut BTreeSet<String>) {
    let tree::Value::Map(entries) = &node.value else { return };
    for (key, node) in entries {
        let named = matches!(path, ".streams" | ".sinks")
            || path.ends_with("properties")
            || path.ends_with(".config")
            || path.ends_with(".headers")
            || path.ends_with(".resource");
        let name = if named { "*" } else { &key.name };
        let path = format!("{path}.{name}");
        tree_keys(node, &path, keys);
        keys.insert(path);
    }
}

#[test]
fn the_samples_hold_every_key() {
    let schema = schema();
    let mut known = BTreeSet::new();
    schema_keys(&schema, &schema, "", &mut known);
    assert!(known.contains(".streams.*.scloud.filter.access_key_ids"), "{known:?}");
    // The other of two ways, which one file cannot hold.
    known.remove(".checkpoint.memory");
    for (path, way) in [(".streams.*.genauth.access_key_secret", ".file"), (".streams.*.scloud.private_key", ".env")] {
        assert!(known.remove(&format!("{path}{way}")), "{path}{way}");
    }
    for kafka in [".sinks.*.kafka", ".checkpoint.kafka"] {
        for way in
            [".tls.key_password.env", ".sasl.password.file", ".sasl.token.env", ".sasl.token.file", ".sasl.token"]
        {
            assert!(known.remove(&format!("{kafka}{way}")), "{kafka}{way}");
        }
    }
    for otlp in [".sinks.*.otlp", ".traces.otlp"] {
        assert!(known.remove(&format!("{otlp}.headers.*.env")), "{otlp}");
    }
    let (text, kafka) = (include_str!("../../config/trailcast.yaml"), include_str!("../../config/kafka.yaml"));
    let otlp = include_str!("../../config/otlp.yaml");
    assert!(text.contains("`memory: {}`") && kafka.contains("`token: { file: … }`"));
    let mut written = BTreeSet::new();
    for text in [text, kafka, otlp] {
        let (Some(tree), _) = tree::parse(text) else { panic!("not YAML") };
        tree_keys(&tree, "", &mut written);
    }
    written.retain(|path| !path.ends_with(".*"));
    assert_eq!(known, written);
}

#[test]
fn the_schema_describes_every_key_and_states_defaults() {
    fn described(root: &Json, path: &str) -> usize {
        let mut count = 0;
        for (name, property) in root["properties"].as_object().into_iter().flatten() {
            assert!(property["description"].is_string(), "{path}.{name}");
            count += 1;
        }
        count
    }
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(described(&schema, ""), 8);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        described(definition, name);
        assert!(definition["description"].is_string(), "{name}");
    }
    let stream = &schema["$defs"]["Stream"]["properties"];
    assert_eq!(stream["start"]["default"], "30d");
    assert_eq!(stream["sweeps"]["default"], serde_json::json!(["1m", "15m", "6h"]));
    assert_eq!(schema["$defs"]["Memory"]["properties"]["process"]["default"], "128MiB");
    assert_eq!(schema["$defs"]["Admin"]["properties"]["listen"]["default"], "127.0.0.1:9464");
    assert!(!schema.to_string().contains("\"null\""));
}
