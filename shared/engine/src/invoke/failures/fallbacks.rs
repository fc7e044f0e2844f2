//! Fallbacks: what an agent tells the person about a failure and does next, in the organization's own words or by default.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::debug_span;
use tracing::field::Empty;

use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{AgentId, OrgId, PluginName};
use crate::core::outcome::{Failure, OutcomeCode};
use crate::core::problem::FieldProblem;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::plugin::manifest::{Auth, Manifest};
use crate::ports::table::{Condition, Cursor, Item, Key, NewItem, Page, Query, Read};
use crate::storage::keys;

/// The longest fallback, in characters.
pub const FALLBACK_MAX: usize = 1_000;

/// A fallback to set.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewFallback {
    /// For failures of this plugin; of every plugin if left out.
    pub tool: Option<PluginName>,
    /// For this agent; for every agent if left out.
    pub agent_id: Option<AgentId>,
    /// What the agent says and does next: 1 to 1,000 characters.
    pub message: String,
}

/// A fallback, as it is stored and as callers read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// For failures of this plugin; of every plugin if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<PluginName>,
    /// For this agent; for every agent if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// What the agent says and does next.
    pub message: String,
    /// When it was set.
    pub updated_at: Timestamp,
}

impl Engine {
    /// The fallback for a failure. The first that is set counts: for this plugin and agent, for the agent, for the plugin, for
    /// the organization. Otherwise, or if the store fails, it is the default.
    pub(crate) async fn fallback(
        &self,
        org: &OrgId,
        agent: Option<&AgentId>,
        manifest: &Manifest,
        failure: &Failure,
    ) -> String {
        let plugin = Some(&manifest.name);
        let for_agent = agent.map(|agent| [(plugin, Some(agent)), (None, Some(agent))]);
        let for_all = [(plugin, None), (None, None)];
        let scopes = for_agent.into_iter().flatten().chain(for_all);
        let keys: Vec<Key> = scopes.map(|(plugin, agent)| keys::fallback(org, plugin, agent)).collect();
        let first_set = match self.ports.table.batch_get(&keys, Read::Eventual).await {
            Ok(items) => items.into_iter().flatten().next().map(|item| item.record::<Fallback>()).transpose(),
            Err(error) => Err(error),
        };
        match first_set {
            Ok(Some(fallback)) => fallback.message,
            Ok(None) => default_message(manifest, failure),
            Err(error) => {
                tracing::error!(%org, error = %causes(&error), "failed to read fallbacks; using the default");
                default_message(manifest, failure)
            }
        }
    }

    /// Lists the organization's fallbacks, ordered by plugin and agent.
    pub async fn list_fallbacks(
        &self,
        principal: &Principal,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<Fallback>, Error> {
        let span = debug_span!("list_fallbacks", org = %principal.org, outcome = Empty);
        traced(span, async {
            principal.must_act_for_all()?;
            let query = Query { cursor, ..Query::partition(keys::fallbacks_of(&principal.org), limit) };
            let page = self.ports.table.query(query).await.map_err(Error::of_cursor)?;
            let entries = page.entries.iter().map(Item::record).collect::<Result<_, _>>()?;
            Ok(Page { entries, next: page.next })
        })
        .await
    }

    /// Sets a fallback, and replaces the one for the same plugin and agent. Administrators only.
    pub async fn set_fallback(self: &Arc<Self>, principal: &Principal, new: NewFallback) -> Result<Fallback, Error> {
        let span = debug_span!("set_fallback", org = %principal.org, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            if let Some(tool) = &new.tool {
                self.plugin(&principal.org, tool.as_str()).await?;
            }
            let NewFallback { tool, agent_id, message } = new;
            if !(1..=FALLBACK_MAX).contains(&message.chars().count()) || message.trim().is_empty() {
                let rule = format!("must be 1 to {FALLBACK_MAX} characters and more than spaces");
                return Err(Error::Invalid(vec![FieldProblem::new("/message", rule)]));
            }
            let key = keys::fallback(&principal.org, tool.as_ref(), agent_id.as_ref());
            let fallback = Fallback { tool, agent_id, message, updated_at: self.ports.clock.now() };
            let engine = Arc::clone(self);
            self.run_to_completion(async move {
                engine.ports.table.put(NewItem::new(key, &fallback)?, Condition::Any).await?;
                Ok(fallback)
            })
            .await
        })
        .await
    }

    /// Removes a fallback, and returns it. Administrators only.
    pub async fn remove_fallback(
        self: &Arc<Self>,
        principal: &Principal,
        tool: Option<&PluginName>,
        agent: Option<&AgentId>,
    ) -> Result<Fallback, Error> {
        let span = debug_span!("remove_fallback", org = %principal.org, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let key = keys::fallback(&principal.org, tool, agent);
            let engine = Arc::clone(self);
            self.run_to_completion(async move {
                let item = engine.ports.table.get(&key, Read::Consistent).await?.ok_or(Error::NotFound("fallback"))?;
                engine.ports.table.delete(&key, Condition::Any).await?;
                Ok(item.record()?)
            })
            .await
        })
        .await
    }
}

/// The default fallback: what to tell the person, and what to do next. A language model reads it.
fn default_message(manifest: &Manifest, failure: &Failure) -> String {
    let (plugin, name) = (&manifest.name, &manifest.display_name);
    if failure.may_have_happened && failure.retryable {
        return format!(
            "Tell the person that it is not certain yet whether this was done at {name}. Retry the same intent once, with \
             the same idempotency key: {name} does it at most once. If it fails again, stop and say so."
        );
    }
    if failure.may_have_happened || failure.code == OutcomeCode::OutcomeUnknown {
        return format!(
            "Tell the person that it is not certain whether this was done at {name}. Look there first, with an action \
             that only reads. Do not send it again unless you know that it was not done."
        );
    }
    let connect = match &manifest.auth {
        Auth::Oauth2(_) => format!(
            "Get a link with POST /api/plugin-engine/integrations/{plugin}/connect, and give it to them. Send this again \
             once they say that they have given consent."
        ),
        Auth::None | Auth::ClientCredentials(_) | Auth::ApiKey(_) | Auth::Basic(_) => format!(
            "A person who holds the credential connects it with POST /api/plugin-engine/integrations/{plugin}/connect; do \
             not ask for the credential in a conversation. Send this again once it is connected."
        ),
    };
    let wait = failure.retry_after_s;
    match failure.code {
        OutcomeCode::NotConnected => {
            format!("Tell the person that their account at {name} is not connected. {connect}")
        }
        OutcomeCode::ReconnectRequired => {
            format!("Tell the person that their account at {name} has to be connected again. {connect}")
        }
        OutcomeCode::RateLimited => format!(
            "Tell the person that {name} is busy and that it will take a moment. Retry the same intent after {} s, not \
             before.",
            wait.unwrap_or(60)
        ),
        OutcomeCode::Timeout | OutcomeCode::Unavailable if failure.retryable => format!(
            "Tell the person that {name} does not answer at the moment. Retry the same intent once more after {} s; if it \
             fails again, stop and say so.",
            wait.unwrap_or(30)
        ),
        OutcomeCode::Timeout | OutcomeCode::Unavailable => format!(
            "Tell the person that {name} could not do this, and what the message says. Do not send the same intent again."
        ),
        OutcomeCode::Rejected => format!(
            "Tell the person that {name} refused, and why: the message says it. Change what it objects to, or ask them \
             for what is missing. Do not send the same intent again."
        ),
        OutcomeCode::Disabled if failure.retryable => format!(
            "Tell the person that {name} has failed too often and is out of use for a while. Send this again after {}, not \
             before.",
            failure.retry_after_s.map_or_else(|| "some minutes".to_owned(), |seconds| format!("{seconds} s"))
        ),
        OutcomeCode::Disabled => format!(
            "Tell the person that {name} is switched off here, and that an administrator can switch it on. Do not send \
             this again before that."
        ),
        OutcomeCode::Vetoed => format!(
            "Tell the person that a rule of their organization does not allow this at {name}. Do not look for a way \
             around it, and do not send it again."
        ),
        // Handled above, with the other outcomes that are not certain.
        OutcomeCode::OutcomeUnknown => String::new(),
    }
}
