//! The one form of every error answer: RFC 9457, `application/problem+json`. This module alone knows status codes.

use axum::Extension;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use overseer_engine::core::error::{Error, ProblemCode, causes};
use overseer_engine::core::ids::RequestId;
use overseer_engine::core::problem::FieldProblem;
use serde::Serialize;

use crate::ErrorCode;

/// An error answer on its way out. The envelope writes it, because only the envelope knows the request id.
#[derive(Debug, Clone)]
pub struct Problem {
    code: ProblemCode,
    detail: String,
    errors: Vec<FieldProblem>,
    /// When it is worth asking again, in seconds.
    retry_after_s: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: ProblemCode,
    request_id: &'a RequestId,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldProblem],
}

impl Problem {
    /// A problem that the HTTP layer found itself.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), retry_after_s: None }
    }

    /// What a status says that a library answered with by itself.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let code = match status {
            StatusCode::NOT_FOUND => ProblemCode::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => ProblemCode::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => ProblemCode::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ProblemCode::UnsupportedMediaType,
            status if status.is_server_error() => ProblemCode::Internal,
            _ => ProblemCode::InvalidParameters,
        };
        Self::new(code, title(code))
    }

    /// The answer as it goes out. `headers` are those that a library set with it.
    pub(crate) fn write(&self, id: &RequestId, headers: &HeaderMap) -> Response {
        let status = status(self.code);
        let code = ErrorCode::of(&self.code);
        let document = Document {
            r#type: format!("urn:overseer:problem:{}", code.0),
            title: title(self.code),
            status: status.as_u16(),
            detail: &self.detail,
            code: self.code,
            request_id: id,
            errors: &self.errors,
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let media_type = HeaderValue::from_static("application/problem+json");
        let mut response = (status, [(CONTENT_TYPE, media_type)], Extension(code), body).into_response();
        if let Some(allow) = headers.get(ALLOW) {
            response.headers_mut().insert(ALLOW, allow.clone());
        }
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl Problem {
    /// Logs what a caller is not told.
    pub(crate) fn log(error: &Error) {
        if error.code() == ProblemCode::Internal {
            tracing::error!(error = %causes(error), "a request failed inside Overseer");
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::log(&error);
        let (code, detail) = (error.code(), error.to_string());
        let retry_after_s = if let Error::InProgress { retry_after_s } = &error { Some(*retry_after_s) } else { None };
        let errors = if let Error::Invalid(problems) = error { problems } else { Vec::new() };
        Self { code, detail, errors, retry_after_s }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = status(self.code).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

fn status(code: ProblemCode) -> StatusCode {
    match code {
        ProblemCode::InvalidParameters => StatusCode::BAD_REQUEST,
        ProblemCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ProblemCode::Forbidden => StatusCode::FORBIDDEN,
        ProblemCode::UnknownPlugin | ProblemCode::UnknownAction | ProblemCode::NotFound => StatusCode::NOT_FOUND,
        ProblemCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ProblemCode::InProgress | ProblemCode::Conflict => StatusCode::CONFLICT,
        ProblemCode::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        ProblemCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ProblemCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ProblemCode::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        ProblemCode::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
        ProblemCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ProblemCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn title(code: ProblemCode) -> &'static str {
    match code {
        ProblemCode::InvalidParameters => "The request is not valid",
        ProblemCode::Unauthenticated => "A good credential is needed",
        ProblemCode::Forbidden => "The credential does not allow this",
        ProblemCode::UnknownPlugin => "There is no such plugin",
        ProblemCode::UnknownAction => "The plugin has no such action",
        ProblemCode::NotFound => "There is nothing here",
        ProblemCode::MethodNotAllowed => "The route does not know this method",
        ProblemCode::Conflict => "Its state does not allow this",
        ProblemCode::PreconditionFailed => "It was changed in the meantime",
        ProblemCode::InProgress => "The first request with this key is still running",
        ProblemCode::TooLarge => "The request is too large",
        ProblemCode::UnsupportedMediaType => "The body is not of a media type that is read here",
        ProblemCode::KeyReused => "The key was used with another request",
        ProblemCode::TooManyRequests => "Too many requests",
        ProblemCode::Unavailable => "A service that is needed did not answer",
        ProblemCode::Internal => "Overseer failed",
    }
}
