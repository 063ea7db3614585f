//! Dead letters in files: `dead-letters-000001.ndjson` and on, one JSON object a line.
//!
//! Appended to, and rewritten only by [`LetterFiles::remove`]. A file that has grown to its size is followed by a new one; all files together have a limit,
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
    /// One at a time in this process; a lock in the folder is for others. What is on disk is looked at anew each time,
    /// as someone may have made room.
    turn: Mutex<()>,
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
        Self { folder: folder.to_owned(), max_file_size, max_size, turn: Mutex::new(()) }
    }

    /// Stores all of `letters`. When this returns `Ok` they outlive a power failure.
    ///
    /// # Errors
    /// They are not known to be stored; storing them again may store some twice, with the same ids.
    pub fn append(&self, letters: &[DeadLetter]) -> Result<(), FilesError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = Vec::new();
        for letter in letters {
            lines.extend(letter.to_json());
            lines.push(b'\n');
        }
        fs::create_dir_all(&self.folder).map_err(io_error("create the folder", &self.folder))?;
        let _lock = self.lock()?;
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
        let path = self.path(number);
        self.write(&path, is_new, &lines).map_err(io_error("write", &path))
    }

    /// All letters, in the order in which they were stored; lines that are none are left out.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn read(&self) -> Result<Vec<DeadLetter>, FilesError> {
        let mut letters = Vec::new();
        if self.folder.exists() {
            for (number, _) in self.files()? {
                let path = self.path(number);
                let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
                letters.extend(text.lines().filter_map(|line| serde_json::from_str::<DeadLetter>(line).ok()));
            }
        }
        Ok(letters)
    }

    /// Takes away the letters that `is_done` names; a file that is left with nothing goes, too. A crash leaves each
    /// file as it was or as it is to be.
    ///
    /// # Errors
    /// Some may still be there.
    pub fn remove(&self, is_done: impl Fn(&DeadLetter) -> bool) -> Result<(), FilesError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = self.lock()?;
        for (number, _) in self.files()? {
            let path = self.path(number);
            self.rewrite(&path, &is_done).map_err(io_error("rewrite", &path))?;
        }
        Ok(())
    }

    fn rewrite(&self, path: &Path, is_done: impl Fn(&DeadLetter) -> bool) -> io::Result<()> {
        let text = fs::read_to_string(path)?;
        // What cannot be read is kept: it may be a letter that someone can mend.
        let stays = |line: &&str| !serde_json::from_str(line).is_ok_and(|letter| is_done(&letter));
        let kept: Vec<&str> = text.lines().filter(stays).collect();
        if kept.is_empty() {
            fs::remove_file(path)?;
        } else if kept.len() < text.lines().count() {
            let beside = path.with_extension("new");
            let mut file = File::create(&beside)?;
            file.write_all((kept.join("\n") + "\n").as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, path)?;
        }
        File::open(&self.folder)?.sync_all()
    }

    /// Held against other processes: one that runs appends while a command may rewrite.
    fn lock(&self) -> Result<File, FilesError> {
        let path = self.folder.join("dead-letters.lock");
        let lock = || {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(io_error("lock", &path))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{PREFIX}{number:06}{SUFFIX}"))
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
