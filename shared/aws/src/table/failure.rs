//! What DynamoDB said when it did not do as asked, without anything of an item in it.

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use overseer_engine::ports::table::TableError;

use crate::failure::Failure;

/// A failure of the store: whatever the port has no other name for.
pub(super) fn failure<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> TableError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    // That one's message says which value was wrong; the items of a cancelled transaction stand in the error itself.
    TableError::store(Failure::new(operation, error, |code| code != "ValidationException"))
}

/// Whether a transaction had its hands on the item; nothing was written.
pub(super) fn in_conflict(error: &impl ProvideErrorMetadata) -> bool {
    matches!(error.code(), Some("TransactionConflictException" | "ReplicatedWriteConflictException"))
}
