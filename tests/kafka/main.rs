//! The program in front of real Apache Kafka. Run by `tests/run kafka`, which brings the JDK and Kafka.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

mod belonging;
mod broker;
mod brokers;
mod exactly_once;
mod harness;
#[path = "../it/hostile.rs"]
mod hostile;
#[expect(dead_code, reason = "of tests/it, not all of it is for these tests")]
#[path = "../it/ledger.rs"]
mod ledger;
mod letters;
mod mended;
mod pipeline;
#[expect(dead_code, reason = "of tests/it, not all of it is for these tests")]
#[path = "../it/program.rs"]
mod program;
mod refusals;
mod replicas;
mod security;
mod traces;
