use sha1::{Digest, Sha1};

use super::server::{Reply, Server};
use super::*;

/// Signed by a second implementation of the vendor's rule.
fn is_signed(form: &[(String, String)], key: &str) -> bool {
    let mut sorted: Vec<_> = form.iter().filter(|(name, _)| name != "Signature").cloned().collect();
    sorted.sort();
    let text = sorted.into_iter().fold(String::new(), |text, (name, value)| text + &name + &value) + key;
    let expected = Sha1::digest(text).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    form.iter().any(|(name, value)| name == "Signature" && *value == expected)
}

#[tokio::test]
async fn a_run_sends_the_same_signed_form_but_for_the_token() {
    let pages = [
        r#"{"RetCode":0,"NextToken":"a+b/c=","Events":[ {"Api":"A", "OperateTime":1700000001} ,{"Api":"B"}]}"#,
        r#"{"RetCode":0,"NextToken":"t2","Events":[]}"#,
        r#"{"RetCode":0,"NextToken":"","Action":"GetUserOperationEventsResponse"}"#,
        r#"{"RetCode":"0","Events":null,"Unknown":{"x":[1]}}"#,
    ];
    let mut replies = pages.into_iter();
    let server = Server::start(move |_| Reply::ok(replies.next().expect("four pages"))).await;
    let mut config = scloud(&server.endpoint);
    config.filter = ScloudFilter {
        resource_id: Some("uhost-1 ä".to_owned()),
        access_key_ids: vec!["k0".to_owned(), "k1".to_owned()],
    };
    let client = client(&stream(SourceConfig::Scloud(config)));

    let page = first(&client).await.expect("a page");
    assert_eq!(raws(&page), [r#"{"Api":"A", "OperateTime":1700000001}"#, r#"{"Api":"B"}"#]);
    assert_eq!((page.total, page.next_token.as_deref()), (None, Some("a+b/c=")));
    let next = client
        .fetch(&request(Position::Token("a+b/c=".to_owned())), client.rank(Priority::Live))
        .await
        .expect("a page")
        .page;
    assert_eq!((next.records.len(), next.next_token.as_deref()), (0, Some("t2")), "empty is not the end");
    for _ in 0..2 {
        let last = client
            .fetch(&request(Position::Token("t2".to_owned())), client.rank(Priority::Live))
            .await
            .expect("a page")
            .page;
        assert_eq!((last.records.len(), last.next_token), (0, None));
    }

    let requests = server.requests();
    let mut form = requests[0].form();
    assert!(is_signed(&form, "hush"), "{form:?}");
    form.retain(|(name, _)| name != "Signature");
    form.sort();
    let expected = [
        ("AccessKeyIDs.0", "k0"),
        ("AccessKeyIDs.1", "k1"),
        ("Action", "GetUserOperationEvents"),
        ("BeginTime", "1700000000"),
        ("EndTime", "1700000060"),
        ("MaxResults", "50"),
        ("ProjectId", "org-1"),
        ("PublicKey", "PUB"),
        ("ResourceID", "uhost-1 ä"),
    ];
    assert_eq!(form, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let mut second = requests[1].form();
    assert!(is_signed(&second, "hush"));
    assert!(second.contains(&("NextToken".to_owned(), "a+b/c=".to_owned())));
    second.retain(|(name, _)| name != "Signature" && name != "NextToken");
    second.sort();
    assert_eq!(second, form);
    assert!(requests.iter().all(|request| request.path == "/"), "nothing in the query string");
    assert!(requests.iter().all(|request| request.connection == 0), "one connection is kept");
}

#[tokio::test]
async fn codes_are_sorted_by_what_to_do() {
    use FailureClass as C;
    use FetchReason as R;
    let server = Server::start(|request| {
        let form = request.form();
        let code = &form.iter().find(|(name, _)| name == "NextToken").expect("a code").1;
        Reply::ok(format!(r#"{{"RetCode":{code},"Message":"no\nway, hush, {}, a@b.c"}}"#, "f".repeat(40)))
    })
    .await;
    let client = scloud_client(&server.endpoint);
    for (code, class, reason) in [
        (110, C::Transient, R::Api),
        (130, C::Transient, R::Api),
        (150, C::Transient, R::Api),
        (160, C::Refused, R::Refused),
        (161, C::Refused, R::Refused),
        (170, C::Credentials, R::Credentials),
        (171, C::Credentials, R::Credentials),
        (172, C::Credentials, R::Credentials),
        (174, C::Credentials, R::Credentials),
        (230, C::Refused, R::Refused),
        (292, C::Refused, R::Refused),
        (299, C::Refused, R::Refused),
        (2000, C::Refused, R::Refused),
        (2001, C::Transient, R::Api),
        (8039, C::Transient, R::Api),
        (-1, C::Refused, R::Refused),
        // Last: it slows the limiter down.
        (153, C::Throttled, R::Throttled),
    ] {
        let position = Position::Token(code.to_string());
        let error = client.fetch(&request(position), client.rank(Priority::Live)).await.expect_err("refused");
        assert_eq!((error.class, error.reason), (class, reason), "RetCode {code}");
        assert!(error.message.starts_with(&format!("RetCode {code}: no …")), "{}", error.message);
        for hidden in ["hush", "ffff", "a@b.c", "\n"] {
            assert!(!error.message.contains(hidden), "{}", error.message);
        }
    }
    assert!(client.limiter.rate() < 1000.0);
}

#[tokio::test]
async fn a_missing_secret_is_named() {
    let server = Server::start(|_| Reply::hang()).await;
    let mut config = scloud(&server.endpoint);
    config.private_key = Secret::File("/nonexistent/key".into());
    let error = first(&client(&stream(SourceConfig::Scloud(config)))).await.expect_err("no secret");
    assert_eq!(error.class, FailureClass::Credentials);
    assert!(error.message.contains("private_key") && error.message.contains("/nonexistent/key"), "{}", error.message);
}

#[tokio::test]
async fn a_rotated_secret_is_used_at_once() {
    let server = Server::start(|_| Reply::ok(r#"{"RetCode":0}"#)).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut config = scloud(&server.endpoint);
    config.private_key = Secret::File(file.path().to_owned());
    let client = client(&stream(SourceConfig::Scloud(config)));
    for key in ["old", "new"] {
        std::fs::write(file.path(), format!("{key}\n")).expect("written");
        first(&client).await.expect("a page");
        assert!(is_signed(&server.requests().last().expect("asked").form(), key));
    }
}

#[tokio::test]
async fn tokens_and_lists_of_another_type_are_no_page() {
    let long = format!(r#""NextToken":"{}","Events":[{{}}]"#, "x".repeat(5000));
    for (members, read) in [
        (r#""Message":"maintenance""#, Some((0, None, true))),
        (r#""Events":{}"#, Some((0, None, false))),
        (r#""Events":"""#, Some((0, None, false))),
        (r#""Events":[{}],"NextToken":7"#, Some((1, Some("7"), false))),
        (r#""Events":[{}],"NextToken":null"#, Some((1, None, false))),
        (r#""Events":[{}],"NextToken":{}"#, None),
        (r#""Events":[{}],"NextToken":true"#, None),
        (r#""Events":[{}],"NextToken":false"#, None),
        (r#""Events":[{}],"NextToken":["a"]"#, None),
        (r#""Events":{"0":{}}"#, None),
        (r#""Events":true"#, None),
        (&long, None),
    ] {
        let answer = format!(r#"{{"RetCode":0,{members}}}"#);
        let server = Server::start(move |_| Reply::ok(&answer)).await;
        let result = first(&scloud_client(&server.endpoint)).await;
        match read {
            Some(read) => {
                let page = result.expect("a page");
                assert_eq!((page.records.len(), page.next_token.as_deref(), page.bare), read, "{members}");
            }
            None => assert_eq!(result.expect_err(members).class, FailureClass::Malformed, "{members}"),
        }
    }
}

#[tokio::test]
async fn a_list_of_another_name_is_no_silence() {
    for (members, name) in [
        (r#""events":[{"Api":"A"}]"#, "events"),
        (r#""EventList":[{"Api":"A"}],"NextToken":"""#, "EventList"),
        (r#""Events":null,"Data":{"Events":[{"Api":"A"}]}"#, "Data.Events"),
        (r#""Events":{},"DataSet":[{"Api":"A"}]"#, "DataSet"),
        (r#""events":[]"#, "events"),
        (r#""hush-PUB":[{}]"#, "…-…"),
        (r#""a@b.c":[{}]"#, "…"),
    ] {
        let answer = format!(r#"{{"RetCode":0,{members}}}"#);
        let server = Server::start(move |_| Reply::ok(&answer)).await;
        let error = first(&scloud_client(&server.endpoint)).await.expect_err(members);
        assert_eq!(error.class, FailureClass::Malformed, "{members}");
        let said = format!("the answer has no Events, and lists something as {name}, which is not documented");
        assert_eq!(error.message, said, "{members}");
    }
    // What is listed under the documented name is all there is.
    let server = Server::start(|_| Reply::ok(r#"{"RetCode":0,"Events":[],"Notes":[{"a":1}]}"#)).await;
    assert!(first(&scloud_client(&server.endpoint)).await.expect("a page").records.is_empty());
}

#[tokio::test]
async fn what_an_answer_says_twice_alike_is_read() {
    for (answer, listed) in [
        (r#"{"RetCode":0,"RetCode":0,"Events":[{"Api":"A"}]}"#, Some(1)),
        (r#"{"RetCode":0,"Events":[{"Api":"A"}],"RetCode":"0","Events":[{"Api":"A"}]}"#, Some(1)),
        (r#"{"RetCode":0,"Events":[{"Api":"A"}],"Events":[]}"#, None),
        (r#"{"RetCode":0,"RetCode":153,"Events":[]}"#, None),
        (r#"{"RetCode":0,"Events":[],"NextToken":"a","NextToken":"b"}"#, None),
    ] {
        let server = Server::start(move |_| Reply::ok(answer)).await;
        let result = first(&scloud_client(&server.endpoint)).await;
        match listed {
            Some(listed) => assert_eq!(result.expect(answer).records.len(), listed, "{answer}"),
            None => {
                let error = result.expect_err(answer);
                assert_eq!(error.class, FailureClass::Malformed, "{answer}");
                assert!(error.message.starts_with("the answer says two things of "), "{}", error.message);
            }
        }
    }
}
