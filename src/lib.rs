//! # trailcast
//!
//! Tails audit-log APIs that give no event ids, shift pages while they are read, show records late and
//! change fields between reads, and delivers every event once.
//!
//! ```text
//! config ─► app ─► per stream: Feed (reads windows, shared)         admin: /metrics /livez /readyz /status
//!                    └► per sink: Lane
//!                         plan ─► read window ─► admit ─► normalize ─► encode ─► deliver ─► commit ─┐
//!                         ▲                                                                         │
//!                         └───────────────────────── next window ◄──────────────────────────────────┘
//! ```
//!
//! ## Words
//! A *source* is an API; a *stream* one configured use of it; a *record* one raw entry as the API gave it; a
//! *page* one response; a *window* a half-open interval of event time; an *event* a normalized record with an
//! id; a *lane* one (stream, sink) pair with its own *cursor*; a *pass* a schedule on which a lane reads
//! windows (the live pass, and sweeps at growing ages); a *checkpoint* holds cursors.
//!
//! ## Invariants
//! 1. Nothing advances before delivery.
//! 2. Ids come from content.
//! 3. Twins (n equal records in one clock unit) are n events.
//! 4. A window counts only when read completely.
//! 5. Late records are delivered, marked late, up to the oldest sweep's age.
//! 6. Nothing vanishes: a record that cannot be parsed is delivered with its text.
//! 7. One lane's trouble stays in that lane; one stream's too.
//! 8. Memory is bounded whatever the backlog, page content or sink outage.
//! 9. Secrets never show.
//! 10. A stuck lane is visible: lag is computed when scraped.
//!
//! ## Modules, in reading order
//! Pure (no I/O, no clock): [`event`], [`record`], [`normalize`], [`encode`].
//! Doing: [`source`], [`checkpoint`].
//! Shell: [`cli`], [`config`], [`metrics`], [`admin`], [`shutdown`], [`telemetry`], [`version`], [`clock`].
//! Beside it: [`simulate`], both APIs as a server with faults and a truth ledger.

pub mod event;
pub mod record;

pub mod encode;
pub mod normalize;

pub mod checkpoint;
pub mod source;

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod metrics;
pub mod shutdown;
pub mod telemetry;
pub mod version;

pub mod simulate;
