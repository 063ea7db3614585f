//! What answers have in common: a list of records that is read no further than is bearable, and members whose type is
//! not taken on trust.
//!
//! A missing, mistyped or contradictory member is an error, never "nothing". What can mean only one thing is read as
//! that, whatever its spelling.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::FetchError;
use super::members::{Said, listing};
use crate::quote::Secrets;

/// The most records that an answer may list. An API may overlook the limit that was asked for; twenty times the most
/// that both document is no page any more.
pub(super) const MOST_ROWS: usize = 1000;

/// What a parser says of more.
pub(super) const TOO_MANY: &str = "more records than a page has";

/// The longest token that is carried to the next page, in bytes.
const LONGEST_TOKEN: usize = 4096;

/// The most records that an API is believed to count between two bounds.
const MOST_COUNTED: i64 = 1_000_000_000_000;

/// A list as an answer has it. Parsing stops at [`MOST_ROWS`].
#[derive(Debug, Default)]
pub(super) enum List<'a> {
    /// No such member, or `null`.
    #[default]
    Missing,
    /// An empty list in another spelling: `{}` or `""`, as writers without types make of one.
    Nothing,
    Rows(Vec<&'a RawValue>),
    /// Something that is no list.
    Wrong,
}

impl<'de: 'a, 'a> Deserialize<'de> for List<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

impl Said for List<'_> {
    fn is_said_by(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Rows(rows), Self::Rows(others)) => {
                rows.len() == others.len() && rows.iter().zip(others).all(|(row, other)| row.is_said_by(other))
            }
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }
}

struct ListVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for ListVisitor<'a> {
    type Value = List<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::with_capacity(50);
        while let Some(row) = elements.next_element::<&'a RawValue>()? {
            if rows.len() == MOST_ROWS {
                return Err(A::Error::custom(TOO_MANY));
            }
            rows.push(row);
        }
        Ok(List::Rows(rows))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut list = List::Nothing;
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            list = List::Wrong;
        }
        Ok(list)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(if text.trim().is_empty() { List::Nothing } else { List::Wrong })
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(List::Missing)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(List::Wrong)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(List::Wrong)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(List::Wrong)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(List::Wrong)
    }
}

/// An answer that has no list under the name of `list`: one that has it under another is no page. An API that changed, or
/// what stands before it, would count as silent for ever.
pub(super) fn under_another_name(list: &str, answer: &str, secrets: &[&str]) -> Result<(), FetchError> {
    let word = list.to_ascii_lowercase();
    let Some(name) = listing(answer, word.trim_end_matches('s')) else { return Ok(()) };
    // Not `quote`, which knows no such words: a name as members have one names nobody.
    let is_name = name.len() <= 60 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    let name = if is_name { Secrets::of(secrets.iter().copied()).hide(&name) } else { "…".to_owned() };
    Err(FetchError::malformed(format!(
        "the answer has no {list}, and lists something as {name}, which is not documented"
    )))
}

/// A value that should be a whole number, tolerating a string of one and any spelling of it.
pub(super) fn int(value: Option<&RawValue>) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let text = value?.get().trim_matches('"').trim();
    text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok()?;
        // `as` is exact for whole numbers below 2^53.
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
        (number.fract() == 0.0 && number.abs() < EXACT).then_some(number as i64)
    })
}

/// A value that should be a string; a number counts as its digits.
pub(super) fn text(value: Option<&RawValue>) -> Option<String> {
    match serde_json::from_str(value?.get()).ok()? {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A member that may be missing.
pub(super) fn present(value: Option<&RawValue>) -> Option<&RawValue> {
    value.filter(|value| value.get() != "null")
}

/// How many records the API counts, if it does.
pub(super) fn count(value: Option<&RawValue>) -> Result<Option<u64>, FetchError> {
    let Some(value) = present(value) else { return Ok(None) };
    match int(Some(value)) {
        Some(count @ 0..=MOST_COUNTED) => Ok(Some(count.unsigned_abs())),
        _ => Err(FetchError::malformed("the answer's count of records is no number that could be one")),
    }
}

/// The token of the next page, if there is one: an empty one is none.
pub(super) fn token(value: Option<&RawValue>) -> Result<Option<String>, FetchError> {
    let Some(value) = present(value) else { return Ok(None) };
    // Before it is decoded: its text is no shorter than what it stands for.
    if value.get().len() > 6 * LONGEST_TOKEN {
        return Err(too_long());
    }
    match text(Some(value)) {
        Some(token) if token.len() > LONGEST_TOKEN => Err(too_long()),
        Some(token) => Ok(Some(token).filter(|token| !token.is_empty())),
        None => Err(FetchError::malformed("the answer's token of the next page is neither text nor a number")),
    }
}

fn too_long() -> FetchError {
    FetchError::malformed(format!("the answer's token of the next page is longer than {LONGEST_TOKEN} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).expect("the test's JSON is valid")
    }

    #[test]
    fn a_list_is_what_it_says_or_wrong() {
        let list = |json| serde_json::from_str::<List<'_>>(json).expect("it is JSON");
        assert!(matches!(list("null"), List::Missing));
        for json in ["{}", "\"\"", "\" \""] {
            assert!(matches!(list(json), List::Nothing), "{json}");
        }
        for json in ["{\"a\":1}", "\"none\"", "true", "7", "-7", "0.5"] {
            assert!(matches!(list(json), List::Wrong), "{json}");
        }
        assert!(matches!(list("[1, {}]"), List::Rows(rows) if rows.len() == 2));
        let many = |rows: usize| format!("[{}0]", "0,".repeat(rows - 1));
        assert!(matches!(list(&many(MOST_ROWS)), List::Rows(rows) if rows.len() == MOST_ROWS));
        let more = many(MOST_ROWS + 1);
        let error = serde_json::from_str::<List<'_>>(&more).expect_err("too many");
        assert!(error.to_string().starts_with(TOO_MANY), "{error}");
    }

    #[test]
    fn numbers_are_read_in_any_spelling_and_nothing_else_is() {
        for (json, number) in [
            ("200", Some(200)),
            ("\"200\"", Some(200)),
            ("\" 200 \"", Some(200)),
            ("200.0", Some(200)),
            ("2e2", Some(200)),
            ("200.5", None),
            ("1e300", None),
            ("true", None),
            ("{}", None),
            ("\"\"", None),
        ] {
            assert_eq!(int(Some(raw(json))), number, "{json}");
        }
        for (json, good) in [("0", true), ("-1", false), ("9223372036854775807", false), ("{}", false), ("true", false)]
        {
            assert_eq!(count(Some(raw(json))).is_ok(), good, "{json}");
        }
        assert_eq!(count(Some(raw("null"))).expect("absent"), None);
    }

    #[test]
    fn a_token_is_short_text() {
        for (json, token_is) in [("null", None), ("\"\"", None), ("\"a\"", Some("a")), ("7", Some("7"))] {
            assert_eq!(token(Some(raw(json))).expect("a token").as_deref(), token_is, "{json}");
        }
        let long = format!("\"{}\"", "x".repeat(LONGEST_TOKEN + 1));
        for json in ["{}", "true", "false", "[]", "[\"a\"]", &long] {
            assert_eq!(token(Some(raw(json))).expect_err(json).class, super::super::FailureClass::Malformed);
        }
    }
}
