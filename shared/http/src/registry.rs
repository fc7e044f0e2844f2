//! `/plugins`: registers plugins, and shows what is registered.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::multipart::MultipartError;
use axum::extract::{FromRequest as _, Multipart, Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use overseer_engine::core::error::{Error, ProblemCode};
use overseer_engine::engine::Engine;
use overseer_engine::ports::table::Cursor;
use overseer_engine::registry::{Register, Registration, RegistrationText, RegistryScope};
use schemars::JsonSchema;
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::caller::Caller;
use crate::input::{JsonBody, Parameters, page_size, read_body};
use crate::{Problem, Routes};

/// The field of a form that has the manifest.
const FIELD: &str = "manifest_file";
/// The media types of a body that is a manifest.
const MANIFESTS: [&str; 6] =
    ["application/json", "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/plain"];

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route("/plugins", get(list).post(register))
        .route("/plugins/{name}", get(get_one))
        .route("/plugins/{name}/{version}", get(text).patch(change))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegisterParameters {
    #[serde(default = "organization")]
    scope: RegistryScope,
}

fn organization() -> RegistryScope {
    RegistryScope::Organization
}

async fn register(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(RegisterParameters { scope }): Parameters<RegisterParameters>,
    request: Request,
) -> Result<Json<RegistrationText>, Problem> {
    let (bytes, pointer) = manifest(request).await?;
    let text = String::from_utf8(bytes).map_err(|_| Error::field(pointer, "must be text in UTF-8"))?;
    Ok(Json(engine.register(&principal, Register { text, pointer, scope }).await?))
}

/// The manifest of a request, and where it is in it: the body, or the field of a form (RFC 7578).
async fn manifest(request: Request) -> Result<(Vec<u8>, &'static str), Problem> {
    let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("text/plain");
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_form = essence == "multipart/form-data";
    if !is_form && !MANIFESTS.contains(&essence.as_str()) {
        let detail = format!("send the manifest as application/yaml or application/json, or in a form as {FIELD}");
        return Err(Problem::new(ProblemCode::UnsupportedMediaType, detail));
    }
    let (parts, body) = request.into_parts();
    let headers = parts.headers.clone();
    let bytes = read_body(Request::from_parts(parts, body)).await?;
    if !is_form {
        return Ok((bytes.to_vec(), ""));
    }
    let mut request = Request::new(Body::from(bytes));
    *request.headers_mut() = headers;
    let wrong = |message: String| Problem::from(Error::field("", format!("the form does not read: {message}")));
    let broken = |error: MultipartError| wrong(error.body_text());
    let mut form = Multipart::from_request(request, &()).await.map_err(|error| wrong(error.body_text()))?;
    let mut found = None;
    while let Some(field) = form.next_field().await.map_err(broken)? {
        match field.name() {
            Some(FIELD) if found.is_none() => found = Some(field.bytes().await.map_err(broken)?.to_vec()),
            Some(FIELD) => return Err(Error::field("/manifest_file", "is there twice; send one at a time").into()),
            Some(_) | None => return Err(Error::field("", format!("the form has a field that is not {FIELD}")).into()),
        }
    }
    let missing = || Error::field("/manifest_file", "is needed: the manifest, as YAML or JSON");
    Ok((found.ok_or_else(missing)?, "/manifest_file"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistryListQuery {
    #[serde(default = "organization")]
    scope: RegistryScope,
    limit: Option<usize>,
    cursor: Option<Cursor>,
}

#[derive(Serialize)]
struct Listed {
    plugins: Vec<Registration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<Cursor>,
}

async fn list(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(RegistryListQuery { scope, limit, cursor }): Parameters<RegistryListQuery>,
) -> Result<Json<Listed>, Problem> {
    let page = engine.registrations(&principal, scope, page_size(limit)?, cursor).await?;
    Ok(Json(Listed { plugins: page.entries, next_cursor: page.next }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShowParameters {
    scope: Option<RegistryScope>,
}

async fn get_one(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(ShowParameters { scope }): Parameters<ShowParameters>,
) -> Result<Json<Registration>, Problem> {
    Ok(Json(engine.registration(&principal, &name, scope).await?))
}

async fn text(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path((name, version)): Path<(String, String)>,
    Parameters(ShowParameters { scope }): Parameters<ShowParameters>,
) -> Result<Json<RegistrationText>, Problem> {
    Ok(Json(engine.registration_text(&principal, &name, &parsed(&version)?, scope).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Change {
    /// Whether the version can be enabled from now on.
    is_active: bool,
}

async fn change(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path((name, version)): Path<(String, String)>,
    Parameters(RegisterParameters { scope }): Parameters<RegisterParameters>,
    JsonBody(Change { is_active }): JsonBody<Change>,
) -> Result<Json<Registration>, Problem> {
    Ok(Json(engine.set_version_active(&principal, scope, &name, &parsed(&version)?, is_active).await?))
}

/// A version in a path. One that cannot be is one that nobody registered.
fn parsed(version: &str) -> Result<Version, Error> {
    version.parse().map_err(|_| Error::NotFound("version of this plugin"))
}
