//! The configuration by the operator, read once at start.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::{constant_time, digest};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::{Host, Url};

use crate::core::ids::PluginName;
use crate::outbound::address::AllowedAddress;
use crate::outbound::credential::check_token;
use crate::plugin::catalog::Catalog;

/// The configuration of the engine.
#[derive(Debug, Clone)]
pub struct Config {
    /// Non-public addresses that calls may reach. `OVERSEER_ALLOW_ADDRESSES`, separated by commas: networks (`10.0.0.0/8`),
    /// addresses, or an address with a port, which applies only to URLs with that literal address.
    pub allowed_addresses: Vec<AllowedAddress>,
    /// Stand-ins that are called instead of a plugin's service: the playground of the local server, or those of
    /// `OVERSEER_STAND_INS`, a JSON object with a stand-in for each name of a built-in plugin.
    pub stand_ins: BTreeMap<PluginName, StandIn>,
    /// The URL at which browsers reach this Overseer, without a trailing slash; redirect URIs begin with it. `PUBLIC_URL`;
    /// never taken from a request's `Host`. Without it no account can be connected by OAuth.
    pub public_url: Option<Url>,
    /// The URLs to which a browser may be redirected after connecting: of such an origin, at its path or below.
    /// `OVERSEER_RETURN_TO`, separated by commas.
    pub return_to: Vec<Url>,
    /// The configuration of the service of each built-in plugin. Other plugins get nothing from the environment, whatever
    /// their names.
    pub services: BTreeMap<PluginName, Service>,
    /// The token for `POST …/cron`: `CRON_SECRET_TOKEN`, at least 32 characters. Without it the route refuses every call.
    pub cron_token: Option<SecretString>,
    /// Limits on every intent.
    pub limits: Limits,
    /// The certificate authorities that calls trust. The program that starts the engine sets it, not the environment.
    pub authorities: Authorities,
}

/// The certificate authorities that calls trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Authorities {
    /// Those of the system, with an organization's own authorities.
    #[default]
    System,
    /// Mozilla's, as of the build. Reading the system's takes longer than the rest of a Lambda's start, and a Lambda has no
    /// authorities of its own.
    Mozilla,
}

/// The configuration of one plugin's service.
#[derive(Debug, Clone, Default)]
pub struct Service {
    /// The operator's OAuth client there: `<PLUGIN>_CLIENT_ID` and `<PLUGIN>_CLIENT_SECRET`, such as `SLACK_CLIENT_ID`.
    pub client: Option<OauthClient>,
    /// A token with which the local server connects its administrator: `<PLUGIN>_TOKEN`, such as `SLACK_TOKEN`.
    pub token: Option<SecretString>,
}

/// An OAuth client: Overseer's identity at a provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthClient {
    /// Its id, which is not secret.
    pub id: String,
    /// Its secret; a public client has none (RFC 6749, 2.1).
    pub secret: Option<SecretString>,
}

/// A stand-in for a service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandIn {
    /// Replaces the runtime's base URL.
    pub base_url: Url,
    /// Replaces `auth.authorization_url`.
    pub authorization_url: Url,
    /// Replaces `auth.token_url`.
    pub token_url: Url,
    /// Replaces `auth.revocation_url`.
    pub revocation_url: Url,
    /// The OAuth client that it accepts.
    pub client: OauthClient,
}

/// Limits on every intent.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The time limit of an intent. An HTTP API of AWS has a timeout of 30 s.
    pub budget: Duration,
    /// The time limit of one attempt of a task, for which no caller waits.
    pub task_budget: Duration,
    /// The time limit of establishing one connection.
    pub connect: Duration,
    /// The most bytes of all responses of a service to one intent together.
    pub answer_max_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            budget: Duration::from_secs(24),
            task_budget: Duration::from_mins(2),
            connect: Duration::from_secs(5),
            answer_max_bytes: 4 * 1024 * 1024,
        }
    }
}

/// An invalid environment variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {name} is wrong: {expected}")]
pub struct ConfigError {
    /// The variable.
    pub name: String,
    /// The rule that its value breaks.
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
        let public_url = present("PUBLIC_URL").map(|text| own_url("PUBLIC_URL", &text)).transpose()?;
        let name = "OVERSEER_RETURN_TO";
        let return_to = present(name)
            .iter()
            .flat_map(|list| list.split(','))
            .map(|entry| own_url(name, entry.trim()))
            .collect::<Result<_, _>>()?;
        let name = "CRON_SECRET_TOKEN";
        let cron_token = present(name);
        // Bearer tokens cannot have other characters (RFC 6750, 2.1).
        let invalid =
            |token: &String| token.len() < CRON_TOKEN_MIN_BYTES || !token.bytes().all(|b| b.is_ascii_graphic());
        if cron_token.as_ref().is_some_and(invalid) {
            let expected =
                format!("must have at least {CRON_TOKEN_MIN_BYTES} characters, all printable ASCII, no spaces");
            return Err(ConfigError { name: name.to_owned(), expected });
        }
        let cron_token = cron_token.map(SecretString::from);
        let mut services = BTreeMap::new();
        for plugin in built_in.names() {
            let prefix = plugin.as_str().to_ascii_uppercase().replace('-', "_");
            let name = format!("{prefix}_TOKEN");
            let token = present(&name).map(SecretString::from);
            if let Some(token) = &token {
                check_token(token).map_err(|expected| ConfigError { name, expected })?;
            }
            let secret = present(&format!("{prefix}_CLIENT_SECRET")).map(SecretString::from);
            let name = format!("{prefix}_CLIENT_ID");
            let client = match present(&name) {
                Some(id) if is_client_id(&id) => Some(OauthClient { id, secret }),
                Some(_) => return Err(ConfigError { name, expected: CLIENT_ID_RULE.to_owned() }),
                None if secret.is_some() => {
                    let expected = format!("it is required, since {prefix}_CLIENT_SECRET is set");
                    return Err(ConfigError { name, expected });
                }
                None => None,
            };
            services.insert(plugin.clone(), Service { client, token });
        }
        let stand_ins =
            present("OVERSEER_STAND_INS").map(|text| stand_ins(&text, built_in)).transpose()?.unwrap_or_default();
        let limits = Limits::default();
        Ok(Self {
            allowed_addresses,
            stand_ins,
            public_url,
            return_to,
            services,
            cron_token,
            limits,
            authorities: Authorities::System,
        })
    }

    /// Whether `token` is the token of the cron route. Compares in constant time.
    pub fn is_cron_token(&self, token: Option<&SecretString>) -> bool {
        let (Some(own), Some(token)) = (&self.cron_token, token) else { return false };
        let hash = |secret: &SecretString| digest::digest(&digest::SHA256, secret.expose_secret().as_bytes());
        constant_time::verify_slices_are_equal(hash(own).as_ref(), hash(token).as_ref()).is_ok()
    }
}

/// Parses the stand-ins that the operator configured.
fn stand_ins(text: &str, built_in: &Catalog) -> Result<BTreeMap<PluginName, StandIn>, ConfigError> {
    let name = "OVERSEER_STAND_INS".to_owned();
    let parsed: Result<BTreeMap<PluginName, StandIn>, _> = serde_json::from_str(text);
    // The message has the position but not the text, which may be a client's secret.
    let stand_ins = parsed.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let expected = format!(
            "must be a JSON object of plugins with base_url, authorization_url, token_url, revocation_url and client \
             (id, secret); it is wrong at line {line}, column {column}"
        );
        ConfigError { name: name.clone(), expected }
    })?;
    match stand_ins.keys().find(|plugin| !built_in.has(plugin)) {
        Some(other) => Err(ConfigError { name, expected: format!("{other} is not a built-in plugin") }),
        None => Ok(stand_ins),
    }
}

/// The shortest `CRON_SECRET_TOKEN`.
const CRON_TOKEN_MIN_BYTES: usize = 32;

/// The rule for client ids.
pub(crate) const CLIENT_ID_RULE: &str = "must be 1 to 255 printable ASCII characters";

pub(crate) fn is_client_id(id: &str) -> bool {
    (1..=255).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

/// Parses a URL of the operator that browsers are redirected to.
fn own_url(name: &str, text: &str) -> Result<Url, ConfigError> {
    let url = Url::parse(text).ok().filter(|url| {
        let is_local = match url.host() {
            Some(Host::Domain(domain)) => domain == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        let has_secure_scheme = url.scheme() == "https" || (url.scheme() == "http" && is_local);
        let has_query = url.query().is_some() || url.fragment().is_some();
        let has_user = !url.username().is_empty() || url.password().is_some();
        has_secure_scheme && !has_query && !has_user
    });
    let expected = "must be an https URL (http on this machine only) without user, query and fragment";
    url.ok_or_else(|| ConfigError { name: name.to_owned(), expected: expected.to_owned() })
}
