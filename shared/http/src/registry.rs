//! `/plugins`: registers versions of plugins, and lists the registered ones.

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
use serde::Deserialize;

use crate::caller::Caller;
use crate::input::{JsonBody, Parameters, read_body};
use crate::listing::{Listing, page_size};
use crate::{Problem, Routes};

/// The form field that contains the manifest.
const FIELD: &str = "manifest_file";
/// The media types of a manifest.
const MANIFESTS: [&str; 6] =
    ["application/json", "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "text/plain"];

/// The routes.
pub fn routes() -> Routes {
    Routes::new()
        .route("/plugins", get(list_plugins).post(register))
        .route("/plugins/{name}", get(get_plugin))
        .route("/plugins/{name}/{version}", get(get_version).patch(set_version))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegisterQuery {
    #[serde(default = "default_scope")]
    scope: RegistryScope,
}

fn default_scope() -> RegistryScope {
    RegistryScope::Organization
}

async fn register(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(RegisterQuery { scope }): Parameters<RegisterQuery>,
    request: Request,
) -> Result<Json<RegistrationText>, Problem> {
    let (bytes, pointer) = read_manifest(request).await?;
    let text = String::from_utf8(bytes).map_err(|_| Error::field(pointer, "must be text in UTF-8"))?;
    Ok(Json(engine.register(&principal, Register { text, pointer, scope }).await?))
}

/// The manifest of a request, and the pointer to it: the body, or a field of a form (RFC 7578).
async fn read_manifest(request: Request) -> Result<(Vec<u8>, &'static str), Problem> {
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
    let invalid = |message: String| Problem::from(Error::field("", format!("the form cannot be read: {message}")));
    let invalid_form = |error: MultipartError| invalid(error.body_text());
    let mut form = Multipart::from_request(request, &()).await.map_err(|error| invalid(error.body_text()))?;
    let mut manifest = None;
    while let Some(field) = form.next_field().await.map_err(invalid_form)? {
        match field.name() {
            Some(FIELD) if manifest.is_none() => manifest = Some(field.bytes().await.map_err(invalid_form)?.to_vec()),
            Some(FIELD) => {
                return Err(Error::field("/manifest_file", "appears twice; send one manifest at a time").into());
            }
            Some(_) | None => {
                return Err(Error::field("", format!("the form has another field than {FIELD}; send only that")).into());
            }
        }
    }
    let missing = || Error::field("/manifest_file", "is needed: the manifest, as YAML or JSON");
    Ok((manifest.ok_or_else(missing)?, "/manifest_file"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistryListQuery {
    #[serde(default = "default_scope")]
    scope: RegistryScope,
    limit: Option<usize>,
    cursor: Option<Cursor>,
}

async fn list_plugins(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Parameters(RegistryListQuery { scope, limit, cursor }): Parameters<RegistryListQuery>,
) -> Result<Json<Listing<Registration>>, Problem> {
    let page = engine.registrations(&principal, scope, page_size(limit)?, cursor).await?;
    Ok(Json(Listing::snake_case("plugins", page)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeQuery {
    scope: Option<RegistryScope>,
}

async fn get_plugin(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path(name): Path<String>,
    Parameters(ScopeQuery { scope }): Parameters<ScopeQuery>,
) -> Result<Json<Registration>, Problem> {
    Ok(Json(engine.registration(&principal, &name, scope).await?))
}

async fn get_version(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path((name, version)): Path<(String, String)>,
    Parameters(ScopeQuery { scope }): Parameters<ScopeQuery>,
) -> Result<Json<RegistrationText>, Problem> {
    Ok(Json(engine.registration_text(&principal, &name, &parse_version(&version)?, scope).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SetVersion {
    /// Whether organizations can enable the version from now on.
    is_active: bool,
}

async fn set_version(
    State(engine): State<Arc<Engine>>,
    Caller(principal): Caller,
    Path((name, version)): Path<(String, String)>,
    Parameters(RegisterQuery { scope }): Parameters<RegisterQuery>,
    JsonBody(SetVersion { is_active }): JsonBody<SetVersion>,
) -> Result<Json<Registration>, Problem> {
    Ok(Json(engine.set_version_active(&principal, scope, &name, &parse_version(&version)?, is_active).await?))
}

/// The version in a path. A malformed one is not found, like an unknown one.
fn parse_version(version: &str) -> Result<Version, Error> {
    version.parse().map_err(|_| Error::NotFound("version of this plugin"))
}
