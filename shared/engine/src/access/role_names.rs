//! The roles by name: one list for the API, the CLI and the tests.

use std::collections::BTreeSet;

use super::principal::{Principal, Role};
use crate::core::error::Error;

impl Role {
    /// Every role, the most powerful first.
    pub const ALL: [Self; 6] =
        [Self::PlatformAdministrator, Self::Administrator, Self::Operator, Self::Service, Self::User, Self::Agent];

    /// The role's name in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PlatformAdministrator => "platform_administrator",
            Self::Administrator => "administrator",
            Self::Operator => "operator",
            Self::Service => "service",
            Self::User => "user",
            Self::Agent => "agent",
        }
    }

    /// What a caller with this role may do, for the help of the CLI.
    pub fn description(self) -> &'static str {
        match self {
            Self::PlatformAdministrator => {
                "Registers plugins for all organizations, and administers its own organization"
            }
            Self::Administrator => "Administers the organization, and acts for each of its users",
            Self::Operator => "Reads the organization's configuration and runs, and acts for each of its users",
            Self::Service => "Acts for each of the organization's users",
            Self::User => "Acts for one user",
            Self::Agent => "Runs as one agent, with the plugins of its channel",
        }
    }
}

impl Principal {
    /// Refuses callers that may not create an API key with these roles: only administrators create keys, and only platform
    /// administrators create keys of platform administrators.
    pub fn must_grant(&self, roles: &BTreeSet<Role>) -> Result<(), Error> {
        self.must_administer()?;
        if roles.contains(&Role::PlatformAdministrator) { self.must_administer_platform() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn role_has_the_same_name_in_json() {
        for role in Role::ALL {
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
    }
}
