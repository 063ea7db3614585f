//! The program's behaviour, seen from outside: started as users start it, in front of the simulator.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

mod backfill;
mod checkpoint;
mod clock;
mod commands;
mod conservation;
mod delivery;
mod docs;
mod hostile;
mod ledger;
mod letters;
mod lies;
mod memory;
mod panics;
mod program;
mod stdout;
mod time;
mod traces;
mod trouble;
