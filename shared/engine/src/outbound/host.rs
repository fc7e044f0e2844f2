//! All that a runtime can reach of the world. A runtime never holds a credential: the host adds it to the request, only
//! towards the plugin's service, and takes it out of what comes back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use crate::core::redactor::Redactor;
use crate::outbound::client::{Outbound, OutboundAnswer, OutboundError, OutboundRequest};
use crate::outbound::credential::Credential;
use crate::plugin::manifest::{Auth, BodyFormat, Manifest};

/// Why a call did not happen or had no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL is not at the plugin's service.
    #[error("a call may not go to {0}, which is not where the plugin's service is")]
    NotPermitted(String),
    /// The credential cannot be sent in a header.
    #[error("the credential has characters that no header can carry")]
    Credential,
    /// There was no answer.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
}

/// An answer as a runtime sees it: never with the credential in it.
#[derive(Debug)]
pub struct HostResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers that are text, by their names in small letters.
    pub headers: BTreeMap<String, String>,
    /// The body, unless it is not of the format that was asked for.
    pub body: Option<Value>,
}

/// The host of one run of one action.
pub struct Host<'a> {
    outbound: &'a Outbound,
    manifest: &'a Manifest,
    base: &'a Url,
    credential: Option<&'a Credential>,
    striker: &'a Redactor,
    deadline: Instant,
    /// Bytes of answers that may still come, over all calls of the run.
    left: AtomicUsize,
    called: AtomicBool,
}

impl<'a> Host<'a> {
    /// A host for one run. `base` is the manifest's base URL, or what takes its place where the operator says so.
    pub(crate) fn new(
        outbound: &'a Outbound,
        manifest: &'a Manifest,
        base: &'a Url,
        credential: Option<&'a Credential>,
        striker: &'a Redactor,
        deadline: Instant,
        answer_max_bytes: usize,
    ) -> Self {
        Self {
            outbound,
            manifest,
            base,
            credential,
            striker,
            deadline,
            left: AtomicUsize::new(answer_max_bytes),
            called: AtomicBool::new(false),
        }
    }

    /// What a request's path is put behind.
    pub fn base_url(&self) -> &Url {
        self.base
    }

    /// Whether the service was called.
    pub fn called(&self) -> bool {
        self.called.load(Ordering::Relaxed)
    }

    /// Calls the service, with the credential, and reads its answer as `format`.
    pub async fn fetch(
        &self,
        method: http::Method,
        url: Url,
        mut headers: HeaderMap,
        body: Bytes,
        format: BodyFormat,
    ) -> Result<HostResponse, FetchError> {
        if url.origin() != self.base.origin() || !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::NotPermitted(url.host_str().unwrap_or_default().to_owned()));
        }
        self.authorize(&mut headers)?;
        let before = self.called.swap(true, Ordering::Relaxed);
        let request = OutboundRequest { method, url, headers, body };
        let sent = self.outbound.send(request, &self.left, self.deadline).await;
        if matches!(sent, Err(OutboundError::Refused { .. })) {
            self.called.store(before, Ordering::Relaxed);
        }
        Ok(self.read(&sent?, format))
    }

    fn authorize(&self, headers: &mut HeaderMap) -> Result<(), FetchError> {
        let Some(credential) = self.credential else { return Ok(()) };
        let token = credential.token.expose_secret();
        let (name, value) = match &self.manifest.auth {
            Auth::None => return Ok(()),
            Auth::Oauth2(_) | Auth::ClientCredentials(_) => (AUTHORIZATION, format!("Bearer {token}")),
            Auth::ApiKey(key) => {
                let name = key.header.parse::<HeaderName>().map_err(|_| FetchError::Credential)?;
                (name, format!("{}{token}", key.prefix))
            }
            Auth::Basic(_) => {
                let joined = credential.joined();
                (AUTHORIZATION, format!("Basic {}", STANDARD.encode(joined.expose_secret())))
            }
        };
        let value = SecretString::from(value);
        let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|_| FetchError::Credential)?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    }

    /// Reads an answer, and takes the credential out of all that was read: only then, because reading undoes the escapes
    /// that could hide it.
    fn read(&self, answer: &OutboundAnswer, format: BodyFormat) -> HostResponse {
        let headers = answer.headers.iter().filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), self.striker.text(value.to_str().ok()?.to_owned())))
        });
        let body = match format {
            BodyFormat::Text => Some(Value::String(String::from_utf8_lossy(&answer.body).into_owned())),
            BodyFormat::Json if answer.body.is_empty() => Some(Value::Null),
            BodyFormat::Json => serde_json::from_slice(&answer.body).ok(),
        };
        HostResponse {
            status: answer.status,
            headers: headers.collect(),
            body: body.map(|body| self.striker.value(body)),
        }
    }
}
