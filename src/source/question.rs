//! What a stream asks for, as a hash: what a cursor was made for.
//!
//! A filter that is taken away or changed makes another log of the same tenant: what the old one hid lies behind the
//! cursor and would never come.

use crate::config::{GenauthFilter, ScloudFilter, SourceConfig};

/// 32 hexadecimal digits. Not the endpoint, which may be a proxy's today, and not the key, which rotates.
pub(super) fn question(source: &SourceConfig) -> String {
    let mut hash = blake3::Hasher::new();
    // Each part is delimited, so that no two different questions hash the same bytes.
    let mut part = |text: &str| {
        hash.update(&(text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    part("trailcast/question/1");
    match source {
        SourceConfig::Genauth(config) => {
            let GenauthFilter { event_type, success, user_id, app_id, client_ip, request_id } = &config.filter;
            let success = success.map(|success| success.to_string());
            part("genauth");
            part(&config.user_pool_id);
            for (name, value) in [
                ("event_type", event_type),
                ("success", &success),
                ("user_id", user_id),
                ("app_id", app_id),
                ("client_ip", client_ip),
                ("request_id", request_id),
            ] {
                if let Some(value) = value {
                    part(name);
                    part(value);
                }
            }
        }
        SourceConfig::Scloud(config) => {
            let ScloudFilter { resource_id, access_key_ids } = &config.filter;
            part("scloud");
            part(config.project_id.as_deref().unwrap_or_default());
            if let Some(resource) = resource_id {
                part("resource_id");
                part(resource);
            }
            let mut keys: Vec<_> = access_key_ids.iter().collect();
            keys.sort_unstable();
            for key in keys {
                part("access_key_id");
                part(key);
            }
        }
    }
    hash.finalize().to_hex()[..32].to_owned()
}
