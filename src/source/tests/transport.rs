//! What can go wrong on the way, and what TLS and addresses are accepted.

use std::io::{Read, Write};
use std::sync::Arc;

use base64::Engine as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::server::{Reply, Server};
use super::*;

const PAGE: &str = r#"{"RetCode":0,"Events":[{"OperateTime":1}]}"#;
/// [`PAGE`], compressed by Python's `gzip`.
const PAGE_GZIP: &str = "H4sIAAAAAAACA6tWCkotcc5PSVWyMtBRci1LzSspVrKKrlbyL0gtSixJDcnMBUoZ1sbWAgCGwFfDKgAAAA==";

/// 64 KiB of spaces, likewise.
const BOMB_GZIP: &str = "H4sIAAAAAAACA+3BgQAAAACAIJX9KRepCgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAGqUGSy0AAABAA==";

fn gzip(base64: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(base64).expect("Base64")
}

async fn answered_with(reply: Reply) -> Result<Page, FetchError> {
    let server = Server::start(move |_| reply.clone()).await;
    let mut config = stream(SourceConfig::Scloud(scloud(&server.endpoint)));
    config.request_timeout = Duration::from_secs(5);
    config.max_response_size = 2_000;
    first(&client(&config)).await
}

#[tokio::test]
async fn what_goes_wrong_on_the_way_is_transient_and_has_a_reason() {
    use FailureClass::{Malformed, Transient};
    use FetchReason as R;
    let chunk = format!("400\r\n{}\r\n", "{".repeat(0x400)).repeat(3);
    let cases = [
        ("closed before an answer", Transient, R::Connect, Reply::cut("")),
        ("closed in the head", Transient, R::Connect, Reply::cut("HTTP/1.1 200 OK\r\nconte")),
        (
            "torn body",
            Transient,
            R::Malformed,
            Reply::cut(format!("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{PAGE}")),
        ),
        (
            "torn chunk",
            Transient,
            R::Malformed,
            Reply::cut("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\n{\"RetCode\""),
        ),
        (
            "torn text of a body without length",
            Transient,
            R::Malformed,
            Reply::cut(format!("HTTP/1.1 200 OK\r\n\r\n{}", &PAGE[..30])),
        ),
        ("torn gzip", Transient, R::Malformed, Reply::new(200, &["content-encoding: gzip"], &gzip(PAGE_GZIP)[..40])),
        ("no HTTP", Transient, R::Connect, Reply::cut("SSH-2.0-x\r\n\r\n")),
        ("no JSON", Transient, R::Malformed, Reply::ok("Service busy")),
        ("nothing", Transient, R::Malformed, Reply::ok("")),
        ("HTML", Transient, R::Malformed, Reply::ok("\n<html><body>Sign in</body></html>")),
        (
            "a gateway's HTML",
            Transient,
            R::HttpStatus,
            Reply::new(502, &["content-type: text/html"], "<html>502 Bad Gateway</html>"),
        ),
        (
            "a gateway's torn HTML",
            Transient,
            R::HttpStatus,
            Reply::cut("HTTP/1.1 503 Busy\r\ncontent-length: 9999\r\n\r\n<html>"),
        ),
        ("other JSON", Malformed, R::Malformed, Reply::ok(r#"{"hello":"world"}"#)),
        ("events of another type", Malformed, R::Malformed, Reply::ok(r#"{"RetCode":0,"Events":7}"#)),
        ("too large", Malformed, R::TooLarge, Reply::ok(format!("\u{feff} {{{}", "x".repeat(3_000)))),
        ("too large, and no page", Transient, R::Malformed, Reply::ok(format!("\r\n<html>{}", "x".repeat(3_000)))),
        (
            "too large in chunks",
            Malformed,
            R::TooLarge,
            Reply::cut(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunk}0\r\n\r\n")),
        ),
        (
            "too large once decompressed",
            Malformed,
            R::TooLarge,
            Reply::new(200, &["content-encoding: gzip"], gzip(BOMB_GZIP)),
        ),
    ];
    for (name, class, reason, reply) in cases {
        let error = answered_with(reply).await.expect_err(name);
        assert_eq!((error.class, error.reason), (class, reason), "{name}: {}", error.message);
        assert!(!error.message.is_empty() && !error.message.contains("127.0.0.1"), "{name}: {}", error.message);
    }
}

#[tokio::test]
async fn statuses_are_sorted_by_what_to_do() {
    use FailureClass as C;
    for (status, class) in [
        (301, C::Refused),
        (400, C::Refused),
        (401, C::Credentials),
        (403, C::Refused),
        (404, C::Refused),
        (407, C::Refused),
        (408, C::Transient),
        (429, C::Throttled),
        (500, C::Transient),
        (504, C::Transient),
    ] {
        let error = answered_with(Reply::new(status, &["location: /elsewhere"], PAGE)).await.expect_err("no page");
        assert_eq!(error.class, class, "HTTP {status}");
        assert!(error.message.contains(&status.to_string()), "{}", error.message);
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_left() {
    for reply in [Reply::hang as fn() -> Reply, || Reply::ok(PAGE).hang_after(60)] {
        let server = Server::start(move |_| reply()).await;
        let mut config = stream(SourceConfig::Scloud(scloud(&server.endpoint)));
        config.request_timeout = Duration::from_millis(100);
        let error = first(&client(&config)).await.expect_err("no answer");
        assert_eq!((error.class, error.reason), (FailureClass::Transient, FetchReason::Timeout), "{}", error.message);
    }
}

#[tokio::test]
async fn nobody_listening_is_no_connection() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound")).parse().expect("a URL");
    drop(listener);
    let error = first(&scloud_client(&endpoint)).await.expect_err("refused");
    assert_eq!((error.class, error.reason), (FailureClass::Transient, FetchReason::Connect), "{}", error.message);
}

#[tokio::test]
async fn retry_after_is_read_in_both_forms() {
    for (headers, expected) in [
        (&["retry-after: 7"][..], Some(7)),
        (&["retry-after: 100000"], Some(100_000)),
        // Against the server's own clock, wherever that stands.
        (&["date: Sat, 05 Jan 2030 10:00:00 GMT", "retry-after: Sat, 05 Jan 2030 10:00:30 GMT"], Some(30)),
        (&["date: Sat, 05 Jan 2030 10:00:00 GMT", "retry-after: Sat, 05 Jan 2030 09:00:00 GMT"], Some(0)),
        (&["retry-after: soon"], None),
        (&[], None),
    ] {
        for (status, body) in [(429, "slow down"), (429, r#"{"RetCode":153}"#), (200, r#"{"RetCode":153}"#)] {
            let error = answered_with(Reply::new(status, headers, body)).await.expect_err("throttled");
            assert_eq!((error.class, error.reason), (FailureClass::Throttled, FetchReason::Throttled));
            assert_eq!(error.retry_after, expected.map(Duration::from_secs), "{headers:?} {status} {body}");
        }
    }
    let error = answered_with(Reply::new(503, &["retry-after: 9"], "")).await.expect_err("unavailable");
    assert_eq!((error.class, error.retry_after), (FailureClass::Transient, Some(Duration::from_secs(9))));
}

#[tokio::test]
async fn gzip_is_asked_for_and_read() {
    let server = Server::start(|_| Reply::new(200, &["content-encoding: gzip"], gzip(PAGE_GZIP))).await;
    let page = first(&scloud_client(&server.endpoint)).await.expect("a page");
    assert_eq!(raws(&page), [r#"{"OperateTime":1}"#]);
    assert_eq!(server.requests()[0].header("accept-encoding"), Some("gzip"));
}

/// As `flate2` packs it, which the product unpacks with other code of its own.
fn packed(text: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(text).expect("memory takes all");
    packed.finish().expect("memory takes all")
}

#[tokio::test]
async fn gzip_of_several_members_is_read_whole() {
    let (first_half, second_half) = PAGE.as_bytes().split_at(PAGE.len() / 2);
    let members = [packed(first_half), packed(b""), packed(second_half)].concat();
    let chunks: String = members.iter().map(|byte| format!("1\r\n{}\r\n", char::from(*byte))).collect();
    let chunks: Vec<u8> = chunks.chars().map(|c| u8::try_from(c).expect("made of a byte")).collect();
    let head = b"HTTP/1.1 200 OK\r\ncontent-encoding: GZip\r\ntransfer-encoding: chunked\r\n\r\n".as_slice();
    let bytewise = Reply::cut([head, &chunks, b"0\r\n\r\n"].concat());
    let coded = |body: Vec<u8>| Reply::new(200, &["content-encoding: gzip"], body);
    let padded = coded([members.clone(), vec![0; 64]].concat());
    for reply in [coded(members.clone()), bytewise, padded] {
        let page = answered_with(reply).await.expect("a page");
        assert_eq!(raws(&page), [r#"{"OperateTime":1}"#]);
    }

    // Each member is held against its own checksum, what is not packed is no answer, and all of them are bounded together.
    let mut damaged = members.clone();
    let last = damaged.len() - 6;
    damaged[last] ^= 1;
    let torn = members[..members.len() - 9].to_vec();
    let cut_head = members[..packed(first_half).len() + 5].to_vec();
    for body in [damaged, torn, cut_head, PAGE.as_bytes().to_vec()] {
        let error = answered_with(coded(body)).await.expect_err("not a page");
        assert_eq!((error.class, error.reason), (FailureClass::Transient, FetchReason::Malformed), "{}", error.message);
    }
    let blanks = packed(&[b' '; 1_000]);
    let (many, hollow) = (blanks.repeat(4), packed(b"").repeat(200));
    for body in [many, hollow] {
        let error = answered_with(coded([packed(PAGE.as_bytes()), body].concat())).await.expect_err("too large");
        assert_eq!((error.class, error.reason), (FailureClass::Malformed, FetchReason::TooLarge), "{}", error.message);
    }
}

#[tokio::test]
async fn bytes_that_are_no_utf8_stop_nothing() {
    let body = [br#"{"RetCode":0,"Events":[{"UserName":""#.as_slice(), b"\xff\xfe", br#""}]}"#].concat();
    let server = Server::start(move |_| Reply::ok(&body)).await;
    let client = scloud_client(&server.endpoint);
    let (one, other) = (first(&client).await.expect("a page"), first(&client).await.expect("a page"));
    assert_eq!(raws(&one), ["{\"UserName\":\"\u{fffd}\u{fffd}\"}"]);
    assert_eq!(one.records[0].fingerprint, other.records[0].fingerprint);
}

#[tokio::test]
async fn a_page_in_many_chunks_is_whole() {
    let record = |api: &str| format!(r#"{{"Api":"{api}","RemoteIP":"{}"}}"#, "x".repeat(900));
    let body = format!(r#"{{"RetCode":0,"Events":[{}{}]}}"#, (record("A") + ",").repeat(999), record("Z"));
    assert!(body.len() > 900_000, "large enough to be parsed elsewhere");
    let server = Server::start(move |_| Reply::ok(&body)).await;
    let page = first(&scloud_client(&server.endpoint)).await.expect("a page");
    assert_eq!((page.records.len(), raws(&page)[999]), (1000, record("Z").as_str()));
}

/// A million records are not even counted: parsing ends where it is clear that this is no page.
#[tokio::test]
async fn far_more_records_than_asked_for_are_no_page() {
    let body = format!(r#"{{"RetCode":0,"Events":[{}0]}}"#, "0,".repeat(500_000));
    let server = Server::start(move |_| Reply::ok(&body)).await;
    let error = first(&scloud_client(&server.endpoint)).await.expect_err("no page");
    assert_eq!((error.class, error.reason), (FailureClass::Malformed, FetchReason::Malformed));
    assert!(error.message.contains("more than 1000 records"), "{}", error.message);
}

/// A record keeps its page in memory: not one that is mostly something else.
#[tokio::test]
async fn a_page_that_is_padded_is_not_kept_for_its_records() {
    for (padding, copied) in [(0, false), (900_000, true)] {
        let pad = "x".repeat(padding);
        let body = format!(r#"{{"RetCode":0,"Unknown":"{pad}","Events":[{{"Api":"A"}},{{"Api":"B"}}]}}"#);
        let length = body.len() as u64;
        let server = Server::start(move |_| Reply::ok(&body)).await;
        let page = first(&scloud_client(&server.endpoint)).await.expect("a page");
        assert_eq!(raws(&page), [r#"{"Api":"A"}"#, r#"{"Api":"B"}"#]);
        assert_eq!(page.held.bytes(), if copied { 22 } else { length } + 2 * http::ROW);
    }
}

#[tokio::test]
async fn time_in_line_is_told_apart_from_time_in_requests() {
    let server = Server::start(|_| Reply::ok(PAGE)).await;
    let limiter = Limiter::new(1000.0, 1);
    let client = Client::build(
        "s",
        &stream(SourceConfig::Scloud(scloud(&server.endpoint))),
        limiter.clone(),
        memory(),
        &mut Connections::default(),
    )
    .expect("builds");
    let permit = limiter.acquire(limiter.rank(Priority::Live)).await;
    let request = request(Position::First);
    let (fetched, ()) = tokio::join!(client.fetch(&request, client.rank(Priority::Live)), async {
        // The fetch was polled first, so it stands in line, and nothing can have been sent.
        assert!(server.requests().is_empty());
        drop(permit);
    });
    let timing = fetched.expect("a page").timing;
    assert!(timing.waited > Duration::ZERO && timing.requests > Duration::ZERO, "{timing:?}");
}

#[tokio::test]
async fn a_proxy_from_the_environment_is_used_but_not_for_loopback() {
    let server = Server::start(|_| Reply::ok(PAGE)).await;
    let output = tokio::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "source::tests::transport::child_behind_a_proxy", "--ignored"])
        .env("HTTP_PROXY", server.endpoint.as_str())
        .env("http_proxy", server.endpoint.as_str())
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .env("LOOPBACK", server.endpoint.as_str())
        .output()
        .await
        .expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let paths: Vec<_> = server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["http://audit.example/", "/"]);
}

#[tokio::test]
#[ignore = "a child of a_proxy_from_the_environment_is_used_but_not_for_loopback"]
async fn child_behind_a_proxy() {
    let loopback = std::env::var("LOOPBACK").expect("set by the parent");
    for endpoint in ["http://audit.example", &loopback] {
        let mut config = stream(SourceConfig::Scloud(scloud(&endpoint.parse().expect("a URL"))));
        config.allow_http = true;
        first(&client(&config)).await.expect("a page");
    }
}

#[test]
fn endpoints_that_would_leak_are_refused() {
    install_tls_provider();
    for (endpoint, allow_http, built) in [
        ("http://127.0.0.1:1", false, true),
        ("http://[::1]:1", false, true),
        ("http://localhost:1", false, true),
        ("http://10.0.0.1", false, false),
        ("http://10.0.0.1", true, true),
        ("http://localhost.example.com", false, false),
        ("ftp://localhost", true, false),
        ("data:text/plain,x", true, false),
    ] {
        let mut config = stream(SourceConfig::Scloud(scloud(&endpoint.parse().expect("a URL"))));
        config.allow_http = allow_http;
        match Client::build("s", &config, limiter(), memory(), &mut Connections::default()) {
            Ok(_) => assert!(built, "{endpoint} is accepted"),
            Err(error) => {
                assert!(!built, "{endpoint}: {error}");
                assert!(error.to_string().starts_with("endpoint: "), "{error}");
            }
        }
    }
}

#[test]
fn a_ca_file_that_is_none_is_named() {
    install_tls_provider();
    let file = tempfile::NamedTempFile::new().expect("a file");
    for path in [file.path(), std::path::Path::new("/nonexistent/ca.pem")] {
        let mut config = stream(SourceConfig::Scloud(scloud(&"https://localhost".parse().expect("a URL"))));
        config.ca_file = Some(path.to_owned());
        let message = Client::build("s", &config, limiter(), memory(), &mut Connections::default())
            .expect_err("no authority")
            .to_string();
        assert!(message.starts_with("ca_file: ") && message.contains(&path.display().to_string()), "{message}");
    }
}

#[test]
fn a_header_that_cannot_be_sent_is_named() {
    install_tls_provider();
    let mut config = genauth(&"https://localhost".parse().expect("a URL"));
    config.user_pool_id = "65f0\n".to_owned();
    let error =
        Client::build("s", &stream(SourceConfig::Genauth(config)), limiter(), memory(), &mut Connections::default())
            .expect_err("a line break");
    assert!(error.to_string().starts_with("user_pool_id: "), "{error}");
}

/// Answers one HTTPS request a connection with [`PAGE`].
fn https_server() -> Url {
    install_tls_provider();
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).expect("a key");
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they belong together");
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("https://localhost:{}", listener.local_addr().expect("bound").port());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).expect("configured");
            let mut tls = rustls::StreamOwned::new(connection, stream);
            let reply = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{PAGE}", PAGE.len());
            // Headers and form come in one write each at most; the answer may come early. A client that does not
            // trust us hangs up.
            let mut some = [0; 4096];
            let _ = tls.read(&mut some).and_then(|_| tls.write_all(reply.as_bytes())).and_then(|()| tls.flush());
            tls.conn.send_close_notify();
            let _ = tls.flush();
            // Until the client hangs up: closing with unread bytes would reset the connection.
            while tls.read(&mut some).is_ok_and(|n| n > 0) {}
        }
    });
    endpoint.parse().expect("a URL")
}

#[tokio::test]
async fn an_own_authority_is_trusted_when_named_and_only_then() {
    let mut config = stream(SourceConfig::Scloud(scloud(&https_server())));
    let ca = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(ca.path(), include_bytes!("tls/ca.pem")).expect("written");
    config.ca_file = Some(ca.path().to_owned());
    assert_eq!(first(&client(&config)).await.expect("a page").records.len(), 1);
    config.ca_file = None;
    let error = first(&client(&config)).await.expect_err("not trusted");
    assert_eq!((error.class, error.reason), (FailureClass::Transient, FetchReason::Connect));
    assert!(error.message.contains("certificate"), "{}", error.message);
}

/// The same client: what fails for the file goes on once it says something else; what makes no sense changes nothing.
#[tokio::test]
async fn authorities_that_are_replaced_count_at_the_next_request() {
    let mut config = stream(SourceConfig::Scloud(scloud(&https_server())));
    let ca = tempfile::NamedTempFile::new().expect("a file");
    // A certificate, but of nobody who signs.
    std::fs::write(ca.path(), include_bytes!("tls/server.pem")).expect("written");
    config.ca_file = Some(ca.path().to_owned());
    let client = client(&config);
    for text in ["", "half-writ"] {
        first(&client).await.expect_err("not trusted");
        std::fs::write(ca.path(), text).expect("written");
    }
    std::fs::write(ca.path(), include_bytes!("tls/ca.pem")).expect("written");
    // It is looked at when something fails.
    first(&client).await.expect_err("not trusted yet");
    assert_eq!(first(&client).await.expect("a page").records.len(), 1);
}

#[tokio::test]
async fn answers_without_a_date_are_told_and_a_few_are_nothing() {
    let dated = "date: Sat, 05 Jan 2030 10:00:00 GMT";
    for unreadable in [&[][..], &["date: 5 January"], &["date: 1893837600"], &["date: "]] {
        let mut answers = 0;
        let server = Server::start(move |_| {
            answers += 1;
            let headers: &[&str] = if answers == 20 { &[dated] } else { unreadable };
            let status = if answers > 20 { 502 } else { 200 };
            Reply::new(status, headers, r#"{"RetCode":0,"Events":[]}"#)
        })
        .await;
        let client = scloud_client(&server.endpoint);
        for answer in 1..20 {
            first(&client).await.expect("a page");
            let (doubt, now) = (client.clock().doubt(), client.clock().now());
            assert_eq!(doubt.is_some(), answer >= 8, "{unreadable:?}: {doubt:?} after {answer}");
            assert_eq!(now.latest > now.sure, answer >= 8, "{unreadable:?}: {now:?} after {answer}");
        }
        assert_eq!(client.clock().offset(), None);
        let doubt = client.clock().doubt().expect("told");
        assert!(doubt.lasts && doubt.message.contains("this machine's clock alone says what time it is"), "{doubt:?}");
        first(&client).await.expect("a page");
        let told = |client: &Client| client.clock().doubt().filter(|doubt| doubt.message.contains("no Date"));
        assert_eq!(told(&client), None, "{unreadable:?}: one has come");
        // An error's is not looked at.
        for _ in 0..20 {
            first(&client).await.expect_err("502");
        }
        assert_eq!(told(&client), None, "{unreadable:?}");
    }
}

/// Else each stream of a thousand would hold connections of its own, and what TLS needs.
#[tokio::test]
async fn streams_of_the_same_settings_share_a_client() {
    install_tls_provider();
    let (mut connections, timeout) = (Connections::default(), Duration::from_secs(7));
    let same = stream(SourceConfig::Scloud(scloud(&"http://127.0.0.1:1".parse().unwrap())));
    let other = StreamConfig { request_timeout: timeout, ..same.clone() };
    let mut of = |config: &StreamConfig| connections.of(config, false, true).unwrap();
    let (first, second, third) = (of(&same), of(&same), of(&other));
    assert!(std::sync::Arc::ptr_eq(&first, &second) && !std::sync::Arc::ptr_eq(&first, &third));
}
