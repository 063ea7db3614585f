//! Cursors: one owner, one log, shown and changed by hand, and a disk that is full.

use std::process::Stdio;

use redb::{Database, TableDefinition};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use trailcast::event::{Millis, Source};
use trailcast::simulate::{Options, scloud};

use crate::ledger::{Event, assert_all_arrived, compare, counted};
use crate::program::{Config, Stream, history, simulate};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_folder_is_refused() {
    let simulator = simulate(history(300)).await;
    let config = Config::of(&simulator);
    let first = config.run();
    first.admin().await;
    let mut second = config.start(&[], Stdio::null());
    assert_eq!(second.ended().await.code(), Some(2), "{}", second.log());
    assert_eq!(second.logged("is in use by another process (pid ").len(), 1, "{}", second.log());
    for words in [["cursor", "show"], ["cursor", "delete"]] {
        let answer = config.command(&words, &[]).await;
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(2), ""), "{answer:?}");
        assert!(answer.stderr.contains("is in use by another process (pid "), "{answer:?}");
    }
    first.drain().await;
}

/// C6: what an export lacks would come a second time.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_was_cut_is_refused_and_changes_nothing() {
    let simulator = simulate(history(300)).await;
    let config = Config::of(&simulator);
    config.catch_up().await;
    let whole = config.command(&["cursor", "export"], &[]).await.stdout;
    let lines: Vec<&str> = whole.lines().collect();
    assert!(lines.len() > 6, "{} lines", lines.len());
    let mut moved = Config::of(&simulator);
    moved.streams.clone_from(&config.streams);
    let path = moved.folder.path().join("cursors.ndjson");
    let import = async |text: &str| {
        std::fs::write(&path, text).unwrap();
        moved.command(&["cursor", "import"], &["--from", path.to_str().unwrap(), "--yes"]).await
    };
    for kept in [lines.len() / 3, lines.len() - 1] {
        let cut = import(&(lines[..kept].join("\n") + "\n")).await;
        assert_eq!((cut.code, cut.stdout.as_str()), (Some(2), ""), "{cut:?}");
        let said = "is not whole: its last line does not say how many entries it has; nothing was imported; run `trailcast \
                    cursor export` again";
        assert!(cut.stderr.contains(said), "{cut:?}");
        assert_eq!(moved.command(&["cursor", "show"], &["--json"]).await.stdout.trim(), "[]");
    }
    let imported = import(&whole).await;
    assert_eq!(imported.code, Some(0), "{imported:?}");
    let shown = async |config: &Config| config.command(&["cursor", "show"], &["--json"]).await.stdout;
    assert_eq!(shown(&moved).await, shown(&config).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_format_is_refused() {
    let simulator = simulate(history(300)).await;
    let config = Config::of(&simulator);
    config.catch_up().await;
    let database = Database::open(config.checkpoint.join("trailcast.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", 7).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let mut program = config.run();
    assert_eq!(program.ended().await.code(), Some(2), "{}", program.log());
    assert_eq!(program.logged("has format 7, this trailcast knows up to 2").len(), 1, "{}", program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cursor_of_another_log_is_refused() {
    let simulator = simulate(history(300)).await;
    let mut config = Config::of(&simulator);
    config.catch_up().await;
    let events = config.events().len();
    config.streams[1].source = config.streams[1].source.replace(scloud::PROJECT_ID, "org-another");
    let mut program = config.run();
    assert_eq!(program.ended().await.code(), Some(2), "{}", program.log());
    let said = "streams.cloud reads scloud org-another, but its cursor is of scloud org-trailcast";
    assert_eq!(program.logged(said).len(), 1, "{}", program.log());
    assert_eq!(config.events().len(), events);
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_are_shown_set_and_deleted() {
    let simulator = simulate(history(600)).await;
    let mut config = Config::of(&simulator);
    // Young enough for a sweep to come: what was delivered is remembered, and must be forgotten with the cursor.
    config.streams = config.streams.into_iter().map(|stream| stream.with("sweeps", "[1h]")).collect();
    config.catch_up().await;
    let first = config.events();

    let shown = config.command(&["cursor", "show"], &[]).await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("users to out (genauth ") && shown.stdout.contains("swept at"), "{shown:?}");
    let shown = config.command(&["cursor", "show"], &["--json", "--stream", "cloud"]).await;
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!((shown[0]["stream"].as_str(), shown[1].is_null()), (Some("cloud"), true), "{shown}");

    // Half of what was delivered lies behind this time.
    let mut times: Vec<Millis> = first.iter().map(|event| event.time).collect();
    times.sort_unstable();
    let middle = times[times.len() / 2].div_euclid(1000) * 1000;
    let to = jiff::Timestamp::from_millisecond(middle).unwrap().to_string();
    // Back, but the sweep has not come so far: what comes late before that would be lost.
    let lossy = config.command(&["cursor", "set"], &["--to", &to, "--yes"]).await;
    assert_eq!(lossy.code, Some(2), "{lossy:?}");
    assert!(lossy.stderr.contains("late records between") && lossy.stderr.contains("--skip"), "{lossy:?}");
    let refused = config.command(&["cursor", "set"], &["--to", &to, "--skip"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("stdin is no terminal, so nobody can confirm; add `--yes`"), "{refused:?}");
    let unknown = config.command(&["cursor", "set"], &["--to", &to, "--yes", "--stream", "typo"]).await;
    assert_eq!((unknown.code, unknown.stdout.as_str()), (Some(2), ""), "{unknown:?}");
    let stored = "no cursor of stream typo is stored; stored are those of cloud to out, users to out";
    assert!(unknown.stderr.contains(stored), "{unknown:?}");
    config.catch_up().await;
    assert_eq!(config.events().len(), first.len(), "nothing was changed");

    let set = config.command(&["cursor", "set"], &["--to", &to, "--yes", "--skip"]).await;
    assert_eq!(set.code, Some(0), "{set:?}");
    config.catch_up().await;
    let again = config.events();
    let behind = first.iter().filter(|event| event.time >= middle).count();
    assert!(behind > 0 && behind < first.len());
    assert_eq!(again.len(), first.len() + behind);
    for event in &first {
        let times = again.iter().filter(|other| other.id == event.id).count();
        assert_eq!(times, if event.time >= middle { 2 } else { 1 }, "{event:?}");
    }

    let deleted = config.command(&["cursor", "delete"], &["--yes", "--stream", "users"]).await;
    assert_eq!(deleted.code, Some(0), "{deleted:?}");
    let left: Value = serde_json::from_str(&config.command(&["cursor", "show"], &["--json"]).await.stdout).unwrap();
    assert_eq!((left[0]["stream"].as_str(), left[1].is_null()), (Some("cloud"), true), "{left}");
    config.catch_up().await;
    let all = config.events();
    let users = first.iter().filter(|event| event.source == Source::Genauth).count();
    assert_eq!(all.len(), again.len() + users, "from the start again");
    assert_eq!(counted(&all).len(), first.len(), "with the same ids");
}

/// Sets the size that files of the process may grow to: what lies beyond cannot be written, as on a full disk.
fn limit_files(pid: u32, size: &str) {
    let (pid, limit) = (pid.to_string(), format!("--fsize={size}:"));
    let status = std::process::Command::new("prlimit").args(["--pid", &pid, &limit]).status();
    assert!(status.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_delivery_until_there_is_space() {
    let simulator = simulate(Options { rate: 20.0, ..Options::default() }).await;
    let start = (simulator.now() - 20_000).div_euclid(1000) * 1000;
    let config = Config::new([Stream::users(&simulator.url()), Stream::cloud(&simulator.url())]).starting_at(start);
    // Events go into a pipe, so that the limit meets the checkpoint alone.
    let mut program = config.start(&[], Stdio::piped());
    let mut stdout = program.stdout();
    let reader = tokio::spawn(async move {
        let mut lines = String::new();
        stdout.read_to_string(&mut lines).await.unwrap();
        lines
    });
    let some = async |least: f64| {
        let delivered = program.delivered("users", "out").await.min(program.delivered("cloud", "out").await);
        (delivered > least).then_some(delivered)
    };
    program.shows("delivery", async || some(100.0).await).await;

    limit_files(program.id(), "1");
    let failing = async || {
        let status = program.status().await;
        let lanes = status["lanes"].as_array()?.clone();
        lanes.iter().all(|lane| lane["state"] == "failing" && lane["reason"] == "checkpoint").then_some(status)
    };
    let before = program.shows("both lanes failing", failing).await;
    // It goes on failing, each lane says so once, and no cursor moves.
    let errors = "trailcast_sink_errors_total{reason=\"checkpoint\",sink=\"out\",stream=\"users\"}";
    let more = program.metric(errors).await.unwrap() + 2.0;
    program.shows("more tries", async || program.metric(errors).await.filter(|count| *count >= more)).await;
    assert_eq!(program.logged("\"ERROR\"").len(), 2, "{}", program.log());
    let after = program.status().await;
    for lane in 0..2 {
        let through = |status: &Value| status["lanes"][lane]["delivered_through"].clone();
        assert_eq!(through(&before), through(&after));
    }

    limit_files(program.id(), "unlimited");
    let ok = async || {
        let status = program.status().await;
        status["lanes"].as_array()?.iter().all(|lane| lane["state"] == "ok").then_some(())
    };
    program.shows("both lanes well", ok).await;
    let then = program.delivered("users", "out").await;
    program.shows("more delivery", async || some(then).await).await;
    let by = simulator.now().div_euclid(1000) * 1000 - 1000;
    let through = async || {
        let status = program.status().await;
        let through = |lane: &Value| lane["delivered_through"].as_str()?.parse::<jiff::Timestamp>().ok();
        let done = |lane: &Value| through(lane).is_some_and(|through| through.as_millisecond() >= by);
        status["lanes"].as_array()?.iter().all(done).then_some(())
    };
    program.shows("delivery of all that had happened", through).await;
    program.drain().await;
    let events: Vec<Event> = reader.await.unwrap().lines().map(Event::parse).filter(|event| event.time < by).collect();
    for source in [Source::Genauth, Source::Scloud] {
        compare(&simulator, source, (start, by), Millis::MAX, &events).assert_none();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_cannot_be_made_is_refused() {
    let simulator = simulate(history(100)).await;
    let mut config = Config::of(&simulator);
    config.checkpoint = "/proc/trailcast".into();
    let mut program = config.run();
    assert_eq!(program.ended().await.code(), Some(2), "{}", program.log());
    assert_eq!(program.logged("checkpoint.file.path: cannot create the folder /proc/trailcast").len(), 1);
    config.checkpoint = config.folder.path().join("state");
    config.catch_up().await;
    assert_all_arrived(&simulator, Millis::MAX, &config.events());
}

/// Whatever becomes of the folder while it runs is noticed, and no event is said to be delivered that was not committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_removed_while_it_runs_is_noticed_and_told() {
    let simulator = simulate(Options { rate: 20.0, ..Options::default() }).await;
    let config = Config::of(&simulator);
    let program = config.run();
    let some = async || (program.delivered("cloud", "out").await > 10.0).then_some(());
    program.shows("delivery", some).await;
    std::fs::remove_dir_all(&config.checkpoint).unwrap();
    let line = program.says("was removed or replaced while this trailcast runs").await;
    assert!(line.contains("put the folder back"), "{line}");
    let failing = async || {
        let lanes = program.status().await["lanes"].as_array()?.clone();
        lanes.iter().all(|lane| lane["state"] == "failing" && lane["reason"] == "checkpoint").then_some(())
    };
    program.shows("both lanes failing", failing).await;
}

/// Between runs: the file alone, put back from before, or taken away.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_file_is_refused_until_it_is_accepted() {
    let simulator = simulate(history(300)).await;
    let config = Config::of(&simulator);
    let file = config.checkpoint.join("trailcast.redb");
    config.catch_up().await;
    let older = std::fs::read(&file).unwrap();
    config.catch_up().await;
    for (replaced, said) in [(Some(older), "is older than what was kept there before"), (None, "is gone")] {
        match replaced {
            Some(older) => std::fs::write(&file, older).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let mut program = config.run();
        assert_eq!(program.ended().await.code(), Some(2), "{}", program.log());
        assert!(program.log().contains(said), "{}", program.log());
        for words in [&["check"][..], &["cursor", "show"]] {
            let answer = config.command(words, &[]).await;
            let told = answer.stdout + &answer.stderr;
            assert!(answer.code != Some(0) && told.contains(said) && told.contains("cursor accept"), "{told}");
        }
        let unasked = config.command(&["cursor", "accept"], &[]).await;
        assert_eq!(unasked.code, Some(2), "{unasked:?}");
        let accepted = config.command(&["cursor", "accept"], &["--yes"]).await;
        assert_eq!(accepted.code, Some(0), "{accepted:?}");
        // What is not refused is not accepted either, and nobody is told that something comes again.
        let again = config.command(&["cursor", "accept"], &[]).await;
        assert!(again.code == Some(0) && again.stdout.starts_with("nothing to accept: "), "{again:?}");
        config.catch_up().await;
    }
    // Without a file all comes again, as was accepted, with the same ids.
    let events = config.events();
    assert_eq!((events.len(), counted(&events).len()), (1_200, 600));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_writes_before_it_says_that_it_can() {
    let simulator = simulate(history(10)).await;
    let config = Config::of(&simulator);
    config.catch_up().await;
    let answer = config.command(&["check"], &[]).await;
    assert!(answer.code == Some(0) && answer.stdout.contains("can be read and written"), "{answer:?}");
    let script = "ulimit -f 100; trap '' XFSZ; exec \"$@\"";
    let output = std::process::Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_trailcast"), "check", "-c"])
        .arg(config.file())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("checkpoint.file.path: cannot write"), "{said}");
}
