//! All that a runtime can reach of the world. A runtime never holds a credential: the host adds it to the request, only
//! towards the hosts that the manifest names, and takes it out of what comes back.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use url::Url;

use crate::manifest::{Auth, Manifest, Runtime};
use crate::outbound::{Outbound, OutboundAnswer, OutboundError, OutboundRequest};
use crate::secrets::Striker;

/// Why a call did not happen or had no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The manifest does not permit the host.
    #[error("the plugin's permissions do not name {0}")]
    NotPermitted(String),
    /// The credential cannot be sent in a header.
    #[error("the credential has characters that no header can carry")]
    Credential,
    /// There was no answer.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
}

/// The host of one run of one action.
pub struct Host<'a> {
    outbound: &'a Outbound,
    manifest: &'a Manifest,
    base: &'a Url,
    credential: Option<&'a SecretString>,
    striker: &'a Striker,
    deadline: Instant,
    /// Bytes of answers that may still come, over all calls of the run.
    left: AtomicUsize,
    calls: AtomicU32,
}

impl<'a> Host<'a> {
    /// A host for one run. `base` takes the place of the manifest's base URL where the operator says so.
    pub(crate) fn new(
        outbound: &'a Outbound,
        manifest: &'a Manifest,
        base: Option<&'a Url>,
        credential: Option<&'a SecretString>,
        striker: &'a Striker,
        deadline: Instant,
        answer_max_bytes: usize,
    ) -> Self {
        let Runtime::Http { base_url } = &manifest.runtime;
        Self {
            outbound,
            manifest,
            base: base.unwrap_or(base_url),
            credential,
            striker,
            deadline,
            left: AtomicUsize::new(answer_max_bytes),
            calls: AtomicU32::new(0),
        }
    }

    /// What a request's path is put behind.
    pub fn base_url(&self) -> &Url {
        self.base
    }

    /// How many calls have left so far.
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Calls the service, with the credential.
    pub async fn fetch(
        &self,
        method: http::Method,
        url: Url,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<OutboundAnswer, FetchError> {
        let same_origin = url.origin() == self.base.origin();
        let named = url.scheme() == "https" && self.manifest.hosts().any(|host| Some(host) == url.host_str());
        if !(same_origin || named) || !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::NotPermitted(url.host_str().unwrap_or_default().to_owned()));
        }
        self.authorize(&mut headers)?;
        self.calls.fetch_add(1, Ordering::Relaxed);
        let limit = self.left.load(Ordering::Relaxed);
        let answer = self.outbound.send(OutboundRequest { method, url, headers, body }, limit, self.deadline).await?;
        // Calls of one run that go on side by side may together pass the limit by what is in flight; the next is refused.
        let _ = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(answer.body.len())));
        Ok(self.without_secret(answer))
    }

    fn authorize(&self, headers: &mut HeaderMap) -> Result<(), FetchError> {
        let Some(secret) = self.credential else { return Ok(()) };
        let (name, prefix) = match &self.manifest.auth {
            Auth::None => return Ok(()),
            Auth::Oauth2 { .. } => (AUTHORIZATION, "Bearer "),
            Auth::ApiKey { header, prefix } => {
                (header.parse::<HeaderName>().map_err(|_| FetchError::Credential)?, prefix.as_str())
            }
        };
        let value = SecretString::from(format!("{prefix}{}", secret.expose_secret()));
        let mut value = HeaderValue::from_str(value.expose_secret()).map_err(|_| FetchError::Credential)?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok(())
    }

    fn without_secret(&self, mut answer: OutboundAnswer) -> OutboundAnswer {
        for value in answer.headers.values_mut() {
            let clean = self.striker.bytes(Bytes::copy_from_slice(value.as_bytes()));
            *value = HeaderValue::from_bytes(&clean).unwrap_or(HeaderValue::from_static(""));
        }
        answer.body = self.striker.bytes(answer.body);
        answer
    }
}
