//! What would come of an intent, without any effect: nothing is written, no service is called, no credential is opened.

use http::HeaderMap;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::access::principal::Principal;
use crate::accounts::{AccountLookup, Integration, not_connected};
use crate::core::effect::Effect;
use crate::core::error::Error;
use crate::core::ids::{ActionName, AgentId, ChannelName, PluginName, UserId};
use crate::core::intent::Intent;
use crate::core::outcome::Failure;
use crate::engine::Engine;
use crate::invoke::execute::{ActionRequest, Invocation, Origin, Snapshot, unavailable_reason};
use crate::invoke::mappings::{NameResolution, Naming};
use crate::invoke::runs::{IdempotencyRequest, IdempotencyState, RequestOptions, Resolve, lost};
use crate::outbound::runtime;
use crate::outbound::runtime::{Call, CallError, ServiceKey};
use crate::plugin::breaker::{ActionClass, BreakerLimits};
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::{Auth, Manifest, Runtime};
use crate::ports::table::Item;
use crate::registry::contention;
use crate::registry::instances::BreakerView;

/// The largest body that is shown, in bytes.
const BODY_MAX: usize = 64 * 1024;
/// What stands in the place of a credential.
const HIDDEN: &str = "[hidden]";

/// What would come of an intent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Whether the service would be called now; where not, `error`, `idempotency` or `scheduledTime` says why.
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
    pub mappings: Vec<NameResolution>,
    /// The hooks that would be asked, each as `<plugin>.<moment>`. What they would say is not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<String>,
    /// The request that would be sent first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestShown>,
    /// What stands under the idempotency key, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<KeyShown>,
    /// What would be answered in the place of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
    /// What stands in the way of a task already.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
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
    /// It is not known what came of the first, which would be answered so.
    Unknown,
    /// It is not known what came of the first, and it would be done again.
    Again,
}

impl Engine {
    /// Does everything up to the call of an intent, and says what would happen. One read, and one more where it would fail. `later` says whether a task would
    /// be made of it.
    pub async fn explain(
        &self,
        principal: &Principal,
        intent: Intent,
        asked: &RequestOptions,
        later: bool,
    ) -> Result<Explanation, Error> {
        let intent = principal.with_agent(intent)?;
        let channel = principal.channel(asked.channel.as_ref())?;
        let came = self.explain_in(principal, &intent, (asked, channel), later).await;
        self.admitted(&principal.org, channel, &intent.tool, came).await
    }

    async fn explain_in(
        &self,
        principal: &Principal,
        intent: &Intent,
        asked: (&RequestOptions, Option<&ChannelName>),
        later: bool,
    ) -> Result<Explanation, Error> {
        let mut plugin = self.plugin_cached(&principal.org, &intent.tool).await?;
        loop {
            let came = self.explain_by(&plugin, principal, intent, asked, later).await;
            match self.refreshed_if_stale(&principal.org, &plugin, &came).await? {
                Some(newer) => plugin = newer,
                None => return came?.ok_or_else(|| contention(&intent.tool)),
            }
        }
    }

    async fn explain_by(
        &self,
        plugin: &Plugin,
        principal: &Principal,
        intent: &Intent,
        (asked, channel): (&RequestOptions, Option<&ChannelName>),
        later: bool,
    ) -> Result<Option<Explanation>, Error> {
        let found = plugin.action(&intent.intent)?;
        let (manifest, action) = (&plugin.manifest, found.action);
        let user = principal.resolve_user(intent.user_id.clone())?;
        let keyed = IdempotencyRequest::of(intent, asked, &user, &manifest.name, &action.name, later)?;
        let now = self.ports.clock.now();
        let planned = if later {
            self.plan(plugin, principal, intent, now).map(|task| (task.parameters, Some(task.next_at)))
        } else {
            intent.is_for_now()?;
            found.check(intent.context.clone()).map(|parameters| (parameters, None))
        };
        let named = planned.and_then(|planned| Ok((Naming::of(manifest, action, &planned.0)?, planned)));
        let (mut naming, planned) = match named {
            Ok((naming, planned)) => (naming, Ok(planned)),
            // Under its key a task was made of it before, whatever is wrong with it by now.
            Err(error) if later && keyed.is_some() => (Naming::none(manifest), Err(error)),
            Err(error) => return Err(error),
        };
        let (agent, alias) = (intent.agent_id.as_ref(), intent.integration.as_ref());
        let source = Origin::Intent { principal, request: None, keyed: keyed.as_ref() };
        let (org, no_parameters) = (&principal.org, Map::new());
        let doing = ActionRequest {
            org,
            user: &user,
            agent,
            channel,
            plugin,
            action: action.name.as_str(),
            integration: alias,
            parameters: &no_parameters,
            source,
            deadline: Instant::now() + self.config.limits.budget,
        };
        let what = Invocation { doing: &doing, plugin, manifest, found, action, started: Instant::now() };
        let Some(Snapshot { account, instance, judged, names, hooks }) = self.load_snapshot(&what, &naming).await?
        else {
            return Ok(None);
        };
        let (idempotency, in_its_place) = under_key(&what, judged);
        let repeats = !matches!(idempotency, None | Some(KeyShown::New | KeyShown::Again));
        if !repeats {
            instance.instance.must_be_granted(plugin)?;
        }
        let seen_by = instance.instance.names_seen_by(plugin, account.as_ref().map(AccountLookup::identity));
        naming.read(names, seen_by.as_deref())?;
        let in_use = |class| unavailable_reason(manifest, &instance.instance.in_use(manifest, class, now), now);
        let unfit = match (&manifest.auth, &account) {
            (Auth::None, _) => None,
            (_, None) => Some(not_connected(manifest, &user, alias)),
            (_, Some(found)) => self.unusable_failure(manifest, found, now),
        };
        // A service that is left alone is not asked what names stand for.
        let unasked = naming.has_unresolved().then(|| in_use(ActionClass::Read)).flatten();
        let failure = if repeats { in_its_place } else { in_use(what.class()).or(unfit).or(unasked) };
        let (mut warnings, mut error) = (Vec::new(), None);
        match failure {
            None => {}
            Some(failure) if later && !repeats => warnings.push(failure.message),
            Some(mut failure) => {
                failure.fallback = Some(self.fallback(org, agent, manifest, &failure).await);
                error = Some(failure.shown());
            }
        }
        let (mut request, mut scheduled_time) = (None, None);
        if !repeats {
            let (parameters, first) = planned?;
            scheduled_time = first;
            let resolved = naming.apply(parameters);
            // Where something stands in the way, nobody comes so far as to look at this.
            if error.is_none() {
                let resolved = if naming.replaces() { found.check(resolved)? } else { resolved };
                request =
                    self.first_request(&what, (&resolved, &instance.instance.effective_config(manifest)), later)?;
            }
        }
        let missing_scopes = account.as_ref().map(|found| found.missing_scopes(manifest)).unwrap_or_default();
        let failed = error.is_some();
        Ok(Some(Explanation {
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
            account: account.as_ref().map(|found| self.account_view(manifest, found)),
            missing_scopes,
            mappings: naming.resolutions(),
            hooks: self.hooks_asked(&what, hooks.filter(|_| !repeats && !failed)).await?,
            request,
            idempotency,
            error,
            warnings,
            user_id: user.clone(),
        }))
    }

    /// The hooks that would be asked about a call.
    async fn hooks_asked(&self, what: &Invocation<'_>, hooks: Option<Item>) -> Result<Vec<String>, Error> {
        let hooks = self.hooks_in(what.doing.org, hooks.as_ref()).await?;
        Ok(hooks.around_call(what.tool()))
    }

    /// The request that a call would begin with.
    fn first_request(
        &self,
        what: &Invocation<'_>,
        (parameters, config): (&Map<String, Value>, &Map<String, Value>),
        later: bool,
    ) -> Result<Option<RequestShown>, Error> {
        let (manifest, action, org, user) = (what.manifest, what.action, what.doing.org, what.doing.user);
        let key = (action.effect == Effect::Keyed).then(|| match what.keyed() {
            Some(keyed) if !later => ServiceKey::of_caller(org, user, &keyed.key, &keyed.payload),
            Some(_) | None => ServiceKey { text: "(another for each run)".to_owned(), of_caller: false },
        });
        let (Runtime::Http { base_url }, Some(request)) = (&manifest.runtime, &action.request) else { return Ok(None) };
        let now = self.ports.clock.now();
        let call = Call { manifest, action, parameters, config, user, now, key, until: None };
        let base = self.config.stand_ins.get(&manifest.name).map_or(base_url, |stand_in| &stand_in.base_url);
        match runtime::http::first_request(&call, base) {
            Ok((url, headers, body)) => Ok(Some(RequestShown {
                method: http::Method::from(request.method).to_string(),
                url: url.into(),
                headers: shown(&headers, manifest),
                body: shown_body(&body),
            })),
            Err(CallError::Parameter(problem)) => Err(Error::Invalid(vec![problem])),
            Err(CallError::Failed(failure)) => {
                tracing::warn!(plugin = %manifest.name, message = failure.message, "a request cannot be shown");
                Ok(None)
            }
        }
    }
}

/// What stands under a key, and what would be answered for it.
fn under_key(what: &Invocation<'_>, judged: IdempotencyState) -> (Option<KeyShown>, Option<Failure>) {
    let Some(keyed) = what.keyed() else { return (None, None) };
    let again = |by: &str| {
        keyed.resolve == Some(Resolve::Retry) || (what.is_known_by_key(by) && keyed.resolve != Some(Resolve::Abandon))
    };
    match judged {
        IdempotencyState::Free => (Some(KeyShown::New), None),
        IdempotencyState::Busy => (Some(KeyShown::InProgress), None),
        IdempotencyState::Ended(_, answer, _) if answer.is_open() && again(&answer.metadata.version) => {
            (Some(KeyShown::Again), None)
        }
        IdempotencyState::Lost(_, (_, by), _) if again(&by) => (Some(KeyShown::Again), None),
        IdempotencyState::Ended(_, answer, _) if answer.is_open() => {
            (Some(KeyShown::Unknown), answer.outcome().result.err())
        }
        IdempotencyState::Ended(_, answer, _) => (Some(KeyShown::Answered), answer.outcome().result.err()),
        IdempotencyState::Task(..) => (Some(KeyShown::Answered), None),
        IdempotencyState::Lost(run, (began, _), _) => (Some(KeyShown::Unknown), Some(lost(&run, began))),
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
