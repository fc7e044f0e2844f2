//! Errors of DynamoDB, without the data of any item.

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use overseer_engine::ports::table::TableError;

use crate::failure::Failure;

/// A failure of the store that the port has no error of its own for.
pub(super) fn failure<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> TableError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    // A validation message quotes the invalid value. `Failure` drops the items that a cancellation holds.
    TableError::store(Failure::new(operation, error, |code| code != "ValidationException"))
}

/// Whether a transaction was writing the item, so that nothing was written here.
pub(super) fn in_conflict(error: &impl ProvideErrorMetadata) -> bool {
    matches!(error.code(), Some("TransactionConflictException" | "ReplicatedWriteConflictException"))
}
