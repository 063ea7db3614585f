//! Where secrets come from. Read at each use, so that rotation needs no restart.

use std::path::PathBuf;

use secrecy::SecretString;

use super::Secret;

impl Secret {
    /// The value, read anew. Blocks for a small local file.
    ///
    /// # Errors
    /// It is not there. The message names where it should be.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        match self {
            Self::Env(name) => std::env::var(name).map(Into::into).map_err(|_| SecretError::Env(name.clone())),
            Self::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(text.trim_end_matches(['\r', '\n']).into()),
                Err(source) => Err(SecretError::File { path: path.clone(), source }),
            },
            Self::Inline(value) => Ok(value.clone()),
        }
    }
}

/// Why a secret has no value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No such variable.
    #[error("the environment variable {0} is not set")]
    Env(String),
    /// No such file.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}
