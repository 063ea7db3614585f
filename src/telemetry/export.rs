//! Spans on their way to a Collector: batched, bounded, and worth nothing: what cannot be sent is counted and gone.
//!
//! No event waits for a span. A batch is sent by a thread of its own; what comes while the queue is full is lost, and so
//! is a batch that the Collector does not take after a few tries. The log says it when that begins and when it ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_otlp::{WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter,
    SpanLimits, SpanProcessor,
};
use secrecy::ExposeSecret;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{ClientTlsConfig, Endpoint};

use crate::blocking::blocking;
use crate::config::{Secret, TracesConfig, host_name};
use crate::metrics::TraceMetrics;
use crate::source::install_tls_provider;
use crate::version;
use crate::words::chain;

/// Spans that wait: some hundred bytes each.
const QUEUE: usize = 2048;
/// The most of them in a request.
const BATCH: usize = 512;
/// The longest that a span waits for others.
const DELAY: Duration = Duration::from_secs(5);
/// Connecting, and one whole request, its tries together.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that the end of the process is put off for the last spans.
const FLUSH: Duration = Duration::from_secs(2);

/// Why spans cannot be exported at all.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The connection cannot be set up: no certificate authorities on this system, for one.
    #[error("traces.otlp.endpoint: cannot set up the connection")]
    Endpoint(#[source] tonic::transport::Error),
    /// The exporter does not accept its environment.
    #[error("traces.otlp: cannot set up the exporter; look at the environment variables OTEL_EXPORTER_OTLP_*")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
}

/// Takes spans and sends them.
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Connects to nobody yet. To be called in the runtime that will do the sending.
    ///
    /// # Errors
    /// See [`TracesError`].
    pub fn build(config: &TracesConfig, metrics: TraceMetrics) -> Result<Self, TracesError> {
        let queue = Arc::new(AtomicUsize::new(0));
        let exporter = Exporter::build(config, metrics.clone(), Arc::clone(&queue))?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let batches = BatchSpanProcessor::new(exporter, batches);
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio))))
            .with_resource(resource())
            // Or those of the environment would count.
            .with_span_limits(SpanLimits::default())
            .with_span_processor(Bounded { batches, queue, metrics })
            .build();
        Ok(Self { provider })
    }

    /// What makes spans.
    pub(super) fn tracer(&self) -> SdkTracer {
        let scope = InstrumentationScope::builder("trailcast").with_version(version::VERSION).build();
        self.provider.tracer_with_scope(scope)
    }

    /// Sends what waits, for two seconds at most. Spans that end later are lost.
    pub async fn flush(self) {
        if let Err(OTelSdkError::Timeout(_)) = blocking(move || self.provider.shutdown_with_timeout(FLUSH)).await {
            tracing::warn!("the last spans may not have reached traces.otlp.endpoint: no answer in {FLUSH:?}");
        }
    }
}

/// Whether the Collector answers and takes our headers: sends a request with no span in it.
///
/// # Errors
/// What keeps it from doing so.
pub async fn probe(config: &TracesConfig) -> Result<(), String> {
    let exporter = Exporter::build(config, TraceMetrics::default(), Arc::default()).map_err(|error| chain(&error))?;
    exporter.send(Vec::new()).await.map_err(|error| reason(&error))
}

/// More of it may come from the environment, as of any program with OpenTelemetry: an operator sets it for all pods.
fn resource() -> Resource {
    Resource::builder()
        .with_attributes([
            KeyValue::new("service.name", "trailcast"),
            KeyValue::new("service.version", version::VERSION),
            KeyValue::new("service.instance.id", host_name()),
        ])
        .build()
}

/// Ends a batch's way, and counts what is lost there.
#[derive(Debug)]
struct Exporter {
    inner: opentelemetry_otlp::SpanExporter,
    secrets: BTreeMap<String, Secret>,
    /// As they were read for the present batch.
    headers: Arc<Mutex<Vec<(AsciiMetadataKey, AsciiMetadataValue)>>>,
    metrics: TraceMetrics,
    queue: Arc<AtomicUsize>,
    failing: AtomicBool,
}

impl Exporter {
    fn build(config: &TracesConfig, metrics: TraceMetrics, queue: Arc<AtomicUsize>) -> Result<Self, TracesError> {
        install_tls_provider();
        let mut endpoint = Endpoint::from_shared(config.endpoint.to_string())
            .and_then(|endpoint| endpoint.user_agent(concat!("trailcast/", env!("CARGO_PKG_VERSION"))))
            .map_err(TracesError::Endpoint)?
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT);
        if config.endpoint.scheme() == "https" {
            let tls = ClientTlsConfig::new().with_native_roots();
            endpoint = endpoint.tls_config(tls).map_err(TracesError::Endpoint)?;
        }
        let headers: Arc<Mutex<Vec<(AsciiMetadataKey, AsciiMetadataValue)>>> = Arc::default();
        let known = Arc::clone(&headers);
        let inner = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_channel(endpoint.connect_lazy())
            .with_timeout(TIMEOUT)
            .with_compression(opentelemetry_otlp::Compression::Gzip)
            .with_interceptor(move |mut request: tonic::Request<()>| {
                for (name, value) in &*lock(&known) {
                    request.metadata_mut().insert(name.clone(), value.clone());
                }
                Ok(request)
            })
            .build()
            .map_err(TracesError::Exporter)?;
        let secrets = config.headers.clone();
        Ok(Self { inner, secrets, headers, metrics, queue, failing: AtomicBool::new(false) })
    }

    /// With the headers as they are now: a secret's file may be replaced at any time.
    async fn send(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let read = |(name, secret): (&String, &Secret)| {
            let wrong = |why: String| OTelSdkError::InternalFailure(format!("traces.otlp.headers.{name}: {why}"));
            let value = secret.read().map_err(|error| wrong(error.to_string()))?;
            let key = AsciiMetadataKey::from_bytes(name.as_bytes());
            let (Ok(key), Ok(mut value)) = (key, AsciiMetadataValue::try_from(value.expose_secret())) else {
                return Err(wrong("holds characters that no header may hold".to_owned()));
            };
            value.set_sensitive(true);
            Ok((key, value))
        };
        *lock(&self.headers) = self.secrets.iter().map(read).collect::<Result<_, _>>()?;
        self.inner.export(batch).await
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.queue.fetch_sub(spans, Ordering::Relaxed);
        let result = self.send(batch).await;
        match &result {
            Ok(()) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("traces are exported again");
                }
            }
            Err(error) => {
                self.metrics.lost(spans as u64);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    let error = reason(error);
                    tracing::warn!("traces are lost, events are not: {error}; look at traces.otlp.endpoint");
                }
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Without the words that the SDK puts before it. Nothing that the Collector said is in it.
fn reason(error: &OTelSdkError) -> String {
    match error {
        OTelSdkError::InternalFailure(why) => {
            why.trim_start_matches("TonicTracesClient export failed with ").to_owned()
        }
        OTelSdkError::AlreadyShutdown | OTelSdkError::Timeout(_) => error.to_string(),
    }
}

/// The SDK's own bound, but one that is counted: it drops what is too much without a word.
#[derive(Debug)]
struct Bounded {
    batches: BatchSpanProcessor,
    /// Spans that wait.
    queue: Arc<AtomicUsize>,
    metrics: TraceMetrics,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        self.metrics.span();
        if self.queue.fetch_add(1, Ordering::Relaxed) < QUEUE {
            self.batches.on_end(span);
        } else {
            self.queue.fetch_sub(1, Ordering::Relaxed);
            self.metrics.lost(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// What is kept is whole at every moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
