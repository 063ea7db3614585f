//! Parameters and signature of an SCloud request, however it was sent. Written from the vendor's description,
//! not from this program's client.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, Method, header};
use serde_json::Value;
use sha1::{Digest as _, Sha1};

/// Parameters by name, flat: a list's members are `Name.0`, `Name.1`, ….
pub type Parameters = BTreeMap<String, String>;

/// The parameters of a request with a query string, a form or JSON; `None` when the body is none of these.
#[must_use]
pub fn parameters(method: &Method, query: &str, headers: &HeaderMap, body: &[u8]) -> Option<Parameters> {
    let pairs = |text: &[u8]| url::form_urlencoded::parse(text).into_owned().collect::<Parameters>();
    let mut all = pairs(query.as_bytes());
    if method == Method::GET {
        return Some(all);
    }
    let json = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if json {
        let Ok(Value::Object(members)) = serde_json::from_slice(body) else { return None };
        for (name, value) in &members {
            flatten(name, value, &mut all);
        }
    } else {
        all.extend(pairs(body));
    }
    Some(all)
}

fn flatten(name: &str, value: &Value, into: &mut Parameters) {
    match value {
        Value::Null => {}
        Value::Array(members) => {
            for (place, member) in members.iter().enumerate() {
                flatten(&format!("{name}.{place}"), member, into);
            }
        }
        Value::Object(members) => {
            for (inner, member) in members {
                flatten(&format!("{name}.{inner}"), member, into);
            }
        }
        Value::String(text) => {
            into.insert(name.to_owned(), text.clone());
        }
        Value::Number(number) => {
            let text = match number.as_f64() {
                // Whole floats count as integers.
                Some(float) if number.is_f64() && float.fract() == 0.0 => format!("{float:.0}"),
                _ => number.to_string(),
            };
            into.insert(name.to_owned(), text);
        }
        Value::Bool(value) => {
            into.insert(name.to_owned(), value.to_string());
        }
    }
}

/// The signature that these parameters need: SHA-1 over the names and values in order of name, then the key.
#[must_use]
pub fn signature(parameters: &Parameters, private_key: &str) -> String {
    let mut hash = Sha1::new();
    for (name, value) in parameters.iter().filter(|(name, _)| *name != "Signature") {
        hash.update(name);
        hash.update(value);
    }
    hash.update(private_key);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE_KEY: &str = "46f09bb9fab4f12dfc160dae12273d5332b5debe";

    #[test]
    fn signatures_equal_the_published_ones() {
        for (key, region, expected) in [
            ("ucloudsomeone@example.com1296235120854146120", "cn-bj2", "cba5cf5ec4d4233d206b1b54951e3787350a642f"),
            ("john.doe@example.com1296235120854146120", "vn-sng", "52fc1191f026532c9100946c6a863a90d5f766ed"),
            ("someone@example.com1296235120854146120", "cn-bj2", "4201919d267504385deb93af19e0197870fed36b"),
        ] {
            let pairs = [("Action", "DescribeUHostInstance"), ("Limit", "10"), ("PublicKey", key), ("Region", region)];
            let parameters = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            assert_eq!(signature(&parameters, PRIVATE_KEY), expected);
        }
    }

    #[test]
    fn three_ways_of_sending_are_one() {
        let expected: Parameters =
            [("Action", "A b"), ("AccessKeyIDs.0", "k&1"), ("Limit", "10")].map(|(n, v)| (n.into(), v.into())).into();
        let query = "Action=A%20b&AccessKeyIDs.0=k%261&Limit=10";
        let mut headers = HeaderMap::new();
        assert_eq!(parameters(&Method::GET, query, &headers, b""), Some(expected.clone()));
        assert_eq!(parameters(&Method::POST, "", &headers, query.as_bytes()), Some(expected.clone()));
        headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        let json = br#"{"Action":"A b","AccessKeyIDs":["k&1"],"Limit":10.0}"#;
        assert_eq!(parameters(&Method::POST, "", &headers, json), Some(expected));
        assert_eq!(parameters(&Method::POST, "", &headers, b"[]"), None);
    }
}
