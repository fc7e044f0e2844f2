//! What an operator may set, read once at start.

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

/// What the engine is told at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses that calls may go to although they are not public. `OVERSEER_ALLOW_ADDRESSES`, separated by commas:
    /// networks (`10.0.0.0/8`), addresses, or an address with a port, which counts only where a URL has it literally.
    pub allowed_addresses: Vec<AllowedAddress>,
    /// Where a stand-in of a plugin's service is, which is then called in its place: the playground of the local server, or
    /// what `OVERSEER_STAND_INS` names, as a JSON object with a stand-in for each name of a built-in plugin.
    pub stand_ins: BTreeMap<PluginName, StandIn>,
    /// Where browsers reach this Overseer, without a slash at the end: redirect URIs begin with it. `PUBLIC_URL`; never
    /// taken from a request's `Host`. Without it nothing can be connected by OAuth.
    pub public_url: Option<Url>,
    /// Where a browser may be sent on to after connecting: URLs of this origin, at this path or below.
    /// `OVERSEER_RETURN_TO`, separated by commas.
    pub return_to: Vec<Url>,
    /// For each plugin of the built-in catalog, what is configured for its service. Plugins from elsewhere get nothing
    /// from the environment, whatever they call themselves.
    pub services: BTreeMap<PluginName, Service>,
    /// What `POST …/cron` has to be called with: `CRON_SECRET_TOKEN`, at least 32 characters. Without it the route
    /// refuses everybody.
    pub cron_token: Option<SecretString>,
    /// Limits on every intent.
    pub limits: Limits,
    /// Whose certificates calls trust. Not read from the environment: whoever starts the engine knows where it runs.
    pub authorities: Authorities,
}

/// Whose certificates calls trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Authorities {
    /// Whom the system trusts, an organization's own authorities among them.
    #[default]
    System,
    /// Whom Mozilla trusts, as of the build. Reading the system's takes longer than all else that a Lambda does at its
    /// start, and nobody adds to a Lambda's.
    Mozilla,
}

/// What is configured for one plugin's service.
#[derive(Debug, Clone, Default)]
pub struct Service {
    /// The operator's OAuth client there: `<PLUGIN>_CLIENT_ID` and `<PLUGIN>_CLIENT_SECRET`, such as `SLACK_CLIENT_ID`.
    pub client: Option<OauthClient>,
    /// A token that the local server connects for its administrator: `<PLUGIN>_TOKEN`, such as `SLACK_TOKEN`.
    pub token: Option<SecretString>,
}

/// An OAuth client: how Overseer is known to a provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthClient {
    /// Its id, which is no secret.
    pub id: String,
    /// Its secret; a public client has none (RFC 6749, 2.1).
    pub secret: Option<SecretString>,
}

/// What is called in the place of a service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandIn {
    /// In the place of the runtime's base URL.
    pub base_url: Url,
    /// In the place of `auth.authorization_url`.
    pub authorization_url: Url,
    /// In the place of `auth.token_url`.
    pub token_url: Url,
    /// In the place of `auth.revocation_url`.
    pub revocation_url: Url,
    /// The client that it knows.
    pub client: OauthClient,
}

/// Limits on every intent.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The time for all of an intent. An HTTP API of AWS gives up at 30 s.
    pub budget: Duration,
    /// The time for one attempt of a task, for which nobody waits.
    pub task_budget: Duration,
    /// The time for one connection to come about.
    pub connect: Duration,
    /// The bytes of all answers of a service to one intent.
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
        let public_url = present("PUBLIC_URL").map(|text| own_url("PUBLIC_URL", &text)).transpose()?;
        let name = "OVERSEER_RETURN_TO";
        let return_to = present(name)
            .iter()
            .flat_map(|list| list.split(','))
            .map(|entry| own_url(name, entry.trim()))
            .collect::<Result<_, _>>()?;
        let name = "CRON_SECRET_TOKEN";
        let cron_token = present(name);
        // Nothing else travels as a Bearer token (RFC 6750, 2.1).
        let wrong = |token: &String| token.len() < CRON_TOKEN_MIN_BYTES || !token.bytes().all(|b| b.is_ascii_graphic());
        if cron_token.as_ref().is_some_and(wrong) {
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
                    let expected = format!("{prefix}_CLIENT_SECRET is set, so that it is needed as well");
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

    /// Whether `token` is the one that the cron route is called with. Takes the same time wherever they differ.
    pub fn is_cron_token(&self, token: Option<&SecretString>) -> bool {
        let (Some(own), Some(token)) = (&self.cron_token, token) else { return false };
        let hash = |secret: &SecretString| digest::digest(&digest::SHA256, secret.expose_secret().as_bytes());
        constant_time::verify_slices_are_equal(hash(own).as_ref(), hash(token).as_ref()).is_ok()
    }
}

/// The stand-ins that the operator names.
fn stand_ins(text: &str, built_in: &Catalog) -> Result<BTreeMap<PluginName, StandIn>, ConfigError> {
    let name = "OVERSEER_STAND_INS".to_owned();
    let read: Result<BTreeMap<PluginName, StandIn>, _> = serde_json::from_str(text);
    // Where it goes wrong is said, and not what stands there: a client's secret may.
    let stand_ins = read.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let expected = format!(
            "must be a JSON object of plugins with base_url, authorization_url, token_url, revocation_url and client \
             (id, secret); it goes wrong at line {line}, column {column}"
        );
        ConfigError { name: name.clone(), expected }
    })?;
    match stand_ins.keys().find(|plugin| !built_in.has(plugin)) {
        Some(other) => Err(ConfigError { name, expected: format!("{other} is no plugin of the built-in catalog") }),
        None => Ok(stand_ins),
    }
}

/// The shortest `CRON_SECRET_TOKEN`.
const CRON_TOKEN_MIN_BYTES: usize = 32;

/// What a client id has to be.
pub(crate) const CLIENT_ID_RULE: &str = "must be 1 to 255 printable ASCII characters";

pub(crate) fn is_client_id(id: &str) -> bool {
    (1..=255).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

/// A URL of the operator's own that browsers are sent to.
fn own_url(name: &str, text: &str) -> Result<Url, ConfigError> {
    let url = Url::parse(text).ok().filter(|url| {
        let here = match url.host() {
            Some(Host::Domain(domain)) => domain == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        let bare = url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        (url.scheme() == "https" || (url.scheme() == "http" && here)) && bare && anonymous
    });
    let expected = "must be an https URL (http on this machine only) without user, query and fragment";
    url.ok_or_else(|| ConfigError { name: name.to_owned(), expected: expected.to_owned() })
}
