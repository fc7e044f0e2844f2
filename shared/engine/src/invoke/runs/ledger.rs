//! Writing the ledger: a run is recorded as started before its call, and its result is recorded after it.
//!
//! 1. [`Engine::begin_run`] writes the run, and claims its idempotency key in the same transaction. Losing that
//!    compare-and-set means that another request started first.
//! 2. [`Engine::end_run`] writes the result to both. Losing that race means that a caller decided about the run meanwhile,
//!    or that this very write had arrived: the records are reloaded and the write is retried on them.
//! 3. [`Engine::fence_attempt`] writes the run of a task's attempt as never started, so that its late worker cannot start.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::record::{AttemptRef, IdempotencyRecord, KeyState, Run, RunState, StoredAnswer, is_final};
use crate::core::effect::Effect;
use crate::core::error::{Error, causes};
use crate::core::ids::{IdempotencyKey, RunId};
use crate::core::outcome::{Failure, Metadata, OutcomeCode, Success};
use crate::engine::Engine;
use crate::ports::table::{Condition, Item, Read, TableError, Version, Write};
use crate::storage::keys;

/// How many times the end of a run is written before it is given up.
const END_TRIES_MAX: usize = 5;

/// The idempotency key that a run is to claim.
#[derive(Debug, Clone)]
pub(crate) struct KeyClaim {
    pub key: IdempotencyKey,
    /// The SHA-256 of the intent as canonical JSON.
    pub payload: String,
    /// The condition on the record that is there now.
    pub condition: Condition,
}

/// A run that is recorded as started.
#[derive(Debug)]
pub(crate) struct StartedRun {
    run: Run,
    version: Version,
    /// Its idempotency key, if it has one and still owns it.
    claimed: Option<ClaimedKey>,
}

/// A run's record under its idempotency key.
#[derive(Debug)]
struct ClaimedKey {
    key: IdempotencyKey,
    record: IdempotencyRecord,
    /// The condition of the next write.
    condition: Condition,
}

/// A run and its idempotency record, as the table has them now.
struct StoredRun {
    run: Option<Versioned<Run>>,
    record: Option<Versioned<IdempotencyRecord>>,
}

/// A record with the version of its item.
struct Versioned<T> {
    record: T,
    version: Version,
}

/// The versions of a run and of its idempotency record after the start was written.
struct StartVersions {
    run: Version,
    record: Option<Version>,
}

/// Whether the end of a run still has to be written after a lost race.
enum EndRunStep {
    /// Retry on the reloaded versions.
    Retry,
    /// A caller has decided, and this result adds nothing.
    Decided,
}

/// What the ledger says about a task's attempt whose claim has expired.
pub(crate) enum ExpiredAttempt {
    /// It had not started, and cannot start any more.
    NeverBegun,
    /// It had ended with this result.
    Ended { result: Result<Success, Failure>, duration_ms: u64 },
    /// It had started, and its result was not recorded.
    Unknown,
}

impl StartedRun {
    pub(crate) fn id(&self) -> &RunId {
        &self.run.id
    }

    /// When the run's lease expires: no call may begin at or after this time.
    pub(crate) fn until(&self) -> Timestamp {
        self.run.until
    }
}

impl ClaimedKey {
    fn of(claim: KeyClaim, run: &Run) -> Self {
        let KeyClaim { key, payload, condition } = claim;
        let state = KeyState::Started { run: run.id.clone(), until: run.until, by: run.version.clone() };
        Self { key, record: IdempotencyRecord { payload, made_at: run.started_at, state }, condition }
    }
}

impl<T: DeserializeOwned> Versioned<T> {
    fn read(item: Option<Item>) -> Result<Option<Self>, TableError> {
        item.map(|item| Ok(Self { record: item.record()?, version: item.version })).transpose()
    }
}

impl StoredRun {
    /// The versions, if the table has exactly the start of `run`, and its key too if it has one.
    fn versions_of_start(self, run: &Run, has_key: bool) -> Option<StartVersions> {
        let stored = self.run?;
        let is_same = stored.record.request == run.request
            && stored.record.started_at == run.started_at
            && stored.record.state == run.state;
        if !is_same || self.record.is_some() != has_key {
            return None;
        }
        let record = match self.record {
            Some(Versioned { record, version }) => match record.state {
                KeyState::Started { run: id, .. } if id == run.id => Some(version),
                KeyState::Started { .. } | KeyState::Ended { .. } | KeyState::Task { .. } => return None,
            },
            None => None,
        };
        Some(StartVersions { run: stored.version, record })
    }
}

impl ExpiredAttempt {
    /// What a run says that was there before its attempt was fenced.
    fn by(run: Run) -> Self {
        match run.state {
            RunState::Failed if run.attempts == 0 => Self::NeverBegun,
            RunState::Succeeded | RunState::Failed => {
                let duration_ms = run.duration_ms();
                let message = run.message.unwrap_or_default();
                let result = if run.state == RunState::Succeeded {
                    Ok(Success { message, data: Value::Null, external_id: run.external_id })
                } else {
                    let code = run.code.unwrap_or(OutcomeCode::Unavailable);
                    let failure = Failure::new(code, message, run.try_again);
                    Err(Failure { retry_after_s: run.retry_after_s, ..failure })
                };
                Self::Ended { result, duration_ms }
            }
            RunState::Started | RunState::Unknown => Self::Unknown,
        }
    }
}

impl Engine {
    /// Finds out what happened to a task's attempt whose claim has expired. An attempt that had not started never will: its
    /// run is written as never started, and its worker, should it come back, loses the compare-and-set.
    pub(crate) async fn fence_attempt(&self, attempt: AttemptRef<'_>, effect: Effect) -> Result<ExpiredAttempt, Error> {
        let run = Run::never_started(attempt, effect, self.ports.clock.now());
        match self.ports.table.put(run.item()?, Condition::Absent).await {
            Ok(_) => Ok(ExpiredAttempt::NeverBegun),
            Err(TableError::Condition { current: Some(item), .. }) => Ok(ExpiredAttempt::by(item.record()?)),
            Err(TableError::Condition { current: None, .. }) => Ok(ExpiredAttempt::Unknown),
            Err(error) => Err(error.into()),
        }
    }

    /// Records a run as started, and claims its idempotency key if it has one. `None` if another request claimed the key
    /// first, or if the run was fenced as never started.
    pub(crate) async fn begin_run(&self, run: Run, claim: Option<KeyClaim>) -> Result<Option<StartedRun>, Error> {
        let claimed = claim.map(|claim| ClaimedKey::of(claim, &run));
        let written = match &claimed {
            None => self.ports.table.put(run.item()?, Condition::Absent).await.map(|version| vec![version]),
            Some(ClaimedKey { key, record, condition }) => {
                let writes = vec![
                    Write::Put(record.item(&run.org, &run.user, key)?, condition.clone()),
                    Write::Put(run.item()?, Condition::Absent),
                ];
                self.ports.table.transact(writes).await
            }
        };
        let versions = match written {
            Ok(mut versions) => {
                let run = versions.pop().ok_or(TableError::Request("a write gave no version"))?;
                StartVersions { run, record: versions.pop() }
            }
            Err(TableError::Condition { .. }) => return Ok(None),
            Err(error) => self.versions_after(error, &run, claimed.as_ref()).await?,
        };
        let claimed = claimed.zip(versions.record);
        let claimed =
            claimed.map(|(claimed, version)| ClaimedKey { condition: Condition::Version(version), ..claimed });
        Ok(Some(StartedRun { run, version: versions.run, claimed }))
    }

    /// The versions of a start whose write failed with `error` but may have arrived all the same. Nothing has been sent to
    /// the service yet, so this worker may go on if the start is in the table; otherwise `error` is returned.
    async fn versions_after(
        &self,
        error: TableError,
        run: &Run,
        claimed: Option<&ClaimedKey>,
    ) -> Result<StartVersions, Error> {
        match self.stored_run(run, claimed).await {
            Ok(stored) => stored.versions_of_start(run, claimed.is_some()).ok_or_else(|| error.into()),
            Err(again) => {
                tracing::error!(org = %run.org, run = %run.id, error = %causes(&again), "failed to check start of run");
                Err(error.into())
            }
        }
    }

    /// Reads a run and its idempotency record. One read.
    async fn stored_run(&self, run: &Run, claimed: Option<&ClaimedKey>) -> Result<StoredRun, Error> {
        let record = claimed.map(|claimed| keys::idempotency(&run.org, &run.user, &claimed.key));
        let wanted: Vec<_> = record.into_iter().chain([keys::run(&run.org, &run.user, &run.id)]).collect();
        let mut items = self.ports.table.batch_get(&wanted, Read::Consistent).await?;
        let run = Versioned::read(items.pop().flatten())?;
        Ok(StoredRun { run, record: Versioned::read(items.pop().flatten())? })
    }

    /// Records the result of a run, and its answer under its idempotency key. Retried, since the result would otherwise be
    /// lost; after five tries it is only logged, and the run shows as unknown once its lease has expired.
    pub(crate) async fn end_run(
        &self,
        mut started: StartedRun,
        result: &Result<Success, Failure>,
        metadata: &Metadata,
    ) {
        let now = self.ports.clock.now();
        for _ in 0..END_TRIES_MAX {
            match self.write_end(&started, result, metadata, now).await {
                Ok(()) => return,
                Err(Error::Table(TableError::Condition { .. })) => match self.reload(&mut started, result).await {
                    Ok(EndRunStep::Decided) => return,
                    Ok(EndRunStep::Retry) => {}
                    Err(error) => {
                        tracing::error!(run = %started.run.id, error = %causes(&error), "failed to reload run");
                    }
                },
                Err(error) => {
                    tracing::error!(run = %started.run.id, error = %causes(&error), "failed to write end of run; retrying");
                }
            }
        }
        tracing::error!(org = %started.run.org, run = %started.run.id, "end of run not written; its outcome is unknown");
    }

    /// One try to record the end: the run, and its key. A final result is stored under the key, any other frees the key.
    async fn write_end(
        &self,
        started: &StartedRun,
        result: &Result<Success, Failure>,
        metadata: &Metadata,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut run = started.run.clone();
        run.end(result, metadata.attempts, now);
        let (item, unchanged) = (run.item()?, Condition::Version(started.version.clone()));
        let Some(ClaimedKey { key, record, condition }) = &started.claimed else {
            self.ports.table.put(item, unchanged).await?;
            return Ok(());
        };
        let key_write = if is_final(result) {
            let answer = Box::new(StoredAnswer::of(result, metadata));
            let state = KeyState::Ended { run: run.id.clone(), answer };
            let record = IdempotencyRecord { state, ..record.clone() };
            Write::Put(record.item(&run.org, &run.user, key)?, condition.clone())
        } else {
            Write::Delete(keys::idempotency(&run.org, &run.user, key), condition.clone())
        };
        self.ports.table.transact(vec![key_write, Write::Put(item, unchanged)]).await?;
        Ok(())
    }

    /// Reads what another writer, or an earlier try of this one, has left: takes over the versions, and gives up the key if
    /// it belongs to another run by now.
    async fn reload(&self, started: &mut StartedRun, result: &Result<Success, Failure>) -> Result<EndRunStep, Error> {
        let stored = self.stored_run(&started.run, started.claimed.as_ref()).await?;
        if let Some(Versioned { record, version }) = stored.run {
            (started.run.resolved, started.version) = (record.resolved, version);
        }
        let key_decided = stored.record.as_ref().is_some_and(|stored| stored.record.state.is_decided());
        let decided = started.run.resolved.is_some() || key_decided;
        // The caller who decided had checked, and knows more than a result that is unknown itself.
        if decided && result.as_ref().is_err_and(|failure| failure.may_have_happened || failure.unclear) {
            return Ok(EndRunStep::Decided);
        }
        let condition = match stored.record {
            // A caller reported that it had not happened, which freed the key. It has happened, after all.
            None if result.is_ok() => Some(Condition::Absent),
            None => None,
            Some(Versioned { record, version }) => {
                (record.state.run() == Some(&started.run.id)).then_some(Condition::Version(version))
            }
        };
        let claimed = started.claimed.take().zip(condition);
        started.claimed = claimed.map(|(claimed, condition)| ClaimedKey { condition, ..claimed });
        Ok(EndRunStep::Retry)
    }
}
