//! A Collector that cannot be had: events do not notice.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use trailcast::clock::now;

use crate::ledger::assert_all_arrived;
use crate::program::{Config, history, simulate};

/// Nobody listens; or somebody does, and never says a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_answer_costs_nothing_but_counted_spans() {
    let simulator = simulate(history(300)).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for endpoint in ["127.0.0.1:1".to_owned(), silent.local_addr().unwrap().to_string()] {
        let mut config = Config::of(&simulator);
        config.traces = Some(format!("{{ otlp: {{ endpoint: \"http://{endpoint}\" }} }}"));
        let begun = now();
        let program = config.run();
        let lost = async || program.metric("trailcast_trace_spans_lost_total ").await.filter(|lost| *lost > 0.0);
        let lost = program.shows("that spans are lost", lost).await;
        let all = program.metric("trailcast_trace_spans_total ").await.unwrap();
        assert!(all >= lost, "{lost} of {all}");
        program.verified(&["users", "cloud"], "out", begun).await;
        let asked = Instant::now();
        let log = program.drain().await;
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(10), "ended after {took:?}");
        let said: Vec<&String> = log.iter().filter(|line| line.contains("traces are lost")).collect();
        assert_eq!(said.len(), 1, "once, however often: {log:#?}");
        assert!(said[0].contains("\"WARN\"") && said[0].contains("traces.otlp.endpoint"), "{}", said[0]);
        assert!(log.iter().all(|line| !line.contains("\"ERROR\"")), "{log:#?}");
        assert_all_arrived(&simulator, begun, &config.events());
        let answer = config.command(&["check"], &[]).await;
        let found = answer.stdout.lines().any(|line| line.starts_with("FAILED ") && line.contains(" traces "));
        assert!(answer.code == Some(1) && found, "{}", answer.stdout);
    }
    simulator.shutdown().await;
}
