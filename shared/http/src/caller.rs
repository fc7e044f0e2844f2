//! Who asks: the API key of the request becomes a principal, or the request goes no further.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use overseer_engine::access::principal::Principal;
use overseer_engine::core::error::Error;
use overseer_engine::engine::Engine;
use secrecy::SecretString;

use crate::Problem;

/// The caller, proved, and no agent.
pub(crate) struct Caller(pub(crate) Principal);

impl FromRequestParts<Arc<Engine>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, engine: &Arc<Engine>) -> Result<Self, Problem> {
        let AgentOrCaller(principal) = AgentOrCaller::from_request_parts(parts, engine).await?;
        principal.require_non_agent()?;
        Ok(Self(principal))
    }
}

/// The caller, proved, where it may be an agent as well: only on routes that say what of it agents may use.
pub(crate) struct AgentOrCaller(pub(crate) Principal);

impl FromRequestParts<Arc<Engine>> for AgentOrCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, engine: &Arc<Engine>) -> Result<Self, Problem> {
        let header = parts.headers.get(AUTHORIZATION);
        let missing = Error::Unauthenticated("an API key is needed: send the header Authorization: Bearer ovs_…");
        let Some(header) = header else { return Err(missing.into()) };
        let scheme_and_key = header.to_str().ok().and_then(|header| header.trim().split_once(' '));
        let key = match scheme_and_key {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => SecretString::from(key.trim()),
            Some(_) | None => return Err(missing.into()),
        };
        let principal = engine.authenticate(&key).await?;
        // The header is never what decides; it may only agree.
        let own = principal.org.as_str().as_bytes();
        if parts.headers.get_all("x-organization-id").iter().any(|asked| asked.as_bytes() != own) {
            return Err(Error::Forbidden("this API key belongs to another organization".to_owned()).into());
        }
        Ok(Self(principal))
    }
}
