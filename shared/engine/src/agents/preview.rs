//! The first HTTP request of a call, as it would be sent, without the credential.

use http::HeaderMap;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::core::effect::Effect;
use crate::core::error::Error;
use crate::engine::Engine;
use crate::invoke::request::Invocation;
use crate::outbound::runtime;
use crate::outbound::runtime::{Call, CallError, ServiceKey};
use crate::plugin::manifest::{Auth, Manifest, Runtime};

/// The largest body that is shown, in bytes.
const BODY_MAX: usize = 64 * 1024;
/// Takes the place of the credential.
const HIDDEN: &str = "[hidden]";

/// A request as it would be sent, without the credential.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestPreview {
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// The headers.
    pub headers: Map<String, Value>,
    /// The body: JSON as such, anything else as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
}

impl Engine {
    /// The first request of a call with these parameters and this configuration; `None` where the action sends none. `later`
    /// says whether a task would send it.
    pub(super) fn preview_request(
        &self,
        invocation: &Invocation<'_>,
        parameters: &Map<String, Value>,
        config: &Map<String, Value>,
        later: bool,
    ) -> Result<Option<RequestPreview>, Error> {
        let (manifest, action) = (invocation.manifest, invocation.action);
        let (org, user) = (invocation.request.org, invocation.request.user);
        let (Runtime::Http { base_url }, Some(request)) = (&manifest.runtime, &action.request) else { return Ok(None) };
        let key = (action.effect == Effect::Keyed).then(|| match invocation.idempotency() {
            Some(idempotency) if !later => ServiceKey::of_caller(org, user, &idempotency.key, &idempotency.payload),
            Some(_) | None => ServiceKey { text: "(a new one for each run)".to_owned(), of_caller: false },
        });
        let now = self.ports.clock.now();
        let call = Call { manifest, action, parameters, config, user, now, key, until: None };
        let base = self.config.stand_ins.get(&manifest.name).map_or(base_url, |stand_in| &stand_in.base_url);
        match runtime::http::first_request(&call, base) {
            Ok(built) => Ok(Some(RequestPreview {
                method: http::Method::from(request.method).to_string(),
                url: built.url.into(),
                headers: preview_headers(&built.headers, manifest),
                body: preview_body(&built.body),
            })),
            Err(CallError::Parameter(problem)) => Err(Error::Invalid(vec![problem])),
            Err(CallError::Failed(failure)) => {
                tracing::warn!(plugin = %manifest.name, message = failure.message, "request preview failed");
                Ok(None)
            }
        }
    }
}

/// The headers, with a placeholder for the credential.
fn preview_headers(headers: &HeaderMap, manifest: &Manifest) -> Map<String, Value> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = headers.iter().map(|(name, value)| (name.to_string(), Value::String(text(value))));
    let credential = match &manifest.auth {
        Auth::None => None,
        Auth::Oauth2(_) | Auth::ClientCredentials(_) => Some(("authorization".to_owned(), format!("Bearer {HIDDEN}"))),
        Auth::Basic(_) => Some(("authorization".to_owned(), format!("Basic {HIDDEN}"))),
        Auth::ApiKey(key) => Some((key.header.to_ascii_lowercase(), format!("{}{HIDDEN}", key.prefix))),
    };
    headers.chain(credential.map(|(name, value)| (name, Value::String(value)))).collect()
}

fn preview_body(body: &[u8]) -> Option<Value> {
    if body.is_empty() {
        return None;
    }
    if body.len() > BODY_MAX {
        return Some(format!("({} bytes)", body.len()).into());
    }
    Some(serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned().into()))
}
