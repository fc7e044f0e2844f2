//! Limits of a task's time, attempts and parameters, checked when a caller creates or changes one.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use crate::core::error::Error;
use crate::core::problem::FieldProblem;
use crate::plugin::manifest::ATTEMPTS_MAX;

/// The largest parameters of a task, in bytes of JSON.
pub(super) const PARAMETERS_MAX_BYTES: usize = 256 * 1024;
/// How far in the future a task may be scheduled: ten years.
const AHEAD_MAX: SignedDuration = SignedDuration::from_hours(10 * 366 * 24);
/// How far in the past `scheduledTime` may be, because clocks differ.
const PAST_MAX: SignedDuration = SignedDuration::from_secs(60);

pub(super) fn time_problem(time: Timestamp, now: Timestamp) -> Option<FieldProblem> {
    let problem = |message: &str| Some(FieldProblem::new("/scheduledTime", message));
    if now.duration_since(time) > PAST_MAX {
        return problem("is in the past; leave it out to run the task now");
    }
    if time.duration_since(now) > AHEAD_MAX {
        return problem("is more than ten years ahead; choose an earlier time");
    }
    None
}

pub(super) fn attempts_problem(attempts: Option<u32>) -> Option<FieldProblem> {
    let out_of_range = attempts.is_some_and(|attempts| !(1..=ATTEMPTS_MAX).contains(&attempts));
    out_of_range.then(|| FieldProblem::new("/maxAttempts", format!("must be 1 to {ATTEMPTS_MAX}")))
}

/// The parameters, if the action's schema accepted them (`checked`) and a task can store them. Otherwise adds to `problems`
/// what is wrong with them. Fails if they could not be checked for another reason.
pub(super) fn storable_parameters(
    checked: Result<Map<String, Value>, Error>,
    problems: &mut Vec<FieldProblem>,
) -> Result<Option<Map<String, Value>>, Error> {
    match checked {
        Ok(parameters) => {
            let too_large = size_problem(&parameters);
            let fits = too_large.is_none();
            problems.extend(too_large);
            Ok(fits.then_some(parameters))
        }
        Err(Error::Invalid(invalid)) => {
            problems.extend(invalid);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn size_problem(parameters: &Map<String, Value>) -> Option<FieldProblem> {
    let bytes = serde_json::to_string(parameters).map_or(usize::MAX, |text| text.len());
    let message = format!("is {bytes} bytes of JSON, and a task can store {PARAMETERS_MAX_BYTES}; shorten it");
    (bytes > PARAMETERS_MAX_BYTES).then(|| FieldProblem::new("/context", message))
}
