//! The hooks of an organization, asked in the order of their priorities. What one changes is what the next one sees; the
//! first that forbids is the last that is asked.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::policy;
use crate::core::error::Error;
use crate::core::ids::{ActionName, OrgId, PluginName};
use crate::core::outcome::{Failure, OutcomeCode, cut};
use crate::engine::Engine;
use crate::invoke::failures::Failed;
use crate::invoke::hooks::context::{HookContext, HookFailure, HookReply, LoadedHook};
use crate::plugin::manifest::{Action, DeclaredHook, Hook, OnFailure, Runtime};
use crate::ports::table::Item;
use crate::registry::hooks::HookIndex;

/// The hooks of an organization, in the order in which they are asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hooks(Arc<[LoadedHook]>);

/// What became of a hook that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HookDecision {
    /// It goes on.
    Proceed,
    /// It goes on with other data.
    Replace,
    /// It does not go on.
    Veto,
    /// The hook failed.
    Failed,
}

/// One hook that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HookRan {
    /// Whose it is.
    pub plugin: PluginName,
    /// What it said.
    pub decision: HookDecision,
    /// Milliseconds that it took.
    pub duration_ms: u64,
    /// Why it failed, or why it forbids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What all hooks of a moment came to.
#[derive(Debug)]
pub(crate) struct HookResult {
    /// The data as the last one left it.
    pub data: Value,
    /// Whether any of them changed it.
    pub replaced: bool,
    /// Who forbids it, and why.
    pub vetoed: Option<Vetoed>,
    /// Those that were asked.
    pub hooks: Vec<HookRan>,
}

/// What ends it: a hook that forbids it, or one that failed and had to be heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vetoed {
    pub by: PluginName,
    /// What people call the plugin.
    pub title: String,
    pub reason: String,
    /// Where the hook failed, whether it may have something to say later.
    failed: Option<bool>,
}

impl Hooks {
    /// Those of a moment.
    fn at<'a>(
        &'a self,
        on: Hook,
        tool: Option<(&'a str, &'a str)>,
    ) -> impl Iterator<Item = (&'a LoadedHook, &'a DeclaredHook)> {
        let declared = self.0.iter().filter_map(|ready| Some((ready, ready.declared()?)));
        declared.filter(move |(_, hook)| hook.on == on && hook.is_for(tool))
    }

    /// Whether any is asked at that moment.
    pub(crate) fn any_at(&self, on: Hook, tool: (&str, &str)) -> bool {
        self.at(on, Some(tool)).next().is_some()
    }

    /// Those that would be asked about a call, each as `<plugin>.<moment>`.
    pub(crate) fn around_call(&self, tool: (&str, &str)) -> Vec<String> {
        let moments = [Hook::BeforeToolCall, Hook::AfterToolCall].into_iter();
        let named = |(ready, hook): (&LoadedHook, &DeclaredHook)| format!("{}.{}", ready.manifest().name, hook.on);
        moments.flat_map(|on| self.at(on, Some(tool)).map(named).collect::<Vec<_>>()).collect()
    }
}

impl Engine {
    /// The hooks that stand in an organization's list. A manifest that is not in this process's memory is read.
    pub(crate) async fn hooks_in(&self, org: &OrgId, item: Option<&Item>) -> Result<Hooks, Error> {
        let Some(item) = item else { return Ok(Hooks::default()) };
        let mut all = Vec::new();
        for (name, hooked) in item.record::<HookIndex>()?.plugins {
            // What guards an organization must not be left out because it does not read, is not here, or because the operator
            // brought another of its name.
            let gone = || {
                Error::Unavailable(format!(
                    "{name}, whose hooks are asked, is not here; the operator brings it back, or an administrator ends its \
                     use with DELETE /api/v1/plugins/{name}"
                ))
            };
            let plugin = match &hooked.installed {
                Some(installed) => self.loaded(org, &name, installed).await?,
                None => self.catalog.plugin(name.as_str()).map_err(|_| gone())?,
            };
            let hooked = Arc::new(hooked);
            let ready = |place| LoadedHook { plugin: Arc::clone(&plugin), place, hooked: Arc::clone(&hooked) };
            let asked = hooked.asked(&plugin.manifest);
            all.extend(asked.map(|(place, hook)| (hook.priority, ready(place))));
        }
        // Those of one priority stay in the order of the plugins' names.
        all.sort_by_key(|(priority, _)| *priority);
        Ok(Hooks(all.into_iter().map(|(_, ready)| ready).collect()))
    }

    /// Asks all hooks of a moment. `fit` makes what one of them gives what goes on, or says what is wrong with it: then that
    /// hook has failed.
    pub(crate) async fn ask_hooks(
        &self,
        hooks: &Hooks,
        on: Hook,
        moment: &HookContext<'_>,
        data: Value,
        fit: impl Fn(Value) -> Result<Value, String>,
    ) -> HookResult {
        let mut came = HookResult { data, replaced: false, vetoed: None, hooks: Vec::new() };
        for (ready, hook) in hooks.at(on, moment.tool) {
            let (name, began) = (ready.manifest().name.clone(), Instant::now());
            let said = self.ask_one(ready, hook, moment, &came.data).await;
            let said = said.and_then(|said| match said {
                HookReply::Replace(data) => match fit(data) {
                    Ok(data) => Ok(HookReply::Replace(data)),
                    Err(problem) => Err(HookFailure::rejected(format!("its data cannot be used: {problem}"))),
                },
                HookReply::Veto(_) if on == Hook::OnError => {
                    Err(HookFailure::rejected("there is nothing left to forbid after an error".to_owned()))
                }
                said @ (HookReply::Proceed | HookReply::Veto(_)) => Ok(said),
            });
            let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let mut failed = None;
            let (decision, reason) = match said {
                Ok(HookReply::Proceed) => (HookDecision::Proceed, None),
                Ok(HookReply::Replace(data)) => {
                    (came.data, came.replaced) = (data, true);
                    (HookDecision::Replace, None)
                }
                Ok(HookReply::Veto(reason)) => {
                    let reason = reason.map(|reason| cut(&reason, super::HOOK_REASON_MAX));
                    (HookDecision::Veto, Some(reason.unwrap_or_else(|| "it gives no reason".to_owned())))
                }
                Err(failure) => {
                    self.note_failed_hook(ready, on, moment, &failure).await;
                    failed = Some(matches!(failure.code, OutcomeCode::Unavailable | OutcomeCode::Timeout));
                    (HookDecision::Failed, Some(cut(&failure.message, super::HOOK_REASON_MAX)))
                }
            };
            let stops = decision == HookDecision::Veto
                || (decision == HookDecision::Failed && hook.on_failure == OnFailure::Fatal);
            if stops {
                let title = ready.manifest().display_name.clone();
                let reason = reason.clone().unwrap_or_default();
                let reason = if failed.is_some() { format!("its hook {on} failed: {reason}") } else { reason };
                came.vetoed = Some(Vetoed { by: name.clone(), title, reason, failed });
            }
            came.hooks.push(HookRan { plugin: name, decision, duration_ms, reason });
            if stops {
                break;
            }
        }
        if !came.hooks.is_empty() {
            let asked = came.hooks.len();
            tracing::info!(org = %moment.org, asked, vetoed_by = came.vetoed.as_ref().map(|vetoed| vetoed.by.as_str()), "hooks {on} were asked");
        }
        came
    }

    async fn ask_one(
        &self,
        ready: &LoadedHook,
        hook: &DeclaredHook,
        moment: &HookContext<'_>,
        data: &Value,
    ) -> Result<HookReply, HookFailure> {
        match ready.manifest().runtime {
            Runtime::Native => policy::evaluate(ready, moment, data),
            Runtime::Http { .. } => {
                let deadline = moment.deadline.min(Instant::now() + Duration::from_millis(hook.timeout_ms.into()));
                self.ask_over_http(ready, hook, moment, data, deadline).await
            }
            Runtime::Container(_) | Runtime::Module(_) => {
                Err(HookFailure::rejected("its code is not run by Overseer".to_owned()))
            }
        }
    }

    /// Puts a hook that failed into the error log, under its own plugin.
    async fn note_failed_hook(&self, ready: &LoadedHook, on: Hook, moment: &HookContext<'_>, failure: &HookFailure) {
        let manifest = ready.manifest();
        tracing::warn!(org = %moment.org, plugin = %manifest.name, reason = failure.detail.as_ref().unwrap_or(&failure.message), "the hook {on} failed");
        let Some(action) = on.action() else { return };
        let mut parameters = Map::new();
        if let Some((tool, intent)) = moment.tool {
            parameters.insert("tool".to_owned(), tool.into());
            parameters.insert("intent".to_owned(), intent.into());
        }
        let (org, user, agent) = (moment.org, moment.user, moment.agent);
        let message = failure.detail.as_ref().unwrap_or(&failure.message);
        let failed = &Failure::new(failure.code, message.clone(), false);
        let (request, task, run) = (moment.request, moment.task, None);
        let (action, parameters) = (&action, &parameters);
        let attempts = u32::from(failure.called);
        let failed =
            Failed { org, user, agent, manifest, action, parameters, failure: failed, attempts, request, task, run };
        self.note_failure(&failed).await;
    }
}

impl Hook {
    /// The hook as an action, under whose name what fails is recorded. (None is there only because names are parsed.)
    fn action(self) -> Option<Action> {
        let parameters = Value::Object(Map::new());
        Some(Action { parameters, ..Action::reading(ActionName::parse(self.as_str()).ok()?) })
    }
}

impl Vetoed {
    /// As an intent is answered. Nothing was done.
    pub(crate) fn failure(&self) -> Failure {
        let Self { title, reason, .. } = self;
        match self.failed {
            None => Failure::new(OutcomeCode::Vetoed, format!("{title} forbids it: {reason}"), false),
            Some(later) => {
                Failure::new(OutcomeCode::Unavailable, format!("{title} has to be asked first: {reason}"), later)
            }
        }
    }
}
