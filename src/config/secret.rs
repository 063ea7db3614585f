//! Secrets: where they are, and reading them.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::{CheckpointConfig, ClusterConfig, Config, SaslConfig, Secret, SinkConfig};

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
    /// It was read, and cannot be sent in any header or signature.
    #[error("{place} holds {what}; a secret is one line of text, and only one line end behind it does not count")]
    NotOneLine {
        /// Where it is.
        place: String,
        /// What is in it.
        what: &'static str,
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
    // As shells write it.
    if name.starts_with('$') {
        return "the environment variable that `env` names is not set: its name begins with `$`; write it without"
            .to_owned();
    }
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
    /// the next authentication. One line end behind it is not part of it. Reads one small file and blocks for that long.
    ///
    /// # Errors
    /// When the variable or file is missing, empty or not one line of text.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        match self {
            Self::Inline(secret) => one_line(secret.expose_secret(), || "the text in the config".to_owned()),
            Self::Env(name) => match std::env::var(name).map(SecretString::from) {
                Ok(value) if !without_end(value.expose_secret()).is_empty() => {
                    one_line(value.expose_secret(), || format!("the environment variable `{name}`"))
                }
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
                let text = text.expose_secret();
                if without_end(text).is_empty() {
                    return Err(bad("is empty"));
                }
                one_line(text, || format!("the secret file `{}`", path.display()))
            }
        }
    }
}

impl Config {
    /// The secrets that keep `run` from starting, by their keys: any of a stream that cannot be read, and others that
    /// nothing can mend while it runs. A file may be put there later.
    #[must_use]
    pub fn lacking(&self) -> Vec<(String, SecretError)> {
        let of_streams = self.streams.iter().map(|(name, stream)| {
            let (key, secret) = stream.secret();
            (format!("streams.{name}.{key}"), secret)
        });
        let others = self.other_secrets().into_iter().filter(|(_, secret)| !matches!(secret, Secret::File(_)));
        of_streams.chain(others).filter_map(|(key, secret)| Some((key, secret.read().err()?))).collect()
    }

    /// Those of sinks, the checkpoint and traces, by their keys.
    fn other_secrets(&self) -> Vec<(String, &Secret)> {
        let mut secrets = Vec::new();
        for (name, sink) in &self.sinks {
            match sink {
                SinkConfig::Kafka(kafka) => secrets.extend(of_cluster(&format!("sinks.{name}.kafka"), &kafka.cluster)),
                SinkConfig::Otlp(otlp) => secrets.extend(
                    otlp.headers.iter().map(|(header, secret)| (format!("sinks.{name}.otlp.headers.{header}"), secret)),
                ),
                SinkConfig::Stdout(_) => {}
            }
        }
        if let CheckpointConfig::Kafka(kafka) = &self.checkpoint {
            secrets.extend(of_cluster("checkpoint.kafka", &kafka.cluster));
        }
        let headers = self.traces.iter().flat_map(|traces| &traces.headers);
        secrets.extend(headers.map(|(header, secret)| (format!("traces.otlp.headers.{header}"), secret)));
        secrets
    }
}

fn of_cluster<'a>(at: &str, cluster: &'a ClusterConfig) -> Vec<(String, &'a Secret)> {
    let sasl = cluster.sasl.as_ref().map(|sasl| match sasl {
        SaslConfig::Password { password, .. } => ("sasl.password", password),
        SaslConfig::Token(token) => ("sasl.token", token),
    });
    let key = cluster.tls.as_ref().and_then(|tls| Some(("tls.key_password", tls.key_password.as_ref()?)));
    sasl.into_iter().chain(key).map(|(key, secret)| (format!("{at}.{key}"), secret)).collect()
}

/// Without one line end.
fn without_end(text: &str) -> &str {
    text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line))
}

/// A text that is one line, without its end. A key that was pasted with more than itself fails wherever it is used, and
/// nothing there says why.
fn one_line(text: &str, place: impl FnOnce() -> String) -> Result<SecretString, SecretError> {
    let text = without_end(text);
    let what = match text.chars().find(|c| c.is_control()) {
        None => return Ok(text.into()),
        Some('\n' | '\r') => "a line break",
        Some(_) => "a control character",
    };
    Err(SecretError::NotOneLine { place: place(), what })
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
        for (content, value) in [("one\n", "one"), ("two\r\n", "two"), (" three \n", " three "), ("four", "four")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(secret.read().unwrap().expose_secret(), value);
        }
        for (content, what) in
            [("hunter2\n\n", "a line break"), ("a\nhunter2", "a line break"), ("hun\tter2", "a control character")]
        {
            std::fs::write(&path, content).unwrap();
            let message = secret.read().unwrap_err().to_string();
            let begins = format!("the secret file `{}` holds {what};", path.display());
            assert!(message.starts_with(&begins) && !message.contains("ter2"), "{message}");
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

    #[test]
    fn a_variable_is_written_as_shells_do() {
        let message = Secret::Env("$GENAUTH_SECRET".to_owned()).read().unwrap_err().to_string();
        assert!(message.contains("write it without") && !message.contains("GENAUTH_SECRET"), "{message}");
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

    /// A variable's value is a file's, once it came through `$(cat FILE)` of a shell that keeps line ends, or a Secret.
    #[test]
    fn what_stands_in_the_config_or_a_variable_is_one_line_as_what_is_in_a_file() {
        assert_eq!(one_line("key\r\n", String::new).unwrap().expose_secret(), "key");
        assert!(matches!(one_line("key\n\n", String::new), Err(SecretError::NotOneLine { what: "a line break", .. })));
        let message = Secret::Inline("hunter2\u{7f}".into()).read().unwrap_err().to_string();
        assert!(message.starts_with("the text in the config holds a control character;"), "{message}");
    }

    #[test]
    fn debug_shows_no_value() {
        let secret = Secret::Inline("hunter2".into());
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
