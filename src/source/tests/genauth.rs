use std::collections::HashSet;

use serde_json::json;

use super::server::{Reply, Request, Server};
use super::*;

const TOKEN_PATH: &str = "/api/v3/get-management-token";
const EMPTY: &str = r#"{"statusCode":200,"data":{"totalCount":0,"list":[]}}"#;

fn grant(token: &str) -> Reply {
    Reply::ok(format!(r#"{{"statusCode":200,"data":{{"access_token":"{token}","expires_in":7200}}}}"#))
}

/// Grants `token-1`, `token-2`, …; answers log requests as told.
async fn granting(mut logs: impl FnMut(&Request) -> Reply + Send + 'static) -> Server {
    let mut granted = 0;
    Server::start(move |request| {
        if request.path == TOKEN_PATH {
            granted += 1;
            return grant(&format!("token-{granted}"));
        }
        logs(request)
    })
    .await
}

fn count(server: &Server, path: &str) -> usize {
    server.requests().iter().filter(|request| request.path == path).count()
}

fn signing(endpoint: &Url) -> Client {
    client(&stream(SourceConfig::Genauth(GenauthConfig { auth: GenauthAuth::Signature, ..genauth(endpoint) })))
}

#[tokio::test]
async fn all_nine_parameters_and_both_brands_headers() {
    let server = granting(|_| {
        Reply::ok(r#"{"statusCode":200,"message":"ok","data":{"list":[{"eventType":"new \u00fc"}, {"x":[{}]},null],"totalCount":57}}"#)
    })
    .await;
    for (brand, header) in
        [(GenauthBrand::Genauth, "x-genauth-userpool-id"), (GenauthBrand::Authing, "x-authing-userpool-id")]
    {
        let filter = GenauthFilter {
            event_type: Some("login".to_owned()),
            success: Some(false),
            user_id: Some("u".to_owned()),
            app_id: Some("a".to_owned()),
            client_ip: Some("192.0.2.1".to_owned()),
            request_id: Some("r".to_owned()),
        };
        let client =
            client(&stream(SourceConfig::Genauth(GenauthConfig { brand, filter, ..genauth(&server.endpoint) })));
        let page =
            client.fetch(&request(Position::Number(2)), client.rank(Priority::Sweep)).await.expect("a page").page;
        assert_eq!(raws(&page), [r#"{"eventType":"new \u00fc"}"#, r#"{"x":[{}]}"#, "null"]);
        assert_eq!((page.total, page.next_token), (Some(57), None));

        let requests = server.requests();
        let [.., token, logs] = &requests[..] else { panic!("two requests") };
        assert_eq!(
            (token.path.as_str(), token.json()),
            (TOKEN_PATH, json!({"accessKeyId": "AK", "accessKeySecret": "hush"}))
        );
        assert_eq!(logs.path, "/api/v3/get-user-action-logs");
        assert!(logs.header("authorization").is_some_and(|value| value.starts_with("Bearer token-")));
        assert_eq!((token.header(header), logs.header(header)), (Some("65f0a1"), Some("65f0a1")));
        assert_eq!(logs.header("content-type"), Some("application/json"));
        assert_eq!(
            logs.json(),
            json!({
                "requestId": "r", "clientIp": "192.0.2.1", "eventType": "login", "userId": "u", "appId": "a",
                "start": 1_700_000_000_000_i64, "end": 1_700_000_060_000_i64, "success": false,
                "pagination": { "page": 2, "limit": 50 },
            })
        );
    }
}

#[tokio::test]
async fn filters_that_are_not_set_are_not_sent() {
    let server = granting(|_| Reply::ok(EMPTY)).await;
    let prefixed = server.endpoint.join("/prefix/").expect("a URL");
    // The token is asked for behind the prefix too, so this server answers it as a log request.
    let error = first(&genauth_client(&prefixed)).await.expect_err("no token");
    assert!(error.message.contains("access_token"), "{}", error.message);
    assert_eq!(server.requests()[0].path, format!("/prefix{TOKEN_PATH}"));
    let client = genauth_client(&server.endpoint);
    first(&client).await.expect("a page");
    let sent = server.requests().last().expect("asked").json();
    assert_eq!(sent.as_object().expect("an object").keys().collect::<Vec<_>>(), ["start", "end", "pagination"]);
}

#[tokio::test]
async fn one_token_serves_many_requests_even_at_once() {
    let server = granting(|_| Reply::ok(EMPTY)).await;
    let client = genauth_client(&server.endpoint);
    let fetches: Vec<_> = (0..8).map(|_| first(&client)).collect();
    for page in futures_util::future::join_all(fetches).await {
        page.expect("a page");
    }
    assert_eq!((count(&server, TOKEN_PATH), server.requests().len()), (1, 9));
}

#[tokio::test]
async fn a_token_refused_with_401_is_replaced_once() {
    for refusal in [Reply::ok as fn(&'static str) -> Reply, |body| Reply::new(401, &[], body)] {
        let server = granting(move |request| match request.header("authorization") {
            Some("Bearer token-1") => {
                refusal(r#"{"statusCode":401,"apiCode":2020,"message":"token-1 is stale","data":""}"#)
            }
            _ => Reply::ok(EMPTY),
        })
        .await;
        let client = genauth_client(&server.endpoint);
        let fetches: Vec<_> = (0..4).map(|_| first(&client)).collect();
        for page in futures_util::future::join_all(fetches).await {
            page.expect("a page, with the second token");
        }
        assert_eq!(count(&server, TOKEN_PATH), 2, "one fresh token, however many were refused");
    }
}

#[tokio::test]
async fn a_key_that_is_refused_for_good_is_asked_twice_and_no_more() {
    let server = granting(|request| {
        let token = request.header("authorization").expect("sent").trim_start_matches("Bearer ").to_owned();
        Reply::ok(format!(r#"{{"statusCode":401,"message":"{token} of hush is refused"}}"#))
    })
    .await;
    let error = first(&genauth_client(&server.endpoint)).await.expect_err("refused");
    assert_eq!((error.class, error.reason), (FailureClass::Credentials, FetchReason::Credentials));
    assert!(error.message.contains("access_key_secret") && !error.message.contains("token-"), "{}", error.message);
    assert_eq!((count(&server, TOKEN_PATH), server.requests().len()), (2, 4));
}

#[tokio::test]
async fn a_token_request_that_is_refused_is_the_keys_fault() {
    let server = Server::start(|_| Reply::ok(r#"{"statusCode":400,"message":"bad secret hush"}"#)).await;
    let error = first(&genauth_client(&server.endpoint)).await.expect_err("refused");
    assert_eq!(error.class, FailureClass::Credentials);
    assert!(error.message.starts_with("no management token: ") && !error.message.contains("hush"), "{}", error.message);
    assert_eq!(server.requests().len(), 1);
}

/// Nothing is served there: that is no word about the key.
#[tokio::test]
async fn an_endpoint_where_nothing_is_served_is_not_the_keys_fault() {
    for reply in [Reply::new(404, &[], "not found"), Reply::ok(r#"{"statusCode":404,"message":"Cannot POST"}"#)] {
        let reply = std::sync::Mutex::new(Some(reply));
        let server = Server::start(move |_| reply.lock().expect("whole").take().expect("asked once")).await;
        let error = first(&genauth_client(&server.endpoint)).await.expect_err("refused");
        assert_eq!((error.class, error.reason), (FailureClass::Refused, FetchReason::Refused), "{}", error.message);
        assert!(error.message.contains("look at endpoint and its path"), "{}", error.message);
    }
}

#[tokio::test]
async fn a_refused_signature_is_renewed_once_with_the_servers_clock() {
    for (code, by_its_date) in [(1305, true), (1306, false)] {
        let mut asked = 0;
        let server = Server::start(move |_| {
            asked += 1;
            match asked {
                1 => Reply::new(
                    200,
                    &["date: Sat, 05 Jan 2030 10:00:00 GMT"],
                    format!(r#"{{"statusCode":400,"apiCode":{code},"message":"no"}}"#),
                ),
                _ => Reply::ok(EMPTY),
            }
        })
        .await;
        let client = signing(&server.endpoint);
        first(&client).await.expect("a page at the second try");
        let requests = server.requests();
        let nonces: HashSet<_> = requests.iter().map(|request| request.header("x-authing-signature-nonce")).collect();
        assert_eq!((requests.len(), nonces.len()), (2, 2), "another nonce");
        let date = requests[1].header("date").expect("signed");
        assert_eq!(date.starts_with("Sat, 05 Jan 2030 10:0"), by_its_date, "{date}");
        // A refusal's date serves for signing alone.
        assert_eq!(client.clock().offset(), None);
        for (name, value) in [("method", "HMAC-SHA1"), ("version", "1.0")] {
            assert_eq!(requests[0].header(&format!("x-authing-signature-{name}")), Some(value));
        }
        assert!(requests[0].header("authorization").is_some_and(|value| value.starts_with("authing AK:")));
    }
}

#[tokio::test]
async fn a_signature_refused_twice_is_given_up() {
    for (code, class) in [(1305, FailureClass::Credentials), (1306, FailureClass::Transient)] {
        let server =
            Server::start(move |_| Reply::ok(format!(r#"{{"statusCode":400,"apiCode":{code},"message":"no"}}"#))).await;
        let error = first(&signing(&server.endpoint)).await.expect_err("refused");
        assert_eq!((error.class, server.requests().len()), (class, 2), "{}", error.message);
    }
}

#[tokio::test]
async fn codes_are_sorted_by_what_to_do() {
    use FailureClass as C;
    use FetchReason as R;
    for (status, api, class, reason) in [
        (400, "null", C::Refused, R::Refused),
        (401, "null", C::Credentials, R::Credentials),
        (402, "4021", C::Refused, R::Refused),
        (403, "null", C::Refused, R::Refused),
        (404, "null", C::Refused, R::Refused),
        (422, "\"x\"", C::Refused, R::Refused),
        (499, "2020", C::Credentials, R::Credentials),
        (499, "1300", C::Credentials, R::Credentials),
        (400, "1302", C::Credentials, R::Credentials),
        (429, "1300", C::Throttled, R::Throttled),
        (499, "null", C::Refused, R::Refused),
        (500, "null", C::Transient, R::Api),
        (501, "null", C::Refused, R::Refused),
        (502, "null", C::Transient, R::Api),
        (503, "null", C::Transient, R::Api),
        (601, "null", C::Transient, R::Api),
        (9999, "null", C::Transient, R::Api),
    ] {
        let server = Server::start(move |_| {
            Reply::ok(format!(r#"{{"statusCode":{status},"apiCode":{api},"message":"token expired","data":[]}}"#))
        })
        .await;
        let error = first(&signing(&server.endpoint)).await.expect_err("refused");
        assert_eq!((error.class, error.reason), (class, reason), "{status} {api}");
        assert!(
            error.message.contains(&status.to_string()) && error.message.contains("token expired"),
            "{}",
            error.message
        );
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn what_is_missing_mistyped_or_contradictory_is_no_page() {
    // What is read, and with which total; None is malformed.
    for (data, read) in [
        ("", None),
        (r#","data":null"#, None),
        (r#","data":{}"#, None),
        (r#","data":"none""#, None),
        (r#","data":7"#, None),
        (r#","data":[{}]"#, None),
        (r#","data":[]"#, Some((0, None))),
        (r#","data":{"totalCount":0}"#, Some((0, Some(0)))),
        (r#","data":{"totalCount":0,"list":null}"#, Some((0, Some(0)))),
        (r#","data":{"totalCount":0,"list":{}}"#, Some((0, Some(0)))),
        (r#","data":{"list":{}}"#, Some((0, None))),
        (r#","data":{"totalCount":0,"list":""}"#, Some((0, Some(0)))),
        (r#","data":{"list":[{}]}"#, Some((1, None))),
        (r#","data":{"totalCount":"1","list":[{}]}"#, Some((1, Some(1)))),
        (r#","data":{"totalCount":1.0,"list":[{}]}"#, Some((1, Some(1)))),
        (r#","data":{"totalCount":3,"list":null}"#, None),
        (r#","data":{"totalCount":3,"list":{}}"#, None),
        (r#","data":{"totalCount":7,"list":[]}"#, None),
        (r#","data":{"totalCount":0,"list":[{}]}"#, None),
        (r#","data":{"totalCount":-1,"list":[]}"#, None),
        (r#","data":{"totalCount":9223372036854775807,"list":[{}]}"#, None),
        (r#","data":{"totalCount":{},"list":[]}"#, None),
        (r#","data":{"totalCount":true,"list":[{}]}"#, None),
        (r#","data":{"totalCount":1,"list":{"a":{}}}"#, None),
        (r#","data":{"totalCount":1,"list":"a"}"#, None),
        (r#","data":{"totalCount":0,"list":[],"list":[{}]}"#, None),
    ] {
        let server = granting(move |_| Reply::ok(format!(r#"{{"statusCode":200{data}}}"#))).await;
        let result = first(&genauth_client(&server.endpoint)).await;
        match read {
            Some(read) => {
                let page = result.expect("a page");
                assert_eq!((page.records.len(), page.total), read, "{data}");
            }
            None => assert_eq!(result.expect_err(data).class, FailureClass::Malformed, "{data}"),
        }
    }
}

#[tokio::test]
async fn what_stands_around_an_answer_is_not_read() {
    for (before, after) in [("\u{feff}", ""), ("\0\0", "\0"), (" \r\n\u{feff}\t", " \n\0"), ("", "\0\0\0")] {
        let answer = format!(r#"{before}{{"statusCode":200,"data":{{"totalCount":1,"list":[{{}}]}}}}{after}"#);
        let server = granting(move |_| Reply::ok(&answer)).await;
        assert_eq!(raws(&first(&genauth_client(&server.endpoint)).await.expect("a page")), ["{}"]);
    }
}

#[tokio::test]
async fn a_list_of_another_name_is_no_silence() {
    for (data, name) in [
        (r#"{"totalCount":0,"records":[{"a":1}]}"#, "data.records"),
        (r#"{"totalCount":3,"List":[{"a":1}]}"#, "data.List"),
        (r#"{"totalCount":0,"list":{},"rows":[{"a":1}]}"#, "data.rows"),
        (r#"[],"result":{"list":[{"a":1}]}"#, "result.list"),
    ] {
        let answer = format!(r#"{{"statusCode":200,"data":{data}}}"#);
        let server = granting(move |_| Reply::ok(&answer)).await;
        let error = first(&genauth_client(&server.endpoint)).await.expect_err(data);
        assert_eq!(error.class, FailureClass::Malformed, "{data}");
        assert!(error.message.contains(&format!("no list, and lists something as {name},")), "{}", error.message);
    }
}

#[tokio::test]
async fn what_an_answer_says_twice_alike_is_read() {
    let (twice, other) = (r#""statusCode":200,"statusCode":200"#, r#""statusCode":200,"statusCode":500"#);
    let data = r#""data":{"totalCount":1,"totalCount":1,"list":[{"a":1}]}"#;
    for (answer, listed) in [
        (format!("{{{twice},{data}}}"), Some(1)),
        (format!("{{{twice},{data},{data}}}"), Some(1)),
        (format!("{{{other},{data}}}"), None),
        (format!("{{{twice},{data},{}}}", data.replace("\"totalCount\":1,", "")), None),
        (format!("{{{twice},{data},{}}}", data.replace("[{\"a\":1}]", "[{\"a\":2}]")), None),
    ] {
        let said = answer.clone();
        let server = granting(move |_| Reply::ok(&said)).await;
        let result = first(&genauth_client(&server.endpoint)).await;
        match listed {
            Some(listed) => assert_eq!(result.expect(&answer).records.len(), listed, "{answer}"),
            None => {
                let error = result.expect_err(&answer);
                assert_eq!(error.class, FailureClass::Malformed, "{answer}");
                assert!(error.message.starts_with("the answer says two things of "), "{}", error.message);
            }
        }
    }
    // Grants and refusals, too.
    let granted = r#"{"statusCode":200,"statusCode":200,"data":{"access_token":"t","access_token":"t"}}"#;
    let refused = r#"{"statusCode":403,"statusCode":403,"message":"no","message":"no"}"#;
    let server =
        Server::start(move |request| Reply::ok(if request.path == TOKEN_PATH { granted } else { refused })).await;
    let error = first(&genauth_client(&server.endpoint)).await.expect_err("refused");
    assert_eq!(error.class, FailureClass::Refused, "{}", error.message);
}
