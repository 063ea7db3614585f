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
//! With the checkpoint in Kafka, app hands the streams to a replica: what partitions of the state topic the group gives
//! to this process says which streams' lanes it runs, and deliver and commit are one transaction of a partition's.
//!
//! ## Words
//! A *source* is an API; a *stream* one configured use of it; a *record* one raw entry as the API gave it; a
//! *page* one response; a *window* a half-open interval of event time; an *event* a normalized record with an
//! id; a *lane* one (stream, sink) pair with its own *cursor*; a *pass* a schedule on which a lane reads
//! windows (the live pass, sweeps at growing ages, and the backfill, for history that the live pass has gone past); a
//! *checkpoint* holds cursors; a *dead letter* is an event that
//! a *sink* refuses for good, kept with the reason.
//!
//! ## Invariants
//! 1. Nothing advances before delivery.
//! 2. Ids come from content.
//! 3. Twins (n equal records in one clock unit) are n events.
//! 4. A window counts only when read completely.
//! 5. Late records are delivered, marked late, up to the oldest sweep's age.
//! 6. Nothing vanishes: a record that cannot be parsed is delivered with its text, an event that is refused is kept.
//! 7. One lane's trouble stays in that lane; one stream's too.
//! 8. Memory is bounded whatever the backlog, page content or sink outage.
//! 9. Secrets never show.
//! 10. A stuck lane is visible: lag is computed when scraped, and "ok" means that the lane moves on schedule.
//!
//! 11. Nothing outside is believed without evidence and a bound (`docs/trust.md`): clocks, answers, counts, sizes, files,
//!     brokers. A lie costs time, calls or a gap that is told, never an event in silence.
//!
//! ## Modules, in reading order
//! Each knows only those before it.
//!
//! Pure (no I/O, no clock; one alone waits): [`event`] the data and its ids; [`record`] raw records and what identifies
//! them; [`window`], and [`memory`], which counts what is held and waits for room; [`page`] and [`reading`], how a window is
//! read completely; [`state`], where a lane stands and what is new to it; [`normalize`] and [`encode`], record → event →
//! bytes; [`retry`] says how long to wait, [`reminder`] when to say again what goes on; [`quote`] what of others' words may be repeated, [`words`] how a person is told.
//!
//! What doing stands on: [`clock`], [`blocking`], [`private`], [`shutdown`], [`version`]; [`config`], what a user may say; [`spans`],
//! what a trace can hold.
//!
//! Doing: [`source`] asks for one page; [`dead_letter`] keeps what is refused; [`health`] says whether a lane moves on
//! schedule; [`metrics`] counts and [`admin`] shows, each where the parts themselves write it down; [`kafka`] is what every
//! use of Kafka shares; [`checkpoint`] keeps cursors; [`sink`] delivers; [`feed`] reads whole windows and retries; [`lane`]
//! is the line itself; [`replica`] runs the lanes of the streams that are this process's.
//!
//! Beside it: [`simulate`], both APIs as a server with faults and a truth ledger. It shares no code with
//! [`source`], so that one cannot hide the other's mistake.
//!
//! Shell: [`telemetry`] (the log, and spans on their way), [`app`] (builds and runs it all), [`cli`], [`command`] (what is
//! not `run`).
//!
//! What must hold whatever bytes come is in `fuzz`, which only tests and fuzzers compile.

pub mod event;
pub mod record;

pub mod memory;
pub mod window;

pub mod page;
pub mod reading;
pub mod state;

pub mod normalize;

pub mod encode;
pub mod quote;
pub mod reminder;
pub mod retry;
pub mod words;

pub mod blocking;
pub mod clock;
pub mod config;
pub mod private;
pub mod shutdown;
pub mod spans;
pub mod version;

pub mod source;

pub mod dead_letter;
pub mod health;

pub mod metrics;

pub mod admin;

pub mod kafka;

pub mod checkpoint;
pub mod sink;

pub mod feed;
pub mod lane;
pub mod replica;

pub mod simulate;

pub mod telemetry;

pub mod app;
pub mod cli;
pub mod command;

#[cfg(any(test, fuzzing))]
pub mod fuzz;
