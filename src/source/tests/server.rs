//! A server that answers as it is told, on a real socket: whole answers, half ones, none.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a request is answered with.
#[derive(Clone)]
pub(super) struct Reply {
    bytes: Vec<u8>,
    then: Then,
}

#[derive(Clone)]
enum Then {
    KeepAlive,
    Close,
    Hang,
}

impl Reply {
    /// A whole answer with these header lines.
    pub(super) fn new(status: u16, headers: &[&str], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n{lines}\r\n", body.len());
        Self { bytes: [head.as_bytes(), body].concat(), then: Then::KeepAlive }
    }

    pub(super) fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::new(200, &["content-type: application/json"], body)
    }

    /// These bytes, and the connection ends.
    pub(super) fn cut(bytes: impl AsRef<[u8]>) -> Self {
        Self { bytes: bytes.as_ref().to_vec(), then: Then::Close }
    }

    /// Nothing, and the connection stays.
    pub(super) fn hang() -> Self {
        Self { bytes: Vec::new(), then: Then::Hang }
    }

    /// Only this many bytes of it, and the connection stays.
    pub(super) fn hang_after(mut self, bytes: usize) -> Self {
        self.bytes.truncate(bytes);
        Self { then: Then::Hang, ..self }
    }
}

/// One request as it came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// Which connection it came on, from 0.
    pub(super) connection: usize,
    pub(super) path: String,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("a JSON body")
    }

    pub(super) fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(self.body.as_bytes()).into_owned().collect()
    }
}

pub(super) struct Server {
    pub(super) endpoint: url::Url,
    requests: Arc<Mutex<Vec<Request>>>,
}

type Script = Arc<Mutex<dyn FnMut(&Request) -> Reply + Send>>;

impl Server {
    /// Answers each request with what `script` says; lives as long as the test's runtime.
    pub(super) async fn start(script: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound")).parse().expect("a URL");
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let script: Script = Arc::new(Mutex::new(script));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                tokio::spawn(async move {
                    // A client that hangs up ends the task.
                    let _ = converse(stream, connection, &seen, &script).await;
                });
            }
        });
        Self { endpoint, requests }
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no test panics in it").clone()
    }
}

async fn converse(
    mut stream: TcpStream,
    connection: usize,
    seen: &Mutex<Vec<Request>>,
    script: &Script,
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let Some(request) = read_request(&mut stream, connection, &mut buffer).await? else { return Ok(()) };
        seen.lock().expect("no test panics in it").push(request.clone());
        let reply = (script.lock().expect("no script panics"))(&request);
        stream.write_all(&reply.bytes).await?;
        match reply.then {
            Then::KeepAlive => {}
            Then::Close => return stream.shutdown().await,
            Then::Hang => std::future::pending().await,
        }
    }
}

async fn read_request(
    stream: &mut TcpStream,
    connection: usize,
    buffer: &mut Vec<u8>,
) -> std::io::Result<Option<Request>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let mut lines = head.lines();
            let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
            let headers: Vec<_> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
                .collect();
            let length = headers
                .iter()
                .find(|(name, _)| name == "content-length")
                .map_or(0, |(_, length)| length.parse::<usize>().expect("a length"));
            let whole = end + 4 + length;
            if buffer.len() >= whole {
                let body = String::from_utf8_lossy(&buffer[end + 4..whole]).into_owned();
                buffer.drain(..whole);
                return Ok(Some(Request { connection, path, headers, body }));
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}
