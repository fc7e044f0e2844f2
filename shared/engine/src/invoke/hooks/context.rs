//! What a hook is asked about, and its reply.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::time::Instant;
use tracing::Span;
use tracing::field::display;

use crate::core::ids::{AgentId, ChannelName, OrgId, RequestId, TaskId, UserId};
use crate::core::outcome::OutcomeCode;
use crate::core::trace::SpanOutcome;
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::{DeclaredHook, Manifest};
use crate::registry::hooks::HookedPlugin;

/// One hook of an organization, with its plugin.
#[derive(Debug, Clone)]
pub(crate) struct LoadedHook {
    pub plugin: Arc<Plugin>,
    /// Its index among the manifest's hooks.
    pub index: usize,
    pub hooked: Arc<HookedPlugin>,
}

impl LoadedHook {
    pub(crate) fn manifest(&self) -> &Manifest {
        &self.plugin.manifest
    }

    /// Its declaration in the manifest.
    pub(super) fn declared(&self) -> Option<&DeclaredHook> {
        self.manifest().hooks.get(self.index)
    }
}

/// What hooks are asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HookContext<'a> {
    pub org: &'a OrgId,
    pub user: &'a UserId,
    pub agent: Option<&'a AgentId>,
    pub channel: Option<&'a ChannelName>,
    /// The names of the plugin and the action, at hook points of a tool.
    pub tool: Option<(&'a str, &'a str)>,
    /// The parameters that the action was called with, after the call.
    pub parameters: Option<&'a Map<String, Value>>,
    /// The id that the agent's runtime gave the conversation.
    pub session: Option<&'a str>,
    pub request: Option<&'a RequestId>,
    pub task: Option<&'a TaskId>,
    /// Whether an agent's runtime reports it: then nothing in Overseer depends on the answer.
    pub reported: bool,
    /// When the hooks must have answered.
    pub deadline: Instant,
}

/// The reply of a hook.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum HookReply {
    Proceed,
    Replace(Value),
    Veto(Option<String>),
}

/// Why a hook gave no usable reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HookFailure {
    pub code: OutcomeCode,
    pub message: String,
    /// The message for administrators alone, which is recorded in place of `message`.
    pub detail: Option<String>,
    /// Whether the hook's server was called.
    pub called: bool,
}

impl SpanOutcome for HookFailure {
    fn record_in(&self, span: &Span) {
        span.record("outcome", display(self.code));
    }
}

impl HookFailure {
    pub(crate) fn rejected(message: String) -> Self {
        Self { code: OutcomeCode::Rejected, message, detail: None, called: false }
    }

    pub(super) fn called(code: OutcomeCode, message: String) -> Self {
        Self { code, message, detail: None, called: true }
    }
}
