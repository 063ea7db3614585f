//! The README, the samples and the program say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use trailcast::cli::Cli;
use trailcast::config;
use trailcast::dead_letter::DeadLetterReason;
use trailcast::health::LaneState;
use trailcast::metrics::{Metrics, SinkReason};
use trailcast::reading::Outcome;
use trailcast::simulate::{Options, genauth, scloud};
use trailcast::source::FetchReason;
use trailcast::telemetry::{self, spans::WindowOutcome};

use crate::program::{Answer, simulate, trailcast};

const README: &str = include_str!("../../README.md");
const PROOF: &str = include_str!("../../docs/proof.md");

/// The fenced blocks of a language, without their fences.
fn blocks(language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = README.lines();
    while let Some(line) = lines.next() {
        let Some(found) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if found == language {
            blocks.push(block.join("\n") + "\n");
        }
    }
    blocks
}

/// The code spans outside of blocks, line by line.
fn spans() -> Vec<Vec<&'static str>> {
    let mut in_block = false;
    let outside = README.lines().filter(|line| {
        let fence = line.starts_with("```");
        in_block ^= fence;
        !fence && !in_block
    });
    outside.map(|line| code_spans(line).collect()).collect()
}

fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_config_in_the_readme_loads() {
    let blocks = blocks("yaml");
    assert_eq!(blocks.len(), 5);
    for block in &blocks {
        // A section alone is one of a file that has the rest.
        let whole = if block.starts_with("traces:") { &format!("{}{block}", blocks[0]) } else { block };
        let loaded = config::parse(Path::new("README.md"), whole).unwrap_or_else(|errors| panic!("{errors}\n{block}"));
        assert_eq!(loaded.warnings, [], "{block}");
    }
    for sample in ["config/minimal-genauth.yaml", "config/minimal-scloud.yaml", "config/minimal-kafka.yaml"] {
        let text = std::fs::read_to_string(repository(sample)).unwrap();
        assert!(blocks.contains(&text), "{sample} is not in the README word for word");
    }
}

/// What a line of the README gives to trailcast, or nothing.
fn arguments(line: &str) -> Option<Vec<&str>> {
    let line = line.split([';', '|', '>', '#']).next()?.trim();
    let arguments = line.strip_prefix("trailcast ").or_else(|| line.strip_prefix("cargo run --release -- "))?;
    Some(std::iter::once("trailcast").chain(arguments.split(' ')).collect())
}

#[test]
fn every_command_line_in_the_readme_parses() {
    let mut tried = 0;
    let in_blocks = blocks("sh");
    let lines = in_blocks.iter().flat_map(|block| block.lines());
    let of_spans: Vec<_> = spans().into_iter().flatten().collect();
    for line in lines.chain(of_spans).filter(|line| !line.contains("--help") && !line.contains("--version")) {
        // The names of commands alone, in the text, lack what they require.
        if matches!(line, "trailcast cursor set" | "trailcast cursor delete") {
            continue;
        }
        if let Some(arguments) = arguments(&line.replace(" TIME", " 2026-01-31T00:00:00Z")) {
            if let Err(error) = Cli::try_parse_from(arguments) {
                panic!("{line}\n{error}");
            }
            tried += 1;
        }
    }
    assert!(tried >= 12, "{tried}");
}

#[test]
fn every_command_and_its_options_are_in_the_readme() {
    fn walk(command: &clap::Command, path: &str, known: &BTreeMap<String, BTreeSet<&str>>) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let path = format!("{path} {}", sub.get_name());
            if sub.has_subcommands() {
                walk(sub, &path, known);
                continue;
            }
            let (_, words) = known
                .iter()
                .find(|(command, _)| **command == path || command.starts_with(&format!("{path} ")))
                .unwrap_or_else(|| panic!("`{path}` has no row in the table of commands"));
            // The simulator's many are left to its --help.
            let options = sub.get_arguments().filter_map(clap::Arg::get_long);
            for option in options.filter(|option| path != "trailcast simulate" && !matches!(*option, "help" | "config"))
            {
                // What the cursor commands have in common stands with the first.
                let common = path.starts_with("trailcast cursor ") && matches!(option, "stream" | "sink" | "json");
                assert!(common || words.contains(option), "`{path} --{option}` is not in its row");
            }
        }
    }
    let rows = README.lines().filter(|line| line.starts_with("| `trailcast ")).map(|line| {
        let spans: Vec<&str> = code_spans(line).collect();
        let words = spans.iter().flat_map(|span| span.split(' ')).filter_map(|word| word.strip_prefix("--"));
        (spans[0].to_owned(), words.collect::<BTreeSet<_>>())
    });
    walk(&Cli::command(), "trailcast", &rows.collect());
}

/// Names, kinds and labels of the README's table.
fn documented_metrics() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let rows = README.lines().filter_map(|line| line.strip_prefix("| `trailcast_"));
    let row = |row: &str| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = code_spans(cells[2]).map(ToOwned::to_owned).collect();
        (format!("trailcast_{}", cells[0].trim_end_matches('`')), (cells[1].to_owned(), labels))
    };
    rows.map(row).collect()
}

/// Names, kinds and labels of what a process shows once everything in it is known.
fn shown_metrics() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let metrics = Metrics::new();
    let (stream, lane) = (metrics.stream("s"), metrics.lane("s", "k"));
    let _ = metrics.sink("k");
    stream.set_clock_offset(0);
    stream.set_read_through(1);
    lane.set_delivered_through(1);
    lane.set_verified_through(1);
    lane.committed(1);
    let text = metrics.render();
    let mut shown = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE trailcast_").and_then(|line| line.split_once(' ')) {
            shown.insert(format!("trailcast_{name}"), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((name, labels)) = line.split_once('{').filter(|(name, _)| name.starts_with("trailcast_")) {
            let suffixes = ["_bucket", "_sum", "_count"];
            let family =
                suffixes.iter().find_map(|suffix| name.strip_suffix(suffix).filter(|name| shown.contains_key(*name)));
            let labels = labels.split('}').next().unwrap().split(',').map(|label| label.split('=').next().unwrap());
            let labels = labels.filter(|label| *label != "le").map(ToOwned::to_owned);
            shown.get_mut(family.unwrap_or(name)).unwrap().1.extend(labels);
        }
    }
    shown
}

#[test]
fn the_table_of_metrics_is_what_a_process_shows() {
    assert_eq!(documented_metrics(), shown_metrics());
}

#[test]
fn every_label_value_and_every_metric_in_the_text_exists() {
    let closed: [(&str, &str, BTreeSet<&str>); 5] = [
        ("reason", "trailcast_fetch_errors_total", FetchReason::ALL.map(FetchReason::label).into()),
        ("reason", "trailcast_sink_errors_total", SinkReason::ALL.map(SinkReason::label).into()),
        ("reason", "trailcast_dead_letters_total", DeadLetterReason::ALL.map(DeadLetterReason::label).into()),
        ("state", "trailcast_lane_state", LaneState::ALL.map(LaneState::label).into()),
        ("outcome", "trailcast_fetch_windows_total", Outcome::ALL.map(Outcome::label).into()),
    ];
    let spans = spans();
    for (label, metric, values) in closed {
        let row = spans.iter().find(|row| row.starts_with(&[label, metric])).unwrap_or_else(|| panic!("{metric}"));
        assert_eq!(row[2..].iter().copied().collect::<BTreeSet<_>>(), values, "{metric}");
    }
    let shown = shown_metrics();
    for word in
        README.split(|c: char| !(c.is_ascii_lowercase() || c == '_')).filter(|word| word.starts_with("trailcast_"))
    {
        // Headers of Kafka records, and an attribute as Loki calls it.
        let other = matches!(word, "trailcast_stream" | "trailcast_late" | "trailcast_type");
        assert!(other || shown.contains_key(word.strip_suffix("_bucket").unwrap_or(word)), "{word}");
    }
}

#[test]
fn the_table_of_spans_is_what_they_are_declared_as() {
    let window = trailcast::window::Window { from: 0, to: 1 };
    // A span that nobody takes says nothing of itself.
    let _taken = tracing::subscriber::set_default(tracing_subscriber::registry());
    let declared = [
        telemetry::spans::Window::new("s", "k", window, "live").span(),
        telemetry::spans::request("s"),
        telemetry::spans::deliver("s", "k", 1, false),
        telemetry::spans::commit("s", "k"),
    ];
    // What `otel.` begins is a span's own kind or status, not an attribute.
    let attributes = |span: &tracing::Span| {
        let fields = span.metadata().unwrap().fields();
        let names = fields.iter().map(|field| field.name().to_owned());
        names.filter(|name| !name.starts_with("otel.")).collect::<BTreeSet<_>>()
    };
    let declared = declared.iter().map(|span| (span.metadata().unwrap().name().to_owned(), attributes(span)));
    let table = README.lines().skip_while(|line| !line.starts_with("| span |")).skip(2);
    let documented = table.take_while(|line| line.starts_with('|')).map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        let attributes = code_spans(cells[3]).map(ToOwned::to_owned).collect::<BTreeSet<_>>();
        (cells[1].trim().trim_matches('`').to_owned(), attributes)
    });
    assert_eq!(documented.collect::<BTreeMap<_, _>>(), declared.collect::<BTreeMap<_, _>>());
    for (attribute, values) in [
        ("trailcast.outcome", WindowOutcome::ALL.map(WindowOutcome::label)),
        ("trailcast.reading", Outcome::ALL.map(Outcome::label)),
    ] {
        let rows = spans();
        let row = rows.iter().find(|row| row[..].first() == Some(&attribute)).unwrap();
        assert_eq!(row[1..], values, "{attribute}");
    }
}

#[test]
fn every_file_and_test_part_that_the_readme_names_exists() {
    let links: Vec<&str> = README.split("](").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(links.len() >= 3, "{links:?}");
    for link in links.iter().filter(|link| !link.starts_with("https://")) {
        assert!(repository(link).exists(), "{link}");
    }
    let runner = std::fs::read_to_string(repository("tests/run")).unwrap();
    for line in spans().into_iter().flatten().filter_map(|span| span.strip_prefix("tests/run ")) {
        for part in line.split(' ').filter(|part| !part.starts_with("--")) {
            assert!(runner.contains(&format!("\npart_{part}() {{")), "{line}");
        }
    }
}

#[test]
fn the_simulators_credentials_in_the_readme_work() {
    for credential in [
        genauth::USER_POOL_ID,
        genauth::ACCESS_KEY_ID,
        genauth::ACCESS_KEY_SECRET,
        scloud::PROJECT_ID,
        scloud::PUBLIC_KEY,
        scloud::PRIVATE_KEY,
    ] {
        assert!(blocks("yaml")[4].contains(credential), "{credential}");
    }
}

/// Whether `text` has a test of that name: one that is not left out.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_it = |line: &str| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ").and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
    };
    let mut places = lines.iter().enumerate().filter(|(_, line)| is_it(line)).map(|(place, _)| place);
    places.any(|place| {
        let attributes = lines[..place].iter().rev().take_while(|line| line.starts_with("#["));
        let attributes: Vec<&&str> = attributes.collect();
        let is_test = attributes.iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"));
        is_test && !attributes.iter().any(|line| line.starts_with("#[ignore"))
    })
}

/// Each case that 0.1.0 failed has its row, once, and no other has one.
#[test]
fn the_table_of_proofs_has_every_case_once() {
    let kinds = [("T", 13), ("A", 14), ("P", 4), ("M", 7), ("H", 5), ("S", 6), ("K", 11), ("C", 6), ("Z", 3)];
    let cases = kinds.into_iter().flat_map(|(kind, count)| (1..=count).map(move |number| format!("{kind}{number}")));
    let rows = PROOF.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| case |"));
    let rows: Vec<Vec<&str>> = rows
        .filter(|line| !line.starts_with("| ---"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert_eq!(rows.iter().map(|row| row[0].to_owned()).collect::<Vec<_>>(), cases.collect::<Vec<_>>());
    for row in rows {
        assert!(row.len() == 5 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        assert!(code_spans(row[3]).any(|span| span.contains(": ")) || row[4].starts_with("Not tested"), "{row:?}");
    }
}

#[test]
fn every_test_and_every_fault_in_the_table_of_proofs_exists() {
    let (mut tests, mut faults) = (0, 0);
    for span in PROOF.lines().flat_map(code_spans) {
        if let Some((file, name)) = span.split_once(".rs: ") {
            let text = std::fs::read_to_string(repository(&format!("{file}.rs")));
            let text = text.unwrap_or_else(|error| panic!("{span}: {error}"));
            assert!(has_test(&text, name), "{span}: no such test");
            tests += 1;
        } else if span.starts_with("--") {
            let arguments = ["trailcast", "simulate"].into_iter().chain(span.split(' '));
            if let Err(error) = Cli::try_parse_from(arguments) {
                panic!("{span}\n{error}");
            }
            faults += 1;
        }
    }
    assert!(tests > 120 && faults > 40, "{tests} tests, {faults} faults");
}

/// A key says what it means beside it, above it, or in the comment above the keys before it.
#[test]
fn every_key_of_the_samples_has_a_comment() {
    for sample in ["config/trailcast.yaml", "config/kafka.yaml", "config/otlp.yaml", "config/victorialogs.yaml"] {
        has_comments(sample);
    }
}

/// What is older than VictoriaLogs keeps it loses in silence: each of these lies within the next.
#[test]
fn the_sample_for_victorialogs_keeps_what_its_retention_would_lose() {
    let loaded = config::load(&repository("config/victorialogs.yaml")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.warnings, []);
    let sample = std::fs::read_to_string(repository("config/victorialogs.yaml")).unwrap();
    let days = |before: &str| -> u32 {
        let (_, rest) = sample.split_once(before).unwrap_or_else(|| panic!("{before}"));
        rest.split('d').next().unwrap().parse().unwrap()
    };
    let (start, age, retention) =
        (days("\n    start: "), days("max_event_age: "), days("victoria-logs -retentionPeriod="));
    // It begins a day anew at midnight: a day between the two is never too little.
    assert!(start <= age && age < retention, "{start} {age} {retention}");
}

fn has_comments(file: &str) {
    let sample = std::fs::read_to_string(repository(file)).unwrap();
    let mut explained: Vec<usize> = Vec::new();
    for (number, line) in sample.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if line.trim().is_empty() {
            continue;
        }
        explained.retain(|level| *level <= indent);
        if line.contains("# ") || line.trim() == "#" {
            explained.push(indent);
        }
        // A user's own name, of which the comment above speaks.
        let named = matches!(line, "  out:" | "  cloud:" | "  users:" | "  events:" | "  loki:");
        assert!(named || explained.contains(&indent), "{file}:{}: {line}", number + 1);
    }
}

#[tokio::test]
async fn the_exit_status_says_whose_turn_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let minimal = std::fs::read_to_string(repository("config/minimal-genauth.yaml")).unwrap();
    let good = file("good.yaml", &minimal);
    let wrong = file("wrong.yaml", &minimal.replace("user_pool_id", "user_pool"));
    // Nothing listens on port 1; the checkpoint's place is taken by a file.
    let state = folder.path().join("state");
    let unreachable = minimal
        .replace("genauth:", "genauth:\n      endpoint: http://127.0.0.1:1")
        .replace("{ env: GENAUTH_ACCESS_KEY_SECRET }", "x");
    let unreachable =
        file("unreachable.yaml", &format!("{unreachable}checkpoint: {{ file: {{ path: {} }} }}\n", state.display()));
    let missing = folder.path().join("none.yaml").to_str().unwrap().to_owned();

    for (arguments, status) in [
        (&["--version"][..], 0),
        (&["--help"], 0),
        (&["schema"], 0),
        (&["check", "--offline", "-c", &good], 0),
        (&["cursor", "show", "-c", &unreachable], 0),
        (&["demo", "--for", "1s"], 0),
        (&["check", "-c", &unreachable], 1),
        (&[], 2),
        (&["rum"], 2),
        (&["run"], 2),
        (&["run", "-c", &missing], 2),
        (&["run", "-c", &wrong], 2),
        (&["check", "--offline", "-c", &wrong], 2),
    ] {
        let Answer { code, stdout, stderr } = trailcast(arguments).await;
        assert_eq!(code, Some(status), "{arguments:?}\n{stdout}\n{stderr}");
        match status {
            2 => assert!(stdout.is_empty() && !stderr.is_empty(), "{arguments:?}\n{stdout}"),
            _ => assert!(!stdout.is_empty() || arguments[0] == "demo", "{arguments:?}\n{stderr}"),
        }
    }
}

#[tokio::test]
async fn the_schema_is_json_and_has_every_top_level_key() {
    let answer = trailcast(&["schema"]).await;
    assert_eq!(answer.code, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    for key in ["streams", "sinks", "checkpoint", "dead_letters", "admin", "log", "traces"] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
}

/// The README's recipe, with the port that the simulator got.
#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_test_with_the_simulator_works() {
    let options = Options { rate: 5.0, ..Options::default() };
    let simulator = simulate(options).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("simulated.yaml");
    // The secrets stand in the file here: the environment of tests that run at once is not theirs to change.
    let config = blocks("yaml")[4]
        .replace("http://127.0.0.1:8080", &simulator.url())
        .replace("{ env: GENAUTH_ACCESS_KEY_SECRET }", genauth::ACCESS_KEY_SECRET)
        .replace("{ env: SCLOUD_PRIVATE_KEY }", scloud::PRIVATE_KEY);
    std::fs::write(&path, format!("{config}admin: {{ listen: \"127.0.0.1:0\" }}\n")).unwrap();
    let answer = trailcast(&["run", "-c", path.to_str().unwrap(), "--until-caught-up"]).await;
    simulator.shutdown().await;
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);

    let mut ids = BTreeSet::new();
    let mut sources = BTreeMap::new();
    for line in answer.stdout.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(ids.insert(event["id"].as_str().unwrap().to_owned()), "{line}");
        *sources.entry(event["source"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    // Ten minutes at five a second; the ledger's own test is exact.
    for (source, count) in &sources {
        assert!((2_900..=3_200).contains(count), "{source}: {count}");
    }
    assert_eq!(sources.len(), 2, "{sources:?}");
}
