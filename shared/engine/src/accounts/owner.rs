//! Who owns an account: a user or the organization.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{Owner, UserId};
use crate::plugin::manifest::{Auth, Manifest};

/// The kind of owner of an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OwnerKind {
    /// One user.
    #[default]
    User,
    /// The organization: all of its users may use the account, and only administrators may connect it.
    Organization,
}

impl OwnerKind {
    /// The kind of `owner`, and the user to show with it: the owner, or, for an organization's account, the user who
    /// connected it.
    pub(super) fn of<'a>(owner: &'a Owner, connected_by: &'a UserId) -> (Self, &'a UserId) {
        match owner {
            Owner::User(user) => (Self::User, user),
            Owner::Organization => (Self::Organization, connected_by),
        }
    }
}

/// The owner that the caller names, if the caller may change that owner's accounts. An account with client credentials acts
/// for the organization, so the organization owns it unless the caller says otherwise.
pub(super) fn resolve_owner(
    principal: &Principal,
    manifest: Option<&Manifest>,
    owner: Option<OwnerKind>,
    user: Option<UserId>,
) -> Result<Owner, Error> {
    let acts_for_organization = manifest.is_some_and(|manifest| matches!(manifest.auth, Auth::ClientCredentials(_)));
    match owner {
        Some(OwnerKind::Organization) => {
            principal.must_administer()?;
            Ok(Owner::Organization)
        }
        None if acts_for_organization => {
            principal.must_administer()?;
            Ok(Owner::Organization)
        }
        Some(OwnerKind::User) | None => Ok(Owner::User(principal.resolve_user(user)?)),
    }
}
