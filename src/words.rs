//! How a person is told: errors with their causes, and counts.
//!
//! Pure. What others said is repeated through [`quote`](crate::quote) alone.

use std::fmt::Display;

/// An error with all that caused it, each said once, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// A number and what it is of, such as `1 stream` or `2 streams`.
#[must_use]
pub fn counted(number: impl Display, one: &str) -> String {
    let number = number.to_string();
    let s = if number == "1" { "" } else { "s" };
    format!("{number} {one}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|n| counted(n, "sink")), ["0 sinks", "1 sink", "2 sinks"]);
    }
}
