//! stdout as a sink, and how a run ends: readers that go, stop or are slow, and signals.

use std::process::Stdio;
use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use trailcast::event::Millis;
use trailcast::simulate::Options;

use crate::ledger::{Event, assert_all_arrived, counted};
use crate::program::{Config, Program, Stream, file_of, history, simulate};

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_ends_the_run_with_one_line_and_moves_no_cursor() {
    let simulator = simulate(history(1_000)).await;
    let config = Config::of(&simulator);
    let mut program = config.start(&[], Stdio::piped());
    drop(program.stdout());
    assert_eq!(program.ended().await.code(), Some(1), "{}", program.log());
    let errors = program.logged("\"ERROR\"");
    assert!(errors.len() == 1 && errors[0].contains("stdout is closed"), "{}", program.log());
    config.catch_up().await;
    assert_all_arrived(&simulator, Millis::MAX, &config.events());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_may_take_only_what_it_wants() {
    let simulator = simulate(history(3_000)).await;
    let config = Config::of(&simulator);
    let mut program = config.start(&[], Stdio::piped());
    let mut lines = BufReader::new(program.stdout()).lines();
    for _ in 0..10 {
        Event::parse(&lines.next_line().await.unwrap().unwrap());
    }
    drop(lines);
    assert_eq!(program.ended().await.code(), Some(1), "{}", program.log());
}

/// Runs with a stdout that nobody reads, until nothing goes in any more: a pipe holds 64 KiB, less than one part.
async fn blocked(config: &Config) -> Program {
    let program = config.start(&[], Stdio::piped());
    let (mut least, mut before) = (f64::MAX, (0.0, 0.0));
    let stuck = async || {
        let lag = program.metric("trailcast_delivery_lag_seconds{sink=\"out\",stream=\"users\"}").await?;
        let read = program.metric("trailcast_records_total{stream=\"users\"}").await?;
        // A lag that jumps is one of marks that were put back; one that grows while more is read is none of a sink.
        if read > before.0 || lag > before.1 + 2.0 {
            least = lag;
        }
        (least, before) = (least.min(lag), (read, lag));
        // A busy machine pauses for a moment, too.
        (read > 100.0 && lag > least + 5.0).then_some(())
    };
    program.shows("a lag that grows", stuck).await;
    program
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_slows_the_lane_and_nothing_else() {
    let simulator = simulate(Options { rate: 500.0, ..history(50_000) }).await;
    let config = Config::new([Stream::users(&simulator.url())]);
    let mut program = blocked(&config).await;
    assert_eq!(program.get("/livez").await, "ok\n");
    let read = program.metric("trailcast_records_total{stream=\"users\"}").await.unwrap();
    // Some windows are read in parts, too: all of it would be 58,000 at least.
    assert!(read < 48_000.0, "{read} records of 50,000 were read ahead");
    let memory = program.metric("process_resident_memory_bytes").await.unwrap();
    assert!(memory < 256e6, "{memory} bytes");

    let mut stdout = program.stdout();
    let reader = tokio::spawn(async move {
        let mut lines = String::new();
        stdout.read_to_string(&mut lines).await.unwrap();
        lines
    });
    let all = async || (program.delivered("users", "out").await >= 50_000.0).then_some(());
    program.shows("delivery of all", all).await;
    program.drain().await;
    let events: Vec<Event> = reader.await.unwrap().lines().map(Event::parse).collect();
    assert_eq!((events.len(), counted(&events).len()), (50_000, 50_000));
}

/// Nothing that the lane tries fails, and nobody reads: it is not `ok`, wherever that shows. That takes as long as a lane may
/// stand still, half a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_stdout_that_nobody_reads_is_told() {
    let simulator = simulate(history(2_000)).await;
    let config = Config::new([Stream::users(&simulator.url())]);
    let program = blocked(&config).await;
    let stalled = async || {
        let lane = program.status().await["lanes"][0].clone();
        (lane["state"] == "stalled").then_some(lane)
    };
    let lane = program.shows("a lane that is not on schedule", stalled).await;
    assert!(lane["message"].as_str().is_some_and(|said| said.starts_with("it has waited for the sink for ")), "{lane}");
    let line = program.says("the lane is not on schedule: it has waited for the sink").await;
    assert!(line.contains("\"WARN\"") && line.contains("\"state\":\"stalled\""), "{line}");
    let state = "trailcast_lane_state{sink=\"out\",state=\"stalled\",stream=\"users\"}";
    assert_eq!(program.metric(state).await, Some(1.0));
    assert_eq!(program.logged("not on schedule").len(), 1, "it is told once: {}", program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_was_torn_by_a_kill_is_ended_first() {
    let simulator = simulate(history(300)).await;
    let config = Config::of(&simulator);
    drop(file_of(&config.out(), "{\"id\":\"whole\"}\n{\"id\":\"to"));
    config.catch_up().await;
    let text = std::fs::read_to_string(config.out()).unwrap();
    let rest = text.strip_prefix("{\"id\":\"whole\"}\n{\"id\":\"to\n").unwrap();
    let events: Vec<Event> = rest.lines().map(Event::parse).collect();
    assert_all_arrived(&simulator, Millis::MAX, &events);
}

async fn drains_at(signal: &str) {
    let simulator = simulate(Options { rate: 200.0, ..Options::default() }).await;
    let config = Config::of(&simulator);
    let mut program = config.run();
    let some = async || (program.delivered("cloud", "out").await > 1_000.0).then_some(());
    program.shows("delivery", some).await;
    program.signal(signal);
    assert_eq!(program.ended().await.code(), Some(0), "{}", program.log());
    assert_eq!(program.logged("\"drained\"").len(), 1, "{}", program.log());
    // What it had delivered stays delivered, and the next run goes on behind it.
    let before = config.events().len();
    config.catch_up().await;
    let events = config.events();
    assert!(events.len() > before);
    assert!(counted(&events).values().all(|&times| times == 1), "no event comes twice after a drain");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains() {
    drains_at("TERM").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_drains() {
    drains_at("INT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_is_not_possible_ends_at_its_deadline_and_says_so() {
    let simulator = simulate(history(2_000)).await;
    let config = Config::of(&simulator);
    let mut program = blocked(&config).await;
    let began = Instant::now();
    program.signal("TERM");
    program.shows("that it drains", async || (program.get("/readyz").await == "draining\n").then_some(())).await;
    assert_eq!(program.ended().await.code(), Some(1), "{}", program.log());
    assert!(began.elapsed() >= trailcast::app::DRAIN_DEADLINE, "{:?}", began.elapsed());
    assert_eq!(program.logged("could not drain").len(), 1, "{}", program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let simulator = simulate(history(2_000)).await;
    let config = Config::of(&simulator);
    let mut program = blocked(&config).await;
    program.signal("TERM");
    program.says("a second signal ends at once").await;
    // So soon after the first it is the same one, sent twice.
    program.signal("INT");
    tokio::time::sleep(2 * trailcast::shutdown::SAME).await;
    assert!(program.runs(), "{}", program.log());
    let began = Instant::now();
    program.signal("INT");
    assert_eq!(program.ended().await.code(), Some(1), "{}", program.log());
    assert!(began.elapsed() < trailcast::app::DRAIN_DEADLINE);
    assert_eq!(program.logged("asked a second time").len(), 1, "{}", program.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_keeps_events_until_there_is_space() {
    let simulator = simulate(history(1_000)).await;
    let config = Config::of(&simulator);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut program = config.start(&[], full.into());
    let failing = async || {
        let status = program.status().await;
        let lanes = status["lanes"].as_array()?.clone();
        lanes.iter().all(|lane| lane["state"] == "failing" && lane["reason"] == "io").then_some(())
    };
    program.shows("both lanes failing", failing).await;
    assert_eq!(program.logged("cannot write to stdout").len(), 2, "one line for each lane: {}", program.log());
    program.signal("TERM");
    assert_eq!(program.ended().await.code(), Some(1), "what was under way is not delivered: {}", program.log());
    config.catch_up().await;
    assert_all_arrived(&simulator, Millis::MAX, &config.events());
}

/// A pipe that a neighbour has made non-blocking, and a reader that is slower than the lanes: each event once, none torn.
#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_says_later_is_waited_for() {
    let simulator = simulate(history(4_000)).await;
    let config = Config::of(&simulator);
    let (reader, writer) = std::io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    let mut program = config.start(&["--until-caught-up"], std::os::fd::OwnedFd::from(writer).into());
    // Nobody reads until the pipe is full: what comes next is told to come later.
    let full = async || {
        let lag = program.metric("trailcast_records_total{stream=\"users\"}").await?;
        (lag > 1_000.0 && rustix::io::ioctl_fionread(&reader).is_ok_and(|bytes| bytes >= 60_000)).then_some(())
    };
    program.shows("a full pipe", full).await;
    let text = tokio::task::spawn_blocking(move || std::io::read_to_string(reader).unwrap());
    assert_eq!(program.ended().await.code(), Some(0), "{}", program.log());
    let events: Vec<Event> = text.await.unwrap().lines().map(Event::parse).collect();
    assert_eq!((events.len(), counted(&events).len()), (8_000, 8_000));
    assert_eq!(program.logged("\"ERROR\"").len(), 0, "{}", program.log());
}

/// Room is made bit by bit, so that parts are cut anywhere: what was written is not written again, and no line is torn.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_gets_room_bit_by_bit_gets_each_event_once() {
    let simulator = simulate(history(2_000)).await;
    let mut config = Config::of(&simulator);
    config.store = Some("{ memory: {} }".to_owned());
    let mut program = config.start(&[], config.append());
    program.admin().await;
    let limit = |size: &str| {
        let (pid, limit) = (program.id().to_string(), format!("--fsize={size}:"));
        assert!(std::process::Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    };
    // Odd steps, so that they fall inside lines.
    let mut size = std::fs::metadata(config.out()).unwrap().len() + 1;
    limit(&size.to_string());
    let mut cut = 0;
    for _ in 0..12 {
        let reached = async || (std::fs::metadata(config.out()).unwrap().len() >= size).then_some(());
        program.shows("that there is no room", reached).await;
        let last = *std::fs::read(config.out()).unwrap().last().unwrap();
        cut += u32::from(last != b'\n');
        size += 1_237;
        limit(&size.to_string());
    }
    limit("unlimited");
    let all = async || {
        let both = program.delivered("users", "out").await + program.delivered("cloud", "out").await;
        (both >= 4_000.0).then_some(())
    };
    program.shows("all of it", all).await;
    program.signal("TERM");
    assert_eq!(program.ended().await.code(), Some(0), "{}", program.log());
    assert!(cut > 6, "{cut} of 12 limits fell inside a line");
    let events = config.events();
    assert_eq!((events.len(), counted(&events).len()), (4_000, 4_000));
    assert_all_arrived(&simulator, Millis::MAX, &events);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stdout_that_is_closed_is_refused_and_the_null_device_is_not() {
    let simulator = simulate(history(100)).await;
    let config = Config::of(&simulator);
    for (redirected, code) in [(">&-", 2), ("< /dev/null >&-", 2), ("> /dev/null", 0), ("<> /dev/null 1>&0", 0)] {
        let script = format!("exec \"$@\" {redirected}");
        let output = tokio::process::Command::new("sh")
            .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_trailcast"), "run", "--until-caught-up", "-c"])
            .arg(config.file())
            .output()
            .await
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{redirected}: {log}");
        assert_eq!(log.contains("stdout is closed"), code == 2, "{redirected}: {log}");
    }
}

/// A terminal that closes sends SIGHUP; `nohup` has it ignored.
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_drains_unless_it_is_ignored() {
    let simulator = simulate(history(50)).await;
    let config = Config::of(&simulator);
    let mut ignores = config.start_after("trap '' HUP", &[], config.append());
    ignores.says("lane runs").await;
    ignores.signal("HUP");
    let other = Config::of(&simulator);
    let mut program = other.run();
    program.says("lane runs").await;
    program.signal("HUP");
    assert_eq!(program.ended().await.code(), Some(0), "{}", program.log());
    assert_eq!(program.logged("\"drained\"").len(), 1, "{}", program.log());
    assert!(ignores.runs(), "{}", ignores.log());
    ignores.drain().await;
}
