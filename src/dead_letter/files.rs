//! Dead letters in files: `dead-letters-000001.ndjson` and on, one JSON object a line.
//!
//! Appended to. A letter that has been dealt with is marked where it stands, by one byte, and goes with the next
//! [`LetterFiles::compact`]: so a crash costs nothing, and a hundred thousand letters are written once. A file that has
//! grown to its size is followed by a new one; all files together have a limit, and what would go beyond it is an error, not
//! a loss. Every operation blocks, and holds one letter at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::DeadLetter;
use crate::private;

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
        "the dead letters in {} have reached `dead_letters.file.max_size`, {limit} bytes{}: {held} are there and {more} \
         are to be added; look at them, then set it higher, try them again (`trailcast dead-letters retry`), or drop them \
         (`trailcast dead-letters drop`)",
        folder.display(),
        if *is_default { " unless the config says otherwise" } else { "" }
    )]
    Full {
        /// The folder.
        folder: PathBuf,
        /// Bytes: the limit, what is there, what is to be added.
        limit: u64,
        /// See `limit`.
        held: u64,
        /// See `limit`.
        more: u64,
        /// Whether the limit is the one that counts where the config has none.
        is_default: bool,
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

/// `dead_letters.file.max_size` where the config has none.
pub const DEFAULT_MAX_SIZE: u64 = 1 << 30;
/// Stands in place of the first byte of a letter that has been dealt with: no letter begins so.
const DONE: u8 = b'-';

/// Where a letter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    pub(super) file: u64,
    pub(super) offset: u64,
}

/// Held while letters are dealt with: whoever comes second waits, and reads what is left.
#[derive(Debug)]
pub struct Dealing(#[expect(dead_code, reason = "the lock goes with the file")] File);

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
        private::create_folder(&self.folder).map_err(io_error("create the folder", &self.folder))?;
        let _lock = self.lock()?;
        let files = self.files()?;
        let total: u64 = files.iter().map(|(_, size)| size).sum();
        let more = lines.len() as u64;
        if total + more > self.max_size {
            let (folder, limit) = (self.folder.clone(), self.max_size);
            return Err(FilesError::Full { folder, limit, held: total, more, is_default: limit == DEFAULT_MAX_SIZE });
        }
        let (number, is_new) = match files.last() {
            None => (1, true),
            Some((number, size)) if *size > 0 && size + more > self.max_file_size => (number + 1, true),
            Some((number, _)) => (*number, false),
        };
        let path = self.path(number);
        self.write(&path, is_new, &lines).map_err(io_error("write", &path))
    }

    /// Waits until nobody else deals with these letters; `wait` is called if somebody does. `None` if there is no folder.
    ///
    /// # Errors
    /// The lock cannot be had.
    pub fn deal(&self, wait: impl FnOnce()) -> Result<Option<Dealing>, FilesError> {
        if !self.folder.exists() {
            return Ok(None);
        }
        let path = self.folder.join("dealing.lock");
        let lock = || {
            let file = private::options().write(true).create(true).truncate(false).open(&path)?;
            if file.try_lock().is_err() {
                wait();
                file.lock()?;
            }
            Ok(Some(Dealing(file)))
        };
        lock().map_err(io_error("lock", &path))
    }

    /// Shows all letters, in the order in which they were stored; lines that are none are left out.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn visit(&self, visit: &mut dyn FnMut(At, DeadLetter) -> ControlFlow<()>) -> Result<(), FilesError> {
        if !self.folder.exists() {
            return Ok(());
        }
        for (number, _) in self.files()? {
            let path = self.path(number);
            let mut file = BufReader::new(File::open(&path).map_err(io_error("read", &path))?);
            let (mut line, mut offset) = (Vec::new(), 0);
            loop {
                line.clear();
                let read = file.read_until(b'\n', &mut line).map_err(io_error("read", &path))?;
                if read == 0 {
                    break;
                }
                // What is torn, within a character even, is no letter, and harms none.
                if let Ok(letter) = serde_json::from_slice(&line)
                    && visit(At { file: number, offset }, letter).is_break()
                {
                    return Ok(());
                }
                offset += read as u64;
            }
        }
        Ok(())
    }

    /// Marks letters as dealt with. When this returns `Ok` no crash undoes it.
    ///
    /// # Errors
    /// Some may not be marked.
    pub fn mark(&self, letters: &[At]) -> Result<(), FilesError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut letters = letters.to_vec();
        letters.sort_unstable();
        for of_file in letters.chunk_by(|one, other| one.file == other.file) {
            let path = self.path(of_file[0].file);
            let mark = || {
                let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
                for at in of_file {
                    let mut first = [0];
                    file.seek(SeekFrom::Start(at.offset))?;
                    file.read_exact(&mut first)?;
                    if first != *b"{" && first != [DONE] {
                        return Err(io::Error::other("someone has changed it meanwhile"));
                    }
                    file.seek(SeekFrom::Start(at.offset))?;
                    file.write_all(&[DONE])?;
                }
                file.sync_all()
            };
            mark().map_err(io_error("write", &path))?;
        }
        Ok(())
    }

    /// Takes away what is marked; a file that is left with nothing goes, too. A crash leaves each file as it was or as it
    /// is to be. For the one who holds [`Dealing`], since letters stand elsewhere afterwards.
    ///
    /// # Errors
    /// Some may still be there.
    pub fn compact(&self, _: &Dealing) -> Result<(), FilesError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = self.lock()?;
        for (number, _) in self.files()? {
            let path = self.path(number);
            self.rewrite(&path).map_err(io_error("rewrite", &path))?;
        }
        Ok(())
    }

    fn rewrite(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("new");
        let mut from = BufReader::new(File::open(path)?);
        let to = private::options().write(true).create(true).truncate(true).open(&beside)?;
        // It takes the place of a file whose rights somebody may have chosen.
        to.set_permissions(from.get_ref().metadata()?.permissions())?;
        let mut to = BufWriter::new(to);
        let (mut line, mut kept, mut gone) = (Vec::new(), 0_u64, 0_u64);
        // What cannot be read is kept: it may be a letter that someone can mend.
        while from.read_until(b'\n', &mut line)? > 0 {
            if line.first() == Some(&DONE) {
                gone += 1;
            } else {
                kept += 1;
                to.write_all(&line)?;
            }
            line.clear();
        }
        to.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        match (kept, gone) {
            (_, 0) => fs::remove_file(&beside)?,
            (0, _) => {
                fs::remove_file(&beside)?;
                fs::remove_file(path)?;
            }
            _ => fs::rename(&beside, path)?,
        }
        File::open(&self.folder)?.sync_all()
    }

    /// Held against other processes: one that runs appends while a command may rewrite.
    fn lock(&self) -> Result<File, FilesError> {
        let path = self.folder.join("dead-letters.lock");
        let lock = || {
            let file = private::options().write(true).create(true).truncate(false).open(&path)?;
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
        let mut file = private::options().read(true).append(true).create_new(is_new).open(path)?;
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
