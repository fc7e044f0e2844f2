//! The ledger at work: what may happen is on record before it can happen, and what came of it is written down after.

use jiff::Timestamp;
use serde_json::Value;

use super::record::{AttemptRef, IdempotencyRecord, KeyState, Run, RunState, StoredAnswer, is_kept};
use crate::core::effect::Effect;
use crate::core::error::{Error, causes};
use crate::core::ids::{IdempotencyKey, RunId};
use crate::core::outcome::{Failure, Metadata, OutcomeCode, Success};
use crate::engine::Engine;
use crate::ports::table::{Condition, Read, TableError, Version, Write};
use crate::storage::keys;

/// How often it is tried to write down how a run ended.
const TRIES: usize = 5;

/// A key that a run is claimed under.
#[derive(Debug, Clone)]
pub(crate) struct KeyClaim {
    pub key: IdempotencyKey,
    /// The SHA-256 of what was asked.
    pub payload: String,
    /// What has to stand under the key.
    pub condition: Condition,
}

/// A run that is on record.
#[derive(Debug)]
pub(crate) struct StartedRun {
    run: Run,
    version: Version,
    /// The key, with what was put under it, and what has to stand there.
    kept: Option<(IdempotencyKey, IdempotencyRecord, Condition)>,
}

impl StartedRun {
    pub(crate) fn id(&self) -> &RunId {
        &self.run.id
    }

    pub(crate) fn until(&self) -> Timestamp {
        self.run.until
    }
}

/// What stands in the places of a run.
struct StoredRun {
    run: Option<(Run, Version)>,
    kept: Option<(IdempotencyRecord, Version)>,
}

/// What the ledger says of a task's attempt whose worker was not heard of again.
pub(crate) enum Fenced {
    /// It had not begun, and now it cannot any more.
    NeverBegun,
    /// It had ended so.
    Ended { result: Result<Success, Failure>, duration_ms: u64 },
    /// It had begun.
    Unknown,
}

impl Engine {
    /// Looks what became of a task's attempt whose claim has run out, and sees to it that one that had not begun never
    /// will: the worker finds its place in the ledger taken, should it come back.
    pub(crate) async fn fence_attempt(&self, attempt: AttemptRef<'_>, effect: Effect) -> Result<Fenced, Error> {
        let run = Run::never_started(attempt, effect, self.ports.clock.now());
        let standing = match self.ports.table.put(run.item()?, Condition::Absent).await {
            Ok(_) => return Ok(Fenced::NeverBegun),
            Err(TableError::Condition { standing, .. }) => standing,
            Err(error) => return Err(error.into()),
        };
        let Some(standing) = standing else { return Ok(Fenced::Unknown) };
        let standing: Run = standing.record()?;
        Ok(match standing.state {
            RunState::Failed if standing.attempts == 0 => Fenced::NeverBegun,
            RunState::Succeeded | RunState::Failed => {
                let duration_ms = standing.took_ms();
                let message = standing.message.unwrap_or_default();
                let result = if standing.state == RunState::Succeeded {
                    Ok(Success { message, data: Value::Null, external_id: standing.external_id })
                } else {
                    let code = standing.code.unwrap_or(OutcomeCode::Unavailable);
                    let failure = Failure::new(code, message, standing.try_again);
                    Err(Failure { retry_after_s: standing.retry_after_s, ..failure })
                };
                Fenced::Ended { result, duration_ms }
            }
            RunState::Started | RunState::Unknown => Fenced::Unknown,
        })
    }

    /// Puts a run on record as started, under its key if it has one: `None` if somebody else was faster, or if the run was
    /// declared as never begun.
    pub(crate) async fn begin_run(&self, run: Run, claim: Option<KeyClaim>) -> Result<Option<StartedRun>, Error> {
        let (org, user) = (run.org.clone(), run.user.clone());
        let kept = claim.map(|KeyClaim { key, payload, condition }| {
            let state = KeyState::Started { run: run.id.clone(), until: run.until, by: run.version.clone() };
            (key, IdempotencyRecord { payload, made_at: run.started_at, state }, condition)
        });
        let written = match &kept {
            None => self.ports.table.put(run.item()?, Condition::Absent).await.map(|version| vec![version]),
            Some((key, kept, condition)) => {
                let writes = vec![
                    Write::Put(kept.item(&org, &user, key)?, condition.clone()),
                    Write::Put(run.item()?, Condition::Absent),
                ];
                self.ports.table.transact(writes).await
            }
        };
        let mut versions = match written {
            Ok(versions) => versions,
            Err(TableError::Condition { .. }) => return Ok(None),
            // Perhaps it was written. Nothing has left yet, so that this worker may go on if it was.
            Err(error) => match self.standing(&run, kept.as_ref().map(|(key, ..)| key)).await {
                Ok(Some(versions)) => versions,
                Ok(None) => return Err(error.into()),
                Err(again) => {
                    tracing::error!(%org, run = %run.id, error = %causes(&again), "whether a run is on record is not known");
                    return Err(error.into());
                }
            },
        };
        let version = versions.pop().ok_or(TableError::Request("a write gave no version"))?;
        let kept = kept.zip(versions.pop());
        let kept = kept.map(|((key, kept, _), version)| (key, kept, Condition::Version(version)));
        Ok(Some(StartedRun { run, version, kept }))
    }

    /// What stands in a run's place, and under its key, each with its version. One read.
    async fn places(&self, run: &Run, key: Option<&IdempotencyKey>) -> Result<StoredRun, Error> {
        let place = key.map(|key| keys::idempotency(&run.org, &run.user, key));
        let wanted: Vec<_> = place.into_iter().chain([keys::run(&run.org, &run.user, &run.id)]).collect();
        let mut found = self.ports.table.batch_get(&wanted, Read::Consistent).await?;
        let run = found.pop().flatten().map(|item| Ok::<_, TableError>((item.record()?, item.version)));
        let kept = found.pop().flatten().map(|item| Ok::<_, TableError>((item.record()?, item.version)));
        Ok(StoredRun { run: run.transpose()?, kept: kept.transpose()? })
    }

    /// The versions of what stands there, if it is this run: of the key first, if there is one.
    async fn standing(&self, run: &Run, key: Option<&IdempotencyKey>) -> Result<Option<Vec<Version>>, Error> {
        let StoredRun { run: standing, kept } = self.places(run, key).await?;
        let Some((standing, version)) = standing else { return Ok(None) };
        let mine =
            standing.request == run.request && standing.started_at == run.started_at && standing.state == run.state;
        if !mine || kept.is_some() != key.is_some() {
            return Ok(None);
        }
        let key_is_mine =
            |kept: &IdempotencyRecord| matches!(&kept.state, KeyState::Started { run: id, .. } if *id == run.id);
        if kept.as_ref().is_some_and(|(kept, _)| !key_is_mine(kept)) {
            return Ok(None);
        }
        Ok(Some(kept.map(|(_, version)| version).into_iter().chain([version]).collect()))
    }

    /// Writes down how a run ended, and its answer under its key: tried more than once, since what happened would
    /// otherwise not be known. What cannot be written is logged, and shows as unknown later.
    pub(crate) async fn end_run(&self, mut begun: StartedRun, result: &Result<Success, Failure>, metadata: &Metadata) {
        let now = self.ports.clock.now();
        for _ in 0..TRIES {
            match self.try_to_end(&begun, result, metadata, now).await {
                Ok(()) => return,
                Err(Error::Table(TableError::Condition { .. })) => match self.reload(&mut begun, result).await {
                    // Whoever decided knew more than this.
                    Ok(true) => return,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::error!(run = %begun.run.id, error = %causes(&error), "a run cannot be looked at");
                    }
                },
                Err(error) => {
                    tracing::error!(run = %begun.run.id, error = %causes(&error), "the end of a run was not written; trying again");
                }
            }
        }
        tracing::error!(org = %begun.run.org, run = %begun.run.id, "the end of a run was not written down");
    }

    async fn try_to_end(
        &self,
        begun: &StartedRun,
        result: &Result<Success, Failure>,
        metadata: &Metadata,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut run = begun.run.clone();
        run.ends(result, metadata.attempts, now);
        let put = (run.item()?, Condition::Version(begun.version.clone()));
        let Some((key, kept, condition)) = &begun.kept else {
            self.ports.table.put(put.0, put.1).await?;
            return Ok(());
        };
        let under_key = if is_kept(result) {
            let answer = Box::new(StoredAnswer::of(result, metadata));
            let state = KeyState::Ended { run: run.id.clone(), answer };
            let kept = IdempotencyRecord { state, ..kept.clone() };
            Write::Put(kept.item(&run.org, &run.user, key)?, condition.clone())
        } else {
            Write::Delete(keys::idempotency(&run.org, &run.user, key), condition.clone())
        };
        self.ports.table.transact(vec![under_key, Write::Put(put.0, put.1)]).await?;
        Ok(())
    }

    /// Somebody changed what stands there, or it was written already: what is still this run's is taken as it is now. Says
    /// whether there is nothing to add to what was decided.
    async fn reload(&self, begun: &mut StartedRun, result: &Result<Success, Failure>) -> Result<bool, Error> {
        let StoredRun { run, kept } = self.places(&begun.run, begun.kept.as_ref().map(|(key, ..)| key)).await?;
        if let Some((run, version)) = run {
            (begun.run.resolved, begun.version) = (run.resolved, version);
        }
        let decided =
            |kept: &IdempotencyRecord| matches!(&kept.state, KeyState::Ended { answer, .. } if answer.decided);
        let decided = begun.run.resolved.is_some() || kept.as_ref().is_some_and(|(kept, _)| decided(kept));
        if decided && result.as_ref().is_err_and(|failure| failure.may_have_happened || failure.unclear) {
            return Ok(true);
        }
        let condition = match kept {
            // It was freed, by somebody who found that it had not happened. It has, after all.
            None if result.is_ok() => Some(Condition::Absent),
            None => None,
            // The key may be another run's by now, and is then not touched.
            Some((kept, version)) => (kept.state.run() == Some(&begun.run.id)).then_some(Condition::Version(version)),
        };
        begun.kept = begun.kept.take().zip(condition).map(|((key, kept, _), condition)| (key, kept, condition));
        Ok(false)
    }
}
