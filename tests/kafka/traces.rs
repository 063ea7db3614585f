//! Where in a trace the commit stands: in the delivery, where both are one transaction, and beside it elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::broker::{Broker, Options};
use crate::pipeline::{STATE, exactly_once, in_kafka};
use crate::program::{Config, history, simulate};

/// Takes every span. The real Collector is in tests/otlp.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        self.0.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attribute(span: &Span, name: &str) -> Option<Value> {
    let value = span.attributes.iter().find(|attribute| attribute.key == name)?.value.clone();
    value.and_then(|value| value.value)
}

/// Runs `config` until it has caught up; the spans, by their ids.
async fn traced(mut config: Config) -> HashMap<Vec<u8>, Span> {
    let spans = Spans::default();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    config.traces = Some(format!("{{ otlp: {{ endpoint: \"http://{}\" }} }}", incoming.local_addr().unwrap()));
    let service = TraceServiceServer::new(spans.clone()).accept_compressed(CompressionEncoding::Gzip);
    let server = tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    config.catch_up().await;
    server.abort();
    let spans = std::mem::take(&mut *spans.0.lock().unwrap());
    spans.into_iter().map(|span| (span.span_id.clone(), span)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_within_the_delivery_only_where_both_are_one_transaction() {
    let simulator = simulate(history(300)).await;
    let broker = Broker::start(Options::default()).await;
    for once in [true, false] {
        let config = match once {
            true => exactly_once(Config::of(&simulator), &broker.bootstrap()),
            false => {
                let mut config = in_kafka(Config::of(&simulator), &broker.bootstrap(), "group: other");
                // One group's state is refused to another.
                config.store = config.store.map(|store| store.replace(STATE, "other-state"));
                config
            }
        };
        let spans = traced(config).await;
        let named = |name: &'static str| spans.values().filter(move |span| span.name == name);
        let (mut within, mut beside) = (0, 0);
        for commit in named("commit") {
            let parent = &spans[&commit.parent_span_id];
            match parent.name.as_str() {
                "deliver" => within += 1,
                // There, and exactly once where there is nothing to deliver.
                "window" => {
                    beside += 1;
                    let events = attribute(parent, "trailcast.events");
                    assert!(!once || events == Some(Value::IntValue(0)), "{parent:?}");
                }
                other => panic!("a commit within {other}"),
            }
        }
        assert_eq!((within > 0, beside > 0), (once, true), "{within} within, {beside} beside");
        assert!(named("deliver").count() > 0);
        for deliver in named("deliver") {
            assert_eq!(spans[&deliver.parent_span_id].name, "window");
            assert_eq!(attribute(deliver, "trailcast.exactly_once"), Some(Value::BoolValue(once)));
            assert_eq!(attribute(deliver, "trailcast.refused"), Some(Value::IntValue(0)));
        }
    }
    simulator.shutdown().await;
}
