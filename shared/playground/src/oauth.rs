//! The OAuth 2 server of the stand-ins (RFC 6749, RFC 7636 with S256, RFC 7009): its grants and rules. Codes are random and
//! stored only as digests; tokens are signed and not stored.

mod authorization;
mod signed;
mod token;

use std::collections::{HashMap, HashSet};

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac::Key;
use axum::Router;
pub(crate) use signed::Holder;
use signed::{Kind, Token};

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
/// How long an expired code is remembered, to recognize its reuse.
const MEMORY_SECONDS: i64 = 86_400;

/// Pending requests, codes, and used and revoked tokens.
pub(crate) struct Grants {
    /// `None` if the system had no randomness for it: then nothing can be granted.
    key: Option<Key>,
    /// By digest of the id, as the next two maps.
    requests: HashMap<Vec<u8>, Request>,
    codes: HashMap<Vec<u8>, Code>,
    /// Tokens that work without a grant; they do not expire and cannot be revoked.
    accepted: HashMap<Vec<u8>, Service>,
    /// The ids of used refresh tokens.
    used: HashSet<String>,
    revoked: HashSet<(String, Holder)>,
}

/// An authorization request that waits for consent.
struct Request {
    service: Service,
    redirect_uri: String,
    /// The scope of each holder, who gets separate tokens.
    scopes: Vec<(Holder, String)>,
    state: Option<String>,
    challenge: String,
    expires: i64,
}

struct Code {
    request: Request,
    family: String,
    used: bool,
    expires: i64,
}

/// A new access token and its refresh token.
struct Pair {
    holder: Holder,
    access: String,
    refresh: String,
    scope: String,
}

/// Why a request was refused.
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
    /// There is no such token to revoke.
    Token,
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
    pub(crate) fn new(key: Option<Key>) -> Self {
        let mut grants = Self {
            key,
            requests: HashMap::new(),
            codes: HashMap::new(),
            accepted: HashMap::new(),
            used: HashSet::new(),
            revoked: HashSet::new(),
        };
        for service in Service::ALL {
            grants.accept(service, service.standing_token());
        }
        grants
    }

    pub(crate) fn accept(&mut self, service: Service, token: &str) {
        self.accepted.insert(digest(token), service);
    }

    /// The holder of a bearer token, if the token is valid for the service.
    pub(crate) fn check(&self, service: Service, token: Option<&str>, now: i64) -> Result<Holder, Fault> {
        let token = token.ok_or(Fault::MissingToken)?;
        if self.accepts(service, token) {
            return Ok(Holder::App);
        }
        let token = self.read(service, token).ok_or(Fault::UnknownToken)?;
        match token.kind {
            Kind::Refresh => Err(Fault::UnknownToken),
            Kind::Access { .. } if self.is_revoked(&token) => Err(Fault::RevokedToken),
            Kind::Access { expires } if expires <= now => Err(Fault::ExpiredToken),
            Kind::Access { .. } => Ok(token.holder),
        }
    }

    fn accepts(&self, service: Service, token: &str) -> bool {
        self.accepted.get(&digest(token)) == Some(&service)
    }

    /// A token of this process, or of another one with the same key.
    fn read(&self, service: Service, token: &str) -> Option<Token> {
        Token::read(self.key.as_ref()?, token).filter(|token| token.service == service)
    }

    fn is_revoked(&self, token: &Token) -> bool {
        self.revoked.contains(&(token.family.clone(), token.holder))
    }

    /// Stores a request and returns the single-use id for its consent form.
    fn add_request(&mut self, request: Request, now: i64) -> Result<String, Unspecified> {
        self.requests.retain(|_, request| request.expires > now);
        self.codes.retain(|_, code| code.expires.saturating_add(MEMORY_SECONDS) > now);
        let id = random()?;
        self.requests.insert(digest(&id), request);
        Ok(id)
    }

    /// Removes and returns a request that waits for consent.
    fn take_request(&mut self, service: Service, id: &str, now: i64) -> Option<Request> {
        let request = self.requests.remove(&digest(id))?;
        (request.service == service && request.expires > now).then_some(request)
    }

    fn code(&mut self, request: Request, now: i64) -> Result<String, Unspecified> {
        let code = random()?;
        // Random, so that no two processes name different families alike.
        let family = random()?;
        let expires = now.saturating_add(CODE_SECONDS);
        self.codes.insert(digest(&code), Code { request, family, used: false, expires });
        Ok(code)
    }

    /// Exchanges a code for tokens. The code counts as used even if the exchange fails; a second use revokes its tokens.
    fn redeem(
        &mut self,
        service: Service,
        code: &str,
        redirect_uri: Option<&str>,
        verifier: Option<&str>,
        now: i64,
    ) -> Result<Vec<Pair>, Refusal> {
        let code = self.codes.get_mut(&digest(code)).filter(|code| code.request.service == service);
        let code = code.ok_or(Refusal::Code)?;
        let (family, scopes) = (code.family.clone(), code.request.scopes.clone());
        if code.used {
            self.revoked.extend(scopes.into_iter().map(|(holder, _)| (family.clone(), holder)));
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
        scopes.into_iter().map(|(holder, scope)| self.issue(service, holder, &family, scope, now)).collect()
    }

    /// Exchanges a refresh token for the next pair. A second use revokes the token's family.
    fn refresh(&mut self, service: Service, token: &str, now: i64) -> Result<Pair, Refusal> {
        let token = self.read(service, token).ok_or(Refusal::RefreshToken)?;
        if !matches!(token.kind, Kind::Refresh) || self.is_revoked(&token) {
            return Err(Refusal::RefreshToken);
        }
        if !self.used.insert(token.id) {
            self.revoked.insert((token.family, token.holder));
            return Err(Refusal::RefreshToken);
        }
        self.issue(service, token.holder, &token.family, token.scope, now)
    }

    fn issue(&self, service: Service, holder: Holder, family: &str, scope: String, now: i64) -> Result<Pair, Refusal> {
        let key = self.key.as_ref().ok_or(Refusal::Unavailable)?;
        let signed = |kind| {
            let (family, id, scope) = (family.to_owned(), random()?, scope.clone());
            Token { service, kind, holder, family, id, scope }.sign(key)
        };
        let access = signed(Kind::Access { expires: now.saturating_add(TOKEN_SECONDS) })?;
        let refresh = signed(Kind::Refresh)?;
        Ok(Pair { holder, access, refresh, scope })
    }

    /// Revokes the token's family. Returns whether that changed anything. An expired access token revokes nothing.
    pub(crate) fn revoke(&mut self, service: Service, token: &str, now: i64) -> bool {
        match self.read(service, token) {
            Some(Token { kind: Kind::Access { expires }, .. }) if expires <= now => false,
            Some(token) => self.revoked.insert((token.family, token.holder)),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests;
