//! From an intent to the request to call an action: the caller's agent and channel, the user, and the version of the plugin
//! that the organization uses.

use std::sync::Arc;

use tokio::time::Instant;

use super::request::{ActionRequest, Origin};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{ChannelName, OrgId, UserId};
use crate::core::intent::Intent;
use crate::core::outcome::Outcome;
use crate::engine::Engine;
use crate::invoke::runs::{IdempotencyRequest, Replayable, RequestOptions};
use crate::plugin::catalog::Plugin;
use crate::registry::contention;

/// An intent, with the agent and the channel that its caller may send it for.
pub(crate) struct IntentRequest<'a> {
    pub principal: &'a Principal,
    pub intent: Intent,
    pub options: &'a RequestOptions,
    pub channel: Option<&'a ChannelName>,
}

impl<'a> IntentRequest<'a> {
    /// Refuses an agent or a channel that the caller's API key is not for.
    pub(crate) fn of(principal: &'a Principal, intent: Intent, options: &'a RequestOptions) -> Result<Self, Error> {
        let intent = principal.with_agent(intent)?;
        let channel = principal.channel(options.channel.as_ref())?;
        Ok(Self { principal, intent, options, channel })
    }

    /// The user whose account is used.
    pub(crate) fn user(&self) -> Result<UserId, Error> {
        self.principal.resolve_user(self.intent.user_id.clone())
    }

    /// The idempotency key, if the caller sent one. `later` says whether a task is to be made.
    pub(crate) fn idempotency(
        &self,
        plugin: &Plugin,
        user: &UserId,
        later: bool,
    ) -> Result<Option<IdempotencyRequest>, Error> {
        let action = plugin.action(&self.intent.intent)?.action;
        IdempotencyRequest::of(&self.intent, self.options, user, &plugin.manifest.name, &action.name, later)
    }

    /// The request to call the action.
    pub(crate) fn action_request<'b>(
        &'b self,
        plugin: &'b Plugin,
        user: &'b UserId,
        idempotency: Option<&'b IdempotencyRequest>,
        deadline: Instant,
    ) -> ActionRequest<'b> {
        let (principal, intent) = (self.principal, &self.intent);
        ActionRequest {
            org: &principal.org,
            user,
            agent: intent.agent_id.as_ref(),
            channel: self.channel,
            plugin,
            action: &intent.intent,
            alias: intent.integration.as_ref(),
            parameters: &intent.context,
            origin: Origin::Intent { principal, request: self.options.request.as_ref(), idempotency },
            deadline,
        }
    }
}

impl Engine {
    /// Executes an intent within the budget. A caller who may not use the plugin does not learn what else is wrong.
    pub(crate) async fn execute_intent(
        &self,
        principal: &Principal,
        intent: Intent,
        options: &RequestOptions,
    ) -> Result<Replayable<Outcome>, Error> {
        let request = IntentRequest::of(principal, intent, options)?;
        let result = self.execute_with_current_plugin(&request).await;
        self.hide_errors_unless_admitted(&principal.org, request.channel, &request.intent.tool, result).await
    }

    async fn execute_with_current_plugin(&self, request: &IntentRequest<'_>) -> Result<Replayable<Outcome>, Error> {
        let deadline = self.deadline(request.options.until);
        request.intent.is_for_now()?;
        let user = &request.user()?;
        self.with_current_plugin(&request.principal.org, &request.intent.tool, |plugin| async move {
            let idempotency = request.idempotency(&plugin, user, false)?;
            Box::pin(self.execute_action(request.action_request(&plugin, user, idempotency.as_ref(), deadline))).await
        })
        .await
    }

    /// Runs `work` with the plugin version that this process has cached, and again with the organization's current one
    /// where the cached one was stale. `work` gives `None` where it found the organization using another version.
    pub(crate) async fn with_current_plugin<T: Sync, F>(
        &self,
        org: &OrgId,
        name: &str,
        work: impl Fn(Arc<Plugin>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Option<T>, Error>>,
    {
        let mut plugin = self.plugin_cached(org, name).await?;
        loop {
            let result = work(Arc::clone(&plugin)).await;
            match self.refreshed_if_stale(org, &plugin, &result).await? {
                Some(newer) => plugin = newer,
                None => return result?.ok_or_else(|| contention(name)),
            }
        }
    }
}
