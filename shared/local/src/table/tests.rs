//! What the conformance suite cannot see: how files open, and the rows of the indexes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

use overseer_engine::ports::table::Due;
use overseer_engine::ports::{RandomIds, SystemClock};
use redb::{Database, ReadTransaction, TableDefinition};
use tempfile::TempDir;

use super::schema::{DUE, EXPIRY, LIST};
use super::*;

struct TestClock(Mutex<Timestamp>);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

fn key(sort: impl Into<String>) -> Key {
    Key { partition: "p".to_owned(), sort: sort.into() }
}

fn item(sort: impl Into<String>, body: &str) -> NewItem {
    NewItem { key: key(sort), body: body.to_owned(), count: None, expires_at: None, due: None, list: None }
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn open(path: &Path) -> Result<RedbTable, OpenError> {
    RedbTable::open(path, Arc::new(SystemClock), Arc::new(RandomIds))
}

fn folder_and_file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("overseer.redb");
    (folder, path)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn sentence(path: &Path, rest: &str) -> String {
    format!("the data file {} {rest}", path.display())
}

/// The rows of items, list, due and expiry.
fn rows(table: &RedbTable) -> [u64; 4] {
    let count = |transaction: &ReadTransaction| {
        Ok([
            transaction.open_table(ITEMS).unwrap().len().unwrap(),
            transaction.open_table(LIST).unwrap().len().unwrap(),
            transaction.open_table(DUE).unwrap().len().unwrap(),
            transaction.open_table(EXPIRY).unwrap().len().unwrap(),
        ])
    };
    table.store.read(count).unwrap()
}

#[tokio::test]
async fn each_commit_removes_a_hundred_expired_items() {
    let clock = Arc::new(TestClock(Mutex::new(second(1_000))));
    let table = RedbTable::in_memory(clock.clone(), Arc::new(RandomIds)).unwrap();
    for number in 0..250 {
        let mut item = item(format!("{number:03}"), "{}");
        item.expires_at = Some(second(2_000 + number));
        item.due = Some(Due { queue: "q".to_owned(), at: second(1) });
        item.list = Some(key("l"));
        table.put(item, Condition::Any).await.unwrap();
    }
    assert_eq!(rows(&table), [250; 4]);
    *clock.0.lock().unwrap() = second(3_000);
    for left in [150, 50, 0] {
        table.put(item("stays", "{}"), Condition::Any).await.unwrap();
        assert_eq!(rows(&table), [left + 1, left, left, left]);
    }
}

#[tokio::test]
async fn index_rows_follow_their_item() {
    let table = RedbTable::in_memory(Arc::new(TestClock(Mutex::new(second(0)))), Arc::new(RandomIds)).unwrap();
    let mut full = item("a", "{}");
    full.expires_at = Some(second(10));
    full.due = Some(Due { queue: "q".to_owned(), at: second(1) });
    full.list = Some(key("l"));
    table.put(full.clone(), Condition::Any).await.unwrap();
    assert_eq!(rows(&table), [1, 1, 1, 1]);
    full.expires_at = Some(second(11));
    full.due = Some(Due { queue: "q".to_owned(), at: second(2) });
    full.list = Some(key("m"));
    table.put(full.clone(), Condition::Any).await.unwrap();
    assert_eq!(rows(&table), [1, 1, 1, 1]);
    table.add(&full.key, 1, None).await.unwrap();
    assert_eq!(rows(&table), [1, 1, 1, 1]);
    table.put(item("a", "{}"), Condition::Any).await.unwrap();
    assert_eq!(rows(&table), [1, 0, 0, 0]);
    table.put(full.clone(), Condition::Any).await.unwrap();
    table.delete(&full.key, Condition::Any).await.unwrap();
    assert_eq!(rows(&table), [0, 0, 0, 0]);
}

#[tokio::test]
async fn refused_request_costs_no_commit() {
    let table = RedbTable::in_memory(Arc::new(SystemClock), Arc::new(RandomIds)).unwrap();
    table.put(item("a", "{}"), Condition::Any).await.unwrap();
    table.put(item("a", "{}"), Condition::Absent).await.unwrap_err();
    table.delete(&key("b"), Condition::Any).await.unwrap();
    table.transact(vec![Write::Check(key("a"), Condition::Any)]).await.unwrap();
    assert_eq!(table.commits(), 1);
}

#[test]
fn file_is_readable_by_its_owner_only() {
    let (_folder, path) = folder_and_file();
    drop(open(&path).unwrap());
    assert_eq!(mode(&path), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    drop(open(&path).unwrap());
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn second_opening_is_refused_until_the_first_closes() {
    let (_folder, path) = folder_and_file();
    let first = open(&path).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Availability { .. }));
    assert_eq!(error.to_string(), sentence(&path, "is already open in another Overseer; stop that first"));
    drop(first);
    open(&path).unwrap();
}

#[test]
fn unusable_path_is_named_with_the_reason() {
    let (folder, _) = folder_and_file();
    let path = folder.path().join("missing/overseer.redb");
    let reason = "cannot be read or written: No such file or directory (os error 2)";
    assert_eq!(open(&path).unwrap_err().to_string(), sentence(&path, reason));
    let reason = "cannot be read or written: Is a directory (os error 21)";
    assert_eq!(open(folder.path()).unwrap_err().to_string(), sentence(folder.path(), reason));
}

#[test]
fn file_of_another_program_is_refused_unchanged() {
    let (_folder, path) = folder_and_file();
    for content in [b"hello".to_vec(), b"SQLite format 3\0".repeat(5_000), vec![0; 100_000], b"redb".to_vec()] {
        fs::write(&path, &content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = open(&path).unwrap_err();
        assert_eq!(error.to_string(), sentence(&path, "is damaged, or not a data file of Overseer"));
        assert_eq!(fs::read(&path).unwrap(), content);
        assert_eq!(mode(&path), 0o644);
    }
    let device = Path::new("/dev/null");
    assert!(matches!(open(device), Err(OpenError::Damaged { .. })));
}

#[test]
fn deleted_file_is_not_replaced_on_reopening() {
    let (_folder, path) = folder_and_file();
    let table = open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(matches!(table.store.reopen(), Err(OpenError::Unusable { .. })));
    assert!(!path.exists());
}

fn write_row(path: &Path, table: TableDefinition<&str, u64>, key: &str, value: u64) {
    let database = Database::create(path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert(key, value).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn database_of_another_program_is_refused() {
    let (_folder, path) = folder_and_file();
    write_row(&path, TableDefinition::new("others"), "a", 1);
    assert!(matches!(open(&path), Err(OpenError::Damaged { .. })));
}

#[test]
fn database_of_a_newer_overseer_is_refused() {
    let (_folder, path) = folder_and_file();
    drop(open(&path).unwrap());
    write_row(&path, TableDefinition::new("overseer"), "format", 2);
    let error = open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Newer { format: 2, .. }));
    assert_eq!(error.to_string(), sentence(&path, "was written by a newer Overseer"));
}

#[test]
fn empty_file_becomes_a_data_file() {
    let (_folder, path) = folder_and_file();
    fs::write(&path, b"").unwrap();
    open(&path).unwrap();
}

/// A data file with a thousand items, closed cleanly or left as by a crash.
async fn filled(path: &Path, crashed: bool) -> Vec<u8> {
    let table = open(path).unwrap();
    let body = "x".repeat(300);
    for chunk in 0..10 {
        let writes = (0..100).map(|number| {
            let mut item = item(format!("{:04}", chunk * 100 + number), &body);
            item.due = Some(Due { queue: "q".to_owned(), at: second(number) });
            item.list = Some(key("l"));
            Write::Put(item, Condition::Any)
        });
        table.transact(writes.collect()).await.unwrap();
    }
    let while_open = fs::read(path).unwrap();
    drop(table);
    if crashed { while_open } else { fs::read(path).unwrap() }
}

/// Opens a damaged file and runs every operation on it. Errors are fine; a panic out of the store is not.
async fn try_everything(path: &Path) -> Option<OpenError> {
    let table = match open(path) {
        Ok(table) => table,
        Err(error) => return Some(error),
    };
    let query = Query::partition("p", 5_000);
    let _ = table.query(Query { backwards: true, ..query.clone() }).await;
    let _ = table.query_list(query).await;
    let _ = table.query_due("q", second(1_000), 5_000, None).await;
    let _ = table.get(&key("0500"), Read::Consistent).await;
    let _ = table.put(item("0500", "{}"), Condition::Absent).await;
    let _ = table.put(item("0500", "{}"), Condition::Any).await;
    let _ = table.delete(&key("0501"), Condition::Any).await;
    None
}

#[tokio::test]
async fn truncated_files_open_or_are_refused() {
    let (_folder, path) = folder_and_file();
    for crashed in [false, true] {
        let whole = filled(&path, crashed).await;
        for tenth in 0..=10 {
            let length = whole.len() * tenth / 10;
            for length in [length.saturating_sub(1), length, (length + 1).min(whole.len())] {
                fs::write(&path, &whole[..length]).unwrap();
                if let Some(error) = try_everything(&path).await {
                    assert!(matches!(error, OpenError::Damaged { .. }), "{length}: {error:?}");
                }
            }
        }
        fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn files_with_changed_bytes_open_or_are_refused() {
    let (_folder, path) = folder_and_file();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % u64::try_from(below).unwrap()).unwrap()
    };
    for crashed in [false, true] {
        let whole = filled(&path, crashed).await;
        for round in 0..60 {
            let mut bytes = whole.clone();
            // Every other round damages the head of the file, where the roots are.
            let within = if round % 2 == 0 { 512 } else { bytes.len() };
            for _ in 0..=next(8) {
                let index = next(within);
                bytes[index] ^= u8::try_from(1 + next(255)).unwrap();
            }
            if round % 5 == 0 {
                let page = next(bytes.len() / 4096) * 4096;
                bytes[page..page + 4096].fill(0);
            }
            fs::write(&path, &bytes).unwrap();
            if let Some(error) = try_everything(&path).await {
                assert!(matches!(error, OpenError::Damaged { .. }), "{round}: {error:?}");
            }
        }
        fs::remove_file(&path).unwrap();
    }
}
