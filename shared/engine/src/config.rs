//! What an operator may set, read once at start.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::catalog::Catalog;
use crate::ids::PluginName;
use crate::integrations::check_token;
use crate::outbound::address::AllowedAddress;

/// What the engine is told at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses that calls may go to although they are not public. `OVERSEER_ALLOW_ADDRESSES`, separated by commas:
    /// networks (`10.0.0.0/8`), addresses, or an address with a port, which counts only where a URL has it literally.
    pub allowed_addresses: Vec<AllowedAddress>,
    /// Where a stand-in of a plugin's service is, which is then called in its place: the playground of the local server.
    pub stand_ins: BTreeMap<PluginName, Url>,
    /// For each plugin of the built-in catalog, what is configured for its service. Plugins from elsewhere get nothing
    /// from the environment, whatever they call themselves.
    pub services: BTreeMap<PluginName, Service>,
    /// Limits on every intent.
    pub limits: Limits,
}

/// What is configured for one plugin's service.
#[derive(Debug, Clone, Default)]
pub struct Service {
    /// Whether the operator has an OAuth client there: `<PLUGIN>_CLIENT_ID`, such as `SLACK_CLIENT_ID`.
    pub has_client: bool,
    /// A token that the local server connects for its administrator: `<PLUGIN>_TOKEN`, such as `SLACK_TOKEN`.
    pub token: Option<SecretString>,
}

/// Limits on every intent.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The time for all of an intent. An HTTP API of AWS gives up at 30 s.
    pub budget: Duration,
    /// The time for one connection to come about.
    pub connect: Duration,
    /// The bytes of all answers of a service to one intent.
    pub answer_max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { budget: Duration::from_secs(24), connect: Duration::from_secs(5), answer_max_bytes: 4 * 1024 * 1024 }
    }
}

/// A variable that does not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {name} is wrong: {expected}")]
pub struct ConfigError {
    /// The variable.
    pub name: String,
    /// What was expected.
    pub expected: String,
}

impl Config {
    /// Reads the configuration; `variable` gives the value of an environment variable, and `built_in` has the plugins
    /// that were embedded at build and no other.
    pub fn read(built_in: &Catalog, variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let present =
            |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let name = "OVERSEER_ALLOW_ADDRESSES";
        let allowed_addresses = present(name)
            .iter()
            .flat_map(|list| list.split(','))
            .map(|entry| entry.trim().parse().map_err(|expected| ConfigError { name: name.to_owned(), expected }))
            .collect::<Result<_, _>>()?;
        let mut services = BTreeMap::new();
        for plugin in built_in.plugins().map(|plugin| &plugin.manifest.name) {
            let prefix = plugin.as_str().to_ascii_uppercase().replace('-', "_");
            let name = format!("{prefix}_TOKEN");
            let token = present(&name).map(SecretString::from);
            if let Some(token) = &token {
                check_token(token).map_err(|expected| ConfigError { name, expected })?;
            }
            let has_client = present(&format!("{prefix}_CLIENT_ID")).is_some();
            services.insert(plugin.clone(), Service { has_client, token });
        }
        Ok(Self { allowed_addresses, stand_ins: BTreeMap::new(), services, limits: Limits::default() })
    }
}
