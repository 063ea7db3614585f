//! Into the Collector, which writes down each request: conservation by what it wrote.

use trailcast::clock::now;
use trailcast::event::{Millis, Source};
use trailcast::simulate::{Options, Start};

use crate::ledger::{Event, compare};
use crate::program::{Config, history, simulate};
use crate::receiver::Collector;

#[tokio::test(flavor = "multi_thread")]
async fn every_event_arrives_with_each_compression() {
    let simulator = simulate(history(2_000)).await;
    for protocol in ["http", "grpc"] {
        for compression in ["gzip", "zstd", "none"] {
            let collector = Collector::start().await;
            let mut config = Config::of(&simulator);
            config.sinks = collector.sink(protocol, &format!(", compression: {compression}"));
            let answer = config.command(&["check"], &[]).await;
            assert_eq!(answer.code, Some(0), "{}", answer.stdout);
            assert!(answer.stdout.contains("/v1/logs answers") || protocol == "grpc", "{}", answer.stdout);
            assert_eq!(collector.arrived().len(), 0, "check delivers nothing");
            let begun = now();
            config.catch_up().await;
            let arrived = collector.arrived();
            let events: Vec<Event> = arrived.iter().map(|arrived| arrived.event.clone()).collect();
            crate::ledger::assert_all_arrived(&simulator, begun, &events);
            for one in &arrived {
                let names: Vec<&str> = one.labels.keys().map(String::as_str).collect();
                assert_eq!(names, ["service.name", "service.namespace"], "{one:?}");
            }
        }
    }
    simulator.shutdown().await;
}

/// Killed at once while events come, and started again on what it had written.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_killed_loses_nothing() {
    for protocol in ["http", "grpc"] {
        let start = Some(Start::At(now() - 120_000));
        let options = Options { rate: 25.0, start, twin_share: 0.1, odd_share: 0.02, ..Options::default() };
        let simulator = simulate(options).await;
        let mut collector = Collector::start().await;
        let mut config = Config::of(&simulator).starting_at(now() - 180_000);
        config.sinks = collector.sink(protocol, ", connect_timeout: 1s, request_timeout: 2s, max_request_events: 100");
        let mut program = config.run();
        for kill in 0..4 {
            let before = collector.arrived().len();
            let grows = async || (collector.arrived().len() > before).then_some(());
            program.shows("more events", grows).await;
            collector.kill().await;
            let failed = |line: &String| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
            let fails = async || (program.lines().iter().filter(|line| failed(line)).count() > kill).then_some(());
            program.shows("that it fails", fails).await;
            collector.restart().await;
        }
        // It may be waiting still, and then has not drained: what it was about to deliver comes with the next run.
        program.signal("TERM");
        program.ended().await;
        let begun = now();
        config.catch_up().await;
        let events: Vec<Event> = collector.arrived().into_iter().map(|arrived| arrived.event).collect();
        for source in [Source::Genauth, Source::Scloud] {
            let difference = compare(&simulator, source, (0, Millis::MAX), begun, &events);
            assert!(difference.expected > 1000, "{difference}");
            let lost = difference.missing.len() + difference.invented.len() + difference.altered.len();
            assert_eq!(lost, 0, "{protocol}: {difference}");
            println!("{protocol} {source}: {} events, {} came again", difference.expected, difference.repeated.len());
        }
        simulator.shutdown().await;
    }
}
