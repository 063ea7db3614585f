//! The program as its users run it: the binary, real sockets, real files.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

mod conservation;
mod delivery;
mod exporter;
mod ledger;
mod program;
