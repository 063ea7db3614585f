//! Brokers that ask who is there: what works, what is said where it does not, and what is never said.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use trailcast::simulate::{Simulator, Start};

use crate::broker::{Broker, Options};
use crate::pipeline::{LETTERS, STATE, TOPIC, delivers_more, finish_exactly_once, in_kafka, into_kafka, seconds_ago};
use crate::program::{Config, Program, simulate};

const PASSWORD: &str = "wonder-land-42";
const WRONG: &str = "looking-glass-43";

/// Both streams of `simulator` into a broker with such `tls` and `sasl`, as talkative as it can be.
fn secured(simulator: &Simulator, start: i64, broker: &Broker, security: &str) -> Config {
    let config = Config::of(simulator).starting_at(start);
    let mut config = into_kafka(config, &broker.bootstrap(), security);
    config = in_kafka(config, &broker.bootstrap(), &format!("session_timeout: 10s, {security}"));
    config.level = "debug";
    config
}

/// Topics are made by someone else: with a token there is no client for that.
async fn topics(broker: &Broker) {
    let java = broker.java();
    java.create(TOPIC, 3, 1, &[]).await;
    java.create(STATE, 2, 1, &["cleanup.policy=compact"]).await;
    java.create(LETTERS, 1, 1, &[]).await;
}

fn tls(broker: &Broker, ca: &str) -> String {
    format!("tls: {{ ca_file: \"{}\" }}", broker.certificates().join(ca).display())
}

fn password(mechanism: &str, file: &Path) -> String {
    format!("sasl: {{ mechanism: {mechanism}, username: alice, password: {{ file: \"{}\" }} }}", file.display())
}

/// All that it shows holds none of these.
async fn tells_none(program: &Program, secrets: &[&str]) {
    let shown = [program.log(), program.get("/metrics").await, program.get("/status").await].concat();
    for secret in secrets {
        assert!(!shown.contains(secret), "it tells {secret:?}");
    }
}

/// The line of its log that says `text`, at ERROR unless it may pass by itself, with the reason that metrics and status give.
async fn complains(program: &Program, text: &str, reason: &str) -> String {
    let look = async || {
        let lines = program.logged(text).into_iter().map(|line| serde_json::from_str::<Value>(&line).unwrap());
        let loud = |line: &Value| line["level"] == "ERROR" || line["level"] == "WARN" && reason == "connect";
        lines.into_iter().find(|line| loud(line) && line["reason"] == reason)
    };
    let line = program.shows(&format!("an error of {reason} with {text:?}"), look).await;
    line["message"].as_str().unwrap().to_owned()
}

/// What `check` says of the cluster, as the sink's and as the checkpoint's: that it cannot be used, with all of `words`.
async fn check_fails(config: &Config, words: &[&str]) {
    let answer = config.command(&["check"], &["--json"]).await;
    assert_eq!(answer.code, Some(1), "{answer:?}");
    let findings: Vec<Value> = serde_json::from_str(&answer.stdout).unwrap();
    for part in ["sinks.events", "checkpoint"] {
        let mut of_part = findings.iter().filter(|finding| finding["part"] == part);
        let finding = of_part.next().unwrap_or_else(|| panic!("{answer:?}"));
        let message = finding["message"].as_str().unwrap();
        assert!(finding["state"] == "failed" && words.iter().all(|word| message.contains(word)), "{finding}");
        assert!(of_part.next().is_none(), "{answer:?}");
    }
    assert!(![PASSWORD, WRONG].iter().any(|secret| answer.stdout.contains(secret)), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mechanism_over_tls_and_what_is_said_of_a_wrong_password_or_authority() {
    let mechanisms = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER";
    // Without a validator of its own a broker believes tokens that nobody signed.
    let unsecured = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
                     unsecuredLoginStringClaim_sub=\"broker\";";
    let options = Options::default().tls().user("alice", PASSWORD);
    let options = options.with("listener.name.client.sasl.enabled.mechanisms", mechanisms);
    let broker = Broker::start(options.with("listener.name.client.oauthbearer.sasl.jaas.config", unsecured)).await;
    let start = seconds_ago(5);
    let simulator = simulate(trailcast::simulate::Options {
        start: Some(Start::At(start)),
        events: Some(20_000),
        ..Default::default()
    })
    .await;
    topics(&broker).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");

    // Wrong: said, and tried again with what the file says by then.
    std::fs::write(&file, WRONG).unwrap();
    let scram = format!("{}, {}", tls(&broker, "ca.pem"), password("SCRAM-SHA-512", &file));
    let config = secured(&simulator, start, &broker, &scram);
    check_fails(&config, &["look at `sasl`", "uthentication failed"]).await;
    let program = config.run();
    let message = complains(&program, "look at `sasl`", "credentials").await;
    assert!(message.contains("uthentication failed"), "{message}");
    assert_eq!(program.get("/readyz").await, "waiting for: checkpoint\n");
    std::fs::write(&file, PASSWORD).unwrap();
    delivers_more(&program, 20.0).await;
    tells_none(&program, &[PASSWORD, WRONG]).await;
    program.drain().await;

    // The same of the sink alone, whose checkpoint is a file.
    std::fs::write(&file, WRONG).unwrap();
    let mut plain = secured(&simulator, start, &broker, &scram);
    plain.store = None;
    let program = plain.run();
    complains(&program, "look at `sasl`", "credentials").await;
    let lanes = program.status().await["lanes"].clone();
    let failing = |lane: &Value| lane["state"] == "failing" && lane["reason"] == "credentials";
    assert!(lanes.as_array().unwrap().iter().any(failing), "{lanes}");
    tells_none(&program, &[PASSWORD, WRONG]).await;
    drop(program);
    std::fs::write(&file, PASSWORD).unwrap();

    // An authority that did not sign the broker's certificate.
    let unknown = format!("{}, {}", tls(&broker, "other-ca.pem"), password("SCRAM-SHA-512", &file));
    let config = secured(&simulator, start, &broker, &unknown);
    check_fails(&config, &["look at `tls.ca_file`", "certificate verify failed"]).await;
    let program = config.run();
    let message = complains(&program, "look at `tls.ca_file`", "connect").await;
    assert!(message.contains("certificate verify failed"), "{message}");
    drop(program);

    // No TLS at all.
    let config = secured(&simulator, start, &broker, &password("SCRAM-SHA-512", &file));
    let program = config.run();
    complains(&program, "look at `", "connect").await;
    tells_none(&program, &[PASSWORD]).await;
    drop(program);

    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        let security = format!("{}, {}", tls(&broker, "ca.pem"), password(mechanism, &file));
        let config = secured(&simulator, start, &broker, &security);
        let program = config.run();
        delivers_more(&program, 20.0).await;
        tells_none(&program, &[PASSWORD]).await;
        program.drain().await;
    }
    let token = token();
    std::fs::write(&file, &token).unwrap();
    let sasl = format!("sasl: {{ mechanism: OAUTHBEARER, token: {{ file: \"{}\" }} }}", file.display());
    let config = secured(&simulator, start, &broker, &format!("{}, {sasl}", tls(&broker, "ca.pem")));
    let program = config.run();
    delivers_more(&program, 20.0).await;
    tells_none(&program, &[&token]).await;
    finish_exactly_once([program], &simulator, &broker.java()).await;
}

/// A token that nobody signed.
fn token() -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let now = trailcast::clock::now() / 1000;
    let claims = json!({ "sub": "alice", "iat": now, "exp": now + 3600 });
    format!("{}.{}.", part(json!({ "alg": "none" })), part(claims))
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_both_sides() {
    let broker = Broker::start(Options::default().mutual_tls()).await;
    let simulator = simulate(crate::program::history(300)).await;
    let certificates = broker.certificates();
    let with = |ca: &str, own: &str| {
        let path = |name: &str| certificates.join(name).display().to_string();
        let (ca, certificate, key) = (path(ca), path(&format!("{own}.pem")), path(&format!("{own}.key")));
        let tls = format!("tls: {{ ca_file: \"{ca}\", certificate_file: \"{certificate}\", key_file: \"{key}\" }}");
        secured(&simulator, simulator.now() - 600_000, &broker, &tls)
    };
    topics(&broker).await;
    let without = secured(&simulator, 0, &broker, &tls(&broker, "ca.pem"));
    for config in [without, with("ca.pem", "other")] {
        let program = config.run();
        complains(&program, "look at `tls", "connect").await;
    }
    let config = with("ca.pem", "client");
    let program = config.run();
    finish_exactly_once([program], &simulator, &broker.java()).await;
}

/// The broker's certificate is replaced, and a while later the authority's on this side: what fails for it goes on without a
/// restart. Exactly once (the group's consumer with it), and the plain sink alone.
async fn certificates_that_are_replaced(exactly_once: bool) {
    let mut broker = Broker::start(Options::default().tls().with("group.min.session.timeout.ms", "1000")).await;
    let start = seconds_ago(5);
    let begin = Some(Start::At(start));
    let simulator = simulate(trailcast::simulate::Options { rate: 20.0, start: begin, ..Default::default() }).await;
    topics(&broker).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::copy(broker.certificates().join("ca.pem"), &ca).unwrap();
    let tls = format!("tls: {{ ca_file: \"{}\" }}", ca.display());
    let mut config = secured(&simulator, start, &broker, &tls);
    if !exactly_once {
        config.store = None;
    }
    let program = config.run();
    delivers_more(&program, 50.0).await;

    let new = folder.path().join("new");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/certificates");
    assert!(std::process::Command::new(script).arg(&new).status().unwrap().success());
    broker.kill();
    std::fs::copy(new.join("server-keystore.pem"), broker.certificates().join("server-keystore.pem")).unwrap();
    broker.restart().await;
    program.says("certificate verify failed").await;
    std::fs::copy(new.join("ca.pem"), &ca).unwrap();
    delivers_more(&program, 50.0).await;
    if exactly_once {
        finish_exactly_once([program], &simulator, &broker.java()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_are_replaced_count_exactly_once() {
    certificates_that_are_replaced(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_are_replaced_count_without_transactions() {
    certificates_that_are_replaced(false).await;
}
