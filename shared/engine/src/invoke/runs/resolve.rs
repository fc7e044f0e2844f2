//! Runs whose outcome is unknown, resolved by a caller: who checked at the service reports the outcome, and a retry or
//! abandon under the idempotency key is noted on its run.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tracing::debug_span;
use tracing::field::Empty;

use super::record::{IdempotencyRecord, KeyState, Resolution, Run, RunState, StoredAnswer, Verdict};
use super::view::RunView;
use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{RunId, UserId};
use crate::core::outcome::Success;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::ports::table::{Condition, Read, Write};
use crate::storage::compare_and_set::CompareAndSet;
use crate::storage::keys;

/// What a caller who checked at the service reports about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ReportedOutcome {
    /// The action had happened.
    Succeeded,
    /// The action had not happened.
    Failed,
}

impl ReportedOutcome {
    fn state_and_verdict(self) -> (RunState, Verdict) {
        match self {
            Self::Succeeded => (RunState::Succeeded, Verdict::Succeeded),
            Self::Failed => (RunState::Failed, Verdict::Failed),
        }
    }
}

impl Resolution {
    fn of(principal: &Principal, verdict: Verdict, at: Timestamp) -> Self {
        Self { verdict, at, by: principal.user.clone(), key: principal.key.clone() }
    }
}

impl Engine {
    /// Records the outcome that a caller reports for an unknown run. Its idempotency key then replays a success, or is free
    /// again if the action had not happened. `Conflict` if the run is not unknown.
    pub async fn resolve_run(
        self: &Arc<Self>,
        principal: &Principal,
        id: &str,
        outcome: ReportedOutcome,
    ) -> Result<RunView, Error> {
        let span = debug_span!("resolve_run", org = %principal.org, id, outcome = Empty);
        traced(span, async {
            let (engine, principal, id) = (Arc::clone(self), principal.clone(), id.to_owned());
            self.run_to_completion(async move {
                let mut race = CompareAndSet::default();
                loop {
                    let (mut run, item) = engine.visible_run(&principal, &id).await?;
                    let now = engine.ports.clock.now();
                    must_be_unknown(&run, now)?;
                    let (state, verdict) = outcome.state_and_verdict();
                    (run.state, run.code) = (state, None);
                    run.message = Some("a caller checked at the service and reported this outcome".to_owned());
                    run.resolved = Some(Resolution::of(&principal, verdict, now));
                    let mut writes = vec![Write::Put(run.item()?, Condition::Version(item.version))];
                    writes.extend(engine.idempotency_write(&run, outcome).await?);
                    match engine.ports.table.transact(writes).await {
                        Ok(_) => return Ok(run.whole(now)),
                        Err(error) => race.after_lost_race(error, "the run")?,
                    };
                }
            })
            .await
        })
        .await
    }

    /// The write to the key of a run that a caller resolved; none if the key is not this run's.
    async fn idempotency_write(&self, run: &Run, outcome: ReportedOutcome) -> Result<Option<Write>, Error> {
        let Some(key) = &run.key else { return Ok(None) };
        let table_key = keys::idempotency(&run.org, &run.user, key);
        let Some(item) = self.ports.table.get(&table_key, Read::Consistent).await? else { return Ok(None) };
        let record: IdempotencyRecord = item.record()?;
        if record.state.run() != Some(&run.id) {
            return Ok(None);
        }
        let condition = Condition::Version(item.version);
        Ok(Some(match outcome {
            ReportedOutcome::Failed => Write::Delete(table_key, condition),
            ReportedOutcome::Succeeded => {
                let message = "a caller checked at the service and reported that this had happened".to_owned();
                let success = Success { message, data: Value::Null, external_id: run.external_id.clone() };
                let answer = StoredAnswer { result: Ok(success), metadata: run.metadata(), decided: true };
                let state = KeyState::Ended { run: run.id.clone(), answer: Box::new(answer) };
                Write::Put(IdempotencyRecord { state, ..record }.item(&run.org, &run.user, key)?, condition)
            }
        }))
    }

    /// Notes on a run that its caller retried or abandoned it. The idempotency record decides; this note is for people who
    /// read the run, so a failed write is only logged.
    pub(crate) async fn note_decision(
        &self,
        principal: &Principal,
        user: &UserId,
        run: &RunId,
        verdict: Verdict,
        now: Timestamp,
    ) {
        let noted = async {
            let key = keys::run(&principal.org, user, run);
            let Some(item) = self.ports.table.get(&key, Read::Consistent).await? else { return Ok(()) };
            let mut run: Run = item.record()?;
            if run.state_at(now) == RunState::Unknown {
                run.state = RunState::Unknown;
                run.resolved = Some(Resolution::of(principal, verdict, now));
                self.ports.table.put(run.item()?, Condition::Version(item.version)).await?;
            }
            Ok::<(), Error>(())
        };
        if let Err(error) = noted.await {
            tracing::error!(org = %principal.org, %run, error = %causes(&error), "failed to note decision on run");
        }
    }
}

fn must_be_unknown(run: &Run, now: Timestamp) -> Result<(), Error> {
    if run.state_at(now) == RunState::Unknown {
        return Ok(());
    }
    let state = serde_json::to_value(run.state).unwrap_or_default();
    let state = state.as_str().unwrap_or_default();
    Err(Error::Conflict(format!("this run is {state}; only a run that is unknown can be resolved")))
}
