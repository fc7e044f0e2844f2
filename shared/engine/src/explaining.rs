//! What would come of an intent, without any effect: nothing is written, no service is called, no credential is opened.

use http::HeaderMap;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::breaker::BreakerLimits;
use crate::engine::Engine;
use crate::error::Error;
use crate::ids::{ActionName, AgentId, PluginName, UserId};
use crate::instances::BreakerView;
use crate::integrations::{Found, Integration, not_connected};
use crate::intent::Intent;
use crate::manifest::{Auth, Effect, Manifest, Runtime};
use crate::mappings::{Naming, ResolvedName};
use crate::performing::{Doing, Seen, Source, What, out_of_use};
use crate::principal::Principal;
use crate::runs::{Asked, Judged, Keyed, lost};
use crate::runtime::{self, Call, ServiceKey, Stopped};

/// The largest body that is shown, in bytes.
const BODY_MAX: usize = 64 * 1024;
/// What stands in the place of a credential.
const HIDDEN: &str = "[hidden]";

/// What would come of an intent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Whether the service would be called now; where not, `error` or `replay` says why.
    pub would_call: bool,
    /// The plugin.
    pub tool: PluginName,
    /// Its version.
    pub version: String,
    /// The action, by its own name.
    pub intent: ActionName,
    /// What doing it twice would mean.
    pub effect: Effect,
    /// Whose account would be used.
    pub user_id: UserId,
    /// The agent that asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// When a task would first run, where the intent is one for later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_time: Option<Timestamp>,
    /// How the organization has the plugin.
    pub config: InstanceConfig,
    /// The breaker of this class of actions.
    pub breaker: BreakerView,
    /// The account; absent where there is none, or where none is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<Integration>,
    /// Scopes that the plugin asks for and the account was not granted, as far as that is known.
    pub missing_scopes: Vec<String>,
    /// What the names among the parameters stand for.
    pub mappings: Vec<ResolvedName>,
    /// The request that would be sent first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestShown>,
    /// What stands under the idempotency key, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<KeyShown>,
    /// What would be answered in the place of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
}

/// How an organization has a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceConfig {
    /// When the breaker opens.
    pub breaker: BreakerLimits,
    /// Whether reads are in the ledger as well.
    pub record_reads: bool,
}

/// A request as it would leave, without the credential.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestShown {
    /// The method.
    pub method: String,
    /// Where to.
    pub url: String,
    /// The headers.
    pub headers: Map<String, Value>,
    /// The body: JSON as such, anything else as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
}

/// What stands under an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyShown {
    /// Nothing: the intent would be the first.
    New,
    /// The first is still running.
    InProgress,
    /// The answer of the first, which would be given again.
    Answered,
    /// It is not known what came of the first.
    Unknown,
}

impl Engine {
    /// Does everything up to the call of an intent, and says what would happen. One read. `later` says whether a task would
    /// be made of it.
    pub async fn explain(
        &self,
        principal: &Principal,
        intent: Intent,
        asked: &Asked,
        later: bool,
    ) -> Result<Explanation, Error> {
        let plugin = self.catalog.plugin(&intent.tool)?;
        let found = plugin.action(&intent.intent)?;
        let (manifest, action) = (&plugin.manifest, found.action);
        let user = principal.acting_for(intent.user_id.clone())?;
        let keyed = Keyed::of(&intent, asked, (&user, &manifest.name, &action.name), later)?;
        let now = self.ports.clock.now();
        let (parameters, scheduled_time) = if later {
            let planned = self.plan(principal, &intent, now)?;
            (planned.parameters, Some(planned.next_at))
        } else {
            intent.is_for_now()?;
            (found.check(intent.context)?, None)
        };
        let mut naming = Naming::of(manifest, action, &parameters)?;
        let (agent, alias) = (intent.agent_id.as_ref(), intent.integration.as_ref());
        let source = Source::Intent { principal, request: None, keyed: keyed.as_ref() };
        let (org, plugin_name, action_name) = (&principal.org, manifest.name.as_str(), action.name.as_str());
        let doing = Doing {
            org,
            user: &user,
            agent,
            plugin: plugin_name,
            action: action_name,
            integration: alias,
            parameters: Map::new(),
            source,
            deadline: Instant::now() + self.config.limits.budget,
        };
        let what = What { doing: &doing, plugin, manifest, found, action, started: Instant::now() };
        let Seen { account, instance, judged, names } = self.see(&what, &naming).await?;
        naming.read(names, account.as_ref().map(Found::identity))?;
        let in_use = instance.instance.in_use(what.class(), now);
        let unfit = match (&manifest.auth, &account) {
            (Auth::None, _) => None,
            (_, None) => Some(not_connected(manifest, &user, alias)),
            (_, Some(found)) => self.cannot_serve(manifest, found, now),
        };
        let resolved = naming.apply(parameters);
        let resolved = if naming.replaces() { found.check(resolved)? } else { resolved };
        let (idempotency, replay) = match (&keyed, judged) {
            (None, _) => (None, None),
            (Some(_), Judged::Free) => (Some(KeyShown::New), None),
            (Some(_), Judged::Busy) => (Some(KeyShown::InProgress), None),
            (Some(_), Judged::Task(..)) => (Some(KeyShown::Answered), None),
            (Some(_), Judged::Ended(_, answer, _)) => (Some(KeyShown::Answered), answer.outcome().result.err()),
            (Some(_), Judged::Lost(run, began, _)) => (Some(KeyShown::Unknown), Some(lost(&run, began))),
        };
        let repeats = idempotency.is_some_and(|key| key != KeyShown::New);
        let failure = if repeats { replay } else { out_of_use(manifest, &in_use, now).or(unfit) };
        let error = match failure {
            None => None,
            Some(mut failure) => {
                failure.fallback = Some(self.fallback(org, agent, manifest, &failure).await);
                Some(failure.shown())
            }
        };
        let key = (action.effect == Effect::Keyed).then(|| match &keyed {
            Some(keyed) => ServiceKey::of_caller(org, &user, keyed),
            None => ServiceKey { text: "(another for each run)".to_owned(), of_caller: false },
        });
        let call = Call { manifest, action, parameters: &resolved, user: &user, now, key, until: None };
        let request = match self.first_request(&call) {
            Ok(request) => Some(request),
            Err(Stopped::Parameter(problem)) => return Err(Error::Invalid(vec![problem])),
            Err(Stopped::Failed(failure)) => {
                tracing::warn!(plugin = %manifest.name, message = failure.message, "a request cannot be shown");
                None
            }
        };
        let missing_scopes = account.as_ref().map(|found| found.missing_scopes(manifest)).unwrap_or_default();
        Ok(Explanation {
            would_call: error.is_none() && !repeats && !later,
            tool: manifest.name.clone(),
            version: manifest.version.to_string(),
            intent: action.name.clone(),
            effect: action.effect,
            agent_id: agent.cloned(),
            scheduled_time,
            config: InstanceConfig {
                breaker: instance.instance.limits(manifest),
                record_reads: instance.instance.records_reads(),
            },
            breaker: instance.instance.breaker(what.class(), manifest, now),
            account: account.as_ref().map(|found| self.account_shown(manifest, found)),
            missing_scopes,
            mappings: naming.shown(),
            request,
            idempotency,
            error,
            user_id: user.clone(),
        })
    }

    /// The request that a call would begin with.
    fn first_request(&self, call: &Call<'_>) -> Result<RequestShown, Stopped> {
        let Runtime::Http { base_url } = &call.manifest.runtime;
        let base = self.config.stand_ins.get(&call.manifest.name).map_or(base_url, |stand_in| &stand_in.base_url);
        let (url, headers, body) = runtime::http::first_request(call, base)?;
        let method = http::Method::from(call.action.request.method).to_string();
        Ok(RequestShown { method, url: url.into(), headers: shown(&headers, call.manifest), body: shown_body(&body) })
    }
}

/// Headers as they may be shown: with the place of the credential.
fn shown(headers: &HeaderMap, manifest: &Manifest) -> Map<String, Value> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = headers.iter().map(|(name, value)| (name.to_string(), Value::String(text(value))));
    let credential = match &manifest.auth {
        Auth::None => None,
        Auth::Oauth2(_) | Auth::ClientCredentials(_) => Some(("authorization".to_owned(), format!("Bearer {HIDDEN}"))),
        Auth::Basic(_) => Some(("authorization".to_owned(), format!("Basic {HIDDEN}"))),
        Auth::ApiKey(key) => Some((key.header.to_ascii_lowercase(), format!("{}{HIDDEN}", key.prefix))),
    };
    headers.chain(credential.map(|(name, value)| (name, Value::String(value)))).collect()
}

fn shown_body(body: &[u8]) -> Option<Value> {
    if body.is_empty() {
        return None;
    }
    if body.len() > BODY_MAX {
        return Some(format!("({} bytes)", body.len()).into());
    }
    Some(serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned().into()))
}
