//! Hook points that an agent's runtime reports: the agent runs elsewhere, and asks the organization's hooks here.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use tracing::debug_span;
use tracing::field::Empty;

use super::run::{HookDecision, HookRan, HookResult};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{AgentId, ChannelName, PluginName, RequestId, UserId};
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::invoke::hooks::context::HookContext;
use crate::plugin::manifest::Hook;
use crate::ports::table::Read;
use crate::storage::keys;

/// The longest session id, in characters.
pub const SESSION_MAX: usize = 255;

/// The hooks that there are, for the error about an unknown one.
const HOOK: &str = "hook; there are before_agent_run, after_agent_run, before_tool_call, after_tool_call, on_error and \
                    on_reasoning_step";

/// A hook point in an agent's work.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportMoment {
    /// The data that hooks see and may replace: whatever the runtime has at this point.
    pub data: Value,
    /// The user that the agent works for; by default the user that the API key is bound to.
    pub user_id: Option<UserId>,
    /// The agent; an agent's own API key implies it.
    pub agent_id: Option<AgentId>,
    /// The channel.
    pub channel: Option<ChannelName>,
    /// The id that the runtime gave the conversation.
    #[schemars(length(max = SESSION_MAX))]
    pub session_id: Option<String>,
    /// The tool, for `before_tool_call`, `after_tool_call` and `on_error`.
    #[schemars(length(min = 1, max = SESSION_MAX))]
    pub tool: Option<String>,
    /// The action of that tool.
    #[schemars(length(min = 1, max = SESSION_MAX))]
    pub intent: Option<String>,
}

/// The combined answer of the hooks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reported {
    /// Whether the agent goes on, with the same or other data.
    pub decision: HookDecision,
    /// The data to go on with; absent on a veto.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// The reason of a veto.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The plugin whose hook vetoes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<PluginName>,
    /// The hooks that were asked, in order.
    pub hooks: Vec<HookRan>,
}

impl From<HookResult> for Reported {
    fn from(HookResult { data, replaced, vetoed, hooks }: HookResult) -> Self {
        let decision = match (&vetoed, replaced) {
            (Some(_), _) => HookDecision::Veto,
            (None, true) => HookDecision::Replace,
            (None, false) => HookDecision::Proceed,
        };
        let data = vetoed.is_none().then_some(data);
        let (reason, by) = vetoed.map(|vetoed| (vetoed.reason, vetoed.by)).unzip();
        Self { decision, data, reason, by, hooks }
    }
}

impl Engine {
    /// Asks the organization's hooks at a hook point that an agent's runtime reports. `until` is when the answer must be
    /// there, if that is sooner than the budget of an intent.
    pub async fn report_moment(
        self: &Arc<Self>,
        principal: &Principal,
        hook: &str,
        report: ReportMoment,
        request: Option<RequestId>,
        until: Option<Instant>,
    ) -> Result<Reported, Error> {
        let span = debug_span!("report_moment", org = %principal.org, outcome = Empty);
        traced(span, async {
            let on = Hook::parse(hook).ok_or(Error::NotFound(HOOK))?;
            let ReportMoment { data, user_id, agent_id, channel, session_id, tool, intent } = report;
            let user = match principal.resolve_user(user_id) {
                Err(Error::Invalid(_)) => {
                    return Err(Error::field("/user_id", "is needed, because the API key is not bound to a user"));
                }
                user => user?,
            };
            let agent = principal.resolve_agent(agent_id, "agent_id")?;
            let channel = principal.channel(channel.as_ref())?.cloned();
            let tool = match (tool, intent) {
                (Some(_), _) | (_, Some(_)) if !on.is_tool_hook() => {
                    return Err(Error::field(
                        "/tool",
                        format!("is not for {on}, which concerns no tool; leave it out"),
                    ));
                }
                (Some(tool), intent) => Some((tool, intent.unwrap_or_default())),
                (None, Some(_)) => return Err(Error::field("/tool", "is needed with an intent")),
                (None, None) if on.is_tool_hook() => {
                    return Err(Error::field("/tool", format!("is needed for {on}, which concerns a tool")));
                }
                (None, None) => None,
            };
            let deadline = self.deadline(until);
            let (engine, org) = (Arc::clone(self), principal.org.clone());
            // A hook's failure is recorded even if the client hangs up.
            self.run_to_completion(async move {
                let item = engine.ports.table.get(&keys::hooks(&org), Read::Consistent).await?;
                let hooks = engine.load_hooks(&org, item.as_ref()).await?;
                let context = HookContext {
                    org: &org,
                    user: &user,
                    agent: agent.as_ref(),
                    channel: channel.as_ref(),
                    tool: tool.as_ref().map(|(tool, intent)| (tool.as_str(), intent.as_str())),
                    parameters: None,
                    session: session_id.as_deref(),
                    request: request.as_ref(),
                    task: None,
                    reported: true,
                    deadline,
                };
                Ok(engine.ask_hooks(&hooks, on, &context, data, Ok).await.into())
            })
            .await
        })
        .await
    }
}
