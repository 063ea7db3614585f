//! The README, the pages under docs/, the samples and the program say the same.

mod generated;
mod layers;
mod pages;
mod pasted;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use trailcast::cli::Cli;
use trailcast::config;
use trailcast::dead_letter::DeadLetterReason;
use trailcast::event::Source;
use trailcast::health::LaneState;
use trailcast::metrics::{Metrics, SinkReason};
use trailcast::reading::{GapReason, Outcome};
use trailcast::simulate::{Options, Start, genauth, scloud};
use trailcast::source::FetchReason;
use trailcast::spans::{self, WindowOutcome};

use crate::program::{Answer, simulate, trailcast};
use pages::{Page, cells, code_spans, page, pages, read, repository, texts_below};

/// What other commands begin with, and what holds them.
const OTHERS: [(&str, &str); 12] = [
    ("kcat ", "tests/consumers"),
    ("kafka-topics.sh ", "its settings are those that tests/kafka sets"),
    ("kafka-console-consumer.sh ", "a tool of Kafka's own"),
    ("curl http://victorialogs:9428/select/logsql/query ", "tests/otlp asks so"),
    ("curl 'http://127.0.0.1:8080/truth?source=genauth' ", "tests/it asks so"),
    ("export GENAUTH_ACCESS_KEY_SECRET=6f2b8c1d9e0a4735b6c8d1e2f3a4b5c6", "the simulator's credentials, below"),
    ("export SCLOUD_PRIVATE_KEY=46f09bb9fab4f12dfc160dae12273d5332b5debe", "the simulator's credentials, below"),
    ("cargo install --locked --path .", "what cargo does with any package"),
    ("cargo install --locked cargo-auditable", "tests/image, by the Dockerfile"),
    ("docker run --rm --read-only trailcast demo --for 30s", "tests/image runs it so"),
    ("docker compose -f packaging/compose/compose.yaml up --build", "tests/packaging reads that file"),
    ("packaging/sbom \"$(packaging/build)\" > trailcast.cdx.json", "tests/image runs it"),
];

/// A config of a page; what is a section alone is one of a file that has the rest.
fn whole(block: &str) -> String {
    let minimal = read("config/minimal-genauth.yaml");
    let (streams, _) = minimal.split_once("sinks:\n").unwrap();
    match block.lines().find(|line| !line.starts_with('#')).unwrap() {
        "streams:" => block.to_owned(),
        "sinks:" => format!("{streams}{block}"),
        _ => format!("{minimal}{block}"),
    }
}

#[test]
fn every_config_in_the_docs_loads() {
    let blocks: Vec<(&str, String)> = pages()
        .iter()
        .flat_map(|page| page.blocks("yaml").into_iter().map(|block| (page.path.as_str(), block)))
        .collect();
    assert!(blocks.len() >= 7, "{}", blocks.len());
    for (page, block) in &blocks {
        let loaded = config::parse(Path::new(page), &whole(block));
        let loaded = loaded.unwrap_or_else(|errors| panic!("{errors}\n{block}"));
        assert_eq!(loaded.warnings, [], "{page}\n{block}");
    }
    for (page, sample) in [
        ("README.md", "config/minimal-genauth.yaml"),
        ("README.md", "config/minimal-scloud.yaml"),
        ("docs/kafka.md", "config/minimal-kafka.yaml"),
    ] {
        let text = read(sample);
        assert!(blocks.contains(&(page, text)), "{sample} is not in {page} word for word");
    }
}

#[test]
fn the_readme_is_short() {
    let lines = page("README.md").text.lines().count();
    assert!(lines <= 200, "{lines} lines");
}

/// What a line gives to trailcast, or nothing.
fn arguments(line: &str) -> Option<Vec<&str>> {
    let line = line.split([';', '|', '>', '#', '&']).next()?.trim();
    let arguments = line.strip_prefix("trailcast ").or_else(|| line.strip_prefix("cargo run --release -- "))?;
    Some(std::iter::once("trailcast").chain(arguments.split(' ')).collect())
}

/// Commands alone, in the text, may lack what they require.
fn is_a_command(arguments: &[&str]) -> bool {
    let command =
        arguments[1..].iter().try_fold(Cli::command(), |command, name| command.find_subcommand(name).cloned());
    command.is_some()
}

#[test]
fn every_command_line_in_the_docs_parses() {
    let mut tried = 0;
    for page in pages() {
        let blocks = page.blocks("sh");
        let spans = page.spans().concat();
        let lines = blocks.iter().flat_map(|block| block.lines()).chain(spans);
        for line in lines.filter(|line| !line.contains("--help") && !line.contains("--version")) {
            let line = line.replace(" TIME", " 2026-01-31T00:00:00Z");
            let Some(arguments) = arguments(&line).filter(|arguments| !is_a_command(arguments)) else { continue };
            if let Err(error) = Cli::try_parse_from(arguments) {
                panic!("{}: {line}\n{error}", page.path);
            }
            tried += 1;
        }
    }
    assert!(tried >= 30, "{tried}");
}

/// Each command that a reader can paste is one that something holds.
#[test]
fn every_command_in_a_block_is_known() {
    let (benches, chart, dockerfile) = (read("benches/run"), read("helm/trailcast/README.md"), read("Dockerfile"));
    for page in pages() {
        let blocks = page.blocks("sh").concat().replace("\\\n", " ");
        for line in blocks.lines() {
            let (command, words) = line.split_once(' ').unwrap_or((line, ""));
            let mut words = words.split(' ').filter(|word| !word.is_empty());
            let held = if arguments(line).is_some() {
                // The test above parses it.
                true
            } else if command == "tests/run" {
                words.all(|part| part == "--list" || is_part_of_the_tests(part))
            } else if command == "benches/run" {
                words.next().is_none_or(|part| benches.contains(&format!("\n#   {part} ")))
            } else if let Some((_, target)) = line.split_once("cargo test --") {
                let (target, name) = target.trim_start_matches("test ").split_once(' ').unwrap();
                name == "docs::" || has_test_like(target, name)
            } else if matches!(command, "helm" | "kubectl") {
                chart.lines().any(|known| known == line)
            } else if line.starts_with("docker build ") {
                dockerfile.lines().any(|known| known.trim_start_matches(['#', ' ']) == line)
            } else if command == "python3" {
                words.next().is_some_and(|script| repository(script).exists())
            } else {
                OTHERS.iter().any(|(begins, _)| line.starts_with(begins))
            };
            assert!(held, "{}: nothing is known of the command {line}", page.path);
        }
    }
}

/// Whether a test of this binary, or of the library, has a name that begins so.
fn has_test_like(target: &str, name: &str) -> bool {
    let folder = if target == "lib" { "src".to_owned() } else { format!("tests/{target}") };
    let texts = texts_below(&folder).into_iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "rs"));
    texts.map(|(_, text)| text).any(|text| text.contains(&format!("fn {name}")))
}

/// Whether `tests/run` has a part of this name.
fn is_part_of_the_tests(name: &str) -> bool {
    read("tests/run").contains(&format!("\npart_{name}() {{"))
}

#[test]
fn every_command_and_its_options_are_in_the_table() {
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
    let page = page("docs/commands.md");
    let rows = page.prose().filter(|line| line.starts_with("| `trailcast ")).map(|line| {
        let spans: Vec<&str> = code_spans(line).collect();
        let words = spans.iter().flat_map(|span| span.split(' ')).filter_map(|word| word.strip_prefix("--"));
        (spans[0].to_owned(), words.collect::<BTreeSet<_>>())
    });
    walk(&Cli::command(), "trailcast", &rows.collect());
}

/// Names, kinds and labels of the table of metrics.
fn documented_metrics() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let rows = operations().prose().filter(|line| line.starts_with("| `trailcast_")).map(cells);
    let row = |cells: Vec<&str>| {
        let labels = code_spans(cells[2]).map(ToOwned::to_owned).collect();
        (cells[0].trim_matches('`').to_owned(), (cells[1].to_owned(), labels))
    };
    rows.map(row).collect()
}

fn operations() -> &'static Page {
    page("docs/operations.md")
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
    let spans = operations().spans();
    for (label, metric, values) in closed {
        let row = spans.iter().find(|row| row.starts_with(&[label, metric])).unwrap_or_else(|| panic!("{metric}"));
        assert_eq!(row[2..].iter().copied().collect::<BTreeSet<_>>(), values, "{metric}");
    }
    let shown = shown_metrics();
    for page in pages() {
        let words = page.text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        for word in words.filter(|word| word.starts_with("trailcast_")) {
            // Headers of Kafka records, and an attribute as Loki calls it.
            let other = matches!(word, "trailcast_stream" | "trailcast_late" | "trailcast_type");
            let metric = word.strip_suffix("_bucket").unwrap_or(word);
            assert!(other || shown.contains_key(metric), "{}: {word}", page.path);
        }
    }
}

#[test]
fn the_table_of_states_has_each_once() {
    let rows = operations().table("| state |");
    let states: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    assert_eq!(states, LaneState::ALL.map(LaneState::label));
}

#[test]
fn the_table_of_spans_is_what_they_are_declared_as() {
    let window = trailcast::window::Window { from: 0, to: 1 };
    // A span that nobody takes says nothing of itself.
    let _taken = tracing::subscriber::set_default(tracing_subscriber::registry());
    let declared = [
        spans::Window::new("s", "k", window, "live").span(),
        spans::request("s"),
        spans::deliver("s", "k", 1, false),
        spans::commit("s", "k"),
    ];
    // What `otel.` begins is a span's own kind or status, not an attribute.
    let attributes = |span: &tracing::Span| {
        let fields = span.metadata().unwrap().fields();
        let names = fields.iter().map(|field| field.name().to_owned());
        names.filter(|name| !name.starts_with("otel.")).collect::<BTreeSet<_>>()
    };
    let declared = declared.iter().map(|span| (span.metadata().unwrap().name().to_owned(), attributes(span)));
    let documented = operations().table("| span |").into_iter().map(|cells| {
        let attributes = code_spans(cells[2]).map(ToOwned::to_owned).collect::<BTreeSet<_>>();
        (cells[0].trim_matches('`').to_owned(), attributes)
    });
    assert_eq!(documented.collect::<BTreeMap<_, _>>(), declared.collect::<BTreeMap<_, _>>());
    for (attribute, values) in [
        ("trailcast.outcome", WindowOutcome::ALL.map(WindowOutcome::label)),
        ("trailcast.reading", Outcome::ALL.map(Outcome::label)),
    ] {
        let rows = operations().spans();
        let row = rows.iter().find(|row| row[..].first() == Some(&attribute)).unwrap();
        assert_eq!(row[1..], values, "{attribute}");
    }
}

#[test]
fn every_link_in_the_docs_leads_somewhere() {
    let mut inner = 0;
    for from in pages() {
        let folder = Path::new(&from.path).parent().unwrap();
        for link in from.links().into_iter().filter(|link| !link.starts_with("https://")) {
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let mut path = folder.to_path_buf();
            for part in Path::new(file).components() {
                match part {
                    std::path::Component::ParentDir => assert!(path.pop(), "{}: {link}", from.path),
                    part => path.push(part),
                }
            }
            let path = if file.is_empty() { from.path.as_str() } else { path.to_str().unwrap() };
            assert!(repository(path).exists(), "{}: {link}", from.path);
            if let Some(anchor) = anchor {
                assert!(page(path).anchors().any(|found| found == anchor), "{}: {link}", from.path);
            }
            inner += 1;
        }
    }
    assert!(inner >= 50, "{inner}");
}

/// A reader of the README finds each page from there.
#[test]
fn the_readme_links_to_every_page() {
    let links = page("README.md").links();
    for page in &pages()[1..] {
        assert!(links.contains(&page.path.as_str()), "{}", page.path);
    }
}

#[test]
fn every_file_and_test_part_that_the_docs_name_exists() {
    let mut files = 0;
    for page in pages() {
        for span in page.spans().concat() {
            if let Some(parts) = span.strip_prefix("tests/run ") {
                for part in parts.split(' ').filter(|part| !part.starts_with("--")) {
                    assert!(is_part_of_the_tests(part), "{}: {span}", page.path);
                }
            }
            let path = span.split(": ").next().unwrap();
            let ours = ["src", "tests", "docs", "config", "benches", "examples", "helm", "packaging"];
            if !path.contains(' ') && ours.contains(&path.split('/').next().unwrap()) {
                assert!(repository(path).exists(), "{}: {span}", page.path);
                files += 1;
            }
        }
    }
    assert!(files >= 40, "{files}");
}

/// What the code says of the docs: pages that there are.
#[test]
fn every_page_that_the_code_names_exists() {
    let mut named = BTreeSet::new();
    let folders = ["src", "config", "helm", "benches", "examples", "tests/otlp", "tests/metrics"];
    for (_, text) in folders.into_iter().flat_map(texts_below) {
        let rest = text.split("docs/").skip(1);
        let names = rest.filter_map(|rest| rest.split_once(".md")).map(|(name, _)| name);
        let names = names.filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
        named.extend(names.map(ToOwned::to_owned));
    }
    assert!(named.len() >= 3, "{named:?}");
    for name in named {
        assert!(repository(&format!("docs/{name}.md")).exists(), "docs/{name}.md");
    }
}

#[test]
fn the_simulators_credentials_in_the_docs_work() {
    let page = page("docs/simulator.md");
    let simulator = [page.blocks("yaml"), page.blocks("sh")].concat().concat();
    for credential in [
        genauth::USER_POOL_ID,
        genauth::ACCESS_KEY_ID,
        genauth::ACCESS_KEY_SECRET,
        scloud::PROJECT_ID,
        scloud::PUBLIC_KEY,
        scloud::PRIVATE_KEY,
    ] {
        assert!(simulator.contains(credential), "{credential}");
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
    let kinds = [("T", 13), ("A", 14), ("P", 4), ("M", 7), ("H", 6), ("S", 6), ("K", 11), ("C", 6), ("Z", 3)];
    let cases = kinds.into_iter().flat_map(|(kind, count)| (1..=count).map(move |number| format!("{kind}{number}")));
    let rows =
        page("docs/proof.md").text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| case |"));
    let rows: Vec<Vec<&str>> = rows.filter(|line| !line.starts_with("| ---")).map(cells).collect();
    assert_eq!(rows.iter().map(|row| row[0].to_owned()).collect::<Vec<_>>(), cases.collect::<Vec<_>>());
    for row in rows {
        assert!(row.len() == 5 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        assert!(code_spans(row[3]).any(|span| span.contains(": ")) || row[4].starts_with("Not tested"), "{row:?}");
    }
}

#[test]
fn every_test_and_every_fault_in_the_table_of_proofs_exists() {
    let (mut tests, mut faults) = (0, 0);
    for span in page("docs/proof.md").text.lines().flat_map(code_spans) {
        if let Some((file, name)) = span.split_once(".rs: ") {
            assert!(has_test(&read(&format!("{file}.rs")), name), "{span}: no such test");
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

/// Each reason has its row.
#[test]
fn the_table_of_gaps_has_every_reason_once() {
    // A reason that is new is one more here.
    let next = |reason: Option<GapReason>| match reason {
        None => Some(GapReason::TooLarge),
        Some(GapReason::TooLarge) => Some(GapReason::Unreadable),
        Some(GapReason::Unreadable) => Some(GapReason::TooDeep),
        Some(GapReason::TooDeep) => Some(GapReason::Endless),
        Some(GapReason::Endless) => Some(GapReason::Contradiction),
        Some(GapReason::Contradiction) => Some(GapReason::Bounds),
        Some(GapReason::Bounds) => Some(GapReason::Expired),
        Some(GapReason::Expired) => Some(GapReason::Skipped),
        Some(GapReason::Skipped) => None,
    };
    let reasons = std::iter::successors(next(None), |reason| next(Some(*reason))).map(GapReason::label);
    let rows = page("docs/gaps.md").table("| reason |");
    let rows = rows.iter().map(|row| code_spans(row[0]).next().unwrap());
    assert_eq!(rows.collect::<Vec<_>>(), reasons.collect::<Vec<_>>());
}

/// What stands in config/ is a config of trailcast's; what other programs are told stands below it.
#[tokio::test]
async fn every_sample_passes_the_check() {
    let mut samples = 0;
    for entry in std::fs::read_dir(repository("config")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let answer = trailcast(&["check", "--offline", "-c", path.to_str().unwrap()]).await;
            assert_eq!(answer.code, Some(0), "{answer:?}");
            assert!(!answer.stdout.contains("warning"), "{answer:?}");
            samples += 1;
        }
    }
    assert!(samples >= 7, "{samples}");
}

/// The table of formats is what the config takes.
#[test]
fn the_table_of_formats_is_what_each_sink_takes() {
    let rows = page("docs/events.md").table("| `format` |");
    let minimal = read("config/minimal-genauth.yaml");
    let schema = config::schema().to_string();
    assert_eq!(rows.len(), 4);
    for row in rows {
        let format = code_spans(row[0]).next().unwrap();
        assert!(schema.contains(&format!("\"{format}\"")), "{format}");
        let sinks: Vec<&str> = code_spans(row[2]).collect();
        for sink in ["kafka", "stdout"] {
            let keys = if sink == "kafka" { "brokers: [\"k:9092\"], topic: t, " } else { "" };
            let config = minimal.replace("stdout: {}", &format!("{sink}: {{ {keys}format: {format} }}"));
            let loads = config::parse(Path::new("docs/events.md"), &config).is_ok();
            assert_eq!(loads, sinks.contains(&sink), "{sink} {format}");
        }
    }
}

/// What is told of a version before is told of another than this.
#[test]
fn no_document_speaks_of_this_version_as_one_before() {
    let this = concat!("ersion ", env!("CARGO_PKG_VERSION"));
    for page in pages() {
        assert!(!page.text.contains(this), "{}: {this}", page.path);
    }
    assert!(page("docs/kafka.md").text.contains("of version 0.1.0"));
    assert!(page("docs/proof.md").text.contains("Version 0.1.0 failed"));
    // The changelog has this version, and first.
    let mut headings = page("docs/changelog.md").prose().filter_map(|line| line.strip_prefix("## "));
    assert_eq!(headings.next(), Some(env!("CARGO_PKG_VERSION")));
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
    let sample = read("config/victorialogs.yaml");
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
    let sample = read(file);
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
    let minimal = read("config/minimal-genauth.yaml");
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

/// The recipe of the page about the simulator, with the port that the simulator got.
#[tokio::test(flavor = "multi_thread")]
async fn the_docs_test_with_the_simulator_works() {
    // As the recipe says.
    let start = Some(Start::Ago(Duration::from_secs(600)));
    let options = Options { rate: 5.0, start, ..Options::default() };
    let simulator = simulate(options).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("simulated.yaml");
    // The secrets stand in the file here: the environment of tests that run at once is not theirs to change.
    let config = page("docs/simulator.md").blocks("yaml")[0]
        .replace("http://127.0.0.1:8080", &simulator.url())
        .replace("{ env: GENAUTH_ACCESS_KEY_SECRET }", genauth::ACCESS_KEY_SECRET)
        .replace("{ env: SCLOUD_PRIVATE_KEY }", scloud::PRIVATE_KEY);
    std::fs::write(&path, format!("{config}admin: {{ listen: \"127.0.0.1:0\" }}\n")).unwrap();
    let begun = simulator.now();
    let answer = trailcast(&["run", "-c", path.to_str().unwrap(), "--until-caught-up"]).await;
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
    // All that the ledger says was readable before, and nothing that it does not know.
    for (source, name) in [(Source::Genauth, "genauth"), (Source::Scloud, "scloud")] {
        let truth = || simulator.truth(source, 0, i64::MAX);
        let least = truth().filter(|truth| truth.readable_at <= begun).count();
        assert!((least..=truth().count()).contains(&sources[name]), "{least}: {sources:?}");
    }
    simulator.shutdown().await;
}
