//! What replicas must share: which streams go where, and how they are read. Those that differ in it would deliver events
//! twice, as each knows only of its own lanes; so whoever comes to a group that runs another config waits and says so.

use crate::config::{Config, SinkConfig, SourceConfig};
use crate::kafka::GroupMember;

/// What stands before the digest in a member's client id.
const BEFORE: &str = "trailcast-";

/// A short hash of all that replicas must share. No secret is in it, and nothing that each may have its own of, such as
/// rates, timeouts and addresses.
#[must_use]
pub fn digest(config: &Config) -> String {
    let mut hash = blake3::Hasher::new();
    // Debug quotes text, so that no two lists are written alike.
    let mut add = |text: String| {
        hash.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    };
    for (name, stream) in &config.streams {
        let source = match &stream.source {
            SourceConfig::Genauth(genauth) => format!("genauth {:?} {:?}", genauth.user_pool_id, genauth.filter),
            SourceConfig::Scloud(scloud) => format!("scloud {:?} {:?}", scloud.project_id, scloud.filter),
        };
        let mut sinks: Vec<_> = stream.sinks.iter().collect();
        sinks.sort_unstable();
        add(format!("stream {name:?} {source} {:?} {sinks:?}", stream.sweeps));
    }
    for (name, sink) in &config.sinks {
        add(match sink {
            SinkConfig::Kafka(kafka) => {
                let (topic, format, raw, key) = (&kafka.topic, kafka.format, kafka.raw, kafka.key);
                format!("sink {name:?} kafka {topic:?} {format:?} {raw} {key:?} {}", kafka.exactly_once)
            }
            SinkConfig::Otlp(otlp) => format!("sink {name:?} otlp {:?}", otlp.endpoint.as_str()),
            SinkConfig::Stdout(_) => format!("sink {name:?} stdout"),
        });
    }
    hash.finalize().to_hex()[..12].to_owned()
}

/// The name under which a member shows its digest.
pub(super) fn client_id(digest: &str) -> String {
    format!("{BEFORE}{digest}")
}

/// Those among a group's members that run another config than `digest`. One that shows none is of an earlier version, and
/// nothing is known of it.
pub(super) fn others<'m>(members: &'m [GroupMember], digest: &str) -> Vec<&'m str> {
    let differs = |member: &&GroupMember| member.client.strip_prefix(BEFORE).is_some_and(|theirs| theirs != digest);
    members.iter().filter(differs).map(|member| member.id.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    const CONFIG: &str = "
streams:
  users:
    genauth: { user_pool_id: p, access_key_id: k, access_key_secret: s }
    sinks: [events]
    sweeps: [1m, 6h]
sinks:
  events: { kafka: { brokers: [\"b:1\"], topic: audit } }
checkpoint: { kafka: { brokers: [\"b:1\"] } }
";

    #[test]
    fn what_replicas_must_share_is_in_it_and_what_each_has_of_its_own_is_not() {
        let of = |from: &str, to: &str| {
            assert!(CONFIG.contains(from), "{from}");
            let loaded = config::parse(Path::new("test"), &CONFIG.replace(from, to)).unwrap_or_else(|e| panic!("{e}"));
            digest(&loaded.config)
        };
        let ours = of("streams", "streams");
        for (from, to) in [
            ("events", "renamed"),
            ("topic: audit", "topic: others"),
            ("sweeps: [1m, 6h]", "sweeps: [1m, 12h]"),
            ("user_pool_id: p", "user_pool_id: q"),
            ("users:", "people:"),
        ] {
            assert_ne!(of(from, to), ours, "{to}");
        }
        for (from, to) in [
            ("access_key_secret: s", "access_key_secret: other"),
            ("sweeps:", "rate_limit: 3\n    sweeps:"),
            ("b:1", "b:1\", \"b:2"),
        ] {
            assert_eq!(of(from, to), ours, "{to}");
        }
        let member = |client: &str| GroupMember { id: "replica-7".to_owned(), client: client.to_owned() };
        let members = [member(&client_id(&ours)), member("rdkafka"), member(&client_id("another"))];
        assert_eq!(others(&members, &ours), ["replica-7"]);
        assert_eq!(others(&members[..2], &ours), [""; 0]);
    }
}
