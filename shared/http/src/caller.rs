//! Authentication: turns the API key of a request into a principal, or refuses the request.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use overseer_engine::access::principal::Principal;
use overseer_engine::core::error::Error;
use overseer_engine::engine::Engine;
use secrecy::SecretString;

use crate::Problem;

/// The authenticated caller, on routes that agents may not use.
pub(crate) struct Caller(pub(crate) Principal);

impl FromRequestParts<Arc<Engine>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, engine: &Arc<Engine>) -> Result<Self, Problem> {
        let AgentOrCaller(principal) = AgentOrCaller::from_request_parts(parts, engine).await?;
        principal.require_non_agent()?;
        Ok(Self(principal))
    }
}

/// The authenticated caller, which may be an agent: only on routes that check what agents may use of them.
pub(crate) struct AgentOrCaller(pub(crate) Principal);

impl FromRequestParts<Arc<Engine>> for AgentOrCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, engine: &Arc<Engine>) -> Result<Self, Problem> {
        let missing = Error::Unauthenticated("an API key is needed: send the header Authorization: Bearer ovs_…");
        let key = bearer(&parts.headers)?.ok_or(missing)?;
        let principal = engine.authenticate(&key).await?;
        // The key alone decides which organization it is; the header may only agree.
        let own = principal.org.as_str().as_bytes();
        if parts.headers.get_all("x-organization-id").iter().any(|value| value.as_bytes() != own) {
            return Err(Error::Forbidden("this API key belongs to another organization".to_owned()).into());
        }
        Ok(Self(principal))
    }
}

/// The token of the header `Authorization: Bearer`, if it has that form. Two such headers are refused, because another server
/// on the way may have read the other one (RFC 9110, 5.3).
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<SecretString>, Error> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (first, second) = (values.next(), values.next());
    if second.is_some() {
        return Err(Error::field("", "the header Authorization is there twice; send it once"));
    }
    let token = first.and_then(|value| value.to_str().ok()?.trim().split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Ok(token.map(|(_, token)| SecretString::from(token.trim())))
}
