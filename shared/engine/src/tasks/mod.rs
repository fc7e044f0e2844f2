//! Tasks: intents that run later, on a schedule, or asynchronously. The stored record decides whether a task is due; an
//! alarm is only a hint. A caller creates tasks (`create`), lists (`list`) and changes them (`update`). A worker claims a
//! due task (`claim`), runs it (`run`) and stores the result (`settle`). The sweep finds tasks whose alarm was lost
//! (`sweep`).

mod claim;
mod create;
mod list;
mod record;
mod run;
mod settle;
mod sweep;
mod transition;
mod update;
mod validate;
mod view;

pub use create::CreatedTask;
pub use list::TaskFilter;
pub use record::{TaskAttempt, TaskAttemptOutcome, TaskResult, TaskState};
pub use transition::FAILURES_MAX;
pub use update::{CancelReport, ChangeTask};
pub use view::TaskView;
