//! Both APIs on loopback as the vendors serve them, with faults on request and a truth ledger.
//!
//! One port serves both: GenAuth under `/api/v3/`, SCloud at `/`, each with one tenant whose credentials are the
//! constants of [`genauth`] and [`scloud`]. Beside them, for whoever compares: `GET /truth?source=genauth|scloud&
//! from=MILLIS&to=MILLIS` (what happened, as NDJSON; both bounds optional) and `GET /stats` (what was done).
//!
//! To simulate an outage, shut the simulator down and start it again on the same port with the same seed, rate and
//! start: the history goes on as if nothing had happened, and signed requests and tokens are valid as before.
//!
//! A history is a pure function of seed, rate and time (`history`); what is readable at a moment, and in which
//! order, is decided at each request (`pages`). Shares no code with `source`, `record` or `normalize`, so that
//! one cannot hide the other's mistake: signatures, times and identities are written here a second time.

mod clock;
mod connection;
mod dates;
mod faults;
pub mod genauth;
mod hash;
mod history;
mod options;
mod pages;
pub mod scloud;
mod server;
mod stats;
#[cfg(test)]
mod tests;
mod text;
mod truth;
mod world;

pub use self::options::{Options, Order, Start, Times};
pub use self::server::{Simulator, serve};
pub use self::stats::{SourceStats, Stats};
pub use self::truth::{Content, Ledger, Truth};
