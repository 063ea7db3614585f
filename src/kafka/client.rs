//! A librdkafka client's settings and context.

use std::error::Error;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Statistics};
use secrecy::ExposeSecret;

use super::failure::Failure;
use crate::clock;
use crate::config::{ClusterConfig, KafkaTlsConfig, Material, SaslConfig, SaslMechanism, Secret, SecretError};
use crate::metrics::SinkReason;
use crate::quote::Secrets;

/// What a client is for: librdkafka warns of properties that are another kind's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Sends records.
    Producer,
    /// Reads records, or asks about topics.
    Consumer,
}

/// Properties of librdkafka that only one kind of client knows, by their beginnings; the rest is for both.
const OF_PRODUCERS: [&str; 9] = [
    "queue.buffering.",
    "linger.ms",
    "compression.",
    "batch.",
    "sticky.partitioning",
    "topic.compression",
    "compression.level",
    "retry.backoff",
    "request.timeout.ms",
];
const OF_CONSUMERS: [&str; 6] = ["fetch.", "queued.", "check.crcs", "max.partition.fetch", "consume.", "offset."];

/// The settings for a client of `cluster`. Reads its secrets, so the result is kept no longer than it is needed.
///
/// # Errors
/// A secret cannot be read; the message names the key that holds it, below the cluster's own.
pub fn client_config(cluster: &ClusterConfig, purpose: Purpose) -> Result<ClientConfig, Failure> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.brokers.join(","));
    config.set("client.id", "trailcast");
    // An answer from a broker that is gone should not be waited for much longer than it takes to find another.
    config.set("socket.timeout.ms", "30000").set("socket.keepalive.enable", "true");
    config.set("reconnect.backoff.max.ms", "2000").set("allow.auto.create.topics", "false");
    config.set("log_level", "4");
    if purpose == Purpose::Producer {
        // Bounds what waits in memory while brokers are away, whatever the number of lanes; properties may say more.
        config.set("queue.buffering.max.kbytes", "32768").set("linger.ms", "1");
    }
    for (name, value) in &cluster.properties {
        let others = if purpose == Purpose::Producer { &OF_CONSUMERS[..] } else { &OF_PRODUCERS[..] };
        if !others.iter().any(|other| name.starts_with(other)) {
            config.set(name, value);
        }
    }
    let tls = cluster.tls.as_ref();
    config.set(
        "security.protocol",
        match (tls, &cluster.sasl) {
            (None, None) => "PLAINTEXT",
            (Some(_), None) => "SSL",
            (None, Some(_)) => "SASL_PLAINTEXT",
            (Some(_), Some(_)) => "SASL_SSL",
        },
    );
    if let Some(tls) = tls {
        encrypt(&mut config, tls)?;
    }
    match &cluster.sasl {
        Some(SaslConfig::Password { mechanism, username, password }) => {
            let password = password.read().map_err(unreadable("sasl.password"))?;
            config.set("sasl.mechanism", mechanism_name(*mechanism)).set("sasl.username", username);
            config.set("sasl.password", password.expose_secret());
        }
        Some(SaslConfig::Token(token)) => {
            // Read once now, so that one that is missing is told at once; its context reads it again.
            token.read().map_err(unreadable("sasl.token"))?;
            config.set("sasl.mechanism", mechanism_name(SaslMechanism::Oauthbearer));
        }
        None => {}
    }
    Ok(config)
}

fn unreadable(key: &'static str) -> impl FnOnce(SecretError) -> Failure {
    move |error| Failure { reason: SinkReason::Credentials, message: format!("{key}: {error}") }
}

fn encrypt(config: &mut ClientConfig, tls: &KafkaTlsConfig) -> Result<(), Failure> {
    match &tls.ca_file {
        Some(path) => config.set("ssl.ca.location", path.to_string_lossy()),
        // OpenSSL is built in, so it does not know where this system keeps its authorities.
        None => config.set("ssl.ca.location", "probe"),
    };
    for (name, path) in [("ssl.certificate.location", &tls.certificate_file), ("ssl.key.location", &tls.key_file)] {
        if let Some(path) = path {
            config.set(name, path.to_string_lossy());
        }
    }
    if let Some(password) = &tls.key_password {
        let password = password.read().map_err(unreadable("tls.key_password"))?;
        config.set("ssl.key.password", password.expose_secret());
    }
    Ok(())
}

const fn mechanism_name(mechanism: SaslMechanism) -> &'static str {
    match mechanism {
        SaslMechanism::Plain => "PLAIN",
        SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        SaslMechanism::Oauthbearer => "OAUTHBEARER",
    }
}

/// Clients that have not ended, in the whole process: what OpenSSL takes down when the process exits, their threads may
/// still use.
static ALIVE: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// Blocks until every client has ended; `false` if that takes longer than `within`. To be called before the process
/// exits, once nothing makes clients any more: a thread of one that still runs then may crash it.
#[must_use]
pub fn clients_ended(within: Duration) -> bool {
    let alive = ALIVE.0.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = ALIVE.1.wait_timeout_while(alive, within, |alive| *alive > 0);
    *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
}

/// Counted in [`ALIVE`]. A client lets go of its context after it has ended.
#[derive(Debug)]
struct Alive;

impl Alive {
    fn new() -> Arc<Self> {
        *ALIVE.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Arc::new(Self)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        *ALIVE.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ALIVE.1.notify_all();
    }
}

/// What a client has to say beside its answers: its log, the last thing that went wrong, and tokens when it asks.
#[derive(Debug, Clone)]
pub struct Context {
    token: Option<Secret>,
    cluster: Arc<ClusterConfig>,
    made_of: Material,
    trouble: Arc<Mutex<Option<(RDKafkaErrorCode, String)>>>,
    /// What brokers may repeat of ours.
    secrets: Arc<Secrets>,
    _alive: Arc<Alive>,
}

impl Context {
    /// For a client of this cluster.
    #[must_use]
    pub fn new(cluster: &ClusterConfig) -> Self {
        let token = match &cluster.sasl {
            Some(SaslConfig::Token(token)) => Some(token.clone()),
            _ => None,
        };
        // What cannot be read now is told where it is needed.
        let secret = match &cluster.sasl {
            Some(SaslConfig::Password { password, .. }) => password.read().ok(),
            Some(SaslConfig::Token(token)) => token.read().ok(),
            None => None,
        };
        let secrets = Arc::new(Secrets::of(secret.as_ref().map(ExposeSecret::expose_secret)));
        let (cluster, made_of) = (Arc::new(cluster.clone()), cluster.material());
        Self { token, cluster, made_of, trouble: Arc::default(), secrets, _alive: Alive::new() }
    }

    /// Whether something went wrong, and the certificates or secrets that the client was made of have been replaced since:
    /// then only a new client can mend it. Reads small files.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.trouble().is_some() && self.cluster.material() != self.made_of
    }

    /// The last error that the client told of on its own, such as a refused password; a call that merely timed out
    /// knows nothing of it.
    #[must_use]
    pub fn trouble(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `text` without any secret of ours.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        self.secrets.hide(text)
    }

    /// Forgets it: the client works.
    pub fn well(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// What matters of it comes as an error, too, to whoever waits for an answer.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, "librdkafka: {}", self.hide(message));
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        let reason = self.hide(reason);
        tracing::debug!(?code, "librdkafka: {reason}");
        // That all brokers are down follows from what came before it, and says less.
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if code != RDKafkaErrorCode::AllBrokersDown || trouble.is_none() {
            *trouble = Some((code, reason));
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let token = self.token.as_ref().ok_or("no token is configured")?.read()?;
        let claims = claims(token.expose_secret()).unwrap_or_default();
        let principal_name = claims["sub"].as_str().unwrap_or("trailcast").to_owned();
        // A token that does not say when it ends is looked up again soon.
        let soon = clock::now() + clock::millis(Duration::from_secs(300));
        let lifetime_ms = claims["exp"].as_i64().map_or(soon, |seconds| seconds.saturating_mul(1000));
        Ok(OAuthToken { token: token.expose_secret().to_owned(), principal_name, lifetime_ms })
    }
}

impl rdkafka::consumer::ConsumerContext for Context {}

/// A JWT's claims, unchecked: whether it is genuine is for the broker to say.
fn claims(token: &str) -> Option<serde_json::Value> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_come_after_defaults_and_go_to_the_kind_that_knows_them() {
        let properties = [("linger.ms", "7"), ("fetch.wait.max.ms", "9"), ("socket.timeout.ms", "5000")];
        let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let cluster = ClusterConfig { brokers: vec!["b:1".to_owned()], tls: None, sasl: None, properties };
        let get = |purpose, name| client_config(&cluster, purpose).unwrap().get(name).map(ToOwned::to_owned);
        for (name, of_producers, of_consumers) in [
            ("linger.ms", Some("7"), None),
            ("queue.buffering.max.kbytes", Some("32768"), None),
            ("fetch.wait.max.ms", None, Some("9")),
            ("socket.timeout.ms", Some("5000"), Some("5000")),
        ] {
            assert_eq!(get(Purpose::Producer, name).as_deref(), of_producers, "{name}");
            assert_eq!(get(Purpose::Consumer, name).as_deref(), of_consumers, "{name}");
        }
    }
}
