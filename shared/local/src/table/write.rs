//! The writer thread. It takes all waiting requests, runs them in order in one redb transaction, commits once, and then
//! replies to each.

use std::borrow::Cow;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use jiff::Timestamp;
use overseer_engine::core::error::causes;
use overseer_engine::ports::table::{Condition, Key, TableError, Version, Write};
use overseer_engine::ports::{Clock, Ids};
use redb::{Durability, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::open::{Store, panic_text};
use super::schema::{Header, Tables, store_error};

/// The most requests that wait, and the most that share a commit.
const QUEUE_MAX: usize = 1024;
/// The most expired items that one commit removes.
const SWEEP_MAX: usize = 100;

/// The result of one write.
pub(super) enum WriteResult {
    /// The version of the stored item.
    Stored(Version),
    /// The new value of the counter.
    Sum(i64),
    /// A write without a value.
    Done,
}

type WriteReply = Result<Vec<WriteResult>, TableError>;

struct Request {
    /// At most one write for each item.
    writes: Vec<Write>,
    reply: oneshot::Sender<WriteReply>,
}

/// A handle on the thread. Dropping it ends the thread.
pub(super) struct Writer {
    requests: Option<mpsc::Sender<Request>>,
    commits: Arc<AtomicU64>,
    failure: Arc<Mutex<Option<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(store: Arc<Store>, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> io::Result<Self> {
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let commits = Arc::new(AtomicU64::new(0));
        let failure = Arc::default();
        let writer = WriterLoop { store, clock, ids, commits: Arc::clone(&commits), failure: Arc::clone(&failure) };
        let thread = Builder::new().name("overseer-writer".to_owned()).spawn(move || writer.run(queue))?;
        Ok(Self { requests: Some(requests), commits, failure, thread: Some(thread) })
    }

    /// Why the last commit failed; `None` if it succeeded.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Does all of the writes or none, and returns a result for each.
    pub(super) async fn submit(&self, writes: Vec<Write>) -> WriteReply {
        let (reply, replied) = oneshot::channel();
        let queue = self.requests.as_ref().ok_or_else(writer_stopped)?;
        queue.send(Request { writes, reply }).await.map_err(|_| writer_stopped())?;
        replied.await.map_err(|_| writer_stopped())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // The thread catches its panics, and a drop could not report one.
            let _ = thread.join();
        }
    }
}

fn writer_stopped() -> TableError {
    TableError::store("the writer has stopped")
}

/// The change of one item, planned after all conditions of its request were checked.
struct Change<'a> {
    key: &'a Key,
    old: Option<Header>,
    new: Option<(Header, Cow<'a, str>)>,
}

struct WriterLoop {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    commits: Arc<AtomicU64>,
    failure: Arc<Mutex<Option<String>>>,
}

impl WriterLoop {
    fn run(&self, mut queue: mpsc::Receiver<Request>) {
        let mut batch = Vec::new();
        while queue.blocking_recv_many(&mut batch, QUEUE_MAX) > 0 {
            // redb panics on some damaged pages. The thread goes on, since the next batch may not touch them.
            let replies = catch_unwind(AssertUnwindSafe(|| self.reopen_and_commit(&batch)))
                .unwrap_or_else(|panic| Err(TableError::store(panic_text(&*panic))));
            self.note(replies.as_ref().err());
            match replies {
                Ok(replies) => {
                    for (request, reply) in batch.drain(..).zip(replies) {
                        // Fails if the caller has stopped waiting.
                        let _ = request.reply.send(reply);
                    }
                }
                Err(error) => {
                    let cause: &dyn std::error::Error = &error;
                    tracing::error!(cause, "store commit failed");
                    let error = Arc::new(error);
                    for request in batch.drain(..) {
                        let _ = request.reply.send(Err(TableError::store(Arc::clone(&error))));
                    }
                }
            }
        }
    }

    /// Notes whether the last commit failed, and logs when commits succeed again.
    fn note(&self, error: Option<&TableError>) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_some() && error.is_none() {
            tracing::info!("store commits succeed again");
        }
        *failure = error.map(|error| causes(error));
    }

    /// Like [`commit`](Self::commit), with the file opened again if the commit before failed.
    fn reopen_and_commit(&self, batch: &[Request]) -> Result<Vec<WriteReply>, TableError> {
        let has_failed = self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if has_failed {
            self.store.reopen().map_err(TableError::store)?;
        }
        self.store.write(|transaction| self.commit(transaction, batch))
    }

    /// Commits a batch and returns one reply for each request, to be sent only after this has returned. An error is the
    /// reply to every request of the batch.
    fn commit(&self, mut transaction: WriteTransaction, batch: &[Request]) -> Result<Vec<WriteReply>, TableError> {
        let now_s = self.clock.now().as_second();
        transaction.set_durability(Durability::Immediate).map_err(store_error)?;
        let mut tables = Tables::open(&transaction).map_err(store_error)?;
        let mut replies = Vec::with_capacity(batch.len());
        let mut dirty = false;
        for request in batch {
            match self.plan(&tables, &request.writes, now_s) {
                Ok((changes, results)) => {
                    for change in changes {
                        dirty |= apply(&mut tables, &change)?;
                    }
                    replies.push(Ok(results));
                }
                Err(error @ TableError::Store(_)) => return Err(error),
                Err(refusal) => replies.push(Err(refusal)),
            }
        }
        if dirty {
            tables.sweep(now_s, SWEEP_MAX)?;
            drop(tables);
            transaction.commit().map_err(store_error)?;
            self.commits.fetch_add(1, Ordering::Relaxed);
        } else {
            drop(tables);
            transaction.abort().map_err(store_error)?;
        }
        Ok(replies)
    }

    /// Checks every condition of a request and plans its changes. Writes nothing.
    fn plan<'a>(
        &self,
        tables: &Tables<'_>,
        writes: &'a [Write],
        now_s: i64,
    ) -> Result<(Vec<Change<'a>>, Vec<WriteResult>), TableError> {
        let mut changes = Vec::with_capacity(writes.len());
        let mut results = Vec::with_capacity(writes.len());
        for (index, write) in writes.iter().enumerate() {
            let (change, result) = match write {
                Write::Put(item, condition) => {
                    let old = check(tables, index, &item.key, condition, now_s)?;
                    let header = Header::of(item, self.version());
                    let result = WriteResult::Stored(header.version.clone());
                    let new = Some((header, Cow::Borrowed(item.body.as_str())));
                    (Some(Change { key: &item.key, old, new }), result)
                }
                Write::Delete(key, condition) => {
                    let old = check(tables, index, key, condition, now_s)?;
                    (Some(Change { key, old, new: None }), WriteResult::Done)
                }
                Write::Check(key, condition) => {
                    check(tables, index, key, condition, now_s)?;
                    (None, WriteResult::Done)
                }
                Write::Add(key, amount, expires_at) => {
                    let (change, sum) = self.plan_add(tables, key, *amount, *expires_at, now_s)?;
                    (Some(change), WriteResult::Sum(sum))
                }
            };
            changes.extend(change);
            results.push(result);
        }
        Ok((changes, results))
    }

    fn plan_add<'a>(
        &self,
        tables: &Tables<'_>,
        key: &'a Key,
        amount: i64,
        expires_at: Option<Timestamp>,
        now_s: i64,
    ) -> Result<(Change<'a>, i64), TableError> {
        let old = tables.find(key, |header, body| {
            let live = (!header.expired(now_s)).then(|| (header.clone(), body.to_owned()));
            (header, live)
        })?;
        let (old, live) = old.map_or((None, None), |(header, live)| (Some(header), live));
        let (header, body, sum) = match live {
            Some((header, body)) => {
                let sum = header.count.unwrap_or(0).checked_add(amount);
                let sum = sum.ok_or(TableError::Request("a counter would leave its range"))?;
                (header.with_count(sum), Cow::Owned(body), sum)
            }
            None => (Header::of_counter(self.version(), amount, expires_at), Cow::Borrowed(""), amount),
        };
        Ok((Change { key, old, new: Some((header, body)) }, sum))
    }

    fn version(&self) -> Version {
        Version(self.ids.hex(16))
    }
}

/// The header of the stored item, expired or not, if the condition holds.
fn check(
    tables: &Tables<'_>,
    index: usize,
    key: &Key,
    condition: &Condition,
    now_s: i64,
) -> Result<Option<Header>, TableError> {
    let old = tables.find(key, |header, _| header)?;
    let live = old.as_ref().filter(|header| !header.expired(now_s));
    let holds = match condition {
        Condition::Any => true,
        Condition::Absent => live.is_none(),
        Condition::Version(version) => live.is_some_and(|header| header.version == *version),
    };
    if holds {
        return Ok(old);
    }
    let current = match live {
        Some(_) => tables.find(key, |header, body| header.into_item(key.clone(), body.to_owned()))?.transpose()?,
        None => None,
    };
    Err(TableError::Condition { index, current: current.map(Box::new) })
}

/// Writes a change. Returns whether it changed anything.
fn apply(tables: &mut Tables<'_>, change: &Change<'_>) -> Result<bool, TableError> {
    match (&change.old, &change.new) {
        (old, Some((header, body))) => tables.replace(change.key, old.as_ref(), header, body)?,
        (Some(old), None) => tables.remove(change.key, old)?,
        (None, None) => return Ok(false),
    }
    Ok(true)
}
