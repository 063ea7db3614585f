//! Where a lane stands, what it must remember for that, and what of a reading is new to it.
//!
//! Pure: no I/O, no clock. Three parts in reading order: [`cursor`] (marks and what to read next), [`admit`]
//! (what a reading adds to what was delivered), [`store`] (how both look as keys and values of a checkpoint).

pub mod admit;
pub mod cursor;
pub mod store;
#[cfg(test)]
mod tests;
