//! Who asks, once that is proved.

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
    /// Registers plugins for all organizations, and is an administrator of its own.
    PlatformAdministrator,
    /// Manages the organization, and acts for each of its users.
    Administrator,
    /// Sees what the organization has and what was done, and acts for each of its users.
    Operator,
    /// Acts for each of the organization's users.
    Service,
    /// Acts for one user.
    User,
    /// Runs as one agent, with the plugins of its channel: for one user, or, bound to none, for each of the organization's.
    Agent,
}

/// Which agent a caller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentOf {
    /// The channel whose plugins it may use.
    pub channel: ChannelName,
    /// What its intents say of who asks.
    pub id: AgentId,
}

/// A caller whose credential was good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The organization whose data this caller can reach, and no other.
    pub org: OrgId,
    /// The user that the credential is bound to, or that is meant when a request names none.
    pub user: Option<UserId>,
    /// What the caller may do.
    pub roles: BTreeSet<Role>,
    /// The API key that was used.
    pub key: KeyId,
    /// The agent that the caller is. Whoever is one may do what agents may, and nothing else.
    pub agent: Option<AgentOf>,
}

impl Principal {
    /// Whether this caller has one of these roles.
    fn is_one_of(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.roles.contains(role))
    }

    /// Refuses everybody but administrators.
    pub fn must_administer(&self) -> Result<(), Error> {
        if self.is_one_of(&[Role::Administrator, Role::PlatformAdministrator]) {
            return Ok(());
        }
        Err(Error::Forbidden("this needs the API key of an administrator".to_owned()))
    }

    /// Refuses everybody but administrators of the platform.
    pub fn must_administer_platform(&self) -> Result<(), Error> {
        if self.is_one_of(&[Role::PlatformAdministrator]) {
            return Ok(());
        }
        Err(Error::Forbidden("this needs the API key of a platform administrator".to_owned()))
    }

    /// Refuses everybody but administrators and operators.
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

    /// The user that a request is for, if this caller may act for them.
    pub fn resolve_user(&self, asked: Option<UserId>) -> Result<UserId, Error> {
        let for_all = self.acts_for_all() || (self.agent.is_some() && self.user.is_none());
        match (asked, &self.user) {
            (Some(asked), own) if for_all || own.as_ref() == Some(&asked) => Ok(asked),
            (Some(_), _) => Err(Error::Forbidden("this API key does not act for that user".to_owned())),
            (None, Some(own)) => Ok(own.clone()),
            (None, None) => Err(Error::field("/userId", "is needed, because the API key is not bound to a user")),
        }
    }

    /// Refuses agents, which have routes of their own.
    pub fn require_non_agent(&self) -> Result<(), Error> {
        let Some(agent) = &self.agent else { return Ok(()) };
        Err(Error::Forbidden(format!(
            "the API key of an agent is for intents, GET /api/plugin-engine, GET /api/v1/agents/{} and POST /api/v1/hooks; \
             this needs another",
            agent.channel
        )))
    }

    /// The channel whose plugins count: of an agent its own, of everybody else the one that is `asked` for, if any is.
    pub(crate) fn channel<'a>(&'a self, asked: Option<&'a ChannelName>) -> Result<Option<&'a ChannelName>, Error> {
        let Some(AgentOf { channel, .. }) = &self.agent else { return Ok(asked) };
        match asked {
            Some(asked) if asked != channel => Err(Error::Forbidden(format!(
                "this API key is of an agent in the channel {channel}, and not in the channel {asked}"
            ))),
            Some(_) | None => Ok(Some(channel)),
        }
    }

    /// The intent with whose it is: an agent speaks for no other.
    pub(crate) fn with_agent(&self, mut intent: Intent) -> Result<Intent, Error> {
        intent.agent_id = self.resolve_agent(intent.agent_id, "agentId")?;
        Ok(intent)
    }

    /// The agent that a request is of: an agent's own, and nobody else's, or whichever is `asked` for in that field.
    pub(crate) fn resolve_agent(&self, asked: Option<AgentId>, field: &str) -> Result<Option<AgentId>, Error> {
        let Some(AgentOf { id, .. }) = &self.agent else { return Ok(asked) };
        if asked.is_some_and(|asked| asked != *id) {
            return Err(Error::Forbidden(format!("this API key is of the agent {id}; leave {field} out")));
        }
        Ok(Some(id.clone()))
    }
}
