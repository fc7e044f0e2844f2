//! Opens the data file, or explains to the person at the terminal why it cannot be opened.

use std::any::Any;
use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::{Path, PathBuf};
use std::sync::{Once, PoisonError, RwLock};

use overseer_engine::ports::table::TableError;
use redb::backends::InMemoryBackend;
use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, TableDefinition, TableHandle, WriteTransaction,
};

use super::schema::{Tables, store_error};
use crate::files::{OWNER_ONLY, protect, sync_folder};

/// Marks the file as Overseer's, and holds the format of its rows.
const MARK: TableDefinition<&str, u64> = TableDefinition::new("overseer");
const FORMAT: &str = "format";
/// The format that this version reads and writes.
const FORMAT_NOW: u64 = 1;
/// The path of a table without a file, in errors.
pub(super) const IN_MEMORY: &str = "(in memory)";
/// redb's default is a whole gigabyte.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a data file could not be opened. The text is for the person who started Overseer.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another part of this one, has the file open.
    #[error("the data file {} is already open in another Overseer; stop that first", path.display())]
    Availability {
        /// The data file.
        path: PathBuf,
    },
    /// The file is damaged, or not Overseer's.
    #[error("the data file {} is damaged, or not a data file of Overseer", path.display())]
    Damaged {
        /// The data file.
        path: PathBuf,
        /// The reason from redb, or from the check of the file.
        source: Cause,
    },
    /// The rows have a format that this version does not know.
    #[error("the data file {} was written by a newer Overseer", path.display())]
    Newer {
        /// The data file.
        path: PathBuf,
        /// The format that the file names.
        format: u64,
    },
    /// The operating system refused access.
    #[error("the data file {} cannot be read or written: {source}", path.display())]
    Unusable {
        /// The data file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
}

/// A database. redb panics on some damaged pages; closing it contains such a panic.
pub(super) struct Store {
    /// `None` after it could not be opened again.
    database: RwLock<Option<Database>>,
    /// `None` for a database in memory.
    path: Option<PathBuf>,
}

impl Store {
    /// Runs `work` on one snapshot.
    pub(super) fn read<R>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<R, TableError>,
    ) -> Result<R, TableError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        work(&opened(database.as_ref())?.begin_read().map_err(store_error)?)
    }

    /// Runs `work` in a write transaction, which it has to commit.
    pub(super) fn write<R>(
        &self,
        work: impl FnOnce(WriteTransaction) -> Result<R, TableError>,
    ) -> Result<R, TableError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        work(opened(database.as_ref())?.begin_write().map_err(store_error)?)
    }

    /// Closes the file and opens it again: after one failed write, for example on a full disk, redb refuses every later one.
    /// Waits for the reads in progress. A database in memory stays as it is.
    pub(super) fn reopen(&self) -> Result<(), OpenError> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        close(database.take());
        // A file that has been deleted meanwhile is not replaced by an empty one.
        *database = Some(database_in(path, options().create(false))?);
        Ok(())
    }
}

fn opened(database: Option<&Database>) -> Result<&Database, TableError> {
    database.ok_or_else(|| TableError::store("the data file could not be opened again"))
}

fn close(database: Option<Database>) {
    if let Err(text) = catch_panic(|| drop(database)) {
        tracing::error!(panic = text, "failed to close the data file; it is damaged");
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        close(self.database.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Opens the file, or creates it.
pub(super) fn file(path: &Path) -> Result<Store, OpenError> {
    let unusable = |source| OpenError::Unusable { path: path.to_owned(), source };
    let new = !path.exists();
    let database = database_in(path, &options())?;
    protect(path).map_err(unusable)?;
    if new {
        sync_folder(path).map_err(unusable)?;
    }
    Ok(Store { database: RwLock::new(Some(database)), path: Some(path.to_owned()) })
}

/// The database in the file, opened with `options`.
fn database_in(path: &Path, options: &OpenOptions) -> Result<Database, OpenError> {
    let unusable = |source| OpenError::Unusable { path: path.to_owned(), source };
    let file = options.open(path).map_err(unusable)?;
    if !file.metadata().map_err(unusable)?.is_file() {
        return Err(OpenError::Damaged { path: path.to_owned(), source: "not a regular file".into() });
    }
    guarded(path, || prepare(path, builder().create_file(file)))
}

/// Creates a database without a file.
pub(super) fn memory() -> Result<Store, OpenError> {
    let path = Path::new(IN_MEMORY);
    let database = guarded(path, || prepare(path, builder().create_with_backend(InMemoryBackend::new())))?;
    Ok(Store { database: RwLock::new(Some(database)), path: None })
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(OWNER_ONLY);
    options
}

/// Checks that the database is Overseer's and of a known format. Marks a new one.
fn prepare(path: &Path, opened: Result<Database, DatabaseError>) -> Result<Database, OpenError> {
    let explained = |error: redb::Error| explain(path, error);
    let database = opened.map_err(|error| explained(error.into()))?;
    let tables = names(&database).map_err(explained)?;
    if tables.is_empty() {
        create(&database).map_err(explained)?;
    } else if !tables.iter().any(|name| name == MARK.name()) {
        return Err(OpenError::Damaged { path: path.to_owned(), source: "another program's database".into() });
    }
    let format = format(&database).map_err(explained)?;
    if format > FORMAT_NOW {
        return Err(OpenError::Newer { path: path.to_owned(), format });
    }
    Ok(database)
}

fn names(database: &Database) -> Result<Vec<String>, redb::Error> {
    Ok(database.begin_read()?.list_tables()?.map(|table| table.name().to_owned()).collect())
}

fn create(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(MARK)?.insert(FORMAT, FORMAT_NOW)?;
    drop(Tables::open(&transaction)?);
    Ok(transaction.commit()?)
}

fn format(database: &Database) -> Result<u64, redb::Error> {
    let row = database.begin_read()?.open_table(MARK)?.get(FORMAT)?;
    row.map(|row| row.value()).ok_or_else(|| redb::Error::Corrupted("the format is missing".to_owned()))
}

fn explain(path: &Path, error: redb::Error) -> OpenError {
    let path = path.to_owned();
    if matches!(error, redb::Error::DatabaseAlreadyOpen) {
        return OpenError::Availability { path };
    }
    if let redb::Error::Io(source) = error {
        // redb reports damage as an error of one of these two kinds.
        let damaged = matches!(source.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof);
        return if damaged {
            OpenError::Damaged { path, source: source.into() }
        } else {
            OpenError::Unusable { path, source }
        };
    }
    OpenError::Damaged { path, source: error.into() }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// The message of a panic.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}

fn guarded(path: &Path, open: impl FnOnce() -> Result<Database, OpenError>) -> Result<Database, OpenError> {
    let damaged = |text: String| Err(OpenError::Damaged { path: path.to_owned(), source: text.into() });
    catch_panic(open).unwrap_or_else(damaged)
}

/// The result of `work`, or the message of its panic. redb panics on some damaged files instead of returning an error; the
/// panic hook does not print these panics.
fn catch_panic<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                before(panic);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(false);
    result.map_err(|panic| panic_text(&*panic))
}
