//! An HTTP client that is made anew when the authorities in `ca_file` have changed.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::{Certificate, redirect};

use super::BuildError;
use crate::config::{Material, StreamConfig};

/// What a client goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settings {
    ca_file: Option<PathBuf>,
    connect_timeout: Duration,
    request_timeout: Duration,
    is_https: bool,
    is_loopback: bool,
}

/// The HTTP clients of all streams: those whose settings are the same share one, and its connections.
#[derive(Debug, Default)]
pub struct Connections(Vec<Arc<Renewable>>);

impl Connections {
    pub(super) fn of(
        &mut self,
        config: &StreamConfig,
        is_https: bool,
        is_loopback: bool,
    ) -> Result<Arc<Renewable>, BuildError> {
        let settings = Settings {
            ca_file: config.ca_file.clone(),
            connect_timeout: config.connect_timeout,
            request_timeout: config.request_timeout,
            is_https,
            is_loopback,
        };
        if let Some(known) = self.0.iter().find(|known| known.settings == settings) {
            return Ok(Arc::clone(known));
        }
        let new = Arc::new(Renewable::build(settings)?);
        self.0.push(Arc::clone(&new));
        Ok(new)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Renewable {
    settings: Settings,
    current: Mutex<(reqwest::Client, Material)>,
}

impl Renewable {
    fn build(settings: Settings) -> Result<Self, BuildError> {
        let material = settings.material();
        let current = Mutex::new((settings.client()?, material));
        Ok(Self { settings, current })
    }

    /// The client as it is. All of them share what is inside.
    pub(super) fn get(&self) -> reqwest::Client {
        self.current().0.clone()
    }

    /// After a request that had no answer: if the file says something else by now, the next one goes by that. One that
    /// makes no sense, as one that is just being written, changes nothing yet.
    pub(super) fn look_again(&self) {
        if self.settings.ca_file.is_none() {
            return;
        }
        let material = self.settings.material();
        if self.current().1 == material {
            return;
        }
        if let Ok(client) = self.settings.client() {
            tracing::info!("`ca_file` has changed: the next request goes by it");
            *self.current() = (client, material);
        }
    }

    /// What is kept is whole at every moment.
    fn current(&self) -> MutexGuard<'_, (reqwest::Client, Material)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settings {
    fn material(&self) -> Material {
        Material::of(self.ca_file.as_deref(), [])
    }

    fn client(&self) -> Result<reqwest::Client, BuildError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("trailcast/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            // Its decoder takes the first member for all that there is: see `unpack`.
            .gzip(false)
            .connect_timeout(self.connect_timeout)
            .timeout(self.request_timeout);
        builder = match self.authorities()? {
            Some(authorities) => builder.tls_certs_merge(authorities),
            // Without TLS no authority is needed, and a system that has none is no error.
            None if !self.is_https => builder.tls_certs_only([]),
            None => builder,
        };
        if self.is_loopback {
            // As other clients do: a proxy's loopback is not ours.
            builder = builder.no_proxy();
        }
        builder.build().map_err(|source| BuildError::Tls { source })
    }

    fn authorities(&self) -> Result<Option<Vec<Certificate>>, BuildError> {
        let Some(path) = &self.ca_file else { return Ok(None) };
        let pem = std::fs::read(path).map_err(|error| BuildError::CaFile { path: path.clone(), error })?;
        match Certificate::from_pem_bundle(&pem) {
            Ok(authorities) if !authorities.is_empty() => Ok(Some(authorities)),
            _ => Err(BuildError::CaContent { path: path.clone() }),
        }
    }
}
