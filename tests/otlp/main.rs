//! The program in front of a real OpenTelemetry Collector and a real Loki. Run by `tests/run otlp`, which builds both.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

mod collector;
#[expect(dead_code, reason = "of tests/it, not all of it is for these tests")]
#[path = "../it/ledger.rs"]
mod ledger;
mod loki;
#[expect(dead_code, reason = "of tests/it, not all of it is for these tests")]
#[path = "../it/program.rs"]
mod program;
mod receiver;
mod traces;
