//! What every line must be, whatever the record.

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{FORMATS, event, line, operation, user_action};
use crate::encode::Format;
use crate::event::Source;

/// Values that no field is documented to have.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(vec!["true", "1", "1.0", "10.0.0.1", "::1", "a@b.c", "2022-09-20T08:55:00Z", "iOS"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = prop_oneof![
            prop::sample::select(vec!["ResourceId", "ResourceName", "location", "lat", "lon", "os", "name"])
                .prop_map(str::to_owned),
            "\\PC{0,4}".prop_map(String::from),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..4).prop_map(|members| Value::from(Map::from_iter(members))),
        ]
    })
}

/// A documented record with some fields replaced, and others left out.
fn any_record() -> impl Strategy<Value = (Source, String)> {
    let source = prop::sample::select(vec![(Source::Genauth, user_action()), (Source::Scloud, operation())]);
    (source, prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(any_json())), 0..6), any::<bool>())
        .prop_map(|((source, record), changes, pretty)| {
            let Value::Object(mut members) = record else { unreachable!("the records above are objects") };
            for (index, change) in changes {
                let name = members.keys().nth(index.index(members.len())).expect("the index is in range").clone();
                match change {
                    Some(value) => members.insert(name, value),
                    None => members.shift_remove(&name),
                };
            }
            let record = Value::Object(members);
            (source, if pretty { format!("{record:#}") } else { record.to_string() })
        })
}

#[derive(serde::Deserialize)]
struct NativeLine<'a> {
    #[serde(borrow)]
    record: &'a RawValue,
}

fn one_line_with_its_text(source: Source, raw: &str) -> Result<(), TestCaseError> {
    let is_json = serde_json::from_str::<&RawValue>(raw).is_ok();
    for format in FORMATS {
        let line = line(format, true, source, raw.as_bytes());
        prop_assert!(!line.contains(['\n', '\r']));
        let value: Value = serde_json::from_str(&line).map_err(|error| TestCaseError::fail(error.to_string()))?;
        match format {
            Format::Ocsf => prop_assert_eq!(value["raw_data"].as_str(), Some(raw)),
            Format::Ecs => prop_assert_eq!(value["event"]["original"].as_str(), Some(raw)),
            Format::Native if is_json => {
                let native: NativeLine<'_> = serde_json::from_str(&line).expect("it was parsed before");
                let unbroken = raw.replace(['\n', '\r'], "");
                prop_assert_eq!(native.record.get(), unbroken.trim_matches([' ', '\t']));
            }
            Format::Native => prop_assert_eq!(value["record"].as_str(), Some(raw)),
            Format::Otlp => unreachable!("it is no line"),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_record_is_one_line_with_its_text((source, raw) in any_record()) {
        one_line_with_its_text(source, &raw)?;
    }

    #[test]
    fn any_text_is_one_line_with_its_text(raw in prop_oneof![any::<String>(), "[ \t\r\n]*\\{[\"a: ,\\\\1\n]*\\}", any_json().prop_map(|json| json.to_string())]) {
        one_line_with_its_text(Source::Genauth, &raw)?;
        one_line_with_its_text(Source::Scloud, &raw)?;
    }

    #[test]
    fn any_bytes_are_one_line(raw: Vec<u8>, with_raw: bool) {
        for format in FORMATS {
            let line = line(format, with_raw, Source::Genauth, &raw);
            prop_assert!(serde_json::from_str::<Value>(&line).is_ok_and(|value| value.is_object()));
        }
    }

    #[test]
    fn a_mistyped_field_takes_no_other_with_it(odd in any_json(), at: prop::sample::Index) {
        let record = user_action();
        let names: Vec<&String> = record.as_object().expect("it is an object").keys().collect();
        let name = names[at.index(names.len())].as_str();
        let mut changed = record.clone();
        changed[name] = odd;
        // Where each field ends in an ECS event; some fields are in several places, one will do.
        let homes = [
            ("userId", "/user/id"), ("userDisplayName", "/user/full_name"), ("userAvatar", "/genauth/user/avatar"),
            ("userLoginsCount", "/genauth/user/logins_count"), ("appId", "/service/id"), ("appName", "/service/name"),
            ("appLoginUrl", "/genauth/app/login_url"), ("appLogo", "/genauth/app/logo"), ("clientIp", "/client/ip"),
            ("eventType", "/event/action"), ("eventDetail", "/message"), ("success", "/event/outcome"),
            ("userAgent", "/user_agent/original"), ("parsedUserAgent", "/user_agent/os/name"),
            ("geoip", "/client/geo/city_name"), ("requestId", "/http/request/id"),
        ];
        let (before, after) = (event(Format::Ecs, Source::Genauth, &record), event(Format::Ecs, Source::Genauth, &changed));
        for (field, home) in homes.into_iter().filter(|(field, _)| *field != name) {
            prop_assert!(before.pointer(home).is_some(), "{} is in {}", field, home);
            prop_assert_eq!(before.pointer(home), after.pointer(home), "{} with another {}", field, name);
        }
    }
}
