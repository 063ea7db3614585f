//! The program as its users run it: the binary, real sockets, real files.

mod conservation;
mod exporter;
mod ledger;
