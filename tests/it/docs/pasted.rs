//! What the docs show is pasted into a shell, as it stands.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use trailcast::simulate::{Options, Simulator, Start};

use super::pages::{page, pages};
use crate::program::{BOUND, Config, Stream, simulate};

/// A person's part: stops `run` after a while, and says yes to what asks. A simulator takes the place of its shell, so that
/// its end can be asked for.
const PERSON: &str = r#"
set -euo pipefail
trailcast() {
    case " $* " in
        *" run "*" --until-caught-up "*) ;;
        *" run "*) timeout --preserve-status --signal=TERM 4 "$TRAILCAST" "$@"; return ;;
        *" simulate "*) exec "$TRAILCAST" "$@" ;;
        *" cursor set "* | *" cursor import "* | *" dead-letters drop "*) set -- "$@" --yes ;;
    esac
    "$TRAILCAST" "$@"
}
command -v curl >/dev/null || curl() { echo "no curl here"; }
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
"#;

async fn paste(folder: &Path, block: &str) {
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("{PERSON}\n{block}")]).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    shell.env("TRAILCAST", env!("CARGO_BIN_EXE_trailcast"));
    let output =
        tokio::time::timeout(BOUND, shell.output()).await.unwrap_or_else(|_| panic!("no end:\n{block}")).unwrap();
    assert!(output.status.success(), "{block}\n{}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// A folder with configs of the names that the docs use, all in front of one simulator, each with a state of its own.
fn folder_with_configs(simulator: &Simulator) -> TempDir {
    let mut config = Config::new([Stream::users(&simulator.url())]);
    // Last the one whose name the others have for a moment.
    for name in ["file", "kafka", "otlp", "trailcast"] {
        let path = |end: &str| config.folder.path().join(format!("{name}{end}"));
        let (file, state) = (path(".yaml"), path("-state"));
        config.checkpoint = state;
        std::fs::rename(config.file(), file).unwrap();
    }
    config.folder
}

/// Blocks of trailcast's own commands, each in a folder of its own: one that moves a cursor makes the next run long.
#[tokio::test(flavor = "multi_thread")]
async fn commands_run_as_they_stand_in_the_docs() {
    let start = Some(Start::Ago(Duration::from_secs(600)));
    let simulator = simulate(Options { rate: 1.0, start, ..Options::default() }).await;
    let mut pasted = 0;
    for block in pages().iter().flat_map(|page| page.blocks("sh")) {
        if block.lines().all(|line| line.starts_with("trailcast ")) {
            let folder = folder_with_configs(&simulator);
            if block.contains("trailcast cursor ") {
                // There is a state to show, to change and to take along.
                for name in ["trailcast", "file"] {
                    paste(folder.path(), &format!("trailcast run -c {name}.yaml --until-caught-up")).await;
                }
            }
            paste(folder.path(), &block).await;
            pasted += 1;
        }
    }
    assert!(pasted >= 9, "{pasted}");
    simulator.shutdown().await;
}

/// The recipe with a simulator of its own, on a port that is free here.
#[tokio::test(flavor = "multi_thread")]
async fn the_recipe_with_the_simulator_runs_as_it_stands() {
    let page = page("docs/simulator.md");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let config = page.blocks("yaml")[0].replace("8080", &port);
    std::fs::write(folder.path().join("simulated.yaml"), format!("{config}admin: {{ listen: \"127.0.0.1:0\" }}\n"))
        .unwrap();
    paste(folder.path(), &page.blocks("sh")[0].replace("8080", &port)).await;
    for file in ["events.ndjson", "truth.ndjson"] {
        let text = std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(text.lines().count() > 2_900 || text == "no curl here\n", "{file}: {} lines", text.lines().count());
    }
}
