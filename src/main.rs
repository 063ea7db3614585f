//! The `trailcast` command.

fn main() {}
