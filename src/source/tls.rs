//! An HTTP client that is made anew when the authorities in `ca_file` have changed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use reqwest::{Certificate, redirect};

use super::BuildError;
use crate::config::{Material, StreamConfig};

/// See the module.
#[derive(Debug)]
pub(super) struct Renewable {
    config: StreamConfig,
    is_https: bool,
    is_loopback: bool,
    current: Mutex<(reqwest::Client, Material)>,
}

impl Renewable {
    pub(super) fn build(config: &StreamConfig, is_https: bool, is_loopback: bool) -> Result<Self, BuildError> {
        let material = material(config);
        let current = Mutex::new((client(config, is_https, is_loopback)?, material));
        Ok(Self { config: config.clone(), is_https, is_loopback, current })
    }

    /// The client as it is. All of them share what is inside.
    pub(super) fn get(&self) -> reqwest::Client {
        self.current().0.clone()
    }

    /// After a request that had no answer: if the file says something else by now, the next one goes by that. One that
    /// makes no sense, as one that is just being written, changes nothing yet.
    pub(super) fn look_again(&self) {
        if self.config.ca_file.is_none() {
            return;
        }
        let material = material(&self.config);
        if self.current().1 == material {
            return;
        }
        if let Ok(client) = client(&self.config, self.is_https, self.is_loopback) {
            tracing::info!("`ca_file` has changed: the next request goes by it");
            *self.current() = (client, material);
        }
    }

    /// What is kept is whole at every moment.
    fn current(&self) -> MutexGuard<'_, (reqwest::Client, Material)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn material(config: &StreamConfig) -> Material {
    Material::of(config.ca_file.as_deref(), [])
}

fn client(config: &StreamConfig, is_https: bool, is_loopback: bool) -> Result<reqwest::Client, BuildError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("trailcast/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        // Its decoder takes the first member for all that there is: see `unpack`.
        .gzip(false)
        .connect_timeout(config.connect_timeout)
        .timeout(config.request_timeout);
    builder = match authorities(config)? {
        Some(authorities) => builder.tls_certs_merge(authorities),
        // Without TLS no authority is needed, and a system that has none is no error.
        None if !is_https => builder.tls_certs_only([]),
        None => builder,
    };
    if is_loopback {
        // As other clients do: a proxy's loopback is not ours.
        builder = builder.no_proxy();
    }
    builder.build().map_err(|source| BuildError::Tls { source })
}

fn authorities(config: &StreamConfig) -> Result<Option<Vec<Certificate>>, BuildError> {
    let Some(path) = &config.ca_file else { return Ok(None) };
    let pem = std::fs::read(path).map_err(|source| BuildError::CaFile { path: path.clone(), source })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(authorities) if !authorities.is_empty() => Ok(Some(authorities)),
        _ => Err(BuildError::CaContent { path: path.clone() }),
    }
}
