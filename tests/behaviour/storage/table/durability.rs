//! Acknowledged writes survive the death of the process. The test kills a child process: this same test binary, which runs
//! [`child`] only.

#![expect(clippy::unwrap_used, reason = "these are helpers of tests")]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use overseer_engine::ports::table::{Condition, NewItem, Query, Range, Read, Write};
use overseer_engine::ports::{RandomIds, SystemClock, Table};
use overseer_local::RedbTable;
use tokio::task::JoinSet;

use super::{body, follow, key, query};

const FILE: &str = "OVERSEER_TEST_DURABILITY_FILE";
const ROUND: &str = "OVERSEER_TEST_DURABILITY_ROUND";
const ROUNDS: usize = 5;
const ACKNOWLEDGED: usize = 300;
const WRITERS: usize = 16;

fn open(path: &Path) -> RedbTable {
    RedbTable::open(path, Arc::new(SystemClock), Arc::new(RandomIds)).unwrap()
}

/// Reports to the parent; exits if the parent has gone.
fn acknowledge(line: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(format!("\n{line}\n").as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

/// Increments a counter that all writers share, and stores a record of the number in the same transaction.
async fn raise(table: &RedbTable) -> Option<u64> {
    let place = key("p", "counter");
    let current = table.get(&place, Read::Consistent).await.unwrap();
    let (number, condition) = match current {
        Some(item) => (item.record::<u64>().unwrap() + 1, Condition::Version(item.version)),
        None => (1, Condition::Absent),
    };
    let record = body("p", &format!("raised/{number:09}"), "{}");
    let counter = NewItem { key: place, ..body("p", "", &number.to_string()) };
    let writes = vec![Write::Put(counter, condition), Write::Put(record, Condition::Absent)];
    table.transact(writes).await.is_ok().then_some(number)
}

/// Writes without end, if the environment says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let (Some(path), Ok(round)) = (std::env::var_os(FILE), std::env::var(ROUND)) else { return };
    let table = Arc::new(open(&PathBuf::from(path)));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (table, round) = (Arc::clone(&table), round.clone());
        writers.spawn(async move {
            for number in 0_u64.. {
                let sort = format!("put/{round}/{writer}/{number}");
                table.put(body("p", &sort, &"x".repeat(500)), Condition::Absent).await.unwrap();
                acknowledge(&sort);
                if let Some(number) = raise(&table).await {
                    acknowledge(&format!("raised/{number:09}"));
                }
            }
        });
    }
    writers.join_all().await;
}

/// The lines of a child that was killed after it had acknowledged enough.
fn killed_child(path: &Path, round: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "storage::table::durability::child", "--nocapture"])
        .env(FILE, path)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (mut lines, mut line) = (Vec::new(), String::new());
    while out.read_line(&mut line).unwrap() > 0 {
        if let Some(whole) = line.strip_suffix('\n')
            && (whole.starts_with("put/") || whole.starts_with("raised/"))
        {
            lines.push(whole.to_owned());
        }
        if lines.len() == ACKNOWLEDGED {
            child.kill().unwrap();
        }
        line.clear();
    }
    assert!(!child.wait().unwrap().success());
    lines
}

#[tokio::test]
async fn acknowledged_writes_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("overseer.redb");
    let mut acknowledged = HashSet::new();
    for round in 1..=ROUNDS {
        let lines = killed_child(&path, round);
        assert!(lines.len() >= ACKNOWLEDGED);
        for line in lines {
            // The same number for two writers would be a lost update.
            assert!(acknowledged.insert(line.clone()), "{line} was acknowledged twice");
        }

        let table = open(&path);
        let all = |range: Range| {
            let table = &table;
            follow(1_000, None, move |cursor| {
                let page = Query { cursor, limit: 1_000, ..query(range.clone()) };
                async { table.query(page).await.unwrap() }
            })
        };
        let found: HashSet<_> = all(Range::All).await.into_iter().map(|item| item.stored.key.sort).collect();
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "lost in round {round}: {lost:?}");

        let raised = all(Range::Prefix("raised/".to_owned())).await;
        let counter = table.get(&key("p", "counter"), Read::Consistent).await.unwrap().unwrap();
        let count: usize = counter.record().unwrap();
        assert_eq!(raised.len(), count);
        // What was written but could not be acknowledged any more: one put and one number for each writer and round.
        assert!(found.len() - 1 - acknowledged.len() <= 2 * WRITERS * round);
    }
}
