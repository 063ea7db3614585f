//! Which trailcast this is.

/// The version in `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The git revision, where whoever builds says it in the variable `TRAILCAST_REVISION`. Not asked of git: a build
/// from an archive or an image has none, and must not differ otherwise.
pub const REVISION: Option<&str> = option_env!("TRAILCAST_REVISION");
