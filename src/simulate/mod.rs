//! Both APIs on loopback as the vendors serve them, with faults on request and a truth ledger.
//!
//! Shares no code with `source`, so that one cannot hide the other's mistake.
