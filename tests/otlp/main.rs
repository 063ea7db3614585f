//! The program in front of a real OpenTelemetry Collector, a real log store (VictoriaLogs) and a double of Loki, straight and
//! through a real Apache Kafka. Run by `tests/run otlp`, which brings the three that are real, and LogQL's grammar.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]
#![expect(clippy::print_stdout, reason = "what was measured on the way is told beside the verdict")]

#[expect(dead_code, reason = "of tests/kafka, not all of it is for these tests")]
#[path = "../kafka/broker.rs"]
mod broker;
mod collector;
#[path = "../it/ledger.rs"]
mod ledger;
mod letters;
mod logql;
mod loki;
mod loki_double;
mod loki_limits;
mod loki_rules;
#[expect(dead_code, reason = "of tests/kafka, not all of it is for these tests")]
#[path = "../kafka/pipeline.rs"]
mod pipeline;
#[expect(dead_code, reason = "of tests/it, not all of it is for these tests")]
#[path = "../it/program.rs"]
mod program;
mod receiver;
mod through_kafka;
mod traces;
mod victorialogs;
