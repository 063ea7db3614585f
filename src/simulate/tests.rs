//! Through real sockets: each option does what it says, and the counts say that it did.

use std::collections::HashMap;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::event::Source;

const LOGS: &str = "/api/v3/get-user-action-logs";

/// A history of 1,000 records that nothing is added to.
fn quiet() -> Options {
    Options { rate: 100.0, events: Some(1_000), ..Options::default() }
}

fn client() -> Client {
    // A second test in this process finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap()
}

/// A client of GenAuth that bears a token.
struct Bearer {
    client: Client,
    url: String,
    token: String,
}

impl Bearer {
    async fn new(simulator: &Simulator) -> Self {
        let (client, url) = (client(), simulator.url());
        let key = json!({"accessKeyId": genauth::ACCESS_KEY_ID, "accessKeySecret": genauth::ACCESS_KEY_SECRET});
        let answer = client.post(format!("{url}/api/v3/get-management-token")).body(key.to_string()).send().await;
        let answer: Value = serde_json::from_str(&answer.unwrap().text().await.unwrap()).unwrap();
        let token = answer["data"]["access_token"].as_str().unwrap().to_owned();
        Self { client, url, token }
    }

    async fn send(&self, body: &Value) -> reqwest::Result<reqwest::Response> {
        let request = self.client.post(format!("{}{LOGS}", self.url)).bearer_auth(&self.token);
        request.header("x-genauth-userpool-id", genauth::USER_POOL_ID).body(body.to_string()).send().await
    }

    async fn get(&self, body: &Value) -> Value {
        serde_json::from_str(&self.send(body).await.unwrap().text().await.unwrap()).unwrap()
    }

    async fn page(&self, page: u64) -> Vec<Value> {
        let answer = self.get(&json!({"pagination": {"page": page, "limit": 50}})).await;
        answer["data"]["list"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
    }
}

async fn scloud(client: &Client, url: &str, more: &[(&str, &str)]) -> Value {
    let mut parameters: std::collections::BTreeMap<String, String> =
        [("Action", "GetUserOperationEvents"), ("PublicKey", scloud::PUBLIC_KEY), ("MaxResults", "50")]
            .iter()
            .chain(more)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
    parameters.insert("Signature".to_owned(), scloud::signature(&parameters, scloud::PRIVATE_KEY));
    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&parameters).finish();
    serde_json::from_str(&client.post(url).body(form).send().await.unwrap().text().await.unwrap()).unwrap()
}

fn counted<T: std::hash::Hash + Eq>(all: impl IntoIterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    counts
}

/// What `record` is, taken from its text by a parser that is not the simulator's.
fn genauth_content(record: &Value, odd: &[String]) -> Content {
    let text = record.to_string();
    if odd.contains(&text) {
        return Content::Odd(text);
    }
    let names = ["userId", "appId", "clientIp", "eventType", "eventDetail", "success", "userAgent", "timestamp"];
    let mut values: Vec<Value> = names.iter().map(|name| record[*name].clone()).collect();
    let spelled = values[7].as_str().unwrap().to_owned();
    let moment =
        jiff::fmt::strtime::parse("%Y-%m-%dT%H:%M:%S%.f%z", spelled.replace('Z', "+0000").replace("+08:00", "+0800"));
    values[7] = moment.unwrap().to_timestamp().unwrap().as_millisecond().into();
    values.push(record["requestId"].clone());
    Content::Identity(Value::from(values).to_string())
}

fn scloud_content(record: &Value, odd: &[String]) -> Content {
    let text = record.to_string();
    if odd.contains(&text) {
        return Content::Odd(text);
    }
    let resources: Vec<Value> =
        record["RelatedResource"].as_array().unwrap().iter().map(|resource| resource["ResourceId"].clone()).collect();
    let mut values =
        ["Region", "Api", "IsSuccess", "OperateTime", "UserName", "UserEmail"].map(|n| record[n].clone()).to_vec();
    values.extend([Value::from(resources), record["RemoteIP"].clone(), record["AccessKeyID"].clone()]);
    Content::Identity(Value::from(values).to_string())
}

fn truth(simulator: &Simulator, source: Source) -> (Vec<Content>, Vec<String>) {
    let all: Vec<Content> = simulator.truth(source, 0, i64::MAX).map(|truth| truth.content).collect();
    let odd = all.iter().filter_map(|content| match content {
        Content::Odd(text) => Some(text.clone()),
        Content::Identity(_) => None,
    });
    (all.clone(), odd.collect())
}

#[tokio::test]
async fn records_without_a_time_stand_in_every_window_and_large_ones_are_large() {
    let options = Options { timeless_everywhere: true, odd_share: 0.02, large_share: 0.02, ..quiet() };
    let simulator = Simulator::start(options).await.unwrap();
    let bearer = Bearer::new(&simulator).await;
    let truth: Vec<_> = simulator.truth(Source::Genauth, 0, i64::MAX).collect();
    let timeless = truth.iter().filter(|truth| truth.time.is_none()).count();
    let nobody_knows = json!({"start": 1, "end": 2, "pagination": {"page": 1, "limit": 50}});
    let answer = bearer.get(&nobody_knows).await;
    assert!(timeless > 4 && answer["data"]["totalCount"] == timeless, "{timeless}: {answer}");
    assert_eq!(answer["data"]["list"].as_array().unwrap().len(), timeless);
    let answer = scloud(&bearer.client, &bearer.url, &[("BeginTime", "1700000000"), ("EndTime", "1700000001")]).await;
    let timeless = simulator.truth(Source::Scloud, 0, i64::MAX).filter(|truth| truth.time.is_none()).count();
    assert_eq!(answer["Events"].as_array().unwrap().len(), timeless, "{answer}");
    let mut large = 0;
    for page in 1..=20 {
        large += bearer.page(page).await.iter().filter(|record| record.to_string().len() > 64 << 10).count();
    }
    assert_eq!(large, truth.iter().filter(|truth| truth.large).count());
    assert!((5..40).contains(&large), "{large}");
}

#[tokio::test]
async fn a_quiet_history_is_paged_into_exactly_the_truth() {
    for order in [Order::Oldest, Order::Newest] {
        let options = Options { twin_share: 0.5, odd_share: 0.05, burst: 120, order, empty_pages: 0.3, ..quiet() };
        let simulator = Simulator::start(options).await.unwrap();

        let (expected, odd) = truth(&simulator, Source::Genauth);
        let bearer = Bearer::new(&simulator).await;
        let mut read = Vec::new();
        for page in 1..=20 {
            read.extend(bearer.page(page).await.iter().map(|record| genauth_content(record, &odd)));
        }
        assert_eq!((read.len(), odd.is_empty()), (1_000, false));
        assert!(counted(read) == counted(expected));

        let (expected, odd) = truth(&simulator, Source::Scloud);
        let (mut read, mut token) = (Vec::new(), String::new());
        loop {
            let answer = scloud(&bearer.client, &bearer.url, &[("NextToken", &token)]).await;
            assert_eq!(answer["RetCode"], 0, "{answer}");
            read.extend(answer["Events"].as_array().unwrap().iter().map(|record| scloud_content(record, &odd)));
            match answer["NextToken"].as_str() {
                None | Some("") => break,
                Some(next) => next.clone_into(&mut token),
            }
        }
        assert!(counted(read) == counted(expected));
        let stats = simulator.stats();
        assert!(
            stats.scloud.empty_pages > 0 && stats.genauth.odd_records > 0 && stats.genauth.twins_cut > 0,
            "{stats:?}"
        );
        assert_eq!((stats.genauth.page_shifts, stats.scloud.page_shifts), (0, 0));
        simulator.shutdown().await;
    }
}

#[tokio::test]
async fn arrivals_shift_the_pages_of_the_newest_first() {
    let options = Options {
        rate: 250.0,
        order: Order::Newest,
        late_share: 0.5,
        late_max: Duration::from_secs(2),
        ..Options::default()
    };
    let simulator = Simulator::start(options).await.unwrap();
    let bearer = Bearer::new(&simulator).await;
    let mut token = String::new();
    for page in 1..=5 {
        bearer.page(page).await;
        let answer = scloud(&bearer.client, &bearer.url, &[("NextToken", &token)]).await;
        answer["NextToken"].as_str().unwrap().clone_into(&mut token);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let stats = simulator.stats();
    assert!(stats.genauth.page_shifts >= 3 && stats.scloud.page_shifts >= 3, "{stats:?}");
    assert!(stats.genauth.late_records > 0, "{stats:?}");
}

#[tokio::test]
async fn looked_up_fields_change_between_readings_and_the_rest_does_not() {
    let simulator = Simulator::start(Options { volatile_share: 0.5, ..quiet() }).await.unwrap();
    let bearer = Bearer::new(&simulator).await;
    let (one, other) = (bearer.page(1).await, bearer.page(1).await);
    let changed = |name: &str| one.iter().zip(&other).any(|(a, b)| a[name] != b[name]);
    assert!(changed("userLoginsCount") && changed("userDisplayName") && changed("geoip"));
    assert!(!changed("userId") && !changed("timestamp") && !changed("requestId"));
    assert!(one.iter().zip(&other).all(|(a, b)| genauth_content(a, &[]) == genauth_content(b, &[])));
}

#[tokio::test]
async fn requests_beyond_the_documented_limits_are_refused() {
    let simulator = Simulator::start(Options { max_rows: 500, ..quiet() }).await.unwrap();
    let bearer = Bearer::new(&simulator).await;
    for wrong in [
        json!({"pagination": {"limit": 51}}),
        json!({"pagination": {"page": 0}}),
        json!({"pagination": {"page": 11, "limit": 50}}),
        json!({"start": "yesterday"}),
        json!({"success": "yes"}),
    ] {
        assert_eq!(bearer.get(&wrong).await["statusCode"], 400, "{wrong}");
    }
    assert_eq!(simulator.stats().genauth.too_deep, 1);
    for (name, value, code) in [
        ("MaxResults", "51", 230),
        ("NextToken", "made-up", 230),
        ("ProjectId", "org-other", 292),
        ("Action", "X", 161),
    ] {
        assert_eq!(scloud(&bearer.client, &bearer.url, &[(name, value)]).await["RetCode"], code, "{name}");
    }
    let first = scloud(&bearer.client, &bearer.url, &[]).await;
    let next = first["NextToken"].as_str().unwrap();
    let moved = scloud(&bearer.client, &bearer.url, &[("NextToken", next), ("BeginTime", "5")]).await;
    assert_eq!(moved["RetCode"], 230, "{moved}");
}

#[tokio::test]
async fn filters_find_what_a_look_at_each_record_finds() {
    let simulator = Simulator::start(quiet()).await.unwrap();
    let bearer = Bearer::new(&simulator).await;
    let mut all = Vec::new();
    for page in 1..=20 {
        all.extend(bearer.page(page).await);
    }
    for name in ["requestId", "clientIp", "eventType", "userId", "appId", "success"] {
        let wanted = all.iter().find(|record| !record[name].is_null()).unwrap()[name].clone();
        let expected = all.iter().filter(|record| record[name] == wanted).count();
        let answer = bearer.get(&json!({name: wanted})).await;
        assert_eq!(answer["data"]["totalCount"], expected, "{name}");
    }
    let first = scloud(&bearer.client, &bearer.url, &[]).await;
    let events = first["Events"].as_array().unwrap();
    let resource = events.iter().find_map(|event| event["RelatedResource"][0]["ResourceId"].as_str()).unwrap();
    let found = scloud(&bearer.client, &bearer.url, &[("ResourceID", resource)]).await;
    let concerns =
        |event: &Value| event["RelatedResource"].as_array().unwrap().iter().any(|one| one["ResourceId"] == resource);
    let found = found["Events"].as_array().unwrap();
    assert!(!found.is_empty() && found.iter().all(concerns));
}

#[tokio::test]
async fn tokens_expire_and_the_clock_is_off() {
    let short = Duration::from_millis(300);
    let options = Options { token_ttl: short, next_token_ttl: short, clock_offset: -90_000, ..quiet() };
    let simulator = Simulator::start(options).await.unwrap();
    let bearer = Bearer::new(&simulator).await;
    let first = scloud(&bearer.client, &bearer.url, &[]).await;
    let answer = bearer.send(&json!({})).await.unwrap();
    let date = httpdate::parse_http_date(answer.headers()["date"].to_str().unwrap()).unwrap();
    let behind = date.elapsed().unwrap();
    assert!((89..93).contains(&behind.as_secs()), "{behind:?}");

    tokio::time::sleep(short).await;
    assert_eq!(bearer.get(&json!({})).await["statusCode"], 401);
    let next = scloud(&bearer.client, &bearer.url, &[("NextToken", first["NextToken"].as_str().unwrap())]).await;
    assert_eq!(next["RetCode"], 230);
    let stats = simulator.stats();
    assert_eq!((stats.genauth.expired_tokens, stats.scloud.expired_next_tokens), (1, 1));
}

#[tokio::test]
async fn each_fault_reaches_the_client_as_what_it_is() {
    async fn answer(options: Options) -> (Simulator, reqwest::Result<reqwest::Response>) {
        let simulator = Simulator::start(Options { ..options }).await.unwrap();
        let answer = client().post(format!("{}{LOGS}", simulator.url())).body("{}").send().await;
        (simulator, answer)
    }
    let (_kept, html) = answer(Options { html: 1.0, ..quiet() }).await;
    let html = html.unwrap();
    assert_eq!((html.status(), &html.headers()["content-type"] == "text/html"), (StatusCode::BAD_GATEWAY, true));

    let (_kept, throttled) = answer(Options { throttle_retry_after: 1.0, ..quiet() }).await;
    let throttled = throttled.unwrap();
    assert_eq!((throttled.status(), &throttled.headers()["retry-after"] == "1"), (StatusCode::TOO_MANY_REQUESTS, true));

    let (_kept, throttled) = answer(Options { throttle: 1.0, ..quiet() }).await;
    let throttled = throttled.unwrap();
    assert!(throttled.headers().get("retry-after").is_none());
    assert!(throttled.text().await.unwrap().contains("\"statusCode\":429"));

    let (closed, error) = answer(Options { close: 1.0, ..quiet() }).await;
    assert!(error.is_err());
    assert_eq!(closed.stats().genauth.closed, 1);

    let (hung, error) = answer(Options { hang: 1.0, hang_for: Duration::from_millis(200), ..quiet() }).await;
    assert!(error.is_err());
    assert_eq!(hung.stats().genauth.hung, 1);

    let torn = Simulator::start(Options { torn: 1.0, ..quiet() }).await.unwrap();
    let client = client();
    let (mut broken, mut cut) = (0, 0);
    while broken == 0 || cut == 0 {
        let answer = client.post(format!("{}{LOGS}", torn.url())).body("{}").send().await.unwrap();
        match answer.text().await {
            Err(_) => broken += 1,
            Ok(text) => cut += u32::from(serde_json::from_str::<Value>(&text).is_err()),
        }
    }
    assert!(torn.stats().genauth.torn > 0 && torn.stats().genauth.truncated > 0);
}

#[tokio::test]
async fn requests_beyond_the_limit_of_a_second_are_throttled() {
    let simulator = Simulator::start(Options { requests_per_second: 5, ..quiet() }).await.unwrap();
    let client = client();
    let mut throttled = 0;
    while throttled == 0 {
        throttled += u64::from(scloud(&client, &simulator.url(), &[]).await["RetCode"] == 153);
    }
    let stats = simulator.stats().scloud;
    assert!(stats.over_limit == 1 && stats.pages >= 5, "{stats:?}");
}

#[tokio::test]
async fn signed_requests_are_checked_in_every_part() {
    let simulator = Simulator::start(quiet()).await.unwrap();
    let client = client();
    let send = async |nonce: &str, ago: u64, secret: &str| -> Value {
        let date = httpdate::fmt_http_date(crate::clock::wall() - Duration::from_secs(ago));
        let headers = format!(
            "date:{date}\nx-authing-signature-method:HMAC-SHA1\nx-authing-signature-nonce:{nonce}\nx-authing-signature-version:1.0\n"
        );
        let signed = format!("POST\n{headers}{LOGS}?pagination={{\"page\":2,\"limit\":5}}&start=7");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        let signature = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            ring::hmac::sign(&key, signed.as_bytes()),
        );
        let answer = client
            .post(format!("{}{LOGS}", simulator.url()))
            .header("authorization", format!("authing {}:{signature}", genauth::ACCESS_KEY_ID))
            .header("date", date)
            .header("x-authing-signature-method", "HMAC-SHA1")
            .header("x-authing-signature-nonce", nonce)
            .header("x-authing-signature-version", "1.0")
            .body("{\"start\":7,\"pagination\":{\"page\":2,\"limit\":5}}");
        serde_json::from_str(&answer.send().await.unwrap().text().await.unwrap()).unwrap()
    };
    let right = genauth::ACCESS_KEY_SECRET;
    assert_eq!(send("n1", 0, right).await["statusCode"], 200);
    assert_eq!(send("n1", 0, right).await["apiCode"], 1306);
    assert_eq!(send("n2", 600, right).await["apiCode"], 1305);
    assert_eq!(send("n3", 0, "wrong").await["apiCode"], 1300);
    let unsigned = client.post(format!("{}{LOGS}", simulator.url())).body("{}").send().await.unwrap();
    assert!(unsigned.text().await.unwrap().contains("\"apiCode\":2020"));
}

#[tokio::test]
async fn equal_times_that_fill_pages_stand_in_another_order_each_time() {
    // A fixed start, so that each run of this test sees the same bursts.
    let start = Some(Start::At(1_700_000_000_000));
    let options = Options { burst: 120, unstable: true, start, events: Some(10_000), ..quiet() };
    let simulator = Simulator::start(options).await.unwrap();
    let crowd = counted(simulator.truth(Source::Genauth, 0, i64::MAX).map(|truth| truth.listed_at));
    let (moment, count) = crowd.into_iter().max_by_key(|(_, count)| *count).unwrap();
    assert!(count >= 120, "{count}");

    let bearer = Bearer::new(&simulator).await;
    let unit = json!({"start": moment, "end": moment, "pagination": {"page": 1, "limit": 50}});
    let (one, other) = (bearer.get(&unit).await, bearer.get(&unit).await);
    assert_eq!(one["data"]["totalCount"], count);
    let requests =
        |page: &Value| counted(page["data"]["list"].as_array().unwrap().iter().map(|r| r["requestId"].to_string()));
    assert!(requests(&one) != requests(&other));
    let stats = simulator.stats().genauth;
    assert_eq!((stats.shuffled_pages, stats.crowded_pages), (2, 2));
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_what_hangs() {
    let simulator = Simulator::start(Options { hang: 1.0, ..quiet() }).await.unwrap();
    let url = format!("{}{LOGS}", simulator.url());
    let hanging = tokio::spawn(async move { client().post(url).body("{}").send().await.is_err() });
    while simulator.stats().genauth.hung == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let started = std::time::Instant::now();
    simulator.shutdown().await;
    assert!(hanging.await.unwrap());
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn after_an_outage_it_goes_on_as_if_nothing_had_happened() {
    let now = crate::clock::now();
    let options = Options { start: Some(Start::At(now - 60_000)), rate: 100.0, events: None, ..quiet() };
    let before = Simulator::start(options.clone()).await.unwrap();
    let bearer = Bearer::new(&before).await;
    let (page, listen) = (bearer.page(1).await, before.addr());
    before.shutdown().await;
    assert!(bearer.send(&json!({})).await.is_err());
    let _after = Simulator::start(Options { listen, ..options }).await.unwrap();
    let requests = |page: &[Value]| page.iter().map(|record| record["requestId"].clone()).collect::<Vec<_>>();
    assert_eq!(requests(&page), requests(&bearer.page(1).await));
}

#[tokio::test]
async fn the_ledger_is_served_as_it_is() {
    let simulator = Simulator::start(Options { odd_share: 0.1, late_share: 0.1, ..quiet() }).await.unwrap();
    let client = client();
    let text =
        client.get(format!("{}/truth?source=scloud", simulator.url())).send().await.unwrap().text().await.unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ledger: Vec<Truth> = simulator.truth(Source::Scloud, 0, i64::MAX).collect();
    assert_eq!((lines.len(), ledger.len()), (1_000, 1_000));
    for (line, truth) in lines.iter().zip(&ledger) {
        match &truth.content {
            Content::Identity(identity) => assert_eq!(&line["identity"].to_string(), identity),
            Content::Odd(raw) => assert_eq!(line["raw"], *raw),
        }
        assert_eq!(line["late"], truth.late);
    }
    assert!(lines.iter().any(|line| line["late"] == true) && lines.iter().any(|line| line["time"].is_null()));
    let stats = client.get(format!("{}/stats", simulator.url())).send().await.unwrap().text().await.unwrap();
    assert!(stats.contains("\"page_shifts\":0"), "{stats}");
}
