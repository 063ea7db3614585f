//! The members of an answer's objects, by name.
//!
//! One that comes twice and says the same has said it; one that says two things is no answer. Lists that have another name
//! than documented are found, so that they do not count as nothing.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// What a parser says of a member that says two things.
pub(super) const TWO_THINGS: &str = "the answer says two things of";
/// How deep a list is looked for that has no known name.
const DEEPEST: usize = 4;

/// A member's name, as a rule not copied.
#[derive(Deserialize)]
pub(super) struct Name<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// What can be said twice.
pub(super) trait Said {
    /// Whether `other` says the same.
    fn is_said_by(&self, other: &Self) -> bool;
}

impl Said for &RawValue {
    fn is_said_by(&self, other: &Self) -> bool {
        // `200` and `"200"` are one number to whoever reads it.
        let bare = |value: &Self| value.get().trim_matches('"').to_owned();
        let parsed = |value: &Self| serde_json::from_str::<Value>(value.get()).ok();
        self.get() == other.get() || bare(self) == bare(other) || parsed(self) == parsed(other)
    }
}

impl<T: Said> Said for Option<T> {
    fn is_said_by(&self, other: &Self) -> bool {
        match (self, other) {
            (Some(one), Some(other)) => one.is_said_by(other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

/// Reads the value of `name` into its place.
pub(super) fn take<'de, T, A>(place: &mut Option<T>, name: &str, members: &mut A) -> Result<(), A::Error>
where
    T: Deserialize<'de> + Said,
    A: MapAccess<'de>,
{
    let value = members.next_value::<T>()?;
    match place {
        Some(known) if !known.is_said_by(&value) => Err(A::Error::custom(format_args!("{TWO_THINGS} {name}"))),
        Some(_) => Ok(()),
        None => {
            *place = Some(value);
            Ok(())
        }
    }
}

/// An object of an answer: its members by their names, each of which may be missing. What else it has is left alone.
macro_rules! members {
    ($(#[$meta:meta])* struct $object:ident<$a:lifetime> { $($field:ident: $type:ty = $name:literal,)* }) => {
        $(#[$meta])*
        #[derive(Default)]
        struct $object<$a> {
            $($field: Option<$type>,)*
        }

        impl<'de: $a, $a> serde::Deserialize<'de> for $object<$a> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visit<$a>(std::marker::PhantomData<&$a ()>);

                impl<'de: $a, $a> serde::de::Visitor<'de> for Visit<$a> {
                    type Value = $object<$a>;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
                        let mut object = $object::default();
                        while let Some(name) = members.next_key::<$crate::source::members::Name<'de>>()? {
                            match &*name.0 {
                                $($name => $crate::source::members::take(&mut object.$field, $name, &mut members)?,)*
                                _ => {
                                    members.next_value::<serde::de::IgnoredAny>()?;
                                }
                            }
                        }
                        Ok(object)
                    }
                }

                deserializer.deserialize_map(Visit(std::marker::PhantomData))
            }
        }

        impl $crate::source::members::Said for $object<'_> {
            fn is_said_by(&self, other: &Self) -> bool {
                $($crate::source::members::Said::is_said_by(&self.$field, &other.$field))&&*
            }
        }
    };
}
pub(super) use members;

/// The name of a member that lists objects, at the top of `object` or some levels below, if there is one; or of one that
/// lists nothing, where its name has `word` in it. A list that is written as text is one, too.
pub(super) fn listing(object: &str, word: &str) -> Option<String> {
    listing_in(object, Listing { word, depth: DEEPEST })
}

fn listing_in(object: &str, listing: Listing<'_>) -> Option<String> {
    listing.deserialize(&mut serde_json::Deserializer::from_str(object)).ok().flatten()
}

#[derive(Clone, Copy)]
struct Listing<'w> {
    /// In small letters.
    word: &'w str,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Listing<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Listing<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        // To the end, so that what is looked into is whole.
        while let Some((Name(name), value)) = members.next_entry::<Name<'de>, &'de RawValue>()? {
            if found.is_some() {
                continue;
            }
            let text = value.get().trim_start_matches('"').trim_start();
            let elements = text.trim_start_matches(|c: char| c == '[' || c.is_whitespace());
            let is_named = || name.to_ascii_lowercase().contains(self.word);
            if text.starts_with('[') && (elements.starts_with('{') || elements.starts_with(']') && is_named()) {
                found = Some(name.into_owned());
            } else if text.starts_with('{') && self.depth > 1 {
                found = listing_in(value.get(), Listing { depth: self.depth - 1, ..self })
                    .map(|below| format!("{name}.{below}"));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    members! {
        struct Object<'a> {
            code: &'a RawValue = "code",
            inner: Inner<'a> = "inner",
        }
    }

    members! {
        struct Inner<'a> {
            a: &'a RawValue = "a",
        }
    }

    #[test]
    fn what_is_said_twice_is_said_and_two_things_are_none() {
        for json in [
            r#"{"code":200,"code":200}"#,
            r#"{"code":200,"other":1,"other":2,"code": 200 }"#,
            r#"{"code":200,"c\u006fde":"200"}"#,
            r#"{"code":200,"inner":{"a":1},"inner":{"a":1,"b":2}}"#,
        ] {
            let object = serde_json::from_str::<Object<'_>>(json).expect(json);
            assert_eq!(object.code.map(RawValue::get), Some("200"), "{json}");
        }
        let same = r#"{"code":{"x":1,"y":[2]},"code":{"y":[2],"x":1}}"#;
        assert!(serde_json::from_str::<Object<'_>>(same).is_ok());
        for (json, name) in [
            (r#"{"code":200,"code":500}"#, "code"),
            (r#"{"code":200,"code":null}"#, "code"),
            (r#"{"code":200,"inner":{"a":1},"inner":{}}"#, "inner"),
            (r#"{"code":200,"inner":{"a":1,"a":2}}"#, "a"),
        ] {
            let error = serde_json::from_str::<Object<'_>>(json).err().expect(json).to_string();
            assert!(error.starts_with(&format!("{TWO_THINGS} {name}")), "{json}: {error}");
        }
    }

    #[test]
    fn a_list_of_objects_is_found_whatever_its_name() {
        for (json, name) in [
            (r#"{"RetCode":0,"events":[{"a":1}]}"#, Some("events")),
            (r#"{"RetCode":0,"EventList": [ {} ]}"#, Some("EventList")),
            (r#"{"RetCode":0,"Data":{"Total":1,"Events":[{}]}}"#, Some("Data.Events")),
            (r#"{"Data":{"Page":{"Events":[{}]}}}"#, Some("Data.Page.Events")),
            (r#"{"Data":"[{\"a\":1}]"}"#, Some("Data")),
            (r#"{"Data":[[{}]]}"#, Some("Data")),
            (r#"{"RetCode":0,"events":[]}"#, Some("events")),
            (r#"{"RetCode":0,"Data":{"EventSet":[ ]}}"#, Some("Data.EventSet")),
            (r#"{"RetCode":0,"Unknown":{"x":[1]},"Warnings":[],"Message":"[note] {x}"}"#, None),
            (r#"{"Meta":{"a":{}},"Names":["a","b"]}"#, None),
            ("[{}]", None),
            ("", None),
        ] {
            assert_eq!(listing(json, "event").as_deref(), name, "{json}");
        }
        // However deep, it ends.
        let deep = r#"{"a":"#.repeat(100_000) + &"}".repeat(100_000);
        assert_eq!(listing(&deep, "event"), None);
    }
}
