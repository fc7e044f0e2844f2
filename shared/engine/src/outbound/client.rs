//! The one client through which every call leaves. It connects only to addresses that it has checked itself, after
//! resolution as well as in literals, uses no proxy of the system, and follows no redirect to another origin.

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

use crate::outbound::address::{AllowedAddress, among, permitted};
use crate::outbound::config::Authorities;

/// Redirects within one origin that are followed before giving up.
const REDIRECTS_MAX: usize = 5;
/// What is read at most of an answer's body that nobody hears, in bytes.
const UNHEARD_MAX: usize = 16 * 1024;
/// The time for that.
const UNHEARD_TIME: Duration = Duration::from_secs(1);
/// The time for looking up a name that nothing is sent to yet.
const LOOKING_UP_TIME: Duration = Duration::from_secs(2);

/// A request that is ready to leave. (No `Debug`: its body may hold a secret.)
#[derive(Clone)]
pub struct OutboundRequest {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// The headers; a credential among them is marked sensitive.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// An answer, whole.
#[derive(Debug)]
pub struct OutboundAnswer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The address is not public, and the operator does not allow it.
    #[error("{host} is at an address that calls may not go to")]
    Refused {
        /// The host.
        host: String,
    },
    /// The name did not resolve, or no connection came about.
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
    /// The answer is larger than allowed.
    #[error("{host} answered with more than is read")]
    TooLarge {
        /// The host.
        host: String,
    },
}

/// The client could not be built.
#[derive(Debug, thiserror::Error)]
#[error("the client for outbound calls cannot be made")]
pub struct ClientError(#[from] reqwest::Error);

/// The one client.
#[derive(Debug, Clone)]
pub struct Outbound {
    client: reqwest::Client,
    allowed: Arc<[AllowedAddress]>,
}

impl Outbound {
    /// A client that reaches public addresses and those of `allowed`.
    pub fn new(
        allowed: &[AllowedAddress],
        authorities: Authorities,
        connect_timeout: Duration,
    ) -> Result<Self, ClientError> {
        let allowed: Arc<[AllowedAddress]> = allowed.into();
        let builder = match authorities {
            Authorities::System => reqwest::Client::builder(),
            Authorities::Mozilla => {
                let known = TLS_SERVER_ROOT_CERTS.iter().map(|known| reqwest::Certificate::from_der(known));
                reqwest::Client::builder().tls_certs_only(known.collect::<Result<Vec<_>, _>>()?)
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

    /// Sends `request` and reads its answer before `deadline`. What is read is taken off `left`, the bytes that may
    /// still come. A redirect within the origin is followed where that repeats the request: for a GET, and for others
    /// where the status says so (RFC 9110, 15.4); any other redirect is the answer.
    pub async fn send(
        &self,
        mut request: OutboundRequest,
        left: &AtomicUsize,
        deadline: Instant,
    ) -> Result<OutboundAnswer, OutboundError> {
        let mut hops = 0;
        loop {
            let answer = match self.send_once(request.clone(), left, deadline).await {
                // What was asked before was answered, so that something did leave.
                Err(OutboundError::Unreachable { host, source }) if hops > 0 => {
                    return Err(OutboundError::Broken { host, source });
                }
                other => other?,
            };
            match redirected(&request, &answer) {
                Some(to) if hops < REDIRECTS_MAX => request.url = to,
                Some(_) | None => return Ok(answer),
            }
            hops += 1;
        }
    }

    /// Sends `request` once, as [`Self::send`] does, and takes every redirect for the answer.
    pub async fn send_once(
        &self,
        request: OutboundRequest,
        left: &AtomicUsize,
        deadline: Instant,
    ) -> Result<OutboundAnswer, OutboundError> {
        let host = request.url.host_str().unwrap_or_default().to_owned();
        let exchange = async {
            let mut answer = self.begin(request).await?;
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
        timeout_at(deadline, exchange).await.unwrap_or_else(|_| Err(OutboundError::Timeout { host: host.clone() }))
    }

    /// Sends `request` once, for its status and headers alone. Of the body a little is read, so that the connection can be
    /// used again, and given up.
    pub async fn send_for_status(
        &self,
        request: OutboundRequest,
        deadline: Instant,
    ) -> Result<(StatusCode, HeaderMap), OutboundError> {
        let host = request.url.host_str().unwrap_or_default().to_owned();
        let begun = timeout_at(deadline, self.begin(request)).await;
        let mut answer = begun.unwrap_or_else(|_| Err(OutboundError::Timeout { host }))?;
        let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
        let reading = async {
            let mut left = UNHEARD_MAX;
            while let Ok(Some(chunk)) = answer.chunk().await {
                let Some(less) = left.checked_sub(chunk.len()) else { return };
                left = less;
            }
        };
        // What was said is known by now, whatever becomes of the rest.
        let _ = timeout_at(deadline.min(Instant::now() + UNHEARD_TIME), reading).await;
        Ok((status, headers))
    }

    /// Whether calls to `url` would be refused, as far as that can be told now: a name that does not resolve is not.
    pub async fn refuses(&self, url: &Url) -> bool {
        let port = url.port_or_known_default();
        match url.host() {
            Some(Host::Ipv4(address)) => !permitted(&self.allowed, address.into(), port),
            Some(Host::Ipv6(address)) => !permitted(&self.allowed, address.into(), port),
            Some(Host::Domain(name)) => {
                let found = timeout(LOOKING_UP_TIME, tokio::net::lookup_host((name, 0))).await;
                let Ok(Ok(found)) = found else { return false };
                let found: Vec<_> = found.collect();
                !found.is_empty() && !found.iter().any(|address| permitted(&self.allowed, address.ip(), None))
            }
            None => true,
        }
    }

    /// Whether the operator allowed the address that `url` has literally.
    pub fn allows(&self, url: &Url) -> bool {
        let port = url.port_or_known_default();
        match url.host() {
            Some(Host::Ipv4(address)) => among(&self.allowed, address.into(), port),
            Some(Host::Ipv6(address)) => among(&self.allowed, address.into(), port),
            Some(Host::Domain(_)) | None => false,
        }
    }

    /// Sends `request`, if its address may be called, up to where the body of the answer begins.
    async fn begin(&self, request: OutboundRequest) -> Result<reqwest::Response, OutboundError> {
        let host = request.url.host_str().unwrap_or_default().to_owned();
        // The resolver never sees an address that the URL has literally, in whatever spelling; the parser of URLs has
        // brought it into its one form.
        let literal = match request.url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) | None => None,
        };
        if literal.is_some_and(|address| !permitted(&self.allowed, address, request.url.port_or_known_default())) {
            return Err(OutboundError::Refused { host });
        }
        let sent = self.client.request(request.method, request.url).headers(request.headers).body(request.body);
        sent.send().await.map_err(|error| classify(error, &host))
    }
}

/// Where an answer sends the same request, if that is within the origin.
fn redirected(request: &OutboundRequest, answer: &OutboundAnswer) -> Option<Url> {
    let repeats = match answer.status {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => request.method == Method::GET,
        _ => false,
    };
    let to = request.url.join(answer.headers.get(LOCATION)?.to_str().ok()?).ok()?;
    (repeats && to.origin() == request.url.origin()).then_some(to)
}

fn classify(error: reqwest::Error, host: &str) -> OutboundError {
    let host = host.to_owned();
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if inner.is::<AddressDenied>() {
            return OutboundError::Refused { host };
        }
        cause = inner.source();
    }
    // The URL may hold parameters of the caller.
    let source = error.without_url();
    if source.is_connect() || source.is_builder() {
        OutboundError::Unreachable { host, source }
    } else if source.is_timeout() {
        OutboundError::Timeout { host }
    } else {
        OutboundError::Broken { host, source }
    }
}

/// Resolves names and gives only what may be called: what was checked is what is connected to.
struct CheckedResolver {
    allowed: Arc<[AllowedAddress]>,
}

#[derive(Debug, thiserror::Error)]
#[error("every address of the name is one that calls may not go to")]
struct AddressDenied;

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = Arc::clone(&self.allowed);
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let any = !found.is_empty();
            let checked: Vec<SocketAddr> =
                found.into_iter().filter(|address| permitted(&allowed, address.ip(), None)).collect();
            if any && checked.is_empty() {
                return Err(AddressDenied.into());
            }
            Ok::<Addrs, _>(Box::new(checked.into_iter()))
        })
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
            // By its name: resolved, then refused.
            "http://localhost/",
            "http://LOCALHOST:81/",
        ] {
            assert!(matches!(fetch(&outbound, url).await, Err(OutboundError::Refused { .. })), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_never_left() {
        let outbound = Outbound::new(&[], Authorities::System, Duration::from_secs(1)).unwrap();
        let error = fetch(&outbound, "http://does-not-exist.invalid/").await.unwrap_err();
        assert!(matches!(error, OutboundError::Unreachable { .. }), "{error:?}");
    }
}
