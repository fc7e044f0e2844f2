//! What a hook is asked about, and what it replies.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::core::ids::{AgentId, ChannelName, OrgId, RequestId, TaskId, UserId};
use crate::core::outcome::OutcomeCode;
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::{DeclaredHook, Manifest};
use crate::registry::hooks::HookedPlugin;

/// One hook that is asked.
#[derive(Debug, Clone)]
pub(crate) struct LoadedHook {
    pub plugin: Arc<Plugin>,
    /// Its place in the manifest.
    pub place: usize,
    pub hooked: Arc<HookedPlugin>,
}

impl LoadedHook {
    pub(crate) fn manifest(&self) -> &Manifest {
        &self.plugin.manifest
    }

    /// How it is declared.
    pub(super) fn declared(&self) -> Option<&DeclaredHook> {
        self.manifest().hooks.get(self.place)
    }
}

/// What a moment is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HookContext<'a> {
    pub org: &'a OrgId,
    pub user: &'a UserId,
    pub agent: Option<&'a AgentId>,
    pub channel: Option<&'a ChannelName>,
    /// The plugin and the action, where it is about one.
    pub tool: Option<(&'a str, &'a str)>,
    /// What the action was called with, where it is about what came of that.
    pub parameters: Option<&'a Map<String, Value>>,
    /// What the agent's runtime calls the conversation.
    pub session: Option<&'a str>,
    pub request: Option<&'a RequestId>,
    pub task: Option<&'a TaskId>,
    /// Whether an agent's runtime tells of it, so that nothing here depends on the answer.
    pub reported: bool,
    /// By when it has to be decided.
    pub deadline: Instant,
}

/// What a hook said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum HookReply {
    Proceed,
    Replace(Value),
    Veto(Option<String>),
}

/// Why a hook did not say anything that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HookFailure {
    pub code: OutcomeCode,
    pub message: String,
    /// What only administrators are told: it is recorded.
    pub detail: Option<String>,
    /// Whether its server was called.
    pub called: bool,
}

impl HookFailure {
    pub(crate) fn rejected(message: String) -> Self {
        Self { code: OutcomeCode::Rejected, message, detail: None, called: false }
    }

    pub(super) fn called(code: OutcomeCode, message: String) -> Self {
        Self { code, message, detail: None, called: true }
    }
}
