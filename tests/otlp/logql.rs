//! Queries in LogQL without a Loki: read by the published grammar (tests/otlp/logql), and applied to what the double of Loki
//! has stored. What a query filters by and counts by must be a label or metadata of some entry.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use serde::Deserialize;
use trailcast::event::Millis;

use crate::loki_double::millis;
use crate::receiver::Arrived;

/// A query, by what tests/otlp/logql.mjs says of it.
#[derive(Debug, Deserialize)]
pub struct Query {
    /// Name, operator and value; of the line where there is no name.
    select: Vec<(String, String, String)>,
    range: Option<String>,
    by: Option<Vec<String>>,
    most: Option<usize>,
}

/// # Panics
/// If one of them is not LogQL.
pub fn read(queries: &[String]) -> Vec<Query> {
    let mut reader = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/otlp/logql"));
    let mut reader = reader.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = reader.stdin.take().unwrap();
    queries.iter().for_each(|query| writeln!(stdin, "{query}").unwrap());
    drop(stdin);
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let said: Vec<Query> = lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
    assert_eq!(said.len(), queries.len());
    said
}

fn value<'a>(entry: &'a Arrived, name: &str) -> Option<&'a str> {
    entry.labels.get(name).or_else(|| entry.attributes.get(name)).map(String::as_str)
}

impl Query {
    /// # Panics
    /// If it names what no entry has, which the grammar cannot know.
    pub fn assert_names(&self, stored: &[Arrived]) {
        let names: BTreeSet<&String> =
            stored.iter().flat_map(|entry| entry.labels.keys().chain(entry.attributes.keys())).collect();
        let filters = self.select.iter().map(|(name, ..)| name).filter(|name| !name.is_empty());
        for name in filters.chain(self.by.iter().flatten()) {
            assert!(names.contains(name), "nothing that is stored has a {name}: {self:?}");
        }
    }

    pub fn entries<'a>(&self, stored: &'a [Arrived]) -> Vec<&'a Arrived> {
        let takes = |entry: &Arrived, (name, operator, value_of): &(String, String, String)| {
            let has = if name.is_empty() { &entry.line } else { value(entry, name).unwrap_or_default() };
            match operator.as_str() {
                "=" => has == value_of,
                "|=" => has.contains(value_of.as_str()),
                "=~" => value_of.split('|').any(|one| match one.strip_suffix(".*") {
                    Some(begins) => has.starts_with(begins),
                    None => has == one,
                }),
                other => panic!("{other} is not applied here"),
            }
        };
        stored.iter().filter(|entry| self.select.iter().all(|filter| takes(entry, filter))).collect()
    }

    /// The numbers that it gives at a time: of what happened within its range until then, by the value of its label.
    pub fn numbers(&self, stored: &[Arrived], at: Millis) -> BTreeMap<String, u64> {
        let from = at - millis(self.range.as_ref().unwrap());
        let [label] = self.by.as_ref().unwrap().as_slice() else { panic!("not by one label: {self:?}") };
        let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
        for entry in self.entries(stored).into_iter().filter(|entry| from < entry.event.time && entry.event.time <= at)
        {
            *numbers.entry(value(entry, label).unwrap_or_default().to_owned()).or_default() += 1;
        }
        if let Some(most) = self.most {
            let mut sorted: Vec<u64> = numbers.values().copied().collect();
            sorted.sort_unstable_by(|a, b| b.cmp(a));
            let least = sorted.into_iter().take(most).next_back().unwrap_or_default();
            numbers.retain(|_, number| *number >= least);
            while numbers.len() > most {
                let equal = numbers.iter().find(|(_, number)| **number == least).map(|(label, _)| label.clone());
                numbers.remove(&equal.unwrap());
            }
        }
        numbers
    }
}
