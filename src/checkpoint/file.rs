//! The default store: one redb file, ACID, with an fsync in each commit.
//!
//! One process at a time owns the folder, by a lock on `trailcast.lock` that the kernel drops when the process
//! ends, however it ends. A kill at any point leaves the last commit that returned.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, ReadableDatabase, TableDefinition, TableError};

use super::{Changes, CheckpointError, Store};

/// The newest format of the file that this version reads, and the one that it writes.
const FORMAT: u64 = 1;
/// Stated limit of the memory that the store may hold; cursors in use are held by their lanes.
const CACHE_BYTES: usize = 4 << 20;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const ENTRIES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("entries");

/// See the module.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    /// `None` after an error, until the next use opens it again: redb refuses all work after a failed write,
    /// but a disk that was full may have space again.
    database: RwLock<Option<Database>>,
    /// Held, never read. Dropped last.
    _lock: FolderLock,
}

impl FileStore {
    /// Opens the store in `folder`, creating both as needed.
    ///
    /// # Errors
    /// The folder or file cannot be used, is in use by another process, or was written by a later version.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        fs::create_dir_all(folder).map_err(folder_error("create the folder", folder))?;
        let lock = lock(folder)?;
        let path = folder.join("trailcast.redb");
        let database = open_database(&path)?;
        // A new file is durable only once its name is.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(folder_error("sync the folder", folder))?;
        Ok(Self { path, database: RwLock::new(Some(database)), _lock: lock })
    }

    /// Runs `work` on the open database; after an error the next use starts with a fresh open.
    fn with<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, CheckpointError> {
        let guard = self.opened()?;
        let result = work(guard.as_ref().expect("`opened` returns when there is one, and the guard keeps it"));
        drop(guard);
        result.map_err(|error| {
            self.database.write().unwrap_or_else(PoisonError::into_inner).take();
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
                *slot = Some(open_database(&self.path)?);
            }
        }
    }
}

impl Store for FileStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        self.with("read", |database| {
            let entries = database.begin_read()?.open_table(ENTRIES)?;
            Ok(entries.get(key)?.map(|value| value.value().to_vec()))
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
                visit(key.value(), value.value());
            }
            Ok(())
        })
    }

    fn commit(&self, changes: &Changes) -> Result<(), CheckpointError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.with("write", |database| {
            // redb's default durability: `commit` returns after the fsync.
            let transaction = database.begin_write()?;
            {
                let mut entries = transaction.open_table(ENTRIES)?;
                for range in &changes.delete_ranges {
                    if range.start < range.end {
                        entries.retain_in(range.start.as_slice()..range.end.as_slice(), |_, _| false)?;
                    }
                }
                for key in &changes.deletes {
                    entries.remove(key.as_slice())?;
                }
                for (key, value) in &changes.puts {
                    entries.insert(key.as_slice(), value.as_slice())?;
                }
            }
            Ok(transaction.commit()?)
        })
    }
}

/// Makes this the only process on the folder.
#[derive(Debug)]
struct FolderLock(File);

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a child that is just being started has a copy of it for a moment.
        // Nobody could do anything about an error, and the kernel unlocks when the process ends.
        let _ = self.0.unlock();
    }
}

/// Takes the folder for this process and leaves its pid for whoever comes second.
fn lock(folder: &Path) -> Result<FolderLock, CheckpointError> {
    let path = folder.join("trailcast.lock");
    let mut file = OpenOptions::new()
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
    Ok(FolderLock(file))
}

fn open_database(path: &Path) -> Result<Database, CheckpointError> {
    let open = || -> Result<(Database, u64), redb::Error> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
        let found = match database.begin_read()?.open_table(META) {
            Ok(meta) => meta.get("format")?.map(|format| format.value()),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(found) = found {
            return Ok((database, found));
        }
        let transaction = database.begin_write()?;
        transaction.open_table(META)?.insert("format", FORMAT)?;
        // Made here, so that a read never finds it missing.
        transaction.open_table(ENTRIES)?;
        transaction.commit()?;
        Ok((database, FORMAT))
    };
    match open() {
        Ok((database, FORMAT)) => Ok(database),
        Ok((_, found)) => Err(CheckpointError::Newer { path: path.to_owned(), found, known: FORMAT }),
        Err(error) => Err(file_error("open", path, error)),
    }
}

fn folder_error(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CheckpointError {
    move |source| CheckpointError::Folder { doing, path: path.to_owned(), source }
}

fn file_error(doing: &'static str, path: &Path, source: redb::Error) -> CheckpointError {
    CheckpointError::File { doing, path: path.to_owned(), source: Box::new(source) }
}
