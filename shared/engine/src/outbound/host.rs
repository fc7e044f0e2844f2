//! Everything that a runtime can reach. A runtime never holds a credential: the host adds it to requests to the plugin's own
//! service, and redacts it in the answers.

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

use crate::core::json;
use crate::core::redactor::Redactor;
use crate::outbound::client::{Outbound, OutboundAnswer, OutboundError, OutboundRequest};
use crate::outbound::credential::Credential;
use crate::plugin::manifest::{Auth, BodyFormat, Manifest};

/// Why a request was not sent or got no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL is not at the plugin's service.
    #[error("a request must not go to {0}: the plugin's service is elsewhere")]
    NotPermitted(String),
    /// The credential cannot be sent in a header.
    #[error("the credential has characters that a header cannot contain")]
    Credential,
    /// The outbound client got no answer.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
}

/// An answer without the credential.
#[derive(Debug)]
pub struct HostResponse {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers that are text, by lowercase name.
    pub headers: BTreeMap<String, String>,
    /// The body; absent if it is not of the requested format.
    pub body: Option<Value>,
}

/// The host of one call of one action.
pub struct Host<'a> {
    outbound: &'a Outbound,
    manifest: &'a Manifest,
    base: &'a Url,
    credential: Option<&'a Credential>,
    redactor: &'a Redactor,
    deadline: Instant,
    /// Bytes of answers that the call may still read, over all its requests.
    remaining_bytes: AtomicUsize,
    called: AtomicBool,
}

impl<'a> Host<'a> {
    /// A host for one call. `base` is the manifest's base URL, or the operator's stand-in for it.
    pub(crate) fn new(
        outbound: &'a Outbound,
        manifest: &'a Manifest,
        base: &'a Url,
        credential: Option<&'a Credential>,
        redactor: &'a Redactor,
        deadline: Instant,
        answer_max_bytes: usize,
    ) -> Self {
        Self {
            outbound,
            manifest,
            base,
            credential,
            redactor,
            deadline,
            remaining_bytes: AtomicUsize::new(answer_max_bytes),
            called: AtomicBool::new(false),
        }
    }

    /// The base URL, to which a request's path is appended.
    pub fn base_url(&self) -> &Url {
        self.base
    }

    /// Whether the service was called.
    pub fn called(&self) -> bool {
        self.called.load(Ordering::Relaxed)
    }

    /// Sends a request to the service with the credential, and reads its answer as `format`.
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
        let called_before = self.called.swap(true, Ordering::Relaxed);
        let request = OutboundRequest { method, url, headers, body };
        let sent = self.outbound.send(request, &self.remaining_bytes, self.deadline).await;
        if matches!(sent, Err(OutboundError::Refused { .. })) {
            self.called.store(called_before, Ordering::Relaxed);
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
                let pair = credential.joined();
                (AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair.expose_secret())))
            }
        };
        let value = SecretString::from(value);
        let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|_| FetchError::Credential)?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    }

    /// Reads an answer, and redacts the credential in it: after reading, because reading undoes escapes that could hide it.
    fn read(&self, answer: &OutboundAnswer, format: BodyFormat) -> HostResponse {
        let headers = answer.headers.iter().filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), self.redactor.text(value.to_str().ok()?.to_owned())))
        });
        let body = match format {
            BodyFormat::Text => Some(Value::String(String::from_utf8_lossy(&answer.body).into_owned())),
            BodyFormat::Json if answer.body.is_empty() => Some(Value::Null),
            BodyFormat::Json => json::read_leniently(&answer.body),
        };
        HostResponse {
            status: answer.status,
            headers: headers.collect(),
            body: body.map(|body| self.redactor.value(body)),
        }
    }
}
