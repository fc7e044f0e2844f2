//! The HTTP client of all outbound calls. It checks each address before it connects, resolved or literal. It uses no system
//! proxy and follows no redirect to another origin.

use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::LOCATION;
use http::{HeaderMap, Method, StatusCode};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::{Instant, timeout, timeout_at};
use url::{Host, Url};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use crate::outbound::address::{AllowedAddress, is_allowed, is_permitted};
use crate::outbound::config::Authorities;

/// The most redirects within one origin that are followed.
const REDIRECTS_MAX: usize = 5;
/// The most bytes that are read of a body that is discarded.
const DISCARDED_MAX_BYTES: usize = 16 * 1024;
/// The time limit of reading a body that is discarded.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);
/// The time limit of resolving a name without calling it.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// A request that is ready to send. (No `Debug`: its body may contain a secret.)
#[derive(Clone)]
pub struct OutboundRequest {
    /// The method.
    pub method: Method,
    /// The URL.
    pub url: Url,
    /// The headers; a credential among them is marked sensitive.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// A complete response.
#[derive(Debug)]
pub struct OutboundAnswer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The address is not public, and the operator does not allow it. Nothing was sent.
    #[error("{host} is at an address that calls may not reach")]
    Refused {
        /// The host.
        host: String,
    },
    /// The name did not resolve, or no connection was established. Nothing was sent.
    #[error("no connection to {host}")]
    Unreachable {
        /// The host.
        host: String,
        /// What went wrong.
        #[source]
        source: reqwest::Error,
    },
    /// The deadline passed. The request may have arrived.
    #[error("no answer from {host} in time")]
    Timeout {
        /// The host.
        host: String,
    },
    /// The connection broke. The request may have arrived.
    #[error("the connection to {host} broke")]
    Broken {
        /// The host.
        host: String,
        /// What went wrong.
        #[source]
        source: reqwest::Error,
    },
    /// The response is larger than allowed.
    #[error("the response of {host} is too large")]
    TooLarge {
        /// The host.
        host: String,
    },
}

/// The client cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("the client for outbound calls cannot be built")]
pub struct ClientError(#[from] reqwest::Error);

/// The HTTP client of all outbound calls.
#[derive(Debug, Clone)]
pub struct Outbound {
    client: reqwest::Client,
    allowed: Arc<[AllowedAddress]>,
}

impl Outbound {
    /// A client that reaches public addresses and the `allowed` ones.
    pub fn new(
        allowed: &[AllowedAddress],
        authorities: Authorities,
        connect_timeout: Duration,
    ) -> Result<Self, ClientError> {
        let allowed: Arc<[AllowedAddress]> = allowed.into();
        let builder = match authorities {
            Authorities::System => reqwest::Client::builder(),
            Authorities::Mozilla => {
                let certificates = TLS_SERVER_ROOT_CERTS.iter().map(|der| reqwest::Certificate::from_der(der));
                reqwest::Client::builder().tls_certs_only(certificates.collect::<Result<Vec<_>, _>>()?)
            }
        };
        let client = builder
            .user_agent(concat!("overseer/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(connect_timeout)
            .no_proxy()
            .retry(reqwest::retry::never())
            .dns_resolver(CheckedResolver { allowed: Arc::clone(&allowed) })
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client, allowed })
    }

    /// Sends `request` and reads its response before `deadline`. The bytes read are subtracted from `left`, the bytes that may
    /// still be read. A redirect within the origin is followed if it repeats the request: for a GET, and for other methods if
    /// the status says so (RFC 9110, 15.4). Any other redirect is returned as the response.
    pub async fn send(
        &self,
        mut request: OutboundRequest,
        left: &AtomicUsize,
        deadline: Instant,
    ) -> Result<OutboundAnswer, OutboundError> {
        let mut hops = 0;
        loop {
            let answer = match self.send_once(request.clone(), left, deadline).await {
                // An earlier request was answered, so something was sent.
                Err(OutboundError::Unreachable { host, source }) if hops > 0 => {
                    return Err(OutboundError::Broken { host, source });
                }
                other => other?,
            };
            match redirect_target(&request, &answer) {
                Some(target) if hops < REDIRECTS_MAX => request.url = target,
                Some(_) | None => return Ok(answer),
            }
            hops += 1;
        }
    }

    /// Sends `request` like [`Self::send`], but returns every redirect as the response.
    #[tracing::instrument(
        name = "outbound.send",
        level = "debug",
        skip_all,
        fields(host = request.url.host_str(), outcome = tracing::field::Empty)
    )]
    pub async fn send_once(
        &self,
        request: OutboundRequest,
        left: &AtomicUsize,
        deadline: Instant,
    ) -> Result<OutboundAnswer, OutboundError> {
        let host = request.url.host_str().unwrap_or_default().to_owned();
        let exchange = async {
            let mut answer = self.start(request).await?;
            let mut body = BytesMut::new();
            while let Some(chunk) = answer.chunk().await.map_err(|error| classify(error, &host))? {
                let take = |left: usize| left.checked_sub(chunk.len());
                if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
                    return Err(OutboundError::TooLarge { host: host.clone() });
                }
                body.extend_from_slice(&chunk);
            }
            let headers = std::mem::take(answer.headers_mut());
            Ok(OutboundAnswer { status: answer.status(), headers, body: body.freeze() })
        };
        let result = timeout_at(deadline, exchange).await;
        let result = result.unwrap_or_else(|_| Err(OutboundError::Timeout { host: host.clone() }));
        tracing::Span::current().record("outcome", outcome_of(&result));
        result
    }

    /// Sends `request` once and returns only status and headers. A short body is read and discarded, so that the connection can
    /// be reused.
    pub async fn send_for_status(
        &self,
        request: OutboundRequest,
        deadline: Instant,
    ) -> Result<(StatusCode, HeaderMap), OutboundError> {
        let host = request.url.host_str().unwrap_or_default().to_owned();
        let started = timeout_at(deadline, self.start(request)).await;
        let mut answer = started.unwrap_or_else(|_| Err(OutboundError::Timeout { host }))?;
        let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
        let discard = async {
            let mut left = DISCARDED_MAX_BYTES;
            while let Ok(Some(chunk)) = answer.chunk().await {
                let Some(remaining) = left.checked_sub(chunk.len()) else { return };
                left = remaining;
            }
        };
        // Status and headers are known, so a failure to read the body does not matter.
        let _ = timeout_at(deadline.min(Instant::now() + DISCARD_TIMEOUT), discard).await;
        Ok((status, headers))
    }

    /// Whether calls to `url` would be refused now. A name that does not resolve is not refused.
    pub async fn refuses(&self, url: &Url) -> bool {
        let port = url.port_or_known_default();
        match url.host() {
            Some(Host::Ipv4(address)) => !is_permitted(&self.allowed, address.into(), port),
            Some(Host::Ipv6(address)) => !is_permitted(&self.allowed, address.into(), port),
            Some(Host::Domain(name)) => {
                let resolved = timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((name, 0))).await;
                let Ok(Ok(addresses)) = resolved else { return false };
                let addresses: Vec<_> = addresses.collect();
                !addresses.is_empty()
                    && !addresses.iter().any(|address| is_permitted(&self.allowed, address.ip(), None))
            }
            None => true,
        }
    }

    /// Whether the operator allowed the literal address of `url`.
    pub fn allows(&self, url: &Url) -> bool {
        let port = url.port_or_known_default();
        match url.host() {
            Some(Host::Ipv4(address)) => is_allowed(&self.allowed, address.into(), port),
            Some(Host::Ipv6(address)) => is_allowed(&self.allowed, address.into(), port),
            Some(Host::Domain(_)) | None => false,
        }
    }

    /// Sends `request`, if its address is permitted, and returns the response before its body is read.
    async fn start(&self, request: OutboundRequest) -> Result<reqwest::Response, OutboundError> {
        let host = request.url.host_str().unwrap_or_default().to_owned();
        // The resolver is not called for a literal address. The URL parser has normalized its spelling.
        let literal = match request.url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) | None => None,
        };
        if literal.is_some_and(|address| !is_permitted(&self.allowed, address, request.url.port_or_known_default())) {
            return Err(OutboundError::Refused { host });
        }
        let sent = self.client.request(request.method, request.url).headers(request.headers).body(request.body);
        sent.send().await.map_err(|error| classify(error, &host))
    }
}

/// The redirect target for the same request, if it is within the origin.
fn redirect_target(request: &OutboundRequest, answer: &OutboundAnswer) -> Option<Url> {
    let repeats_request = match answer.status {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => request.method == Method::GET,
        _ => false,
    };
    let target = request.url.join(answer.headers.get(LOCATION)?.to_str().ok()?).ok()?;
    (repeats_request && target.origin() == request.url.origin()).then_some(target)
}

/// The kind of a client error, without the URL.
fn classify(error: reqwest::Error, host: &str) -> OutboundError {
    let host = host.to_owned();
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if inner.is::<AddressDenied>() {
            return OutboundError::Refused { host };
        }
        cause = inner.source();
    }
    // The URL may contain the caller's parameters.
    let source = error.without_url();
    if source.is_connect() || source.is_builder() {
        OutboundError::Unreachable { host, source }
    } else if source.is_timeout() {
        OutboundError::Timeout { host }
    } else {
        OutboundError::Broken { host, source }
    }
}

/// Resolves names and returns only permitted addresses, so that the client connects to exactly what was checked.
struct CheckedResolver {
    allowed: Arc<[AllowedAddress]>,
}

#[derive(Debug, thiserror::Error)]
#[error("calls may not reach any address of the name")]
struct AddressDenied;

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = Arc::clone(&self.allowed);
        Box::pin(async move {
            let resolved: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let any_resolved = !resolved.is_empty();
            let permitted: Vec<SocketAddr> =
                resolved.into_iter().filter(|address| is_permitted(&allowed, address.ip(), None)).collect();
            if any_resolved && permitted.is_empty() {
                return Err(AddressDenied.into());
            }
            Ok::<Addrs, _>(Box::new(permitted.into_iter()))
        })
    }
}

/// The outcome of a request, for its span.
fn outcome_of(result: &Result<OutboundAnswer, OutboundError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(OutboundError::Refused { .. }) => "address_refused",
        Err(OutboundError::Unreachable { .. }) => "unreachable",
        Err(OutboundError::Timeout { .. }) => "timeout",
        Err(OutboundError::Broken { .. }) => "broken",
        Err(OutboundError::TooLarge { .. }) => "too_large",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fetch(outbound: &Outbound, url: &str) -> Result<OutboundAnswer, OutboundError> {
        let request = OutboundRequest {
            method: Method::GET,
            url: url.parse().unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        outbound.send(request, &AtomicUsize::new(1024), Instant::now() + Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn every_spelling_of_a_refused_address_is_refused() {
        let outbound = Outbound::new(&[], Authorities::System, Duration::from_secs(1)).unwrap();
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://0x7f.1/",
            "http://127.0.0.1.:80/",
            "http://%31%32%37.0.0.1/",
            "http://１２７.０.０.１/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[0:0:0:0:0:0:0:1]/",
            "http://[64:ff9b::127.0.0.1]/",
            "http://0/",
            "http://169.254.169.254/latest",
            "http://[fd00:ec2::254]/",
            "http://100.64.1.1/",
            "http://10.0.0.1:8080/",
            "https://192.168.0.1/",
            // Names are resolved first.
            "http://localhost/",
            "http://LOCALHOST:81/",
        ] {
            assert!(matches!(fetch(&outbound, url).await, Err(OutboundError::Refused { .. })), "{url}");
        }
    }

    #[tokio::test]
    async fn unresolved_name_is_unreachable() {
        let outbound = Outbound::new(&[], Authorities::System, Duration::from_secs(1)).unwrap();
        let error = fetch(&outbound, "http://does-not-exist.invalid/").await.unwrap_err();
        assert!(matches!(error, OutboundError::Unreachable { .. }), "{error:?}");
    }
}
