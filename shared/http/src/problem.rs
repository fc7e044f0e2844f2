//! Error answers, all in one form: RFC 9457, `application/problem+json`. Only this module maps codes to HTTP statuses.

use axum::Extension;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use overseer_engine::core::error::{Error, ProblemCode, causes};
use overseer_engine::core::ids::RequestId;
use overseer_engine::core::problem::FieldProblem;
use serde::Serialize;

use crate::ErrorCode;

/// How long a restart may take, in seconds.
const RESTART_S: u64 = 5;

/// An error answer. The envelope writes it, because only the envelope knows the request id.
#[derive(Debug, Clone)]
pub struct Problem {
    code: ProblemCode,
    detail: String,
    errors: Vec<FieldProblem>,
    /// When a retry is worthwhile, in seconds.
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
    /// A problem found by the HTTP layer itself.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), retry_after_s: None }
    }

    /// The problem of a server that is stopping.
    pub fn stopping() -> Self {
        let detail = "the server is stopping and starts no new request; send it again when the server has started";
        Self { retry_after_s: Some(RESTART_S), ..Self::new(ProblemCode::Unavailable, detail) }
    }

    /// The problem for a status that axum answered with itself.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        let code = match status {
            StatusCode::NOT_FOUND => ProblemCode::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => ProblemCode::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => ProblemCode::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ProblemCode::UnsupportedMediaType,
            status if status.is_server_error() => ProblemCode::Internal,
            _ => ProblemCode::InvalidParameters,
        };
        let detail = if code == ProblemCode::Internal {
            "something failed on Overseer's side; the log has the request id"
        } else {
            title(code)
        };
        Self::new(code, detail)
    }

    /// The response with its body. `headers` are those of the response that it replaces: `Allow` stays.
    pub(crate) fn write(&self, id: &RequestId, headers: &HeaderMap) -> Response {
        let status = status(self.code);
        let code = ErrorCode::of(self.code);
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
    /// Logs the causes of an internal error, which callers do not see.
    pub(crate) fn log(error: &Error) {
        if error.is_internal() {
            tracing::error!(error = %causes(error), "request failed: internal error");
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
        ProblemCode::InvalidParameters => "Invalid parameters",
        ProblemCode::Unauthenticated => "Unauthorized",
        ProblemCode::Forbidden => "Forbidden",
        ProblemCode::UnknownPlugin => "Unknown plugin",
        ProblemCode::UnknownAction => "Unknown action",
        ProblemCode::NotFound => "Not found",
        ProblemCode::MethodNotAllowed => "Method not allowed",
        ProblemCode::Conflict => "Conflict",
        ProblemCode::PreconditionFailed => "Precondition failed",
        ProblemCode::InProgress => "Request in progress",
        ProblemCode::TooLarge => "Content too large",
        ProblemCode::UnsupportedMediaType => "Unsupported media type",
        ProblemCode::KeyReused => "Idempotency key reused",
        ProblemCode::TooManyRequests => "Too many requests",
        ProblemCode::Unavailable => "Service unavailable",
        ProblemCode::Internal => "Internal server error",
    }
}
