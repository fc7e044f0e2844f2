//! Asking an organization's hooks: load them, ask them in the order of their priorities, and combine their replies. Each
//! hook sees the data as the hook before it left it; a veto ends the round.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tracing::debug_span;
use tracing::field::Empty;

use super::policy;
use crate::core::error::Error;
use crate::core::ids::{ActionName, OrgId, PluginName};
use crate::core::outcome::{Failure, OutcomeCode, cut};
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::invoke::failures::Failed;
use crate::invoke::hooks::context::{HookContext, HookFailure, HookReply, LoadedHook};
use crate::plugin::manifest::{Action, DeclaredHook, Hook, OnFailure, Runtime};
use crate::ports::table::Item;
use crate::registry::hooks::HookIndex;

/// The hooks of an organization, in the order in which they are asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hooks(Arc<[LoadedHook]>);

/// The decision of one hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HookDecision {
    /// Go on with the data as it is.
    Proceed,
    /// Go on with other data.
    Replace,
    /// Do not go on.
    Veto,
    /// None: the hook failed.
    Failed,
}

/// One hook that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HookRan {
    /// The plugin that declares the hook.
    pub plugin: PluginName,
    /// Its decision.
    pub decision: HookDecision,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Why it failed, or why it vetoes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The combined replies of all hooks that were asked.
#[derive(Debug)]
pub(crate) struct HookResult {
    /// The data as the last hook left it.
    pub data: Value,
    /// Whether a hook replaced it.
    pub replaced: bool,
    /// The veto, if there is one.
    pub vetoed: Option<Vetoed>,
    /// The hooks that were asked, in order.
    pub hooks: Vec<HookRan>,
}

/// A veto: by a hook's decision, or because a hook failed that must not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vetoed {
    pub by: PluginName,
    /// The plugin's display name.
    pub title: String,
    pub reason: String,
    cause: VetoCause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VetoCause {
    Decision,
    /// The hook failed. `retryable`: it may answer later.
    Failure {
        retryable: bool,
    },
}

impl Hooks {
    /// Those at a hook point, for a tool.
    fn at<'a>(
        &'a self,
        on: Hook,
        tool: Option<(&'a str, &'a str)>,
    ) -> impl Iterator<Item = (&'a LoadedHook, &'a DeclaredHook)> {
        let declared = self.0.iter().filter_map(|loaded| Some((loaded, loaded.declared()?)));
        declared.filter(move |(_, hook)| hook.on == on && hook.is_for(tool))
    }

    /// Whether there is a hook at that point, for that tool.
    pub(crate) fn any_at(&self, on: Hook, tool: (&str, &str)) -> bool {
        self.at(on, Some(tool)).next().is_some()
    }

    /// The hooks before and after a call, each as `<plugin>.<hook>`.
    pub(crate) fn around_call(&self, tool: (&str, &str)) -> Vec<String> {
        let points = [Hook::BeforeToolCall, Hook::AfterToolCall].into_iter();
        let name = |(loaded, hook): (&LoadedHook, &DeclaredHook)| format!("{}.{}", loaded.manifest().name, hook.on);
        points.flat_map(|on| self.at(on, Some(tool)).map(name).collect::<Vec<_>>()).collect()
    }
}

impl HookResult {
    /// The result before any hook is asked.
    fn unchanged(data: Value) -> Self {
        Self { data, replaced: false, vetoed: None, hooks: Vec::new() }
    }

    /// Adds the reply of one hook.
    fn add(
        &mut self,
        loaded: &LoadedHook,
        hook: &DeclaredHook,
        reply: Result<HookReply, HookFailure>,
        duration_ms: u64,
    ) {
        let plugin = loaded.manifest().name.clone();
        let (decision, reason, veto) = match reply {
            Ok(HookReply::Proceed) => (HookDecision::Proceed, None, None),
            Ok(HookReply::Replace(data)) => {
                (self.data, self.replaced) = (data, true);
                (HookDecision::Replace, None, None)
            }
            Ok(HookReply::Veto(reason)) => {
                let reason = reason.map(|reason| cut(&reason, super::HOOK_REASON_MAX));
                let reason = reason.unwrap_or_else(|| "it gives no reason".to_owned());
                (HookDecision::Veto, Some(reason.clone()), Some((VetoCause::Decision, reason)))
            }
            Err(failure) => {
                let retryable = matches!(failure.code, OutcomeCode::Unavailable | OutcomeCode::Timeout);
                let reason = cut(&failure.message, super::HOOK_REASON_MAX);
                let fatal = hook.on_failure == OnFailure::Fatal;
                let message = format!("its hook {} failed: {reason}", hook.on);
                (HookDecision::Failed, Some(reason), fatal.then_some((VetoCause::Failure { retryable }, message)))
            }
        };
        self.vetoed = veto.map(|(cause, reason)| {
            let title = loaded.manifest().display_name.clone();
            Vetoed { by: plugin.clone(), title, reason, cause }
        });
        self.hooks.push(HookRan { plugin, decision, duration_ms, reason });
    }
}

impl Engine {
    /// Loads the hooks of an organization from its stored index. A manifest that this process has not cached is read.
    pub(crate) async fn load_hooks(&self, org: &OrgId, item: Option<&Item>) -> Result<Hooks, Error> {
        let Some(item) = item else { return Ok(Hooks::default()) };
        let mut by_priority = Vec::new();
        for (name, hooked) in item.record::<HookIndex>()?.plugins {
            let plugin = match &hooked.installed {
                Some(installed) => self.loaded(org, &name, installed).await?,
                // A hook may guard the organization, so a missing plugin fails the request and is not skipped.
                None => self.catalog.plugin(name.as_str()).map_err(|_| {
                    Error::Unavailable(format!(
                        "the plugin {name} has hooks and is missing here; the operator adds it again, or an administrator \
                         ends its use with DELETE /api/v1/plugins/{name}"
                    ))
                })?,
            };
            let hooked = Arc::new(hooked);
            for (index, hook) in hooked.callable_hooks(&plugin.manifest) {
                let loaded = LoadedHook { plugin: Arc::clone(&plugin), index, hooked: Arc::clone(&hooked) };
                by_priority.push((hook.priority, loaded));
            }
        }
        // The sort is stable: hooks of one priority stay in the order of the plugins' names.
        by_priority.sort_by_key(|(priority, _)| *priority);
        Ok(Hooks(by_priority.into_iter().map(|(_, loaded)| loaded).collect()))
    }

    /// Asks all hooks at a hook point, one after the other. `validate` turns the data with which a hook replaces the current
    /// data into what goes on, or says what is wrong with it: then the hook has failed.
    pub(crate) async fn ask_hooks(
        &self,
        hooks: &Hooks,
        on: Hook,
        context: &HookContext<'_>,
        data: Value,
        validate: impl Fn(Value) -> Result<Value, String>,
    ) -> HookResult {
        let mut result = HookResult::unchanged(data);
        for (loaded, hook) in hooks.at(on, context.tool) {
            let asked_at = Instant::now();
            let reply = self.ask_hook(loaded, hook, context, &result.data).await;
            let reply = reply.and_then(|reply| usable_reply(on, reply, &validate));
            let duration_ms = u64::try_from(asked_at.elapsed().as_millis()).unwrap_or(u64::MAX);
            if let Err(failure) = &reply {
                self.note_hook_failure(loaded, on, context, failure).await;
            }
            result.add(loaded, hook, reply, duration_ms);
            if result.vetoed.is_some() {
                break;
            }
        }
        if !result.hooks.is_empty() {
            let (asked, vetoed_by) = (result.hooks.len(), result.vetoed.as_ref().map(|vetoed| vetoed.by.as_str()));
            tracing::info!(org = %context.org, asked, vetoed_by, "hooks {on} were asked");
        }
        result
    }

    /// Asks one hook, in the runtime of its plugin.
    async fn ask_hook(
        &self,
        loaded: &LoadedHook,
        hook: &DeclaredHook,
        context: &HookContext<'_>,
        data: &Value,
    ) -> Result<HookReply, HookFailure> {
        let span = debug_span!("ask_hook", org = %context.org, plugin = %loaded.manifest().name, on = %hook.on, outcome = Empty);
        traced(span, async {
            match loaded.manifest().runtime {
                Runtime::Native => policy::evaluate(loaded, context, data),
                Runtime::Http { .. } => {
                    let deadline = context.deadline.min(Instant::now() + Duration::from_millis(hook.timeout_ms.into()));
                    self.ask_over_http(loaded, hook, context, data, deadline).await
                }
                Runtime::Container(_) | Runtime::Module(_) => {
                    Err(HookFailure::rejected("Overseer does not run its code".to_owned()))
                }
            }
        })
        .await
    }

    /// Records the failure of a hook in the error log, under the hook's own plugin.
    async fn note_hook_failure(&self, loaded: &LoadedHook, on: Hook, context: &HookContext<'_>, failure: &HookFailure) {
        let manifest = loaded.manifest();
        let message = failure.detail.as_ref().unwrap_or(&failure.message);
        tracing::warn!(org = %context.org, plugin = %manifest.name, reason = message, "hook {on} failed");
        let Some(action) = on.action() else { return };
        let mut parameters = Map::new();
        if let Some((tool, intent)) = context.tool {
            parameters.insert("tool".to_owned(), tool.into());
            parameters.insert("intent".to_owned(), intent.into());
        }
        let failed = Failed {
            org: context.org,
            user: context.user,
            agent: context.agent,
            manifest,
            action: &action,
            parameters: &parameters,
            failure: &Failure::new(failure.code, message.clone(), false),
            attempts: u32::from(failure.called),
            request: context.request,
            task: context.task,
            run: None,
        };
        self.note_failure(&failed).await;
    }
}

/// A reply that can be used at the hook point; else the hook has failed.
fn usable_reply(
    on: Hook,
    reply: HookReply,
    validate: impl Fn(Value) -> Result<Value, String>,
) -> Result<HookReply, HookFailure> {
    match reply {
        HookReply::Replace(data) => match validate(data) {
            Ok(data) => Ok(HookReply::Replace(data)),
            Err(problem) => Err(HookFailure::rejected(format!("its data cannot be used: {problem}"))),
        },
        HookReply::Veto(_) if on == Hook::OnError => {
            Err(HookFailure::rejected("there is nothing left to forbid after an error".to_owned()))
        }
        reply @ (HookReply::Proceed | HookReply::Veto(_)) => Ok(reply),
    }
}

impl Hook {
    /// The hook as an action, under whose name its failures are recorded. (`None` only because names are parsed.)
    fn action(self) -> Option<Action> {
        let parameters = Value::Object(Map::new());
        Some(Action { parameters, ..Action::reading(ActionName::parse(self.as_str()).ok()?) })
    }
}

impl Vetoed {
    /// The failure of an intent that is vetoed. Nothing was done.
    pub(crate) fn failure(&self) -> Failure {
        let Self { title, reason, .. } = self;
        match self.cause {
            VetoCause::Decision => Failure::new(OutcomeCode::Vetoed, format!("{title} forbids it: {reason}"), false),
            VetoCause::Failure { retryable } => {
                let message = format!("{title} has to be asked first: {reason}");
                Failure::new(OutcomeCode::Unavailable, message, retryable)
            }
        }
    }
}
