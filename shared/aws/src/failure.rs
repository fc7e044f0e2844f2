//! An error of AWS as the log may have it. The SDK's error keeps the whole response, and a response may echo what was sent.
//! This one keeps only the code, the request's id, and messages that the caller knows to hold no data.

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ErrorMetadata, ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::RequestId as _;

/// A request to AWS that failed, in the service or on the way to it.
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
    /// `keep_message` decides by an error's code whether its message is kept.
    pub(crate) fn new<E>(
        operation: &'static str,
        error: SdkError<E, HttpResponse>,
        keep_message: impl FnOnce(&str) -> bool,
    ) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let request = error.request_id().unwrap_or("none").to_owned();
        let (code, source): (_, Option<Box<dyn Error + Send + Sync>>) = match error {
            SdkError::ServiceError(response) => {
                let metadata = response.err().meta();
                let code = metadata.code().unwrap_or("an error without a code").to_owned();
                let source = keep_message(&code).then(|| message(metadata).into());
                (code, source)
            }
            SdkError::ConstructionFailure(_) => ("the request could not be built".to_owned(), error.into_source().ok()),
            SdkError::TimeoutError(_) => ("no response in time".to_owned(), error.into_source().ok()),
            SdkError::DispatchFailure(_) => ("not reached".to_owned(), error.into_source().ok()),
            // This response is not the service's; it may hold anything.
            SdkError::ResponseError(_) | _ => ("a response that cannot be parsed".to_owned(), None),
        };
        Self { operation, code, request, source }
    }
}

fn message(metadata: &ErrorMetadata) -> String {
    metadata.message().unwrap_or("the service gave no reason").to_owned()
}
