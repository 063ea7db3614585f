//! Replicas that share the streams: lost, added, started again, and one that was stopped and does not know it.

use std::time::{Duration, Instant};

use serde_json::Value;
use trailcast::event::Millis;
use trailcast::simulate::Simulator;

use crate::broker::{Broker, Options};
use crate::hostile::{config, hostile};
use crate::pipeline::{
    Ends, STATE, STREAMS, TOPIC, delivers_more, finish_exactly_once, in_kafka, into_kafka, partition_of, seconds_ago,
};
use crate::program::{Config, Program, simulate, until};

/// A broker that lets replicas be missed sooner than it would by itself.
async fn broker() -> Broker {
    // Else one replica would have both streams, whatever the group does.
    assert_ne!(partition_of("users", 2), partition_of("cloud", 2));
    Broker::start(Options::default().with("group.min.session.timeout.ms", "1000")).await
}

/// A replica of this name.
fn replica(simulator: &Simulator, start: Millis, broker: &Broker, name: &str, session: &str) -> Config {
    let at = broker.bootstrap();
    let config = into_kafka(config(simulator, start), &at, "create: { partitions: 3 }");
    in_kafka(config, &at, &format!("instance_id: {name}, session_timeout: {session}"))
}

/// APIs at their worst, with so many seconds of history, where something arrives for longer than any test takes; and
/// when it begins.
async fn worst(backlog: i64) -> (Simulator, Millis) {
    let start = seconds_ago(backlog);
    let seconds = u64::try_from(backlog).unwrap() + 600;
    (simulate(hostile(start, seconds)).await, start)
}

/// The streams that a replica runs, as `/status` and `/metrics` say, once both say the same.
async fn running(program: &Program) -> Vec<&'static str> {
    let look = async || {
        let mut streams = Vec::new();
        for stream in STREAMS {
            let status = program.stream(stream).await["running"] == true;
            let series = format!("trailcast_stream_running{{stream=\"{stream}\"}}");
            let metric = program.metric(&series).await.unwrap() > 0.0;
            if status != metric {
                return None;
            }
            streams.extend(status.then_some(stream));
        }
        Some(streams)
    };
    program.shows("one answer", look).await
}

/// Waits until each of two replicas runs one stream: the first one's, and the second one's.
async fn divided(one: &Program, other: &Program) -> (&'static str, &'static str) {
    let logs = || format!("{}\n\n{}", one.log(), other.log());
    let look = async || match (&running(one).await[..], &running(other).await[..]) {
        ([mine], [others]) if mine != others => Some((*mine, *others)),
        _ => None,
    };
    until("one stream each", logs, look).await
}

/// Waits until a replica runs both streams.
async fn runs_both(program: &Program) {
    program.shows("both streams", async || (running(program).await.len() == 2).then_some(())).await;
}

/// Waits until a replica says that another has a stream.
async fn says_owner(program: &Program, stream: &str, owner: &str) {
    let look = async || (program.stream(stream).await["owner"] == owner).then_some(());
    program.shows(&format!("that {owner} has {stream}"), look).await;
}

/// The lines of the log that say that partitions were given or taken, with these partitions.
fn moves(program: &Program, text: &str) -> Vec<Value> {
    let lines = program.logged(text);
    lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect()
}

fn number_of(stream: &str) -> String {
    partition_of(stream, 2).to_string()
}

/// A metric of a lane's, in seconds.
async fn lane_seconds(program: &Program, name: &str, stream: &str) -> f64 {
    let series = format!("trailcast_{name}_seconds{{sink=\"events\",stream=\"{stream}\"}}");
    program.metric(&series).await.unwrap()
}

/// Returns when records were just written, so that what is killed now is in the middle of something.
async fn just_written(broker: &Broker, program: &Program) {
    let ends = Ends::of(&broker.client(), TOPIC);
    let before = ends.sum();
    until("more records", || program.log(), async || (ends.sum() > before).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_added_one_is_killed_and_one_takes_its_place() {
    let broker = broker().await;
    let (simulator, start) = worst(20).await;
    let config = |name| replica(&simulator, start, &broker, name, "3s");
    let (first_config, second_config, third_config) = (config("first"), config("second"), config("third"));

    let first = first_config.run();
    runs_both(&first).await;
    assert_eq!(first.get("/readyz").await, "ready\n");
    delivers_more(&first, 50.0).await;

    // Only what moves is stopped.
    let mut second = second_config.run();
    let (kept, moved) = divided(&first, &second).await;
    assert_eq!(second.get("/readyz").await, "ready\n");
    let lost = moves(&first, "the group takes partitions away");
    assert_eq!(lost.len(), 1, "{}", first.log());
    assert!(lost[0].to_string().contains(&format!("[{}]", number_of(moved))), "{lost:?}");
    let taken = moves(&first, "\"the partition is taken\"");
    let taken_of = |stream: &str| taken.iter().filter(|line| line["partition"] == partition_of(stream, 2)).count();
    assert_eq!((taken_of(kept), taken_of(moved)), (1, 1), "{}", first.log());
    says_owner(&first, moved, "second").await;
    says_owner(&second, kept, "first").await;
    says_owner(&second, moved, "second").await;

    // The other has both, once the session is over.
    delivers_more(&second, 10.0).await;
    just_written(&broker, &second).await;
    second.signal("KILL");
    second.ended().await;
    let killed = Instant::now();
    runs_both(&first).await;
    let took = killed.elapsed().as_secs_f64();
    assert!((1.0..15.0).contains(&took), "taken over after {took} s of a session of 3 s");
    says_owner(&first, moved, "first").await;
    let before = first.delivered(moved, "events").await;
    let more = async || Some(first.delivered(moved, "events").await).filter(|now| *now > before);
    first.shows("events of what was taken over", more).await;

    let third = third_config.run();
    divided(&first, &third).await;
    delivers_more(&third, 10.0).await;
    finish_exactly_once([first, third], &simulator, &broker.java()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_time_moves_nothing_and_what_nobody_runs_is_seen() {
    let broker = broker().await;
    let (simulator, start) = worst(20).await;
    let config = |name| replica(&simulator, start, &broker, name, "30s");
    let (first_config, second_config) = (config("first"), config("second"));
    let first = first_config.run();
    runs_both(&first).await;
    let mut second = second_config.run();
    let (_, others) = divided(&first, &second).await;
    delivers_more(&second, 10.0).await;
    let small = async |lag: f64| Some(lane_seconds(&first, "delivery_lag", others).await).filter(|now| *now < lag);
    first.shows("a small lag of the other's lane", async || small(5.0).await).await;

    just_written(&broker, &second).await;
    second.signal("KILL");
    second.ended().await;
    let moved = moves(&first, "the group").len();
    // Nobody runs it: its lag grows beyond all that it has while someone does, and its last commit grows old.
    let old = async || {
        let lag = lane_seconds(&first, "delivery_lag", others).await;
        #[expect(clippy::cast_precision_loss, reason = "a time of this century")]
        let age = trailcast::clock::now() as f64 / 1000.0 - lane_seconds(&first, "last_commit_timestamp", others).await;
        (lag > 8.0 && age > 8.0).then_some(())
    };
    first.shows("that nobody runs it", old).await;
    assert_eq!(running(&first).await.len(), 1);
    let fetch_lag = first.metric(&format!("trailcast_fetch_lag_seconds{{stream=\"{others}\"}}")).await;
    assert!(fetch_lag.is_some_and(|lag| lag > 8.0), "{fetch_lag:?}");

    // Killed or asked to end: it finds its stream where it left it.
    for how in ["KILL", "TERM"] {
        second = second_config.run();
        let again = second.shows("its stream", async || running(&second).await.first().copied()).await;
        assert_eq!(again, others);
        delivers_more(&second, 1.0).await;
        if how == "KILL" {
            second.signal("KILL");
            second.ended().await;
        } else {
            second.drain().await;
        }
    }
    let second = second_config.run();
    assert_eq!(second.shows("its stream", async || running(&second).await.first().copied()).await, others);
    first.shows("a small lag again", async || small(5.0).await).await;
    assert_eq!(moves(&first, "the group").len(), moved, "something moved:\n{}", first.log());
    finish_exactly_once([first, second], &simulator, &broker.java()).await;
}

/// Stops a replica in the middle of a transaction of one stream's partition.
async fn stop_in_a_transaction(broker: &Broker, program: &Program, stream: &str) {
    let id = format!("trailcast-{}", number_of(stream));
    for _ in 0..10 {
        // It has the stream, be it again: where asking the broker took longer than a session it had lost it.
        delivers_more(program, 1.0).await;
        // While the broker hangs, it gets as far as to wait for an answer in one.
        broker.signal("STOP");
        tokio::time::sleep(Duration::from_secs(1)).await;
        program.signal("STOP");
        broker.signal("CONT");
        let known = broker.java().transactions(STATE).await;
        let transactions = known["transactions"].as_array().unwrap();
        if transactions.iter().any(|transaction| transaction["id"] == *id && transaction["state"] == "Ongoing") {
            return;
        }
        // Between two transactions: again, long before anyone misses it.
        program.signal("CONT");
    }
    panic!("never in a transaction:\n{}", program.log());
}

/// A process that was stopped for longer than its session takes itself for the owner when it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_is_fenced() {
    let broker = broker().await;
    let (simulator, start) = worst(1200).await;
    let config = |name| {
        let mut config = replica(&simulator, start, &broker, name, "6s");
        // So that there is something to deliver all the time.
        config.streams.iter_mut().for_each(|stream| stream.keys.push(("rate_limit", "8".to_owned())));
        config
    };
    let (first_config, second_config) = (config("first"), config("second"));
    let first = first_config.run();
    runs_both(&first).await;
    let second = second_config.run();
    let (mine, _) = divided(&first, &second).await;
    delivers_more(&first, 50.0).await;
    let java = broker.java();
    stop_in_a_transaction(&broker, &first, mine).await;
    runs_both(&second).await;
    let takes = async || Some(second.delivered(mine, "events").await).filter(|count| *count > 0.0);
    second.shows("events of what was taken over", takes).await;

    first.signal("CONT");
    let line: Value = serde_json::from_str(&first.says("lost: ").await).unwrap();
    assert_eq!((&line["reason"], &line["partition"]), (&"fenced".into(), &partition_of(mine, 2).into()), "{line}");
    let fenced = format!("trailcast_sink_errors_total{{reason=\"fenced\",sink=\"events\",stream=\"{mine}\"}}");
    first.shows("the metric", async || first.metric(&fenced).await.filter(|count| *count >= 1.0)).await;
    // And is a replica like any other again.
    divided(&first, &second).await;
    delivers_more(&first, 1.0).await;
    first.drain().await;
    second.drain().await;

    let mut rest = first_config;
    rest.streams.iter_mut().for_each(|stream| drop(stream.keys.pop()));
    finish_exactly_once([rest.run()], &simulator, &java).await;
}
