//! Brokers that are lost while events flow: each event arrives once all the same.

use serde_json::Value;
use trailcast::event::Millis;
use trailcast::simulate::Simulator;

use crate::broker::{Broker, Cluster, Options};
use crate::hostile::{RATE, SECONDS, config, hostile};
use crate::ledger::Difference;
use crate::pipeline::{
    Ends, STATE, STREAMS, TOPIC, arrived, delivered, delivers_more, differences, exactly_once, finish_exactly_once,
    in_kafka, into_kafka, seconds_ago,
};
use crate::program::{Config, history, simulate, until};

/// APIs at their worst, where something arrives for so many seconds from now; and when it ends.
async fn arriving(seconds: u64) -> (Simulator, Config, Millis) {
    let start = seconds_ago(20);
    let simulator = simulate(hostile(start, seconds.saturating_sub(SECONDS) + 20)).await;
    let config = config(&simulator, start);
    (simulator, config, start + (20 + i64::try_from(seconds.max(SECONDS)).unwrap() + 1) * 1000)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_killed_and_comes_back() {
    let (simulator, config, end) = arriving(35).await;
    let mut broker = Broker::start(Options::default()).await;
    let config = exactly_once(config, &broker.bootstrap());
    let program = config.run();
    delivers_more(&program, 100.0).await;
    for _ in 0..2 {
        // While records are being written: the end of the topic has just moved.
        let ends = Ends::of(&broker.client(), TOPIC);
        let before = ends.sum();
        until("more records", || program.log(), async || (ends.sum() > before).then_some(())).await;
        broker.kill();
        let stuck = delivered(&program).await;
        broker.restart().await;
        assert!(delivered(&program).await - stuck <= f64::from(RATE), "something was delivered without a broker");
        delivers_more(&program, 50.0).await;
    }
    assert!(simulator.now() < end, "the broker was not killed while events arrived");
    finish_exactly_once(program, &simulator, end, &broker.java()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_brokers_are_killed_in_turn() {
    let (simulator, config, end) = arriving(60).await;
    let mut cluster = Cluster::start(3).await;
    let config = exactly_once(config, &cluster.bootstrap());
    let program = config.run();
    delivers_more(&program, 100.0).await;
    let java = cluster.java();
    for topic in [TOPIC, STATE] {
        let described = java.describe(topic).await;
        let partitions = described["partitions"].as_array().unwrap();
        assert!(partitions.iter().all(|partition| partition["replicas"].as_array().unwrap().len() == 3), "{described}");
        assert_eq!(described["configs"]["min.insync.replicas"], "2");
    }
    for index in 0..3 {
        cluster.brokers[index].kill();
        // Two of three are enough.
        delivers_more(&program, 50.0).await;
        cluster.brokers[index].restart().await;
        for topic in [TOPIC, STATE] {
            cluster.in_sync(topic, 3).await;
        }
        delivers_more(&program, 1.0).await;
    }
    assert!(simulator.now() < end, "no broker was killed while events arrived");
    finish_exactly_once(program, &simulator, end, &java).await;
}

/// Resident memory of a process, in bytes.
fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Longer than a message waits for its acknowledgement, so that what was sent is given up and sent again.
#[tokio::test(flavor = "multi_thread")]
async fn brokers_are_away_for_long_and_memory_stays_bounded() {
    const BOUND: u64 = 64 << 20;
    let simulator = simulate(history(40_000)).await;
    // Before the first of its records.
    let config = Config::of(&simulator).starting_at(simulator.now() - 3_000_000);
    let mut broker = Broker::start(Options::default()).await;
    let mut config = exactly_once(config, &broker.bootstrap());
    for stream in &mut config.streams {
        // So that most of the history is still to come.
        stream.keys.push(("rate_limit", "20".to_owned()));
    }
    let program = config.run();
    delivers_more(&program, 2000.0).await;
    broker.kill();
    let (before, sent) = (resident(program.id()), delivered(&program).await);
    let errors = async || {
        let text = program.get("/metrics").await;
        let errors = text.lines().filter(|line| line.starts_with("trailcast_sink_errors_total{"));
        Some(errors.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>())
            .filter(|sum| *sum >= 2.0)
    };
    program.shows("failed deliveries", errors).await;
    let failing = |lane: &Value| lane["state"] == "failing";
    assert!(program.status().await["lanes"].as_array().unwrap().iter().any(failing));
    let after = resident(program.id());
    assert!(delivered(&program).await - sent < 5000.0, "it delivered without a broker");
    assert!(after < before + BOUND, "{before} bytes grew to {after} while nothing could be delivered");
    broker.restart().await;
    delivers_more(&program, 2000.0).await;
    let lanes = async || {
        program.status().await["lanes"].as_array().unwrap().iter().all(|lane| lane["state"] == "ok").then_some(())
    };
    program.shows("that all is well again", lanes).await;
    program.drain().await;
    for stream in &mut config.streams {
        stream.keys.pop();
    }
    let program = config.run();
    finish_exactly_once(program, &simulator, simulator.now(), &broker.java()).await;
}

/// Replicas in sync are too few: nothing counts as delivered until there are enough.
#[tokio::test(flavor = "multi_thread")]
async fn too_few_replicas_in_sync() {
    let simulator = simulate(history(1_000)).await;
    for transactions in [true, false] {
        let broker = Broker::start(Options::default()).await;
        let java = broker.java();
        java.create(TOPIC, 3, 1, &["min.insync.replicas=2"]).await;
        let mut config = into_kafka(Config::of(&simulator), &broker.bootstrap(), "");
        if transactions {
            config = in_kafka(config, &broker.bootstrap(), "session_timeout: 10s");
        }
        let program = config.run();
        program.says("cannot go on, trying again").await;
        assert_eq!(delivered(&program).await, 0.0);
        assert_eq!(java.counts(TOPIC).await.all, 0);
        java.configure(TOPIC, &["min.insync.replicas=1"]).await;
        program.verified(&STREAMS, "events", simulator.now()).await;
        program.drain().await;
        differences(&simulator, &arrived(&java).await).iter().for_each(Difference::assert_none);
    }
}
