//! The error log: every intent that failed is recorded without its secrets, counted by the hour, listed and resolved, and
//! the agent is told what to say about it.

mod fallbacks;
mod list;
mod record;
mod redaction;
mod resolve;
mod secret_names;
mod statistics;

pub use fallbacks::{FALLBACK_MAX, Fallback, NewFallback};
use futures_util::future::join3;
use jiff::{SignedDuration, Timestamp};
pub use list::FailureFilter;
use record::FailureRecord;
pub use record::{FailureView, KEPT, MESSAGE_MAX, Resolved, ResolvedBy};
pub use redaction::{KEPT_MAX_BYTES, STRING_MAX};
pub(crate) use redaction::{SchemaRedactor, redacted};
pub use resolve::{ManyResolved, NOTE_MAX, RESOLVE_MAX, ResolveMany};
pub(crate) use secret_names::looks_secret;
use serde_json::{Map, Value};
pub use statistics::{
    ActionCount, CodeCount, DAYS_MAX, GroupBy, HOURS_MAX, Point, Statistics, StatisticsQuery, ToolCount, Trends,
    TrendsQuery,
};

use crate::core::error::{Error, causes};
use crate::core::ids::{AgentId, FailureId, OrgId, RequestId, RunId, TaskId, UserId};
use crate::core::outcome::{Failure, OutcomeCode, cut};
use crate::engine::Engine;
use crate::plugin::manifest::{Action, Manifest};
use crate::ports::table::{Condition, TableError};
use crate::storage::keys;

/// How long a counter is kept: longer than the longest time that can be asked for, in whole days.
const COUNTS_KEPT: SignedDuration = SignedDuration::from_hours(32 * 24);

/// A failure that is to be recorded.
pub(crate) struct Failed<'a> {
    pub org: &'a OrgId,
    pub user: &'a UserId,
    pub agent: Option<&'a AgentId>,
    pub manifest: &'a Manifest,
    pub action: &'a Action,
    pub parameters: &'a Map<String, Value>,
    pub failure: &'a Failure,
    /// How often the service was called.
    pub attempts: u32,
    pub request: Option<&'a RequestId>,
    pub task: Option<&'a TaskId>,
    pub run: Option<&'a RunId>,
}

impl Engine {
    /// Records a failure, and finds what the agent is to say. Never fails itself: what the store does not take is logged.
    pub(crate) async fn note_failure(&self, failed: &Failed<'_>) -> String {
        let Failed { org, agent, manifest, failure, .. } = *failed;
        let now = self.ports.clock.now();
        let (fallback, kept, counted) = join3(
            self.fallback(org, agent, manifest, failure),
            self.keep_failure(failed, now),
            self.count_failure(failed, now),
        )
        .await;
        if let Err(error) = kept {
            tracing::error!(%org, error = %causes(&error), "a failure was not recorded");
        }
        if let Err(error) = counted {
            tracing::error!(%org, error = %causes(&error), "a failure was not counted");
        }
        fallback
    }

    async fn keep_failure(&self, failed: &Failed<'_>, now: Timestamp) -> Result<(), Error> {
        let Failed { failure, .. } = *failed;
        let parameters = redacted(&failed.action.parameters, failed.parameters);
        // A service may say what it was sent.
        let secrets = SchemaRedactor::among(&failed.action.parameters, failed.parameters, false);
        let record = FailureRecord {
            id: FailureId::parse(self.id_at(now)).map_err(Error::internal)?,
            user: failed.user.clone(),
            agent: failed.agent.cloned(),
            plugin: failed.manifest.name.clone(),
            version: failed.manifest.version.to_string(),
            action: failed.action.name.clone(),
            code: failure.code,
            message: cut(&secrets.text(failure.message.clone()), MESSAGE_MAX),
            retryable: failure.retryable,
            may_have_happened: failure.may_have_happened,
            retry_after_s: failure.retry_after_s,
            attempts: failed.attempts,
            request: failed.request.cloned(),
            task: failed.task.cloned(),
            run: failed.run.cloned(),
            parameters,
            at: now,
            resolved: None,
        };
        self.ports.table.put(record.item(failed.org)?, Condition::Absent).await?;
        Ok(())
    }

    async fn count_failure(&self, failed: &Failed<'_>, now: Timestamp) -> Result<(), TableError> {
        let code = name_of(failed.failure.code);
        let key = keys::failures_counted(failed.org, now, &failed.manifest.name, &failed.action.name, &code);
        self.ports.table.add(&key, 1, now.checked_add(COUNTS_KEPT).ok()).await?;
        Ok(())
    }
}

/// A code as it is written.
fn name_of(code: OutcomeCode) -> String {
    let name = serde_json::to_value(code).unwrap_or_default();
    name.as_str().unwrap_or_default().to_owned()
}
