//! What DynamoDB said when it did not do as asked, without anything of an item in it: answers echo keys and values, and
//! the SDK keeps the whole answer.

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ErrorMetadata, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::RequestId as _;
use overseer_engine::ports::table::TableError;

/// What DynamoDB, or the way to it, came back with.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {code} (request {request})")]
struct Failure {
    operation: &'static str,
    code: String,
    request: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// A failure of the store: whatever the port has no other name for.
pub(super) fn failure<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> TableError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let request = error.request_id().unwrap_or("none").to_owned();
    let (code, source): (_, Option<Box<dyn Error + Send + Sync>>) = match error {
        SdkError::ServiceError(answer) => {
            let metadata = answer.err().meta();
            let code = metadata.code().unwrap_or("an error without a code").to_owned();
            // Its message says which value was wrong; the items of a cancelled transaction stand in the error itself.
            let source = (code != "ValidationException").then(|| plain(metadata).into());
            (code, source)
        }
        SdkError::ConstructionFailure(_) => ("the request could not be made".to_owned(), error.into_source().ok()),
        SdkError::TimeoutError(_) => ("no answer in time".to_owned(), error.into_source().ok()),
        SdkError::DispatchFailure(_) => ("not reached".to_owned(), error.into_source().ok()),
        // What was answered is no answer of DynamoDB; it may be anything.
        SdkError::ResponseError(_) | _ => ("an answer that does not read".to_owned(), None),
    };
    TableError::store(Failure { operation, code, request, source })
}

/// Whether a transaction had its hands on the item; nothing was written.
pub(super) fn in_conflict(error: &impl ProvideErrorMetadata) -> bool {
    matches!(error.code(), Some("TransactionConflictException" | "ReplicatedWriteConflictException"))
}

fn plain(metadata: &ErrorMetadata) -> String {
    metadata.message().unwrap_or("DynamoDB gave no reason").to_owned()
}
