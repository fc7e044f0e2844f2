//! What AWS said when it did not do as asked. The SDK keeps the whole answer, and answers echo what was sent; of that nothing
//! is kept but the code, the request's id, and such messages as the caller knows to hold nothing of it.

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ErrorMetadata, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::RequestId as _;

/// What a service, or the way to it, came back with.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {code} (request {request})")]
pub(crate) struct Failure {
    operation: &'static str,
    code: String,
    request: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// `told` says of an error's code whether its message may be kept.
    pub(crate) fn new<E>(
        operation: &'static str,
        error: SdkError<E, HttpResponse>,
        told: impl FnOnce(&str) -> bool,
    ) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let request = error.request_id().unwrap_or("none").to_owned();
        let (code, source): (_, Option<Box<dyn Error + Send + Sync>>) = match error {
            SdkError::ServiceError(answer) => {
                let metadata = answer.err().meta();
                let code = metadata.code().unwrap_or("an error without a code").to_owned();
                let source = told(&code).then(|| plain(metadata).into());
                (code, source)
            }
            SdkError::ConstructionFailure(_) => ("the request could not be made".to_owned(), error.into_source().ok()),
            SdkError::TimeoutError(_) => ("no answer in time".to_owned(), error.into_source().ok()),
            SdkError::DispatchFailure(_) => ("not reached".to_owned(), error.into_source().ok()),
            // What was answered is no answer of the service; it may be anything.
            SdkError::ResponseError(_) | _ => ("an answer that does not read".to_owned(), None),
        };
        Self { operation, code, request, source }
    }
}

fn plain(metadata: &ErrorMetadata) -> String {
    metadata.message().unwrap_or("the service gave no reason").to_owned()
}
