//! OTLP over gRPC: one call and its answer, over a connection that is kept and watched.

use std::time::Duration;

use bytes::{BufMut, Bytes};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;
use tonic::client::Grpc as Client;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use super::answer::{Answer, LARGEST_ANSWER, OtlpError, of_grpc, of_response};
use super::tls::Pems;
use crate::config::{Compression, OtlpConfig};
use crate::metrics::SinkReason;
use crate::quote::Secrets;
use crate::words::chain;

const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

pub(super) struct Grpc {
    channel: Channel,
}

impl Grpc {
    /// Connects when first used, and again whenever it must.
    pub(super) fn build(config: &OtlpConfig) -> Result<Self, OtlpError> {
        let wrong = |error: tonic::transport::Error| {
            OtlpError::new(SinkReason::Credentials, format!("cannot set up the connection: {}", chain(&error)))
        };
        let mut endpoint = Endpoint::from_shared(config.endpoint.to_string())
            .map_err(wrong)?
            .user_agent(concat!("trailcast/", env!("CARGO_PKG_VERSION")))
            .map_err(wrong)?
            .connect_timeout(config.connect_timeout)
            // Without it a partition is not noticed for minutes.
            .http2_keep_alive_interval(config.keepalive)
            .keep_alive_timeout(config.connect_timeout);
        if config.endpoint.scheme() == "https" {
            let pems = Pems::read(&config.tls)?;
            let mut tls = match pems.authorities {
                Some(authorities) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authorities)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            if let Some((certificate, key)) = pems.identity {
                tls = tls.identity(Identity::from_pem(certificate, key));
            }
            endpoint = endpoint.tls_config(tls).map_err(wrong)?;
        }
        Ok(Self { channel: endpoint.connect_lazy() })
    }

    /// `headers` by name, their values possibly secrets; waits no longer than `patience` for the answer.
    pub(super) async fn send(
        &self,
        config: &OtlpConfig,
        headers: &[(&str, &str)],
        bytes: &Bytes,
        patience: Duration,
    ) -> Answer {
        let mut request = Request::new(bytes.clone());
        for (name, value) in headers {
            let (Ok(key), Ok(value)) =
                (AsciiMetadataKey::from_bytes(name.as_bytes()), AsciiMetadataValue::try_from(*value))
            else {
                let message = format!("headers.{name}: holds characters that no header may hold");
                return Answer::Later(OtlpError::new(SinkReason::Credentials, message));
            };
            request.metadata_mut().insert(key, value);
        }
        // Whatever we send with: Go's servers answer with what they were asked with.
        let mut client = Client::new(self.channel.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .max_decoding_message_size(LARGEST_ANSWER);
        match config.compression {
            Compression::Gzip => client = client.send_compressed(CompressionEncoding::Gzip),
            Compression::Zstd => client = client.send_compressed(CompressionEncoding::Zstd),
            Compression::None => {}
        }
        let call = async {
            client.ready().await.map_err(|error| OtlpError::new(SinkReason::Connect, unreachable(&error)))?;
            Ok(client.unary(request, PathAndQuery::from_static(EXPORT), Encoded).await)
        };
        let secrets = Secrets::of(headers.iter().map(|(_, value)| *value));
        match tokio::time::timeout(patience, call).await {
            Err(_) => {
                let message = format!("no answer within {} s", patience.as_secs_f64());
                Answer::Later(OtlpError::new(SinkReason::Timeout, message))
            }
            Ok(Err(error)) => Answer::Later(error),
            Ok(Ok(Ok(response))) => of_response(response.into_inner(), &secrets),
            Ok(Ok(Err(status))) => match std::error::Error::source(&status) {
                // No receiver's: the connection broke.
                Some(error) => Answer::Later(OtlpError::new(SinkReason::Connect, secrets.hide(&unreachable(error)))),
                None => of_grpc(status.code(), status.message(), status.details(), &secrets),
            },
        }
    }
}

fn unreachable(error: &dyn std::error::Error) -> String {
    // What begins with `HTTP/1.1` is read as a frame of millions of bytes.
    if chain(error).contains("frame with invalid size") {
        return "what answers there does not speak gRPC: look at the port of `endpoint`, and at `protocol`".to_owned();
    }
    format!("no answer: {}; look at `endpoint`, `tls`, and whether it can be reached from here", chain(error))
}

/// A request that is bytes already; an answer as it is.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = ExportLogsServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = ExportLogsServiceResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        match ExportLogsServiceResponse::decode(from) {
            Ok(response) => Ok(Some(response)),
            Err(_) => Err(Status::internal("the answer is none of OTLP")),
        }
    }
}
