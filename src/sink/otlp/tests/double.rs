//! Receivers that answer as they are told.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};

pub(super) const AUTHORITY: &str = include_str!("../../../source/tests/tls/ca.pem");
const CERTIFICATE: &str = include_str!("../../../source/tests/tls/server.pem");
const KEY: &str = include_str!("../../../source/tests/tls/server.key");
const CLIENTS: &str = include_str!("tls/client-ca.pem");

/// What a double answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Say {
    /// This status; 200 and 204 take what was sent.
    Status(u16),
    /// This status, and to wait.
    Wait(u16, &'static str),
    /// This status to a request with a poisonous record, and takes nothing of it; else 200.
    Poison(u16),
    /// Takes all but the poisonous record. With a count it says so; else it takes that, too, and has something to say.
    Partial { counted: bool },
    /// 200 and a page for people.
    Page,
    /// The same with nothing on it, as a captive portal has it.
    Blank,
    /// 200 without a word or a type, and 400 to what is no request.
    Mute,
    /// 200 without a word or a type, whatever comes.
    Portal,
    /// Takes all and says so in JSON.
    Json(&'static str),
    /// Takes all, and has more to say than anyone reads.
    Talkative,
    /// An answer that ends too early.
    Torn,
    /// No answer, and the connection closed.
    HangUp,
    /// No answer, and the connection open.
    Nothing,
    /// HTTP/2's farewell.
    GoAway,
    /// The same once a request has begun to come, which is not looked at.
    GoAwayAmid,
    /// HTTP/2's farewell, and then an answer to what is under way that takes it.
    Farewell,
    /// 401, with the request's own credentials in the words.
    EchoRefusal,
    /// The first at so many requests, and then takes all.
    First(Box<Say>, usize),
    /// This code; OK takes what was sent.
    Code(Code),
    /// This code to a request with a poisonous record.
    PoisonCode(Code, &'static str),
    /// RESOURCE_EXHAUSTED with so many seconds to wait.
    RetryInfo(i64),
}

/// What was sent, and what was taken.
#[derive(Default)]
struct Seen {
    heads: Vec<String>,
    bodies: Vec<Vec<u8>>,
    arrived: BTreeSet<String>,
    /// `service.instance.id` and the number of records, of each request that was taken.
    streams: Vec<(Option<String>, usize)>,
    times: Vec<i64>,
}

fn attribute<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    match attributes.iter().find(|one| one.key == name)?.value.as_ref()? {
        AnyValue { value: Some(Value::StringValue(text)) } => Some(text),
        _ => None,
    }
}

fn is_poison(record: &LogRecord) -> bool {
    attribute(&record.attributes, "genauth.event_detail") == Some("poison")
}

impl Seen {
    /// Takes what `keep` says; how many it does not.
    fn take(&mut self, request: &ExportLogsServiceRequest, keep: impl Fn(&LogRecord) -> bool) -> usize {
        let mut left = 0;
        for logs in &request.resource_logs {
            let instance = attribute(&logs.resource.as_ref().unwrap().attributes, "service.instance.id");
            let records = &logs.scope_logs[0].log_records;
            self.streams.push((instance.map(str::to_owned), records.len()));
            for record in records {
                self.times.push(i64::try_from(record.time_unix_nano / 1_000_000).unwrap());
                if keep(record) {
                    self.arrived.insert(attribute(&record.attributes, "log.record.uid").unwrap().to_owned());
                } else {
                    left += 1;
                }
            }
        }
        left
    }
}

fn poisoned(request: &ExportLogsServiceRequest) -> bool {
    request.resource_logs.iter().flat_map(|logs| &logs.scope_logs[0].log_records).any(is_poison)
}

fn partial(counted: bool, seen: &mut Seen, request: &ExportLogsServiceRequest) -> ExportLogsServiceResponse {
    let left = seen.take(request, |record| !counted || !is_poison(record));
    let partial = ExportLogsPartialSuccess {
        rejected_log_records: i64::try_from(left).unwrap(),
        error_message: "look out".to_owned(),
    };
    ExportLogsServiceResponse { partial_success: Some(partial) }
}

/// Over HTTP/1.1, and below it.
pub(super) struct Http {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Http {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    // Whoever was there before may still be leaving.
    for _ in 0..10_000 {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(_) => tokio::task::yield_now().await,
        }
    }
    panic!("{address} stays taken")
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

impl Http {
    pub(super) async fn start(say: Say) -> Self {
        Self::start_at(loopback(), say).await
    }

    pub(super) async fn start_at(address: SocketAddr, say: Say) -> Self {
        let listener = listen(address).await;
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, say.clone(), Arc::clone(&kept)));
            }
        });
        Self { address, seen, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn arrived(&self) -> usize {
        self.seen.lock().unwrap().arrived.len()
    }

    pub(super) fn bodies(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().bodies.clone()
    }

    pub(super) fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().heads.clone()
    }

    pub(super) fn streams(&self) -> Vec<(Option<String>, usize)> {
        self.seen.lock().unwrap().streams.clone()
    }

    pub(super) fn times(&self) -> Vec<i64> {
        self.seen.lock().unwrap().times.clone()
    }
}

async fn serve(mut socket: TcpStream, say: Say, seen: Arc<Mutex<Seen>>) -> Option<()> {
    // Our settings, and GOAWAY: no stream was looked at.
    let frames =
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    if say == Say::GoAway {
        socket.write_all(frames).await.ok()?;
        return until_it_hangs_up(socket).await;
    }
    if say == Say::GoAwayAmid {
        let (settings, go_away) = frames.split_at(9);
        socket.write_all(settings).await.ok()?;
        // The client's preface, and then frames, the head of each with its length and kind.
        socket.read_exact(&mut [0; 24]).await.ok()?;
        loop {
            let mut head = [0; 9];
            socket.read_exact(&mut head).await.ok()?;
            let length = u64::from(u32::from_be_bytes([0, head[0], head[1], head[2]]));
            tokio::io::copy(&mut (&mut socket).take(length), &mut tokio::io::sink()).await.ok()?;
            let is_data = head[3] == 0;
            if is_data {
                socket.write_all(go_away).await.ok()?;
                return until_it_hangs_up(socket).await;
            }
        }
    }
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if socket.read_buf(&mut buffer).await.ok()? == 0 {
                return None;
            }
        };
        if say == Say::HangUp {
            return None;
        }
        let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let length: usize = header("content-length").map_or(0, |length| length.parse().unwrap());
        while buffer.len() < end + 4 + length {
            socket.read_buf(&mut buffer).await.ok().filter(|read| *read > 0)?;
        }
        let body: Vec<u8> = buffer.drain(..end + 4 + length).skip(end + 4).collect();
        let body = match header("content-encoding") {
            Some("gzip") => {
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut plain).unwrap();
                plain
            }
            Some("zstd") => zstd::decode_all(body.as_slice()).unwrap(),
            _ => body,
        };
        let Some(answer) = answer(&say, &head, body, &mut seen.lock().unwrap()) else {
            // The connection stays open for as long as the other side keeps it.
            std::future::pending::<()>().await;
            return None;
        };
        socket.write_all(&answer).await.ok()?;
        if say == Say::Torn {
            return None;
        }
    }
}

async fn until_it_hangs_up(mut socket: TcpStream) -> Option<()> {
    let mut rest = [0; 1024];
    while socket.read(&mut rest).await.ok()? > 0 {}
    None
}

const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";

fn answer(say: &Say, head: &str, body: Vec<u8>, seen: &mut Seen) -> Option<Vec<u8>> {
    let request = ExportLogsServiceRequest::decode(body.as_slice());
    let is_request = request.is_ok();
    let request = request.unwrap_or_default();
    seen.heads.push(head.to_owned());
    seen.bodies.push(body);
    let page = |status: u16, more: &str, body: &[u8]| {
        let mut page = format!("HTTP/1.1 {status} X\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n{more}").into_bytes();
        if status != 204 {
            page.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        page.extend_from_slice(b"\r\n");
        page.extend_from_slice(body);
        page
    };
    Some(match say {
        Say::Status(status @ (200 | 204)) => {
            seen.take(&request, |_| true);
            page(*status, PROTOBUF, b"")
        }
        Say::Json(text) => {
            seen.take(&request, |_| true);
            page(200, "Content-Type: application/json; charset=utf-8\r\n", text.as_bytes())
        }
        Say::Mute if !is_request => page(400, "Content-Type: text/plain\r\n", b"cannot parse"),
        Say::Mute => {
            seen.take(&request, |_| true);
            page(200, "", b"")
        }
        Say::Portal => page(200, "", b""),
        Say::Blank => page(200, "Content-Type: text/html\r\n", b"  "),
        Say::Status(status) => page(*status, "", b"no"),
        Say::Wait(status, asked) => page(*status, &format!("Retry-After: {asked}\r\n"), b"later"),
        Say::Poison(status) if poisoned(&request) => page(*status, "", b"poison"),
        Say::Poison(_) => {
            seen.take(&request, |_| true);
            page(200, PROTOBUF, b"")
        }
        Say::Partial { counted } => page(200, PROTOBUF, &partial(*counted, seen, &request).encode_to_vec()),
        Say::Page => page(200, "Content-Type: text/html\r\n", b"<html>please log in</html>"),
        Say::Torn => b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun".to_vec(),
        Say::EchoRefusal => page(401, "", head.as_bytes()),
        Say::First(first, times) if seen.bodies.len() <= *times => {
            let Say::Status(status) = **first else { panic!("{first:?}") };
            page(status, "", b"not yet")
        }
        Say::First(..) => {
            seen.take(&request, |_| true);
            page(204, "", b"")
        }
        _ => return None,
    })
}

/// Over gRPC.
pub(super) struct Grpc {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Drop for Grpc {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Service {
    say: Say,
    seen: Arc<Mutex<Seen>>,
    farewell: Arc<Notify>,
}

impl Grpc {
    pub(super) async fn start(say: Say) -> Self {
        Self::start_at(loopback(), say).await
    }

    pub(super) async fn start_at(address: SocketAddr, say: Say) -> Self {
        Self::serve(address, say, Server::builder()).await
    }

    /// Speaks TLS, and asks for a certificate if it is to.
    pub(super) async fn start_secured(mutual: bool) -> Self {
        crate::source::install_tls_provider();
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(CERTIFICATE, KEY));
        let tls = if mutual { tls.client_ca_root(Certificate::from_pem(CLIENTS)) } else { tls };
        Self::serve(loopback(), Say::Code(Code::Ok), Server::builder().tls_config(tls).unwrap()).await
    }

    async fn serve(address: SocketAddr, say: Say, mut server: Server) -> Self {
        let listener = listen(address).await;
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let farewell = Arc::new(Notify::new());
        let service = LogsServiceServer::new(Service { say, seen: Arc::clone(&seen), farewell: Arc::clone(&farewell) })
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        let said = async move { farewell.notified().await };
        let server = server.add_service(service).serve_with_incoming_shutdown(TcpIncoming::from(listener), said);
        let task = tokio::spawn(async move { server.await.unwrap() });
        Self { address, seen, task }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn arrived(&self) -> usize {
        self.seen.lock().unwrap().arrived.len()
    }

    /// Once it has answered what was under way, after its farewell.
    pub(super) async fn ended(mut self) {
        (&mut self.task).await.unwrap();
    }
}

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let authorization = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let request = request.into_inner();
        if self.say == Say::Farewell {
            self.farewell.notify_one();
        }
        let mut seen = self.seen.lock().unwrap();
        match &self.say {
            Say::Talkative => {
                seen.take(&request, |_| true);
                let error_message = "x".repeat(5 << 20);
                let partial = ExportLogsPartialSuccess { rejected_log_records: 0, error_message };
                return Ok(Response::new(ExportLogsServiceResponse { partial_success: Some(partial) }));
            }
            Say::Code(Code::Ok) | Say::Farewell => drop(seen.take(&request, |_| true)),
            Say::Code(code) => return Err(Status::new(*code, "no")),
            Say::PoisonCode(code, words) if poisoned(&request) => return Err(Status::new(*code, *words)),
            Say::PoisonCode(..) => drop(seen.take(&request, |_| true)),
            Say::Partial { counted } => return Ok(Response::new(partial(*counted, &mut seen, &request))),
            Say::EchoRefusal => {
                return Err(Status::unauthenticated(format!("{} is unknown", authorization.unwrap())));
            }
            Say::RetryInfo(seconds) => {
                let code = Code::ResourceExhausted;
                return Err(Status::with_details(code, "slower", retry_info(*seconds).into()));
            }
            _ => {
                drop(seen);
                std::future::pending::<()>().await;
            }
        }
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

/// `google.rpc.Status` with a `RetryInfo`, by hand: field numbers and lengths.
fn retry_info(seconds: i64) -> Vec<u8> {
    let field = |number: u8, content: &[u8]| {
        let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        out.extend_from_slice(content);
        out
    };
    let delay = [0x08, u8::try_from(seconds).unwrap()];
    let info = field(1, &delay);
    let any = [field(1, b"type.googleapis.com/google.rpc.RetryInfo"), field(2, &info)].concat();
    field(3, &any)
}

/// Answers one HTTPS request a connection with 204, and asks for a certificate.
pub(super) fn https() -> u16 {
    crate::source::install_tls_provider();
    let pem = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut clients = rustls::RootCertStore::empty();
    clients.add(pem(CLIENTS)).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(clients)).build().unwrap();
    let config = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![pem(CERTIFICATE)], PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap())
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, stream);
            let reply = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            // A client that does not trust us, or that we do not, hangs up.
            let mut some = [0; 4096];
            let _ = tls.read(&mut some).and_then(|_| tls.write_all(reply)).and_then(|()| tls.flush());
            tls.conn.send_close_notify();
            let _ = tls.flush();
            while tls.read(&mut some).is_ok_and(|read| read > 0) {}
        }
    });
    port
}
