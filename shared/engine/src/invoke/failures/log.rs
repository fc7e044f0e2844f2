//! Writing the error log: the record of a failure, and its hourly counter.

use futures_util::future::join3;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::record::{FailureRecord, MESSAGE_MAX};
use super::redaction::{SchemaRedactor, redacted};
use crate::core::error::{Error, causes};
use crate::core::ids::{AgentId, FailureId, OrgId, RequestId, RunId, TaskId, UserId};
use crate::core::outcome::{Failure, OutcomeCode, cut};
use crate::engine::Engine;
use crate::plugin::manifest::{Action, Manifest};
use crate::ports::table::{Condition, TableError};
use crate::storage::keys;

/// How long a counter is stored: longer than the longest period that statistics cover, in whole days.
const COUNTS_KEPT: SignedDuration = SignedDuration::from_hours(32 * 24);

/// A failed intent that is to be recorded.
pub(crate) struct Failed<'a> {
    pub org: &'a OrgId,
    pub user: &'a UserId,
    pub agent: Option<&'a AgentId>,
    pub manifest: &'a Manifest,
    pub action: &'a Action,
    pub parameters: &'a Map<String, Value>,
    pub failure: &'a Failure,
    /// How many times the service was called.
    pub attempts: u32,
    pub request: Option<&'a RequestId>,
    pub task: Option<&'a TaskId>,
    pub run: Option<&'a RunId>,
}

impl Engine {
    /// Records and counts a failure, and returns the fallback for the agent. Never fails: errors of the store are logged.
    pub(crate) async fn note_failure(&self, failed: &Failed<'_>) -> String {
        let Failed { org, agent, manifest, failure, .. } = *failed;
        let now = self.ports.clock.now();
        let (fallback, recorded, counted) = join3(
            self.fallback(org, agent, manifest, failure),
            self.record_failure(failed, now),
            self.count_failure(failed, now),
        )
        .await;
        if let Err(error) = recorded {
            tracing::error!(%org, error = %causes(&error), "failed to record failure");
        }
        if let Err(error) = counted {
            tracing::error!(%org, error = %causes(&error), "failed to count failure");
        }
        fallback
    }

    async fn record_failure(&self, failed: &Failed<'_>, now: Timestamp) -> Result<(), Error> {
        let Failed { failure, .. } = *failed;
        let parameters = redacted(&failed.action.parameters, failed.parameters);
        // The service's message may repeat parameters.
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
        let code = code_name(failed.failure.code);
        let key = keys::failures_counted(failed.org, now, &failed.manifest.name, &failed.action.name, &code);
        self.ports.table.add(&key, 1, now.checked_add(COUNTS_KEPT).ok()).await?;
        Ok(())
    }
}

/// The code's name as it is serialized.
pub(super) fn code_name(code: OutcomeCode) -> String {
    let name = serde_json::to_value(code).unwrap_or_default();
    name.as_str().unwrap_or_default().to_owned()
}
