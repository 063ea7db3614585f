//! OTLP over HTTP: one POST and its answer. Never sends a request twice, and follows no redirect.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::write::GzEncoder;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect;

use super::answer::{Answer, HttpAnswer, LARGEST_ANSWER, OtlpError, of_http};
use super::tls::Pems;
use crate::blocking::blocking;
use crate::clock;
use crate::config::{Compression, OtlpConfig, is_loopback};
use crate::encode::otel;
use crate::metrics::SinkReason;
use crate::quote::Secrets;
use crate::words::chain;

/// From so many bytes on a request is compressed off the runtime's workers.
const LONG_WORK: usize = 64 << 10;

pub(super) struct Http {
    client: reqwest::Client,
}

impl Http {
    pub(super) fn build(config: &OtlpConfig) -> Result<Self, OtlpError> {
        let pems = Pems::read(&config.tls)?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("trailcast/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(config.connect_timeout);
        if let Some(authorities) = pems.authorities {
            let read = reqwest::Certificate::from_pem_bundle(&authorities);
            let read = read.ok().filter(|read| !read.is_empty());
            builder = builder.tls_certs_only(read.ok_or_else(|| Pems::bad("ca_file", "no certificate"))?);
        } else if config.endpoint.scheme() == "http" {
            // Without TLS no authority is needed, and a system that has none is no error.
            builder = builder.tls_certs_only([]);
        }
        if let Some((mut certificate, key)) = pems.identity {
            certificate.push(b'\n');
            certificate.extend_from_slice(&key);
            let identity = reqwest::Identity::from_pem(&certificate);
            builder = builder.identity(identity.map_err(|_| Pems::bad("certificate_file", "no certificate and key"))?);
        }
        if is_loopback(&config.endpoint) {
            // As other clients do: a proxy's loopback is not ours.
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| failed("cannot set up TLS", error))?;
        Ok(Self { client })
    }

    /// `headers` by name, their values possibly secrets; waits no longer than `patience` for the whole answer.
    pub(super) async fn send(
        &self,
        config: &OtlpConfig,
        headers: &[(&str, &str)],
        request: &Bytes,
        patience: Duration,
    ) -> Answer {
        match self.post(config, headers, request, patience).await {
            Ok(answer) => of_http(&answer, &Secrets::of(headers.iter().map(|(_, value)| *value))),
            Err(error) => Answer::Later(error),
        }
    }

    /// The same, the answer as it came.
    pub(super) async fn post(
        &self,
        config: &OtlpConfig,
        headers: &[(&str, &str)],
        request: &Bytes,
        patience: Duration,
    ) -> Result<HttpAnswer, OtlpError> {
        let compression = config.compression;
        let body = if request.len() < LONG_WORK {
            compress(compression, request)
        } else {
            let request = request.clone();
            blocking(move || compress(compression, &request)).await
        };
        let body = body.map_err(|error| OtlpError::new(SinkReason::Io, format!("cannot compress: {error}")))?;
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let (Ok(name), Ok(mut value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
            else {
                let message = format!("headers.{name}: holds characters that no header may hold");
                return Err(OtlpError::new(SinkReason::Credentials, message));
            };
            value.set_sensitive(true);
            map.insert(name, value);
        }
        map.insert(CONTENT_TYPE, HeaderValue::from_static(otel::CONTENT_TYPE));
        match config.compression {
            Compression::Gzip => drop(map.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"))),
            Compression::Zstd => drop(map.insert(CONTENT_ENCODING, HeaderValue::from_static("zstd"))),
            Compression::None => {}
        }
        let request = self.client.post(config.endpoint.clone()).timeout(patience).headers(map).body(body);
        read(request.send().await.map_err(|error| failed("no answer", error))?).await
    }
}

/// To its end: an answer that breaks off says nothing.
async fn read(mut response: reqwest::Response) -> Result<HttpAnswer, OtlpError> {
    let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
    let retry_after = header(RETRY_AFTER).map(str::to_owned);
    let essence = |kind: &str| kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let content_type = header(CONTENT_TYPE).map(essence);
    let now = header(DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(clock::wall);
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed("the answer ended early", error))? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            let message = format!("HTTP {status} with an answer of more than 1 MiB; look at `endpoint`");
            return Err(OtlpError::new(SinkReason::Refused, message));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(HttpAnswer { status, retry_after, content_type, now, body })
}

fn compress(compression: Compression, request: &Bytes) -> std::io::Result<Bytes> {
    match compression {
        Compression::None => Ok(request.clone()),
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::with_capacity(request.len() / 4), flate2::Compression::fast());
            encoder.write_all(request)?;
            encoder.finish().map(Bytes::from)
        }
        Compression::Zstd => zstd::bulk::compress(request, zstd::DEFAULT_COMPRESSION_LEVEL).map(Bytes::from),
    }
}

fn failed(doing: &str, error: reqwest::Error) -> OtlpError {
    let (reason, advice) = if error.is_timeout() {
        (SinkReason::Timeout, "")
    } else if error.is_connect() {
        (SinkReason::Connect, "; look at `endpoint`, `tls`, and whether it can be reached from here")
    } else {
        (SinkReason::Connect, "")
    };
    // The address is config.
    OtlpError::new(reason, format!("{doing}: {}{advice}", chain(&error.without_url())))
}
