//! In front of a Collector's double, which tells what it was sent.

use std::path::Path;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::metrics::Metrics;
use crate::spans;

/// Takes what comes with the right `authorization`; of each request that and the number of its spans.
#[derive(Clone, Default)]
struct Double(Arc<Mutex<Vec<(String, usize)>>>);

#[tonic::async_trait]
impl TraceService for Double {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let header = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let header = header.unwrap_or_default();
        let request = request.into_inner();
        let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        let spans = scopes.map(|scope| scope.spans.len()).sum();
        lock(&self.0).push((header.clone(), spans));
        match header.as_str() {
            "Bearer right" => Ok(Response::new(ExportTraceServiceResponse::default())),
            other => Err(Status::unauthenticated(format!("what is {other}?"))),
        }
    }
}

impl Double {
    fn start(&self) -> (String, JoinHandle<()>) {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let endpoint = format!("http://{}", incoming.local_addr().unwrap());
        let service = TraceServiceServer::new(self.clone()).accept_compressed(CompressionEncoding::Gzip);
        let serving = Server::builder().add_service(service).serve_with_incoming(incoming);
        (endpoint, tokio::spawn(async move { serving.await.unwrap() }))
    }

    fn seen(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut *lock(&self.0))
    }
}

fn config(endpoint: &str, secret: &Path) -> TracesConfig {
    let headers = BTreeMap::from([("authorization".to_owned(), Secret::File(secret.to_owned()))]);
    TracesConfig { endpoint: endpoint.parse().unwrap(), headers, sample_ratio: 1.0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_those_of_the_moment_and_never_shown() {
    let (double, file) = (Double::default(), tempfile::NamedTempFile::new().unwrap());
    let (endpoint, _server) = double.start();
    let config = config(&endpoint, file.path());
    std::fs::write(&file, "Bearer wrong").unwrap();
    let error = probe(&config).await.unwrap_err();
    assert!(error.contains("Unauthenticated") && !error.contains("wrong"), "{error}");
    assert_eq!(double.seen(), [("Bearer wrong".to_owned(), 0)], "asked once");
    let exporter = Exporter::build(&config, TraceMetrics::default(), Arc::default()).unwrap();
    assert!(exporter.send(Vec::new()).await.is_err());
    std::fs::write(&file, "Bearer right\n").unwrap();
    exporter.send(Vec::new()).await.unwrap();
    assert!(!format!("{exporter:?}").contains("right"), "{exporter:?}");
    std::fs::write(&file, "a\tb\u{1}").unwrap();
    let error = reason(&exporter.send(Vec::new()).await.unwrap_err());
    let of_file = "traces.otlp.headers.authorization: the secret file `";
    assert!(error.starts_with(of_file) && error.contains("` holds a control character; "), "{error}");
    std::fs::remove_file(&file).unwrap();
    let error = reason(&exporter.send(Vec::new()).await.unwrap_err());
    assert!(error.starts_with("traces.otlp.headers.authorization: cannot read the secret file"), "{error}");
    // TLS, to one who does not speak it.
    let endpoint = endpoint.replace("http:", "https:").parse().unwrap();
    assert!(probe(&TracesConfig { endpoint, headers: BTreeMap::new(), ..config }).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_sent_at_the_end_in_batches_and_nothing_is_lost() {
    let (double, file) = (Double::default(), tempfile::NamedTempFile::new().unwrap());
    let (endpoint, _server) = double.start();
    std::fs::write(&file, "Bearer right").unwrap();
    let metrics = Metrics::new();
    let traces = Traces::build(&config(&endpoint, file.path()), metrics.traces()).unwrap();
    let layer = tracing_opentelemetry::layer().with_tracer(traces.tracer());
    crate::telemetry::tests::alone(tracing_subscriber::registry().with(layer), || {
        (0..1000).for_each(|_| drop(spans::commit("s", "k")));
    });
    traces.flush().await;
    let seen = double.seen();
    assert_eq!(seen.iter().map(|(_, spans)| spans).sum::<usize>(), 1000, "{seen:?}");
    assert!(seen.iter().all(|(header, spans)| header == "Bearer right" && *spans <= BATCH), "{seen:?}");
    let text = metrics.render();
    assert!(text.contains("trailcast_trace_spans_total 1000\n"), "{text}");
    assert!(text.contains("trailcast_trace_spans_lost_total 0\n"), "{text}");
}
