//! Whose an account is: a user's or the organization's.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{Owner, UserId};
use crate::plugin::manifest::{Auth, Manifest};

/// Whose an account is to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OwnerKind {
    /// The user's.
    #[default]
    User,
    /// The organization's: all of its users may use it, and only administrators may connect it.
    Organization,
}

impl OwnerKind {
    /// An owner as it is shown: whose, and which user's, or, where it is the organization's, who connected it.
    pub(super) fn of<'a>(owner: &'a Owner, connected_by: &'a UserId) -> (Self, &'a UserId) {
        match owner {
            Owner::User(user) => (Self::User, user),
            Owner::Organization => (Self::Organization, connected_by),
        }
    }
}

/// Whose account a caller means, if the caller may change it. What is reached in the organization's own name is its own.
pub(super) fn owned_by(
    principal: &Principal,
    manifest: Option<&Manifest>,
    owner: Option<OwnerKind>,
    user: Option<UserId>,
) -> Result<Owner, Error> {
    let own_name = manifest.is_some_and(|manifest| matches!(manifest.auth, Auth::ClientCredentials(_)));
    match owner {
        Some(OwnerKind::Organization) => {
            principal.must_administer()?;
            Ok(Owner::Organization)
        }
        None if own_name => {
            principal.must_administer()?;
            Ok(Owner::Organization)
        }
        Some(OwnerKind::User) | None => Ok(Owner::User(principal.resolve_user(user)?)),
    }
}
