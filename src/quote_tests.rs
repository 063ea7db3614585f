//! What passes, and what must never.

use proptest::prelude::*;

use super::*;

fn plain(said: &str) -> String {
    quote(said, &Secrets::default())
}

#[test]
fn what_names_a_fault_passes() {
    for said in [
        "entry too far behind, oldest acceptable timestamp is: 2026-01-01T00:00:00Z",
        "max entry size '262144' bytes exceeded for stream",
        "ingestion rate limit exceeded for user … (limit: 32768 bytes/sec)",
        "grpc: received message larger than max (5000000 vs. 4194304)",
        "token expired",
        "HTTP 503: no healthy upstream",
    ] {
        let expected = said.replace("bytes/sec)", "…").replace("no healthy", "no …");
        assert_eq!(plain(said), expected.replace("… …", "…"), "{said}");
    }
}

#[test]
fn what_names_somebody_does_not() {
    for said in [
        "ann@example.com",
        "Ann",
        "Rosa",
        "13812345678",
        "+86 138 1234 5678",
        "138-1234-5678",
        "(138) 1234-5678",
        "10.1.2.3",
        "10.1.2.3:443",
        "fe80::1",
        "65f0c1a2b3c4d5e6f7a8b9c0",
        "sk-live-abc",
        "eyJhbGciOi.J9",
        "\u{738b}",
        "GLLe8CCzqXb3ViX8kqeHG1Wk0oQ=",
        "hunter2",
        "x:hunter2",
        "org-acme",
        "4111 1111 1111 1111",
        "ann\\@x",
        "1 3 8 1 2 3 4 5 6 7 8",
    ] {
        for around in ["user {} not found", "{}", "unknown: '{}'", "value={}"] {
            let shown = plain(&around.replace("{}", said));
            let leaked = said
                .split(|c: char| !c.is_alphanumeric())
                .filter(|part| part.len() > 2)
                .find(|part| shown.contains(part));
            assert!(leaked.is_none() && shown.contains('…'), "{around} with {said}: {shown}");
        }
    }
    assert_eq!(plain("user \u{738b}\u{5c0f}\u{660e} phone 13812345678 not found"), "user … not found");
}

/// As a receiver of 0.1.0 repeated them: the token without its scheme, the pair of Basic decoded.
#[test]
fn every_piece_of_a_secret_is_one() {
    let basic = format!("Basic {}", STANDARD.encode("token:exceeded"));
    let secrets = Secrets::of(["Bearer sk-limit-abc/9", &basic, "p\"w rate", "42"]);
    for said in [
        "unknown token sk-limit-abc/9",
        "Bearer sk-limit-abc/9",
        "SK-LIMIT-ABC/9",
        "sk-limit-abc%2F9",
        "limit",
        "abc",
        "token:exceeded",
        "exceeded",
        "dG9rZW46ZXhjZWVkZWQ=",
        "dG9rZW46ZXhjZWVkZWQ",
        "p\\\"w rate",
        "p%22w%20rate",
        "42",
        "code 42",
    ] {
        let (hidden, shown) = (secrets.hide(said).to_lowercase(), quote(said, &secrets));
        for secret in ["limit", "abc", "exceeded", "dg9r", "42", "p\"w", "p\\\"w"] {
            assert!(!hidden.contains(secret) && !shown.to_lowercase().contains(secret), "{said}: {hidden}, {shown}");
        }
    }
    // What is no piece is left.
    assert_eq!(secrets.hide("cannot connect"), "cannot connect");
    assert!(!format!("{secrets:?}").contains("abc"));
}

proptest! {
    #[test]
    fn a_quote_is_one_bounded_line_without_what_is_unknown(said in "\\PC{0,600}|[a-c\\x00-\\x20]{0,600}|([a-z]{1,12} ){0,80}", secret in "[a-z]{3,8}") {
        let quoted = quote(&format!("{said}{secret} {said}"), &Secrets::of([secret.as_str()]));
        prop_assert!(quoted.chars().count() <= LONGEST_QUOTE + 1);
        prop_assert!(!quoted.chars().any(char::is_control) && !quoted.contains(&secret));
        let words = quoted.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
        for word in words {
            let word = word.to_ascii_lowercase();
            prop_assert!(WORDS.contains(&word.as_str()) || UNITS.contains(&word.as_str()) || quoted.ends_with('…') , "{}", word);
        }
    }

    /// However it is wrapped.
    #[test]
    fn a_secret_never_shows(secret in "[ -~]{1,40}", way in 0..6_usize, scheme in prop::sample::select(vec!["", "Bearer ", "Basic ", "Splunk "])) {
        prop_assume!(!secret.trim().is_empty());
        let secrets = Secrets::of([format!("{scheme}{secret}").as_str()]);
        let repeated = match way {
            0 => secret.clone(),
            1 => percent(secret.trim()),
            2 => STANDARD.encode(secret.trim()),
            3 => serde_json::Value::from(secret.trim()).to_string(),
            4 => secret.to_uppercase(),
            _ => format!("{scheme}{secret}"),
        };
        let hidden = secrets.hide(&format!("before {repeated} after"));
        let whole = secret.trim();
        if whole.chars().count() >= SHORTEST_PIECE || scheme.is_empty() {
            prop_assert!(!hidden.contains(whole) || "before  after".contains(whole), "{}", hidden);
        }
    }
}
