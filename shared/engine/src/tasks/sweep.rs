//! The sweep: sets the alarms of due work whose alarm was lost. It reads in proportion to what is due, and runs nothing.

use jiff::Timestamp;
use tracing::debug_span;
use tracing::field::Empty;

use super::record::Task;
use crate::accounts::pending_work;
use crate::core::error::{Error, causes};
use crate::core::trace::traced;
use crate::core::work_report::WorkReport;
use crate::engine::Engine;
use crate::events::webhook_work;
use crate::ports::table::{BATCH_MAX, Item, Read, TableError};
use crate::ports::timer::{Queue, Work};

/// About how many items of each queue one sweep enqueues.
const SWEEP_MAX: usize = 10_000;

/// When an alarm fires.
#[derive(Debug, Clone, Copy)]
enum AlarmTime {
    /// At one time for all items.
    At(Timestamp),
    /// At each item's due time.
    WhenDue,
}

impl Engine {
    /// Sets an alarm, for now, of every item that is due and that no worker has claimed.
    pub async fn sweep(&self) -> Result<WorkReport, Error> {
        let span = debug_span!("sweep", outcome = Empty);
        traced(span, async {
            let now = self.ports.clock.now();
            self.enqueue_due(now, AlarmTime::At(now), SWEEP_MAX).await
        })
        .await
    }

    /// Sets every alarm again, for a process whose alarms end with it. Overdue alarms fire at once.
    pub async fn set_alarms(&self) -> Result<(), Error> {
        let span = debug_span!("set_alarms", outcome = Empty);
        traced(span, async { self.enqueue_due(Timestamp::MAX, AlarmTime::WhenDue, usize::MAX).await.map(|_| ()) }).await
    }

    /// Sets the alarms of all items that are due until `until`, at most about `limit` of each queue.
    async fn enqueue_due(&self, until: Timestamp, alarm: AlarmTime, limit: usize) -> Result<WorkReport, Error> {
        let mut report = WorkReport::default();
        for queue in Queue::ALL {
            report += self.enqueue_due_in(queue, until, alarm, limit).await?;
        }
        report.left = report.due - report.enqueued;
        Ok(report)
    }

    async fn enqueue_due_in(
        &self,
        queue: Queue,
        until: Timestamp,
        alarm: AlarmTime,
        limit: usize,
    ) -> Result<WorkReport, Error> {
        let mut report = WorkReport::default();
        let mut cursor = None;
        while report.due < limit {
            let page = self.ports.table.query_due(queue.as_str(), until, BATCH_MAX, cursor).await?;
            let keys: Vec<_> = page.entries.iter().map(|entry| entry.key.clone()).collect();
            let items = match keys.as_slice() {
                [] => Vec::new(),
                keys => self.ports.table.batch_get(keys, Read::Eventual).await?,
            };
            for (entry, item) in page.entries.into_iter().zip(items) {
                // A worker has finished it since the query.
                let Some(item) = item else { continue };
                report.due += 1;
                self.enqueue(queue, &item, entry.at, alarm, &mut report).await;
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(report)
    }

    /// Sets the alarm of one item. A failure is only logged: it must not keep the other items waiting.
    async fn enqueue(&self, queue: Queue, item: &Item, due_at: Timestamp, alarm: AlarmTime, report: &mut WorkReport) {
        let queue_name = queue.as_str();
        let work = match work_of(queue, item) {
            Ok(work) => work,
            Err(error) => {
                tracing::error!(queue = queue_name, error = %causes(&error), "failed to read due item");
                return;
            }
        };
        report.oldest_due = report.oldest_due.into_iter().chain([due_at]).min();
        let at = match alarm {
            AlarmTime::At(at) => at,
            AlarmTime::WhenDue => due_at,
        };
        match self.ports.timer.set(work, at).await {
            Ok(()) => report.enqueued += 1,
            Err(error) => {
                tracing::error!(queue = queue_name, error = %causes(&error), "failed to schedule alarm of due item");
            }
        }
    }
}

/// The work that an alarm of a queue's item carries.
fn work_of(queue: Queue, item: &Item) -> Result<Work, TableError> {
    match queue {
        Queue::Tasks => item.record().map(|task: Task| task.work()),
        Queue::PendingAccounts => pending_work(item),
        Queue::Webhooks => webhook_work(item),
    }
}
