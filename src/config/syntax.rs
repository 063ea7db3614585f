//! Texts with a syntax of their own. The schema names each in `format`; the checker looks the name up here.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use url::Url;

use super::{Start, units};

/// A value that is written as text.
pub(super) trait Syntax: Sized {
    /// What it may be in YAML, text first; it is read as text in any case.
    const TYPES: &'static [&'static str] = &["string"];
    /// The name of the syntax in the schema.
    const FORMAT: &'static str;
    /// A regular expression that editors can check, where there is a short one.
    const PATTERN: Option<&'static str> = None;
    /// What to say was expected.
    const EXPECTED: &'static str;

    fn read(text: &str) -> Option<Self>;
    fn write(&self) -> String;
}

impl Syntax for Duration {
    const FORMAT: &'static str = "trailcast-duration";
    const PATTERN: Option<&'static str> = Some(r"^(0|(?=\d)(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?)$");
    const EXPECTED: &'static str = units::DURATION.0;

    fn read(text: &str) -> Option<Self> {
        units::duration(text).ok()
    }

    fn write(&self) -> String {
        units::duration_text(*self)
    }
}

/// A number of bytes.
#[derive(Clone, Copy)]
pub(super) struct Size(pub u64);

impl Syntax for Size {
    const FORMAT: &'static str = "trailcast-size";
    const PATTERN: Option<&'static str> = Some(r"^\d+(B|KiB|MiB|GiB)?$");
    const EXPECTED: &'static str = units::SIZE.0;

    fn read(text: &str) -> Option<Self> {
        units::size(text).ok().map(Self)
    }

    fn write(&self) -> String {
        units::size_text(self.0)
    }
}

impl Syntax for Start {
    const FORMAT: &'static str = "trailcast-start";
    const EXPECTED: &'static str = units::START.0;

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Syntax for Url {
    const FORMAT: &'static str = "uri";
    const EXPECTED: &'static str = "a URL such as `https://api.example.com`";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Syntax for SocketAddr {
    const FORMAT: &'static str = "trailcast-address";
    const EXPECTED: &'static str = "an IP address and a port such as `127.0.0.1:9464` or `[::]:9464`";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// A filter that [`log_filter`](super::log_filter) accepts.
pub(super) struct LogFilter(pub String);

impl Syntax for LogFilter {
    const FORMAT: &'static str = "trailcast-log-filter";
    const EXPECTED: &'static str =
        "`error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,trailcast::source=debug`";

    fn read(text: &str) -> Option<Self> {
        super::log_filter(text).ok()?;
        Some(Self(text.to_owned()))
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

/// A broker's host and port.
pub(super) struct Broker(pub String);

impl Syntax for Broker {
    const FORMAT: &'static str = "trailcast-broker";
    const EXPECTED: &'static str = "a host and a port such as `kafka:9092` or `[::1]:9092`";

    fn read(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
        };
        (is_host && port.parse::<u16>().is_ok_and(|port| port > 0)).then(|| Self(text.to_owned()))
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

/// The value of a property of librdkafka or Kafka, which take every value as text.
pub(super) struct Property(pub String);

impl Syntax for Property {
    const TYPES: &'static [&'static str] = &["string", "integer", "boolean"];
    const FORMAT: &'static str = "trailcast-property";
    const EXPECTED: &'static str = "a text, a number, `true` or `false`";

    fn read(text: &str) -> Option<Self> {
        // It goes to a C library.
        (!text.contains('\0')).then(|| Self(text.to_owned()))
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

/// The name of a Kafka topic.
pub(super) struct TopicName(pub String);

impl Syntax for TopicName {
    const FORMAT: &'static str = "trailcast-topic";
    const PATTERN: Option<&'static str> = Some("^[a-zA-Z0-9._-]{1,249}$");
    const EXPECTED: &'static str = "the name of a topic: 1 to 249 letters, digits, `.`, `_` and `-`";

    /// As Kafka's `Topic.validate` has it.
    fn read(text: &str) -> Option<Self> {
        let legal = (1..=249).contains(&text.len())
            && !matches!(text, "." | "..")
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        legal.then(|| Self(text.to_owned()))
    }

    fn write(&self) -> String {
        self.0.clone()
    }
}

/// A syntax, as the checker needs it.
pub(super) struct Format {
    name: &'static str,
    /// What to say was expected.
    pub expected: &'static str,
    /// Whether a text has this syntax.
    pub accepts: fn(&str) -> bool,
}

const fn format<T: Syntax>() -> Format {
    Format { name: T::FORMAT, expected: T::EXPECTED, accepts: |text| T::read(text).is_some() }
}

static FORMATS: [Format; 9] = [
    format::<Duration>(),
    format::<Size>(),
    format::<Start>(),
    format::<Url>(),
    format::<SocketAddr>(),
    format::<LogFilter>(),
    format::<Broker>(),
    format::<Property>(),
    format::<TopicName>(),
];

/// The syntax that a schema's `format` names.
pub(super) fn named(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

/// A value that the config holds as text.
#[derive(Clone, Copy)]
pub(super) struct Written<T>(pub T);

impl<'de, T: Syntax> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        T::read(&text).map(Self).ok_or_else(|| de::Error::custom(format_args!("expected {}", T::EXPECTED)))
    }
}

/// Only for the schema's `default`.
impl<T: Syntax> Serialize for Written<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.write())
    }
}

impl<T: Syntax> JsonSchema for Written<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::FORMAT.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({ "type": T::TYPES, "format": T::FORMAT });
        if let Some(pattern) = T::PATTERN {
            schema.insert("pattern".to_owned(), pattern.into());
        }
        schema
    }
}
