//! The ledger of runs. Every action with an effect is recorded before its call, and its result after it. The ledger is the
//! history that users and administrators read, and it makes an intent with an idempotency key safe to retry.

mod idempotency;
mod ledger;
mod record;
mod resolve;
mod view;

pub(crate) use idempotency::{IdempotencyRequest, IdempotencyState, in_progress, unknown_result};
pub use idempotency::{Replayable, RequestOptions, Resolve, WAIT_MAX};
pub(crate) use ledger::{ExpiredAttempt, KeyClaim, StartedRun};
pub use record::{ANSWERS_KEPT, RUNS_KEPT, Resolution, RunState, Verdict};
pub(crate) use record::{AttemptRef, IdempotencyRecord, KeyState, Run};
pub use resolve::ReportedOutcome;
pub use view::{RunFilter, RunView};
