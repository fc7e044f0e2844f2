//! The authenticated caller, and what its roles allow.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::error::Error;
use crate::core::ids::{AgentId, ChannelName, KeyId, OrgId, UserId};
use crate::core::intent::Intent;

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Role {
    /// Registers plugins for all organizations, and administers its own.
    PlatformAdministrator,
    /// Manages the organization, and acts for each of its users.
    Administrator,
    /// Sees everything in the organization, and acts for each of its users.
    Operator,
    /// Acts for each of the organization's users.
    Service,
    /// Acts for one user.
    User,
    /// Acts as one agent, with the plugins of its channel: for the user that its key is bound to, or else for each of the
    /// organization's users.
    Agent,
}

/// The agent that a caller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentOf {
    /// The channel whose plugins it may use.
    pub channel: ChannelName,
    /// The agent's id in its intents.
    pub id: AgentId,
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The only organization whose data this caller can reach.
    pub org: OrgId,
    /// The user that the credential is bound to: the default when a request names none.
    pub user: Option<UserId>,
    /// What the caller may do.
    pub roles: BTreeSet<Role>,
    /// The caller's API key.
    pub key: KeyId,
    /// The agent that the caller is. Such a caller may do what agents may, and nothing else.
    pub agent: Option<AgentOf>,
}

impl Principal {
    /// Whether this caller has one of these roles.
    fn is_one_of(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.roles.contains(role))
    }

    /// Refuses callers who are not administrators.
    pub fn must_administer(&self) -> Result<(), Error> {
        if self.is_one_of(&[Role::Administrator, Role::PlatformAdministrator]) {
            return Ok(());
        }
        Err(Error::Forbidden("this needs the API key of an administrator".to_owned()))
    }

    /// Refuses callers who are not platform administrators.
    pub fn must_administer_platform(&self) -> Result<(), Error> {
        if self.is_one_of(&[Role::PlatformAdministrator]) {
            return Ok(());
        }
        Err(Error::Forbidden("this needs the API key of a platform administrator".to_owned()))
    }

    /// Refuses callers who are neither administrators nor operators.
    pub fn must_operate(&self) -> Result<(), Error> {
        if self.is_one_of(&[Role::Administrator, Role::PlatformAdministrator, Role::Operator]) {
            return Ok(());
        }
        Err(Error::Forbidden("this needs the API key of an administrator or an operator".to_owned()))
    }

    /// Whether this caller acts for each user of the organization.
    pub(crate) fn acts_for_all(&self) -> bool {
        self.is_one_of(&[Role::Administrator, Role::PlatformAdministrator, Role::Operator, Role::Service])
    }

    /// The user that a request is for: `requested`, if the caller may act for that user, or else the caller's own.
    pub fn resolve_user(&self, requested: Option<UserId>) -> Result<UserId, Error> {
        let for_all = self.acts_for_all() || (self.agent.is_some() && self.user.is_none());
        match (requested, &self.user) {
            (Some(requested), own) if for_all || own.as_ref() == Some(&requested) => Ok(requested),
            (Some(_), _) => Err(Error::Forbidden("this API key does not act for that user".to_owned())),
            (None, Some(own)) => Ok(own.clone()),
            (None, None) => Err(Error::field("/userId", "is needed, because the API key is not bound to a user")),
        }
    }

    /// Refuses agents on routes that are not for them.
    pub fn require_non_agent(&self) -> Result<(), Error> {
        let Some(agent) = &self.agent else { return Ok(()) };
        Err(Error::Forbidden(format!(
            "the API key of an agent is for intents, GET /api/plugin-engine, GET /api/v1/agents/{} and POST /api/v1/hooks; \
             this needs another",
            agent.channel
        )))
    }

    /// The channel that limits the plugins: an agent's own, or else the `requested` one, if any. An agent cannot request
    /// another.
    pub(crate) fn channel<'a>(&'a self, requested: Option<&'a ChannelName>) -> Result<Option<&'a ChannelName>, Error> {
        let Some(AgentOf { channel, .. }) = &self.agent else { return Ok(requested) };
        match requested {
            Some(requested) if requested != channel => Err(Error::Forbidden(format!(
                "this API key is of an agent in the channel {channel}, and not in the channel {requested}"
            ))),
            Some(_) | None => Ok(Some(channel)),
        }
    }

    /// The intent with the agent that it is from (see [`Self::resolve_agent`]).
    pub(crate) fn with_agent(&self, mut intent: Intent) -> Result<Intent, Error> {
        intent.agent_id = self.resolve_agent(intent.agent_id, "agentId")?;
        Ok(intent)
    }

    /// The agent that a request is from: the caller, if it is an agent, or else the `requested` one. An agent cannot request
    /// another in `field`.
    pub(crate) fn resolve_agent(&self, requested: Option<AgentId>, field: &str) -> Result<Option<AgentId>, Error> {
        let Some(AgentOf { id, .. }) = &self.agent else { return Ok(requested) };
        if requested.is_some_and(|requested| requested != *id) {
            return Err(Error::Forbidden(format!("this API key is of the agent {id}; leave {field} out")));
        }
        Ok(Some(id.clone()))
    }
}
