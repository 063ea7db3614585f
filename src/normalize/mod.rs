//! Record → event: what happened, by whom, from where, in words that no source owns.
//!
//! Pure: no I/O, no clock.
