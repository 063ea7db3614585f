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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{GenauthAuth, GenauthBrand, GenauthConfig, ScloudConfig, Secret};

    fn genauth(change: impl FnOnce(&mut GenauthConfig)) -> String {
        let mut config = GenauthConfig {
            endpoint: "https://a".parse().unwrap(),
            brand: GenauthBrand::Genauth,
            user_pool_id: "pool".to_owned(),
            auth: GenauthAuth::Token,
            access_key_id: "key".to_owned(),
            access_key_secret: Secret::Env("SECRET".to_owned()),
            filter: GenauthFilter::default(),
            max_rows: 10_000,
        };
        change(&mut config);
        question(&SourceConfig::Genauth(config))
    }

    fn scloud(change: impl FnOnce(&mut ScloudConfig)) -> String {
        let mut config = ScloudConfig {
            endpoint: "https://a".parse().unwrap(),
            public_key: "key".to_owned(),
            private_key: Secret::Env("SECRET".to_owned()),
            project_id: None,
            filter: ScloudFilter::default(),
            max_rows: 10_000,
        };
        change(&mut config);
        question(&SourceConfig::Scloud(config))
    }

    #[test]
    fn whatever_changes_what_is_listed_is_another_question_and_nothing_else_is() {
        let text = || Some("x".to_owned());
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let questions = [
            genauth(|_| {}),
            genauth(|config| config.user_pool_id = "other".to_owned()),
            genauth(|config| config.filter.event_type = text()),
            genauth(|config| config.filter.success = Some(true)),
            genauth(|config| config.filter.success = Some(false)),
            genauth(|config| config.filter.user_id = text()),
            genauth(|config| config.filter.app_id = text()),
            genauth(|config| config.filter.client_ip = text()),
            genauth(|config| config.filter.request_id = text()),
            scloud(|_| {}),
            scloud(|config| config.project_id = text()),
            scloud(|config| config.filter.resource_id = text()),
            scloud(|config| config.filter.access_key_ids = keys(&["a", "b"])),
            scloud(|config| config.filter.access_key_ids = keys(&["ab"])),
        ];
        let different: std::collections::BTreeSet<_> = questions.iter().collect();
        assert_eq!(different.len(), questions.len(), "{questions:?}");

        let same = genauth(|config| {
            config.endpoint = "https://b".parse().unwrap();
            (config.access_key_id, config.auth) = ("rotated".to_owned(), GenauthAuth::Signature);
            config.access_key_secret = Secret::Env("OTHER".to_owned());
        });
        assert_eq!(same, questions[0]);
        let same = scloud(|config| {
            config.endpoint = "https://b".parse().unwrap();
            config.public_key = "rotated".to_owned();
            config.filter.access_key_ids = keys(&["b", "a"]);
        });
        assert_eq!(same, questions[12], "the order of keys is none of the question");
    }
}
