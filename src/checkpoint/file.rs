//! The default store: one redb file, ACID, with an fsync in each commit. Commits that wait for each other share one.
//!
//! One process at a time owns the folder, by a lock on `trailcast.lock` that the kernel drops when the process
//! ends, however it ends. A kill at any point leaves the last commit that returned. Nothing of what is found there is
//! believed without a look: see [`database`] for damage, [`seen`] for older copies; and a commit counts only if the
//! file that it went into still has its name.

mod database;
mod line;
mod sealed;
mod seen;

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, ReadableDatabase};

use super::{Changes, CheckpointError, Doubt, MAKE_FOLDER, Store};
use crate::private;
use database::{ENTRIES, caught};
use line::Line;
use seen::{Seen, Standing};

/// What is written and taken away again to see whether a disk has room.
const TRIAL_BYTES: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub struct FileStore {
    folder: PathBuf,
    path: PathBuf,
    /// `None` after an error, until the next use opens it again: redb refuses all work after a failed write,
    /// but a disk that was full may have space again.
    database: RwLock<Option<Database>>,
    seen: Seen,
    line: Line,
    /// The same file, open for as long as this is: so no other can get its number.
    file: Named,
    /// Held, never read. Dropped last.
    lock: FolderLock,
}

impl FileStore {
    /// Opens the store in `folder`, creating both as needed.
    ///
    /// # Errors
    /// The folder or file cannot be used, is in use by another process, was written by a later version, is damaged, or is
    /// not what the folder has seen.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        Self::open_as(folder, false)
    }

    /// Opens it whatever the folder has seen: what is there counts from now on.
    ///
    /// # Errors
    /// As [`FileStore::open`].
    pub fn accept(folder: &Path) -> Result<Self, CheckpointError> {
        Self::open_as(folder, true)
    }

    /// Whether nothing was ever kept in `folder`, so that opening it would make it.
    #[must_use]
    pub fn is_new(folder: &Path) -> bool {
        ["trailcast.redb", "trailcast.seen"].iter().all(|name| matches!(folder.join(name).try_exists(), Ok(false)))
    }

    /// Whether a process has `folder` open now.
    #[must_use]
    pub fn is_held(folder: &Path) -> bool {
        let lock = File::open(folder.join("trailcast.lock"));
        lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    }

    fn open_as(folder: &Path, accept: bool) -> Result<Self, CheckpointError> {
        private::create_folder(folder).map_err(folder_error(MAKE_FOLDER, folder))?;
        let lock = lock(folder)?;
        let path = folder.join("trailcast.redb");
        let seen = Seen::open(folder);
        if !path.try_exists().map_err(folder_error("look for", &path))? {
            if seen.last().is_some() && !accept {
                return Err(doubted(&path, Doubt::Gone));
            }
            database::make(folder, &path)?;
        }
        let file = Named::open(&path)?;
        let database = database::open(&path)?;
        // A new file is durable only once its name is.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(folder_error("sync the folder", folder))?;
        let standing = caught(|| database::standing(&database)).map_err(|error| file_error("read", &path, error))?;
        match seen.last().filter(|_| !accept) {
            Some(seen) if seen.identity != standing.identity => return Err(doubted(&path, Doubt::Other)),
            Some(Standing { commits, .. }) if commits > standing.commits => {
                return Err(doubted(&path, Doubt::Older { has: standing.commits, seen: commits }));
            }
            _ => seen.accept(standing),
        }
        let store = Self {
            folder: folder.to_owned(),
            path,
            database: RwLock::new(Some(database)),
            seen,
            line: Line::default(),
            file,
            lock,
        };
        store.is_ours()?;
        Ok(store)
    }

    /// Shows that the disk takes what a commit needs: writes something, has it synced, and takes it away again.
    ///
    /// # Errors
    /// It does not.
    pub fn prove(&self) -> Result<(), CheckpointError> {
        let trial = self.folder.join("trailcast.trial");
        let made = private::options().write(true).create(true).truncate(true).open(&trial);
        let written = made.and_then(|mut file| {
            file.write_all(&[0x5a; TRIAL_BYTES])?;
            file.sync_all()
        });
        // What cannot be removed was not written either, or is told by the next try.
        let _ = fs::remove_file(&trial);
        written.map_err(folder_error("write to", &self.folder))?;
        self.write(&[Arc::default()])
    }

    /// Runs `work` on the open database; after an error the next use starts with a fresh open.
    fn with<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, CheckpointError> {
        let guard = self.opened()?;
        let database = guard.as_ref().expect("`opened` returns when there is one, and the guard keeps it");
        let result = caught(|| work(database));
        drop(guard);
        result.map_err(|error| {
            let database = self.database.write().unwrap_or_else(PoisonError::into_inner).take();
            // What it says at its end follows from the error.
            let _ = caught(|| {
                drop(database);
                Ok(())
            });
            file_error(doing, &self.path, error)
        })
    }

    fn opened(&self) -> Result<RwLockReadGuard<'_, Option<Database>>, CheckpointError> {
        loop {
            let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
            if guard.is_some() {
                return Ok(guard);
            }
            drop(guard);
            let mut slot = self.database.write().unwrap_or_else(PoisonError::into_inner);
            if slot.is_none() {
                // Never one that was put in its place: lanes go by what they know of this one.
                self.is_ours()?;
                *slot = Some(database::open(&self.path)?);
            }
        }
    }

    /// Whether the file and the lock still have the names that others find them by.
    fn is_ours(&self) -> Result<(), CheckpointError> {
        match [&self.file, &self.lock.0].into_iter().find(|file| !file.has_its_name()) {
            Some(file) => Err(CheckpointError::Replaced { path: file.path.clone() }),
            None => Ok(()),
        }
    }

    /// All of them, or none.
    fn write(&self, all: &[Arc<Changes>]) -> Result<(), CheckpointError> {
        self.is_ours()?;
        let standing = self.with("write", |database| {
            // redb's default durability: `commit` returns after the fsync.
            let transaction = database.begin_write()?;
            {
                let mut entries = transaction.open_table(ENTRIES)?;
                for changes in all {
                    for range in &changes.delete_ranges {
                        if range.start < range.end {
                            entries.retain_in(range.start.as_slice()..range.end.as_slice(), |_, _| false)?;
                        }
                    }
                    for key in &changes.deletes {
                        entries.remove(key.as_slice())?;
                    }
                    for (key, value) in &changes.puts {
                        entries.insert(key.as_slice(), sealed::seal(key, value).as_slice())?;
                    }
                }
            }
            let standing = database::count(&transaction)?;
            transaction.commit()?;
            Ok(standing)
        })?;
        // Not before: only what is known afterwards is known of this commit.
        self.is_ours()?;
        self.seen.see(standing);
        Ok(())
    }
}

impl Store for FileStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        self.with("read", |database| {
            let entries = database.begin_read()?.open_table(ENTRIES)?;
            entries.get(key)?.map(|value| Ok(sealed::open(key, value.value())?.to_vec())).transpose()
        })
    }

    fn scan(&self, range: Range<&[u8]>, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), CheckpointError> {
        if range.start >= range.end {
            return Ok(());
        }
        self.with("read", |database| {
            let entries = database.begin_read()?.open_table(ENTRIES)?;
            for entry in entries.range(range)? {
                let (key, value) = entry?;
                visit(key.value(), sealed::open(key.value(), value.value())?);
            }
            Ok(())
        })
    }

    fn commit(&self, changes: &Changes) -> Result<(), CheckpointError> {
        if changes.is_empty() { Ok(()) } else { self.line.commit(changes, |all| self.write(all)) }
    }
}

/// An open file, and the name that it is to have.
#[derive(Debug)]
struct Named {
    path: PathBuf,
    file: File,
}

impl Named {
    fn open(path: &Path) -> Result<Self, CheckpointError> {
        let file = File::open(path).map_err(folder_error("open", path))?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn has_its_name(&self) -> bool {
        let number = |metadata: Metadata| (metadata.dev(), metadata.ino());
        match (fs::metadata(&self.path), self.file.metadata()) {
            (Ok(named), Ok(open)) => number(named) == number(open),
            // Nothing can be told of a folder that may not be looked into at the moment.
            (Err(error), _) if error.kind() != io::ErrorKind::NotFound => true,
            _ => false,
        }
    }
}

/// Makes this the only process on the folder.
#[derive(Debug)]
struct FolderLock(Named);

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that is just being started has a copy of it for a moment.
        // Nobody could do anything about an error, and the kernel unlocks when the process ends.
        let _ = self.0.file.unlock();
    }
}

/// Takes the folder for this process and leaves its pid for whoever comes second.
fn lock(folder: &Path) -> Result<FolderLock, CheckpointError> {
    let path = folder.join("trailcast.lock");
    let mut file = private::options()
        .read(true)
        .write(true)
        .create(true)
        // Not before it is ours: until then it holds its owner's pid.
        .truncate(false)
        .open(&path)
        .map_err(folder_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only for the message: an owner that has not yet written its pid is still the owner.
            let pid = file.read_to_string(&mut pid).ok().and_then(|_| pid.trim().parse().ok());
            return Err(CheckpointError::InUse { path: folder.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(folder_error("lock", &path)(error)),
    }
    // Likewise only for the message: a full disk must not keep the store from opening.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(FolderLock(Named { path, file }))
}

fn doubted(path: &Path, doubt: Doubt) -> CheckpointError {
    CheckpointError::Doubted { key: "checkpoint.file.path", place: path.display().to_string(), doubt }
}

fn folder_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    move |error| CheckpointError::Folder { doing, path: path.to_owned(), error }
}

fn file_error(doing: &'static str, path: &Path, source: redb::Error) -> CheckpointError {
    match source {
        redb::Error::Corrupted(what) => CheckpointError::Damaged { path: path.to_owned(), what },
        redb::Error::Io(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            CheckpointError::Damaged { path: path.to_owned(), what: error.to_string() }
        }
        source => CheckpointError::File { doing, path: path.to_owned(), source: Box::new(source) },
    }
}
