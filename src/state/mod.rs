//! Where a lane stands, what it must remember for that, and what of a reading is new to it.
//!
//! Pure: no I/O, no clock. In reading order: [`schedule`] (which pass reads when), [`cursor`] (marks and what to read next),
//! [`backfill`] (history beside it), [`fore`] (what lies beyond what is surely over), [`known`] (what was learnt of the API),
//! [`admit`] (what a reading adds to what was delivered), [`store`] (how all that looks as keys and values of a
//! checkpoint).

pub mod admit;
pub mod backfill;
pub mod cursor;
#[cfg(test)]
mod edge_tests;
pub mod fore;
pub mod known;
pub mod schedule;
pub mod store;
#[cfg(test)]
mod tests;
