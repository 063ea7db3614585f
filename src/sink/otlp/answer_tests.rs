//! Each status and each code, and what it means.

use std::time::UNIX_EPOCH;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsPartialSuccess;

use super::*;

fn none() -> Secrets {
    Secrets::default()
}

fn typed(status: u16, content_type: Option<&str>, body: &[u8]) -> Answer {
    let content_type = content_type.map(str::to_owned);
    let answer = HttpAnswer { status, retry_after: None, content_type, now: UNIX_EPOCH, body: body.to_vec() };
    of_http(&answer, &Secrets::of(["hunter2"]))
}

fn http(status: u16, body: &[u8]) -> Answer {
    typed(status, Some("application/x-protobuf"), body)
}

fn reason(answer: &Answer) -> Option<SinkReason> {
    match answer {
        Answer::Later(error) => Some(error.reason),
        _ => None,
    }
}

fn status_body(message: &str) -> Vec<u8> {
    RpcStatus { message: message.to_owned(), details: Vec::new() }.encode_to_vec()
}

#[test]
fn no_status_but_three_is_a_delivery() {
    for status in 100..=599 {
        let answer = http(status, b"");
        assert_eq!(answer == Answer::Delivered, [200, 202, 204].contains(&status), "{status}: {answer:?}");
        let given_up = matches!(answer, Answer::Refused { .. } | Answer::TooLarge { .. } | Answer::Dropped { .. });
        assert_eq!(given_up, [260, 400, 413, 422].contains(&status), "{status}: {answer:?}");
    }
    for (status, expected) in [
        (429, SinkReason::Throttled),
        (500, SinkReason::Unavailable),
        (503, SinkReason::Unavailable),
        (401, SinkReason::Credentials),
        (403, SinkReason::Refused),
        (404, SinkReason::Refused),
        (302, SinkReason::Refused),
        (201, SinkReason::Refused),
        (599, SinkReason::Refused),
    ] {
        assert_eq!(reason(&http(status, b"")), Some(expected), "{status}");
    }
    // A page where an answer should be.
    assert_eq!(reason(&http(200, b"<html>welcome</html>")), Some(SinkReason::Refused));
}

/// An answer counts for what its type makes likely: 0.1.0 took the empty page of a captive portal for a delivery.
#[test]
fn a_success_is_one_of_otlp() {
    let (protobuf, json) = (Some("application/x-protobuf"), Some("application/json"));
    let partial = |rejected_log_records| {
        let partial = ExportLogsPartialSuccess { rejected_log_records, error_message: String::new() };
        ExportLogsServiceResponse { partial_success: Some(partial) }.encode_to_vec()
    };
    for (kind, body, delivered) in [
        (protobuf, &b""[..], true),
        (protobuf, &partial(0), true),
        (None, &partial(0), true),
        (json, b"{}", true),
        (json, b" { \"partialSuccess\": {} }\n", true),
        (json, b"{\"partialSuccess\":null}", true),
        (json, b"{\"partialSuccess\":{\"rejectedLogRecords\":\"0\",\"errorMessage\":\"\"}}", true),
        (json, b"", false),
        (json, b"[]", false),
        (json, b"\"ok\"", false),
        (json, b"{\"status\":\"ok\"}", false),
        (json, b"{\"partialSuccess\":7}", false),
        (protobuf, b"   ", false),
        (protobuf, b"<html></html>", false),
        (None, b"   ", false),
        (None, b"{}", false),
        (None, b"<html></html>", false),
        (Some("text/html"), b"", false),
        (Some("text/html"), b"   ", false),
        (Some("text/html"), &partial(0), false),
        (Some("text/plain"), b"", false),
        (Some("text/plain"), b"OK", false),
    ] {
        let answer = typed(200, kind, body);
        let expected = if delivered { None } else { Some(SinkReason::Refused) };
        assert_eq!(
            (answer == Answer::Delivered, reason(&answer)),
            (delivered, expected),
            "{kind:?} {body:?}: {answer:?}"
        );
    }
    for rejected in [
        b"{\"partialSuccess\":{\"rejectedLogRecords\":\"3\"}}",
        &b"{\"partialSuccess\":{\"rejectedLogRecords\":3}}"[..],
    ] {
        assert!(matches!(typed(200, json, rejected), Answer::Partial { rejected: 3, .. }));
    }
    // It may be one: that is asked for.
    assert_eq!(typed(200, None, b""), Answer::Mute);
    // A proxy's page is no verdict on an event.
    assert_eq!(
        reason(&typed(400, Some("text/html"), b"<html>plain HTTP to HTTPS port</html>")),
        Some(SinkReason::Refused)
    );
    assert!(matches!(typed(400, Some("text/plain"), b"no"), Answer::Refused { .. }));
}

#[test]
fn each_grpc_code() {
    let grpc = |code| of_grpc(code, "why", &[], &none());
    assert_eq!(grpc(Code::Ok), Answer::Delivered);
    assert!(matches!(grpc(Code::InvalidArgument), Answer::Refused { .. }));
    for (code, expected) in [
        (Code::Cancelled, SinkReason::Unavailable),
        (Code::Unknown, SinkReason::Unavailable),
        (Code::DeadlineExceeded, SinkReason::Timeout),
        (Code::NotFound, SinkReason::Refused),
        (Code::AlreadyExists, SinkReason::Refused),
        (Code::PermissionDenied, SinkReason::Refused),
        (Code::ResourceExhausted, SinkReason::Throttled),
        (Code::FailedPrecondition, SinkReason::Refused),
        (Code::Aborted, SinkReason::Unavailable),
        (Code::OutOfRange, SinkReason::Unavailable),
        (Code::Unimplemented, SinkReason::Refused),
        (Code::Internal, SinkReason::Unavailable),
        (Code::Unavailable, SinkReason::Unavailable),
        (Code::DataLoss, SinkReason::Unavailable),
        (Code::Unauthenticated, SinkReason::Credentials),
    ] {
        assert_eq!(reason(&grpc(code)), Some(expected), "{code:?}");
    }
    let words = "grpc: received message larger than max (5000000 vs. 4194304)";
    assert!(matches!(of_grpc(Code::ResourceExhausted, words, &[], &none()), Answer::TooLarge { .. }));
    let words = "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes";
    assert!(matches!(of_grpc(Code::OutOfRange, words, &[], &none()), Answer::TooLarge { .. }));
    // A quota is no size, and our own client's limit on an answer is nothing of the receiver's.
    for (code, words) in [
        (Code::ResourceExhausted, "quota: message size per day".to_owned()),
        (Code::ResourceExhausted, "request rate too large".to_owned()),
        (
            Code::OutOfRange,
            format!(
                "Error, decoded message length too large: found 5242880 bytes, the limit is: {LARGEST_ANSWER} bytes"
            ),
        ),
    ] {
        assert!(matches!(of_grpc(code, &words, &[], &none()), Answer::Later(_)), "{words}");
    }
}

#[test]
fn how_long_to_wait_in_each_form() {
    let http = |asked: &str| {
        let answer = HttpAnswer {
            status: 429,
            retry_after: Some(asked.to_owned()),
            content_type: None,
            now: UNIX_EPOCH + Duration::from_secs(784_111_777),
            body: Vec::new(),
        };
        match of_http(&answer, &none()) {
            Answer::Later(error) => error.retry_after,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(http("7"), Some(Duration::from_secs(7)));
    assert_eq!(http("Sun, 06 Nov 1994 08:49:40 GMT"), Some(Duration::from_secs(3)));
    assert_eq!(http("Sun, 06 Nov 1994 08:49:30 GMT"), Some(Duration::ZERO));
    assert_eq!(http("soon"), None);
    assert_eq!(http("-1"), None);
    let details = |delay: Option<Delay>| {
        let value = RetryInfo { delay }.encode_to_vec();
        let other = Detail { type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(), value: vec![1] };
        let info = Detail { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value };
        RpcStatus { message: String::new(), details: vec![other, info] }.encode_to_vec()
    };
    let grpc = |details: &[u8]| match of_grpc(Code::ResourceExhausted, "message larger than max", details, &none()) {
        Answer::Later(error) => Some((error.reason, error.retry_after)),
        _ => None,
    };
    let wait = Some(Delay { seconds: 2, nanos: 500_000_000 });
    assert_eq!(grpc(&details(wait)), Some((SinkReason::Throttled, Some(Duration::from_millis(2500)))));
    assert_eq!(
        grpc(&details(Some(Delay { seconds: -2, nanos: 0 }))),
        Some((SinkReason::Throttled, Some(Duration::ZERO)))
    );
    assert_eq!(grpc(b"\xff\xff"), None, "no RetryInfo, and it is about size");
}

#[test]
fn a_partial_success_counts() {
    let response = |rejected_log_records, message: &str| {
        let partial = ExportLogsPartialSuccess { rejected_log_records, error_message: message.to_owned() };
        let response = ExportLogsServiceResponse { partial_success: Some(partial) };
        http(200, &response.encode_to_vec())
    };
    assert_eq!(response(0, "use more attributes"), Answer::Delivered);
    assert!(matches!(response(-1, ""), Answer::Partial { rejected: u64::MAX, .. }), "a contradiction");
    assert!(matches!(response(3, "bad"), Answer::Partial { rejected: 3, .. }));
}

#[test]
fn a_refusal_has_its_name_and_its_words() {
    let far =
        "entry with timestamp 2026-01-01 ignored, reason: 'entry too far behind, oldest acceptable timestamp is x'";
    for (words, expected, is_behind) in [
        (far, DeadLetterReason::TooOld, true),
        ("has timestamp too old: 2020", DeadLetterReason::TooOld, false),
        ("max entry size '262144' bytes exceeded for stream", DeadLetterReason::TooLarge, false),
        ("stream '{}' has structured metadata too large", DeadLetterReason::TooLarge, false),
        ("has timestamp too new: 2030", DeadLetterReason::Rejected, false),
    ] {
        for body in [words.as_bytes().to_vec(), status_body(words)] {
            let Answer::Refused { reason, message, behind } = http(400, &body) else { panic!("{words}") };
            assert_eq!((reason, behind), (expected, is_behind), "{words}");
            assert_eq!(message, format!("HTTP 400: {}", quote(words, &none())));
        }
    }
}

#[test]
fn words_are_those_that_name_nobody() {
    let said = "token hunter2 of ann@example.com, Rosa, 13812345678 expired\r\n";
    let Answer::Later(error) = http(503, said.as_bytes()) else { panic!() };
    assert_eq!(error.message, "HTTP 503: token … of … expired");
    assert_eq!(http(260, b"\xff\xfe"), Answer::Dropped { message: "HTTP 260".to_owned() });
}
