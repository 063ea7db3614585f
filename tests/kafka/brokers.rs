//! Brokers that are lost while events flow: each event arrives once all the same.

use serde_json::Value;
use trailcast::simulate::Simulator;

use crate::broker::{Broker, Cluster, Options};
use crate::hostile::{RATE, config, hostile};
use crate::pipeline::{
    Ends, STATE, STREAMS, TOPIC, delivered, delivers_more, exactly_once, finish, finish_exactly_once, in_kafka,
    into_kafka, seconds_ago,
};
use crate::program::{Config, Program, Stream, history, simulate, until};

/// APIs at their worst, where something arrives for longer than any test takes.
async fn arriving() -> (Simulator, Config) {
    let start = seconds_ago(20);
    let simulator = simulate(hostile(start, 600)).await;
    let config = config(&simulator, start);
    (simulator, config)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_killed_and_comes_back() {
    let (simulator, config) = arriving().await;
    let mut broker = Broker::start(Options::default()).await;
    let config = exactly_once(config, &broker.bootstrap());
    let program = config.run();
    delivers_more(&program, 100.0).await;
    for _ in 0..2 {
        // While records are being written: the end of the topic has just moved.
        let ends = Ends::of(&broker.client(), TOPIC);
        let before = ends.sum();
        until("more records", || program.log(), async || (ends.sum() > before).then_some(())).await;
        let no_group = || program.logged("cannot take part in the group").len();
        let said = no_group();
        broker.kill();
        let killed = delivered(&program).await;
        until("a line that tells", || program.log(), async || (no_group() > said).then_some(())).await;
        // What had been acknowledged.
        assert!(delivered(&program).await - killed <= f64::from(RATE), "something was delivered without a broker");
        broker.restart().await;
        delivers_more(&program, 50.0).await;
    }
    finish_exactly_once([program], &simulator, &broker.java()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_brokers_are_killed_in_turn() {
    let (simulator, config) = arriving().await;
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

    // Too few replicas in sync: nothing counts as delivered until there are enough.
    java.configure(TOPIC, &["min.insync.replicas=3"]).await;
    cluster.brokers[0].kill();
    let stuck = async || {
        let status = program.status().await;
        let lanes = status["lanes"].as_array().unwrap();
        lanes.iter().any(|lane| lane["state"] == "failing").then_some(())
    };
    program.shows("that it cannot go on", stuck).await;
    cluster.brokers[0].restart().await;
    delivers_more(&program, 1.0).await;
    finish_exactly_once([program], &simulator, &java).await;
}

/// The most KiB that memory may grow by while nothing can be delivered.
const GROWTH: u64 = 64 << 10;

/// With most of a history still to come the broker goes, until `gone` says that this has been noticed for good; and all
/// is well again once it has come back.
async fn away(broker: &mut Broker, simulator: &Simulator, mut config: Config, gone: impl AsyncFnOnce(&Program)) {
    for stream in &mut config.streams {
        // Slowly enough that a busy machine does not get to the end meanwhile.
        stream.keys.push(("rate_limit", "12".to_owned()));
    }
    let program = config.run();
    delivers_more(&program, 2000.0).await;
    let before = program.count("VmRSS:");
    broker.kill();
    let sent = delivered(&program).await;
    gone(&program).await;
    let after = program.count("VmRSS:");
    assert!(delivered(&program).await - sent <= 2000.0, "it delivered without a broker");
    assert!(after < before + GROWTH, "{before} KiB grew to {after} while nothing could be delivered");
    broker.restart().await;
    delivers_more(&program, 2000.0).await;
    let ok = async || {
        let status = program.status().await;
        let well = |one: &Value| ["ok", "catching_up"].contains(&one["state"].as_str().unwrap());
        let all_well = |what: &str| status[what].as_array().unwrap().iter().all(well);
        (all_well("lanes") && all_well("streams")).then_some(())
    };
    program.shows("that all is well again", ok).await;
    assert!(delivered(&program).await < 30_000.0, "too little was still to come");
    program.drain().await;
    // The rest as quickly as it can.
    for stream in &mut config.streams {
        stream.keys.pop();
    }
    let program = config.run();
    for mut difference in finish([program], simulator, &broker.java()).await.1 {
        // What was written while its acknowledgement was lost comes again where there are no transactions.
        if config.store.is_none() {
            difference.repeated.clear();
        }
        difference.assert_none();
    }
}

/// However many lanes wait for one topic, they wait without a thread each.
#[tokio::test(flavor = "multi_thread")]
async fn lanes_that_wait_for_brokers_need_no_thread_each() {
    const LANES: u64 = 60;
    let simulator = simulate(trailcast::simulate::Options { rate: 2.0, ..Default::default() }).await;
    let mut broker = Broker::start(Options::default()).await;
    let mut config = into_kafka(Config::of(&simulator), &broker.bootstrap(), "create: { partitions: 3 }");
    config.streams = (0..LANES)
        .map(|number| Stream { name: format!("users-{number}").leak(), ..Stream::users(&simulator.url()) })
        .collect();
    let program = config.run();
    let lanes = async || program.status().await["lanes"].as_array().unwrap().clone();
    let all = async |is_so: fn(&Value) -> bool| lanes().await.iter().filter(|lane| is_so(lane)).count() as u64 == LANES;
    let delivered = async || all(|lane| lane["delivered"].as_u64() > Some(0)).await.then_some(());
    program.shows("that each has delivered", delivered).await;
    broker.kill();
    let failing = async || all(|lane| lane["state"] == "failing").await.then_some(());
    program.shows("that none can deliver", failing).await;
    let threads = program.count("Threads:");
    assert!(threads < LANES / 2, "{threads} threads");
}

/// A history that begins an hour ago.
async fn long_history() -> (Simulator, Config) {
    let simulator = simulate(history(20_000)).await;
    let config = Config::of(&simulator).starting_at(simulator.now() - 3_600_000);
    (simulator, config)
}

/// Longer than a message waits for its acknowledgement and than the session of a replica, which is then out of a group
/// that nobody can see.
#[tokio::test(flavor = "multi_thread")]
async fn brokers_are_away_for_longer_than_a_session() {
    let (simulator, config) = long_history().await;
    let mut broker = Broker::start(Options::default()).await;
    let at = broker.bootstrap();
    let config = in_kafka(into_kafka(config, &at, "create: { partitions: 3 }"), &at, "session_timeout: 25s");
    away(&mut broker, &simulator, config, async |program| drop(program.says("the group takes partitions away").await))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_are_away_for_longer_than_a_message_waits() {
    let (simulator, config) = long_history().await;
    let mut broker = Broker::start(Options::default()).await;
    let config = into_kafka(config, &broker.bootstrap(), "create: { partitions: 3 }");
    away(&mut broker, &simulator, config, async |program| {
        for stream in STREAMS {
            // Not its errors: it may have had one before, while it began.
            let failing = async || {
                let status = program.status().await;
                let failing = |lane: &&Value| lane["stream"] == stream && lane["state"] == "failing";
                status["lanes"].as_array().unwrap().iter().any(|lane| failing(&lane)).then_some(())
            };
            program.shows("failed deliveries", failing).await;
            let text = program.get("/metrics").await;
            let ours = format!("sink=\"events\",stream=\"{stream}\"}}");
            let mut errors =
                text.lines().filter(|line| line.starts_with("trailcast_sink_errors_total{") && line.contains(&ours));
            assert!(errors.any(|line| !line.ends_with(" 0")), "{text}");
        }
    })
    .await;
}
