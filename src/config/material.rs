//! What files and secrets say at a moment, as a hash: whoever made a client of them sees whether they have changed.

use std::path::Path;

use secrecy::ExposeSecret;

use super::{ClusterConfig, SaslConfig, Secret};

/// See the module. Shows nothing of what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Material([u8; 16]);

impl Material {
    /// Of files and secrets, in order; one that cannot be read is as one that says nothing. Blocks for as long as small
    /// files take.
    #[must_use]
    pub fn of<'a>(files: impl IntoIterator<Item = &'a Path>, secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut hash = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        files.into_iter().for_each(|path| add(&std::fs::read(path).unwrap_or_default()));
        for secret in secrets {
            let read = secret.read().ok();
            add(read.as_ref().map_or("", |secret| secret.expose_secret()).as_bytes());
        }
        let mut short = [0; 16];
        short.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        Self(short)
    }
}

impl ClusterConfig {
    /// What its certificates, keys and secrets say now.
    #[must_use]
    pub fn material(&self) -> Material {
        let tls = self.tls.as_ref();
        let files = tls.into_iter().flat_map(|tls| [&tls.ca_file, &tls.certificate_file, &tls.key_file]);
        let password = match &self.sasl {
            Some(SaslConfig::Password { password, .. }) => Some(password),
            Some(SaslConfig::Token(token)) => Some(token),
            None => None,
        };
        let secrets = tls.and_then(|tls| tls.key_password.as_ref()).into_iter().chain(password);
        Material::of(files.flatten().map(std::path::PathBuf::as_path), secrets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_changes_with_what_files_say() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, word) = (folder.path().join("ca.pem"), folder.path().join("password"));
        let secret = Secret::File(word.clone());
        let now = || Material::of([ca.as_path()], [&secret]);
        let mut seen = vec![now()];
        for (path, text) in [(&ca, "one"), (&ca, "two"), (&word, "three"), (&word, "four")] {
            std::fs::write(path, text).unwrap();
            assert!(!seen.contains(&now()), "{text}");
            seen.push(now());
        }
        assert_eq!(now(), now());
    }
}
