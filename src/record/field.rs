//! A field of a record: its own JSON text until someone asks what it means.
//!
//! That is what makes a record tolerant. A field of another type than the documented one cannot fail the record
//! or its other fields, because nothing is interpreted while the record is parsed, and nothing is copied either.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A field's value, borrowed from the record's text. A `null` is an absent field.
#[derive(Debug, Clone, Copy, Default)]
pub struct Field<'a>(Option<&'a str>);

/// What a field is, for code that must not confuse the string `"1"` with the number `1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// Missing or `null`.
    Absent,
    /// A string, decoded.
    Text(Cow<'a, str>),
    /// Any other JSON value, and a string that stands for no Unicode text (a lone surrogate): the JSON text.
    Json(&'a str),
}

impl<'a> Field<'a> {
    /// The value with its JSON type.
    pub fn value(self) -> Value<'a> {
        let Some(json) = self.0 else { return Value::Absent };
        let Some(inner) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return Value::Json(json);
        };
        if !inner.as_bytes().contains(&b'\\') {
            return Value::Text(Cow::Borrowed(inner));
        }
        serde_json::from_str(json).map_or(Value::Json(json), |text: String| Value::Text(Cow::Owned(text)))
    }

    /// The value for a reader: a string's text, and of anything else its JSON text. An empty string says nothing.
    pub fn text(self) -> Option<Cow<'a, str>> {
        match self.value() {
            Value::Absent => None,
            Value::Text(text) => Some(text).filter(|text| !text.is_empty()),
            Value::Json(json) => Some(Cow::Borrowed(json)),
        }
    }

    /// A truth value, also as a string or as 0 or 1.
    pub fn truth(self) -> Option<bool> {
        match self.scalar()? {
            word if word.eq_ignore_ascii_case("true") || word == "1" => Some(true),
            word if word.eq_ignore_ascii_case("false") || word == "0" => Some(false),
            _ => None,
        }
    }

    /// A finite number, also as a string.
    pub fn number(self) -> Option<f64> {
        self.scalar()?.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// A whole number, also as a string or as a decimal whose fraction is zero.
    pub fn integer(self) -> Option<i64> {
        let text = self.scalar()?;
        let whole = match text.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() && fraction.bytes().all(|digit| digit == b'0') => whole,
            Some(_) => return None,
            None => text,
        };
        whole.parse().ok()
    }

    /// The members of an object.
    pub fn object<T: Object<'a>>(self) -> Option<T> {
        parse(self.0?)
    }

    /// The elements of an array.
    pub fn array(self) -> Option<Vec<Field<'a>>> {
        let elements: Vec<&'a RawValue> = serde_json::from_str(self.0?).ok()?;
        Some(elements.into_iter().map(Field::from).collect())
    }

    /// The text of a number or truth value, whether or not it stands in quotes.
    fn scalar(self) -> Option<&'a str> {
        Some(self.0?.trim_matches('"').trim())
    }
}

impl<'a> From<&'a RawValue> for Field<'a> {
    fn from(value: &'a RawValue) -> Self {
        Self(Some(value.get()).filter(|json| *json != "null"))
    }
}

/// A struct of [`Field`]s that a JSON object fills, declared by `object!`.
pub trait Object<'a>: Default {
    /// Where the member named `key` goes; `None` for a member that the struct does not know.
    fn slot(&mut self, key: &str) -> Option<&mut Field<'a>>;
}

/// Declares an [`Object`]: a struct with a [`Field`] for each listed member name, or names.
macro_rules! object {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $($key:literal)|+,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, Default)]
        pub struct $name<'a> {
            $($(#[$doc])* pub $field: $crate::record::field::Field<'a>,)+
        }

        impl<'a> $crate::record::field::Object<'a> for $name<'a> {
            fn slot(&mut self, key: &str) -> Option<&mut $crate::record::field::Field<'a>> {
                match key {
                    $($($key)|+ => Some(&mut self.$field),)+
                    _ => None,
                }
            }
        }
    };
}
pub(super) use object;

/// Reads one JSON object. Unknown members are skipped, and of a repeated one the last counts. `None` for text
/// that is not exactly one JSON object.
pub fn parse<'a, T: Object<'a>>(json: &'a str) -> Option<T> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let object = deserializer.deserialize_map(Members(PhantomData)).ok()?;
    deserializer.end().ok()?;
    Some(object)
}

struct Members<T>(PhantomData<T>);

impl<'a, T: Object<'a>> Visitor<'a> for Members<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut members: A) -> Result<T, A::Error> {
        let mut object = T::default();
        while let Some(slot) = members.next_key_seed(Slot(&mut object, PhantomData))? {
            match slot {
                Some(field) => *field = members.next_value::<&'a RawValue>()?.into(),
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(object)
    }
}

struct Slot<'o, 'a, T>(&'o mut T, PhantomData<&'a str>);

impl<'o, 'a: 'o, T: Object<'a>> DeserializeSeed<'a> for Slot<'o, 'a, T> {
    type Value = Option<&'o mut Field<'a>>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'o, 'a: 'o, T: Object<'a>> Visitor<'a> for Slot<'o, 'a, T> {
    type Value = Option<&'o mut Field<'a>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.slot(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    object! {
        One { one: "one" | "uno", }
    }

    fn field(json: &str) -> Field<'_> {
        serde_json::from_str::<&RawValue>(json).expect("the test's JSON is valid").into()
    }

    #[test]
    fn a_value_keeps_its_type() {
        assert_eq!(field("null").value(), Value::Absent);
        assert_eq!(field(r#""a""#).value(), Value::Text("a".into()));
        assert_eq!(field(r#""\u0061\n""#).value(), Value::Text("a\n".into()));
        assert_eq!(field("1.50").value(), Value::Json("1.50"));
        assert_eq!(field(r#""\ud800""#).value(), Value::Json(r#""\ud800""#), "a lone surrogate is no text");
    }

    #[test]
    fn text_is_what_a_reader_sees() {
        assert_eq!(field("\"\"").text(), None);
        assert_eq!(field("17").text().as_deref(), Some("17"));
        assert_eq!(field(r#"{"a":1}"#).text().as_deref(), Some(r#"{"a":1}"#));
    }

    #[test]
    fn scalars_are_read_in_any_spelling() {
        for (json, truth) in [("true", Some(true)), ("\"False\"", Some(false)), ("1", Some(true)), ("{}", None)] {
            assert_eq!(field(json).truth(), truth, "{json}");
        }
        for (json, number) in
            [("1.5", Some(1.5)), ("\"-1.5\"", Some(-1.5)), ("\"inf\"", None), ("1e999", None), ("[]", None)]
        {
            assert_eq!(field(json).number(), number, "{json}");
        }
        for (json, integer) in
            [("7", Some(7)), ("\"7\"", Some(7)), ("7.0", Some(7)), ("7.5", None), ("7.", None), ("true", None)]
        {
            let field = if json == "7." { Field(Some(json)) } else { field(json) };
            assert_eq!(field.integer(), integer, "{json}");
        }
    }

    #[test]
    fn an_object_takes_the_last_of_repeated_members_and_skips_unknown_ones() {
        let one: One = parse(r#" {"one":1,"two":[{"one":3}],"\u006fne":2} "#).expect("it is an object");
        assert_eq!(one.one.value(), Value::Json("2"));
        let other_name: One = parse(r#"{"uno":1}"#).expect("it is an object");
        assert_eq!(other_name.one.value(), Value::Json("1"));
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        for text in ["", "[]", "1", "null", "{", "{} {}", "{\"one\":}"] {
            assert!(parse::<One<'_>>(text).is_none(), "{text}");
        }
    }
}
