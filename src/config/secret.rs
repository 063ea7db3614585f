//! Secrets: where they are, and reading them.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::Secret;

/// The largest secret file that is read: anything larger is no secret but a wrong path.
const LARGEST: u64 = 64 << 10;

/// Why a secret cannot be had. Names the place, never the value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No such variable.
    #[error("{}", unset(.0))]
    Unset(String),
    /// The variable is there and empty, or is not text.
    #[error("the environment variable `{0}` is empty or not UTF-8; give it the secret's text")]
    BadVariable(String),
    /// No such file, or no right to read it.
    #[error(
        "cannot read the secret file{}: {error}; it must exist and be readable for the user trailcast runs as",
        shown(path)
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why; holds nothing of the file.
        error: std::io::Error,
    },
    /// The file is there and holds no secret.
    #[error("the secret file `{}` {problem}; it must hold the secret's text and nothing else", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        problem: &'static str,
    },
}

/// Repeats what looks like a variable's name, and nothing that may be the secret itself, pasted there.
fn unset(name: &str) -> String {
    // Words in capitals, each of a few letters: GENAUTH_ACCESS_KEY_SECRET.
    let is_word = |word: &str| word.len() <= 12 && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    let digits = name.bytes().filter(u8::is_ascii_digit).count();
    if name.split('_').all(is_word) && digits * 4 <= name.len() {
        return format!("the environment variable `{name}` is not set; set it for the trailcast process");
    }
    "the environment variable that `env` names is not set; set it for the trailcast process (`env` takes a variable's name, \
     such as GENAUTH_ACCESS_KEY_SECRET, and not the secret itself)"
        .to_owned()
}

/// The same of a path: one that leads nowhere may be a secret.
fn shown(path: &std::path::Path) -> String {
    let leads = path.is_absolute()
        || path.exists()
        || path.parent().is_some_and(|parent| parent.components().next().is_some() && parent.exists());
    if leads { format!(" `{}`", path.display()) } else { " that `file` names".to_owned() }
}

impl Secret {
    /// The secret as it is now: the variable or the file is read at every call, so that a rotated file counts at
    /// the next authentication. Reads one small file and blocks for that long.
    ///
    /// # Errors
    /// When the variable or file is missing, empty or not text.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        match self {
            Self::Inline(secret) => Ok(secret.clone()),
            Self::Env(name) => match std::env::var(name) {
                Ok(value) if !value.is_empty() => Ok(value.into()),
                Err(std::env::VarError::NotPresent) => Err(SecretError::Unset(name.clone())),
                Ok(_) | Err(std::env::VarError::NotUnicode(_)) => Err(SecretError::BadVariable(name.clone())),
            },
            Self::File(path) => {
                let unreadable = |error| SecretError::Unreadable { path: path.clone(), error };
                let bad = |problem| SecretError::BadFile { path: path.clone(), problem };
                if std::fs::metadata(path).map_err(unreadable)?.len() > LARGEST {
                    return Err(bad("is too large"));
                }
                let bytes = std::fs::read(path).map_err(unreadable)?;
                let text = SecretString::from(String::from_utf8(bytes).map_err(|_| bad("is not UTF-8"))?);
                let secret = text.expose_secret();
                let secret = secret.strip_suffix('\n').map_or(secret, |line| line.strip_suffix('\r').unwrap_or(line));
                if secret.is_empty() {
                    return Err(bad("is empty"));
                }
                Ok(secret.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_and_loses_only_its_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let secret = Secret::File(path.clone());
        assert!(matches!(secret.read(), Err(SecretError::Unreadable { .. })));
        for (content, value) in [("one\n", "one"), ("two\r\n", "two"), (" three \n\n", " three \n"), ("four", "four")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(secret.read().unwrap().expose_secret(), value);
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(secret.read(), Err(SecretError::BadFile { problem: "is empty", .. })));
        std::fs::write(&path, b"hunter2\xff").unwrap();
        let error = secret.read().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn a_variable_is_named_when_it_is_missing() {
        let secret = Secret::Env("TRAILCAST_TEST_NO_SUCH_VARIABLE".to_owned());
        assert!(secret.read().unwrap_err().to_string().contains("`TRAILCAST_TEST_NO_SUCH_VARIABLE` is not set"));
        // Cargo sets this one for every test.
        let secret = Secret::Env("CARGO_PKG_NAME".to_owned());
        assert_eq!(secret.read().unwrap().expose_secret(), "trailcast");
    }

    /// Someone takes `env` for the place of the secret: its message is in the log, and on /status.
    #[test]
    fn a_secret_in_place_of_a_name_is_not_repeated() {
        for secret in
            ["hunter2", "6f2b8c1d9e0a4735b6c8d1e2f3a4b5c6", "AKIAIOSFODNN7EXAMPLE", "sk_live_abc", "A1B2C3D4E5"]
        {
            let message = Secret::Env(secret.to_owned()).read().unwrap_err().to_string();
            assert!(!message.contains(secret) && message.contains("a variable's name"), "{message}");
            let message = Secret::File(secret.into()).read().unwrap_err().to_string();
            assert!(!message.contains(secret), "{message}");
        }
    }

    #[test]
    fn debug_shows_no_value() {
        let secret = Secret::Inline("hunter2".into());
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
