//! What is not `run`: each command's work, called by `main`.

mod check;
mod cursor;
mod dead_letters;
mod demo;
mod progress;
mod transfer;

pub use check::check;
pub use cursor::cursor;
pub use dead_letters::dead_letters;
pub use demo::demo;
pub use progress::{Progress, progress};

use crate::cli::Exit;
use crate::config::ConfigErrors;

/// What a command prints to stdout, and how the process ends.
#[derive(Debug)]
pub struct Answer {
    /// Printed as it is, with a line break behind it; nothing if empty.
    pub text: String,
    /// How the process ends.
    pub exit: Exit,
}

impl Answer {
    /// It worked.
    #[must_use]
    pub const fn done(text: String) -> Self {
        Self { text, exit: Exit::Done }
    }
}

/// Why a command has no answer.
#[derive(Debug)]
pub struct CommandError {
    /// Printed to stderr.
    pub message: String,
    /// How the process ends.
    pub exit: Exit,
}

impl From<String> for CommandError {
    fn from(message: String) -> Self {
        Self { message, exit: Exit::Failed }
    }
}

impl From<ConfigErrors> for CommandError {
    fn from(errors: ConfigErrors) -> Self {
        Self { message: errors.to_string(), exit: Exit::Usage }
    }
}
