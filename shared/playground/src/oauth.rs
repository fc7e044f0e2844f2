//! The OAuth 2 server of the stand-ins (RFC 6749, RFC 7636 with S256, RFC 7009): what was granted, and
//! the rules. Tokens and codes are random and only kept as digests.

mod authorization;
mod token;

use std::collections::{HashMap, HashSet};

use aws_lc_rs::error::Unspecified;
use axum::Router;

use crate::call::Fault;
use crate::identifier::{digest, random, same_secret};
use crate::{Playground, Service};

/// The client id that every service accepts.
pub const CLIENT_ID: &str = "playground";
/// The secret of [`CLIENT_ID`].
pub const CLIENT_SECRET: &str = "playground-secret";

const REQUEST_SECONDS: i64 = 600;
const CODE_SECONDS: i64 = 60;
const TOKEN_SECONDS: i64 = 3600;
/// How long what has expired is remembered, so that it is recognized when it comes back.
const MEMORY_SECONDS: i64 = 86_400;

/// Everything that was asked for and granted, by digest.
pub(crate) struct Grants {
    requests: HashMap<Vec<u8>, Request>,
    codes: HashMap<Vec<u8>, Code>,
    tokens: HashMap<Vec<u8>, Token>,
    revoked: HashSet<u64>,
    families: u64,
}

/// An authorization request that waits for consent.
struct Request {
    service: Service,
    redirect_uri: String,
    scope: String,
    state: Option<String>,
    challenge: String,
    expires: i64,
}

struct Code {
    request: Request,
    family: u64,
    used: bool,
    expires: i64,
}

struct Token {
    service: Service,
    /// `None` for tokens that were never granted here; those cannot be revoked either.
    family: Option<u64>,
    kind: Kind,
    scope: String,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Access { expires: Option<i64> },
    Refresh { used: bool },
}

/// A pair of tokens, fresh from the random generator.
struct Issued {
    access: String,
    refresh: String,
    scope: String,
}

/// Why nothing was granted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Refusal {
    ClientId,
    ClientSecret,
    Malformed,
    GrantType,
    Code,
    CodeUsed,
    RedirectUri,
    Verifier,
    RefreshToken,
    Unavailable,
}

impl From<Unspecified> for Refusal {
    fn from(_: Unspecified) -> Self {
        Self::Unavailable
    }
}

pub(crate) fn routes() -> Router<Playground> {
    Service::ALL.into_iter().fold(Router::new(), |router, service| {
        router.merge(authorization::routes(service)).merge(token::routes(service))
    })
}

impl Grants {
    pub(crate) fn new() -> Self {
        let mut grants = Self {
            requests: HashMap::new(),
            codes: HashMap::new(),
            tokens: HashMap::new(),
            revoked: HashSet::new(),
            families: 0,
        };
        for service in Service::ALL {
            grants.accept(service, service.standing_token());
        }
        grants
    }

    pub(crate) fn accept(&mut self, service: Service, token: &str) {
        let kind = Kind::Access { expires: None };
        self.tokens.insert(digest(token), Token { service, family: None, kind, scope: String::new() });
    }

    /// Whether a bearer token opens a service.
    pub(crate) fn check(&self, service: Service, token: Option<&str>, now: i64) -> Result<(), Fault> {
        let token = token.ok_or(Fault::MissingToken)?;
        let known = self.tokens.get(&digest(token)).filter(|known| known.service == service);
        match known {
            Some(Token { family: Some(family), .. }) if self.revoked.contains(family) => Err(Fault::UnknownToken),
            Some(Token { kind: Kind::Access { expires: Some(expires) }, .. }) if *expires <= now => {
                Err(Fault::ExpiredToken)
            }
            Some(Token { kind: Kind::Access { .. }, .. }) => Ok(()),
            Some(Token { kind: Kind::Refresh { .. }, .. }) | None => Err(Fault::UnknownToken),
        }
    }

    /// Keeps a request and answers the single-use id for the consent form.
    fn ask(&mut self, request: Request, now: i64) -> Result<String, Unspecified> {
        self.requests.retain(|_, request| request.expires > now);
        self.codes.retain(|_, code| code.expires.saturating_add(MEMORY_SECONDS) > now);
        self.tokens.retain(|_, token| match token.kind {
            Kind::Access { expires: Some(expires) } => expires.saturating_add(MEMORY_SECONDS) > now,
            Kind::Access { expires: None } | Kind::Refresh { .. } => true,
        });
        let id = random()?;
        self.requests.insert(digest(&id), request);
        Ok(id)
    }

    /// Takes a request out, if it waits for consent.
    fn decide(&mut self, service: Service, id: &str, now: i64) -> Option<Request> {
        let request = self.requests.remove(&digest(id))?;
        (request.service == service && request.expires > now).then_some(request)
    }

    fn code(&mut self, request: Request, now: i64) -> Result<String, Unspecified> {
        let code = random()?;
        self.families = self.families.saturating_add(1);
        let expires = now.saturating_add(CODE_SECONDS);
        self.codes.insert(digest(&code), Code { request, family: self.families, used: false, expires });
        Ok(code)
    }

    /// Exchanges a code. Whatever comes of it, the code is used; used again, it takes back what it gave.
    fn redeem(
        &mut self,
        service: Service,
        code: &str,
        redirect_uri: Option<&str>,
        verifier: Option<&str>,
        now: i64,
    ) -> Result<Issued, Refusal> {
        let code = self.codes.get_mut(&digest(code)).filter(|code| code.request.service == service);
        let code = code.ok_or(Refusal::Code)?;
        let (family, scope) = (code.family, code.request.scope.clone());
        if code.used {
            self.revoked.insert(family);
            return Err(Refusal::CodeUsed);
        }
        code.used = true;
        if code.expires <= now {
            return Err(Refusal::Code);
        }
        if redirect_uri != Some(code.request.redirect_uri.as_str()) {
            return Err(Refusal::RedirectUri);
        }
        let is_proven = verifier.is_some_and(|verifier| {
            token::is_verifier(verifier) && same_secret(&authorization::challenge(verifier), &code.request.challenge)
        });
        if !is_proven {
            return Err(Refusal::Verifier);
        }
        self.issue(service, family, scope, now)
    }

    /// Exchanges a refresh token for the next one; used again, it takes back everything of its family.
    fn refresh(&mut self, service: Service, token: &str, now: i64) -> Result<Issued, Refusal> {
        let known = self.tokens.get_mut(&digest(token)).filter(|known| known.service == service);
        let known = known.ok_or(Refusal::RefreshToken)?;
        let (Kind::Refresh { used }, Some(family)) = (known.kind, known.family) else {
            return Err(Refusal::RefreshToken);
        };
        if used || self.revoked.contains(&family) {
            self.revoked.insert(family);
            return Err(Refusal::RefreshToken);
        }
        known.kind = Kind::Refresh { used: true };
        let scope = known.scope.clone();
        self.issue(service, family, scope, now)
    }

    fn issue(&mut self, service: Service, family: u64, scope: String, now: i64) -> Result<Issued, Refusal> {
        let (access_prefix, refresh_prefix) = match service {
            Service::Slack => ("xoxe.xoxb-1-", "xoxe-1-"),
            Service::Gmail => ("ya29.", "1//0"),
            Service::Notion => ("ntn_", "nrt_"),
        };
        let access = format!("{access_prefix}{}", random()?);
        let refresh = format!("{refresh_prefix}{}", random()?);
        let expires = Some(now.saturating_add(TOKEN_SECONDS));
        for (token, kind) in [(&access, Kind::Access { expires }), (&refresh, Kind::Refresh { used: false })] {
            self.tokens.insert(digest(token), Token { service, family: Some(family), kind, scope: scope.clone() });
        }
        Ok(Issued { access, refresh, scope })
    }

    /// Takes back everything of the token's family; unknown tokens are nothing to complain about.
    fn revoke(&mut self, service: Service, token: &str) {
        let known = self.tokens.get(&digest(token)).filter(|known| known.service == service);
        if let Some(family) = known.and_then(|known| known.family) {
            self.revoked.insert(family);
        }
    }
}

#[cfg(test)]
mod tests;
