//! What is wrong with a config file, and where.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// One mistake or one warning. Holds no value from the file: it might be a secret in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The config file as it was named.
    pub file: PathBuf,
    /// From 1; absent when the file could not be read.
    pub line: Option<usize>,
    /// In characters, from 1.
    pub column: Option<usize>,
    /// The key path such as `streams.users.sweeps[1]`; empty for the file as a whole.
    pub key: String,
    /// What was found, what was expected, what to do.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Every mistake found in a config file, in the file's order; one line each when shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<Finding>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            finding.fmt(f)?;
        }
        Ok(())
    }
}
