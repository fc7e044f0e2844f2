//! A worker runs a task that is due: it claims the task, executes the action once, and stores the result.

use tokio::time::Instant;

use super::claim::ClaimResult;
use super::record::{Claim, Task, task_key_of};
use super::transition::AttemptResult;
use crate::core::error::{Error, causes};
use crate::core::outcome::{Failure, Outcome, OutcomeCode};
use crate::core::work_report::WorkReport;
use crate::engine::Engine;
use crate::invoke::request::{ActionRequest, Origin};
use crate::invoke::runs::Replayable;
use crate::ports::table::Read;
use crate::ports::timer::Work;
use crate::storage::keys;

impl Engine {
    /// Runs the task that an alarm is for, if it is due and no other worker has claimed it. `deadline` is when this process
    /// must have ended: a task that may take longer is left.
    pub(crate) async fn run_due(&self, work: &Work, deadline: Option<Instant>) -> Result<WorkReport, Error> {
        let left = WorkReport { due: 1, left: 1, ..WorkReport::default() };
        if task_key_of(work).is_none() {
            return Ok(WorkReport::default());
        }
        if deadline.is_some_and(|deadline| Instant::now() + self.config.limits.task_budget > deadline) {
            return Ok(left);
        }
        let worker = self.ports.ids.hex(8);
        let Some(task) = self.claim_due_task(work, &worker).await? else { return Ok(WorkReport::default()) };
        // A worker that was suspended after its claim must not start what another worker may have settled already.
        let claim = task.claim.as_ref().filter(|claim| self.ports.clock.now() < claim.until);
        let Some(claim) = claim else { return Ok(left) };
        let attempt = self.attempt_task(&task, claim).await;
        let succeeded = attempt.result.is_ok();
        self.settle_task(&task, &worker, attempt).await?;
        let (succeeded, failed) = (usize::from(succeeded), usize::from(!succeeded));
        Ok(WorkReport { due: 1, claimed: 1, succeeded, failed, ..WorkReport::default() })
    }

    /// Claims the task that an alarm is for; `None` if nothing is due.
    async fn claim_due_task(&self, work: &Work, worker: &str) -> Result<Option<Box<Task>>, Error> {
        let Some((id, user)) = task_key_of(work) else { return Ok(None) };
        let key = keys::task(&work.org, &user, &id);
        loop {
            let Some(item) = self.ports.table.get(&key, Read::Consistent).await? else { return Ok(None) };
            match self.claim_task(&item, worker).await? {
                ClaimResult::NotDue => return Ok(None),
                ClaimResult::Reload => {}
                ClaimResult::Claimed(task) => return Ok(Some(task)),
            }
        }
    }

    /// Executes a task's action once. Every error becomes a failure of the attempt.
    #[tracing::instrument(level = "debug", skip_all, fields(plugin = %task.plugin, action = %task.action))]
    async fn attempt_task(&self, task: &Task, claim: &Claim) -> AttemptResult {
        let started = Instant::now();
        let deadline = started + self.config.limits.task_budget;
        let result = match self.execute_task(task, claim, deadline).await {
            Ok(replayable) => replayable.answer.result,
            // The plugin has changed since the caller created the task: a retry cannot help.
            Err(
                error @ (Error::Invalid(_)
                | Error::Forbidden(_)
                | Error::UnknownPlugin { .. }
                | Error::UnknownAction { .. }),
            ) => Err(Failure::new(OutcomeCode::Rejected, error.to_string(), false)),
            Err(error) => {
                tracing::error!(org = %task.org, task = %task.id, error = %causes(&error), "task attempt failed inside Overseer");
                Err(Failure::new(OutcomeCode::Unavailable, error.to_string(), true))
            }
        };
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        AttemptResult { result, duration_ms }
    }

    /// Executes a task's action with the plugin version that its organization uses.
    async fn execute_task(&self, task: &Task, claim: &Claim, deadline: Instant) -> Result<Replayable<Outcome>, Error> {
        let run = claim.run_id().map_err(Error::internal)?;
        let run = &run;
        self.with_current_plugin(&task.org, task.plugin.as_str(), |plugin| async move {
            let request = ActionRequest {
                org: &task.org,
                user: &task.user,
                agent: task.agent.as_ref(),
                channel: task.channel.as_ref(),
                plugin: &plugin,
                action: task.action.as_str(),
                alias: task.integration.as_ref(),
                parameters: &task.parameters,
                origin: Origin::Task { id: &task.id, run, until: claim.until, number: task.runs },
                deadline,
            };
            Box::pin(self.execute_action(request)).await
        })
        .await
    }
}
