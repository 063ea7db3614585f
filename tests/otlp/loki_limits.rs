//! The limits of the double of Loki: what config/receivers/loki.yaml says, with what a test puts over it, and Loki's defaults where both
//! are silent.

use std::collections::BTreeMap;

use trailcast::event::Millis;

use crate::loki_double::millis;

const SHIPPED: &str = include_str!("../../config/receivers/loki.yaml");

/// In Loki's words; rates in bytes a second, ages in milliseconds.
pub struct Limits {
    pub allow_structured_metadata: bool,
    pub ignore_default_labels: bool,
    /// Attributes of the resource that become labels.
    pub index_labels: Vec<String>,
    pub reject_old_samples: bool,
    pub reject_old_samples_max_age: Millis,
    pub creation_grace_period: Millis,
    pub max_line_size: usize,
    pub max_structured_metadata_size: usize,
    pub max_structured_metadata_entries_count: usize,
    pub ingestion_rate: f64,
    pub ingestion_burst: f64,
    pub per_stream_rate: f64,
    pub per_stream_burst: f64,
    pub max_chunk_age: Millis,
    pub block_ingestion_until: Option<String>,
}

impl Limits {
    /// Loki 3.7's own. Source: pkg/validation/limits.go, pkg/ingester/ingester.go.
    pub fn of_loki() -> Self {
        Self {
            allow_structured_metadata: true,
            ignore_default_labels: false,
            index_labels: Vec::new(),
            reject_old_samples: true,
            reject_old_samples_max_age: millis("7d"),
            creation_grace_period: millis("10m"),
            max_line_size: bytes("256KB"),
            max_structured_metadata_size: bytes("64KB"),
            max_structured_metadata_entries_count: 128,
            ingestion_rate: megabytes("4"),
            ingestion_burst: megabytes("6"),
            per_stream_rate: rate("3MB"),
            per_stream_burst: rate("15MB"),
            max_chunk_age: millis("2h"),
            block_ingestion_until: None,
        }
    }

    /// Those of config/receivers/loki.yaml, with `overrides` such as `max_line_size: 1KB, reject_old_samples_max_age: 1h`.
    pub fn shipped_with(overrides: &str) -> Self {
        let mut limits = Self::of_loki();
        for (key, value) in keys(SHIPPED) {
            limits.set(&key, &value);
        }
        for one in overrides.split(", ").filter(|one| !one.is_empty()) {
            let (key, value) = one.split_once(": ").unwrap_or_else(|| panic!("no override: {one}"));
            limits.set(&format!("limits_config.{key}"), value.trim_matches('"'));
        }
        limits
    }

    /// # Panics
    /// If the double does not know it: a limit that it does not keep would say nothing in a test.
    fn set(&mut self, key: &str, value: &str) {
        match key {
            "limits_config.allow_structured_metadata" => self.allow_structured_metadata = truth(value),
            "limits_config.otlp_config.resource_attributes.ignore_defaults" => {
                self.ignore_default_labels = truth(value);
            }
            "limits_config.otlp_config.resource_attributes.attributes_config.- action" => {
                assert_eq!(value, "index_label");
            }
            "limits_config.otlp_config.resource_attributes.attributes_config.attributes" => {
                let names = value.trim_matches(['[', ']']).split(", ");
                self.index_labels = names.map(str::to_owned).collect();
            }
            "limits_config.reject_old_samples" => self.reject_old_samples = truth(value),
            "limits_config.reject_old_samples_max_age" => self.reject_old_samples_max_age = millis(value),
            "limits_config.creation_grace_period" => self.creation_grace_period = millis(value),
            "limits_config.max_line_size" => self.max_line_size = bytes(value),
            // The double cuts nothing.
            "limits_config.max_line_size_truncate" => assert!(!truth(value)),
            "limits_config.max_structured_metadata_size" => self.max_structured_metadata_size = bytes(value),
            "limits_config.max_structured_metadata_entries_count" => {
                self.max_structured_metadata_entries_count = value.parse().unwrap();
            }
            "limits_config.ingestion_rate_mb" => self.ingestion_rate = megabytes(value),
            "limits_config.ingestion_burst_size_mb" => self.ingestion_burst = megabytes(value),
            "limits_config.per_stream_rate_limit" => self.per_stream_rate = rate(value),
            "limits_config.per_stream_rate_limit_burst" => self.per_stream_burst = rate(value),
            // The double splits no streams.
            "limits_config.shard_streams.enabled" => assert!(!truth(value)),
            "limits_config.block_ingestion_until" => self.block_ingestion_until = Some(value.to_owned()),
            "ingester.max_chunk_age" => self.max_chunk_age = millis(value),
            // The double shows everything at once.
            "querier.query_ingesters_within" => assert_eq!(value, "0s"),
            _ => panic!("the double of Loki knows no {key}"),
        }
    }
}

/// Each value of a YAML file of mappings and one list of them, by its path: `limits_config.max_line_size`.
fn keys(text: &str) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    let mut open: Vec<(usize, &str)> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
        let indent = line.len() - line.trim_start().len();
        let (name, value) = line.trim().split_once(':').unwrap_or_else(|| panic!("no key: {line}"));
        open.retain(|(outer, _)| *outer < indent);
        let path: Vec<&str> = open.iter().map(|(_, name)| *name).filter(|name| !name.starts_with('-')).collect();
        if value.is_empty() {
            open.push((indent, name));
        } else {
            keys.insert(path.into_iter().chain([name]).collect::<Vec<_>>().join("."), value.trim().to_owned());
        }
    }
    keys
}

fn truth(text: &str) -> bool {
    text.parse().unwrap()
}

/// As Loki reads sizes: units of 1,024.
fn bytes(text: &str) -> usize {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match &text[split..] {
        "" => 1,
        "KB" => 1 << 10,
        "MB" => 1 << 20,
        other => panic!("no unit: {other}"),
    };
    text[..split].parse::<usize>().unwrap() * unit
}

#[expect(clippy::cast_precision_loss, reason = "some megabytes")]
fn rate(text: &str) -> f64 {
    bytes(text) as f64
}

fn megabytes(text: &str) -> f64 {
    text.parse::<f64>().unwrap() * f64::from(1 << 20)
}
