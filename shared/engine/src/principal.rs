//! Who asks, once that is proved.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ids::{KeyId, OrgId, UserId};

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
    pub fn acting_for(&self, asked: Option<UserId>) -> Result<UserId, Error> {
        match (asked, &self.user) {
            (Some(asked), own) if self.acts_for_all() || own.as_ref() == Some(&asked) => Ok(asked),
            (Some(_), _) => Err(Error::Forbidden("this API key does not act for that user".to_owned())),
            (None, Some(own)) => Ok(own.clone()),
            (None, None) => Err(Error::field("/userId", "is needed, because the API key is not bound to a user")),
        }
    }
}
