//! Dead letters in files: `dead-letters-000001.ndjson` and on, one JSON object a line.
//!
//! Only ever appended to. A file that has grown to its size is followed by a new one; all files together have a limit,
//! and what would go beyond it is an error, not a loss. Every operation blocks.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::DeadLetter;

/// See the module.
#[derive(Debug)]
pub struct LetterFiles {
    folder: PathBuf,
    max_file_size: u64,
    max_size: u64,
    /// One appends at a time; what is on disk is looked at anew each time, as someone may have made room.
    appending: Mutex<()>,
}

/// Why dead letters cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// There is no room for more.
    #[error(
        "the dead letters in {} have reached `dead_letters.file.max_size`; look at them, then raise it or move files \
         away",
        folder.display()
    )]
    Full {
        /// The folder.
        folder: PathBuf,
    },
    /// The disk says no.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

const PREFIX: &str = "dead-letters-";
const SUFFIX: &str = ".ndjson";

impl LetterFiles {
    /// In `folder`, which is created with the first letter. Sizes in bytes.
    #[must_use]
    pub fn new(folder: &Path, max_file_size: u64, max_size: u64) -> Self {
        Self { folder: folder.to_owned(), max_file_size, max_size, appending: Mutex::new(()) }
    }

    /// Stores all of `letters`. When this returns `Ok` they outlive a power failure.
    ///
    /// # Errors
    /// They are not known to be stored; storing them again may store some twice, with the same ids.
    pub fn append(&self, letters: &[DeadLetter]) -> Result<(), FilesError> {
        let _appending = self.appending.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = Vec::new();
        for letter in letters {
            lines.extend(letter.to_json());
            lines.push(b'\n');
        }
        fs::create_dir_all(&self.folder).map_err(io_error("create the folder", &self.folder))?;
        let files = self.files()?;
        let total: u64 = files.iter().map(|(_, size)| size).sum();
        let more = lines.len() as u64;
        if total + more > self.max_size {
            return Err(FilesError::Full { folder: self.folder.clone() });
        }
        let (number, is_new) = match files.last() {
            None => (1, true),
            Some((number, size)) if *size > 0 && size + more > self.max_file_size => (number + 1, true),
            Some((number, _)) => (*number, false),
        };
        let path = self.folder.join(format!("{PREFIX}{number:06}{SUFFIX}"));
        self.write(&path, is_new, &lines).map_err(io_error("write", &path))
    }

    /// The files in order, by their numbers and sizes.
    fn files(&self) -> Result<Vec<(u64, u64)>, FilesError> {
        let look = || -> io::Result<Vec<(u64, u64)>> {
            let mut files = Vec::new();
            for entry in fs::read_dir(&self.folder)? {
                let entry = entry?;
                let name = entry.file_name();
                let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
                if let Some(number) = number.and_then(|number| number.parse().ok()) {
                    files.push((number, entry.metadata()?.len()));
                }
            }
            files.sort_unstable();
            Ok(files)
        };
        look().map_err(io_error("look into", &self.folder))
    }

    fn write(&self, path: &Path, is_new: bool, lines: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).append(true).create_new(is_new).open(path)?;
        let length = file.metadata()?.len();
        let mut last = [b'\n'];
        if length > 0 {
            file.seek(SeekFrom::Start(length - 1))?;
            file.read_exact(&mut last)?;
        }
        // A process that was killed may have left a torn line; its letter was not counted as stored.
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
        file.write_all(lines)?;
        file.sync_all()?;
        if is_new { File::open(&self.folder)?.sync_all() } else { Ok(()) }
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    move |source| FilesError::Io { doing, path: path.to_owned(), source }
}
