//! Where a lane stands, what it must remember for that, and what of a reading is new to it.
//!
//! Pure: no I/O, no clock. In reading order: [`cursor`] (marks and what to read next), [`known`] (what was learnt of the
//! API), [`admit`] (what a reading adds to what was delivered), [`store`] (how all that looks as keys and values of a
//! checkpoint).

pub mod admit;
pub mod cursor;
#[cfg(test)]
mod edge_tests;
pub mod known;
pub mod store;
#[cfg(test)]
mod tests;
