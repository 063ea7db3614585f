//! OTLP over HTTP: one POST and its answer. Never sends a request twice, and follows no redirect.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use flate2::write::GzEncoder;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect;

use super::answer::{Answer, HttpAnswer, OtlpError, of_http};
use super::tls::Pems;
use crate::config::{Compression, OtlpConfig, is_loopback};
use crate::encode::otel;
use crate::metrics::SinkReason;

/// The most bytes of an answer that are read: more is no answer to this.
const LARGEST_ANSWER: usize = 1 << 20;

pub(super) struct Http {
    client: reqwest::Client,
}

impl Http {
    pub(super) fn build(config: &OtlpConfig) -> Result<Self, OtlpError> {
        let pems = Pems::read(&config.tls)?;
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("trailcast/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(config.connect_timeout)
            .timeout(config.request_timeout);
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

    /// `headers` by name, their values possibly secrets.
    pub(super) async fn send(&self, config: &OtlpConfig, headers: &[(&str, &str)], request: &Bytes) -> Answer {
        let body = match compress(config.compression, request) {
            Ok(body) => body,
            Err(error) => return Answer::Later(OtlpError::new(SinkReason::Io, format!("cannot compress: {error}"))),
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let (Ok(name), Ok(mut value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
            else {
                let message = format!("headers.{name}: holds characters that no header may hold");
                return Answer::Later(OtlpError::new(SinkReason::Credentials, message));
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
        let request = self.client.post(config.endpoint.clone()).headers(map).body(body);
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Answer::Later(failed("no answer", error)),
        };
        match read(response).await {
            Ok(answer) => {
                let secrets: Vec<&str> = headers.iter().map(|(_, value)| *value).collect();
                of_http(&answer, &secrets)
            }
            Err(error) => Answer::Later(error),
        }
    }
}

/// To its end: an answer that breaks off says nothing.
async fn read(mut response: reqwest::Response) -> Result<HttpAnswer, OtlpError> {
    let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
    let retry_after = header(RETRY_AFTER).map(str::to_owned);
    let now = header(DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or_else(SystemTime::now);
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed("the answer ended early", error))? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            let message = format!("HTTP {status} with an answer of more than 1 MiB; look at `endpoint`");
            return Err(OtlpError::new(SinkReason::Refused, message));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(HttpAnswer { status, retry_after, now, body })
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
    let error = error.without_url();
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !why.contains(&more) {
            // Writing to a string cannot fail.
            let _ = write!(why, ": {more}");
        }
        cause = error.source();
    }
    OtlpError::new(reason, format!("{doing}: {why}{advice}"))
}
