//! Which trailcast this is.

use std::sync::LazyLock;

/// The version in `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The git revision, where whoever builds says it in the variable `TRAILCAST_REVISION`. Not asked of git: a build
/// from an archive or in an image has none, and must not differ otherwise.
pub const REVISION: Option<&str> = option_env!("TRAILCAST_REVISION");

/// One line of what the program is made of: the version, the revision where it is known, and librdkafka's version.
pub static LINE: LazyLock<String> = LazyLock::new(|| {
    let revision = REVISION.map(|revision| format!("revision {revision}, ")).unwrap_or_default();
    format!("{VERSION} ({revision}librdkafka {})", librdkafka())
});

/// The version of the library that speaks Kafka's protocol.
#[must_use]
pub fn librdkafka() -> String {
    rdkafka::util::get_rdkafka_version().1
}
