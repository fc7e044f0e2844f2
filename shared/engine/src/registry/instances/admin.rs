//! What administrators change of a plugin beside enabling and upgrading: disable it, reset its breakers, set its limits and
//! its permissions.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tracing::debug_span;
use tracing::field::Empty;

use super::InstanceView;
use super::record::Disabled;
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::problem::FieldProblem;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::plugin::breaker::BreakerLimits;
use crate::plugin::manifest::Permission;
use crate::ports::events::EventKind;
use crate::registry::permissions::{checked_grant, must_be_signable};

/// The longest reason for disabling a plugin, in characters.
pub const REASON_MAX: usize = 500;

/// Disables a plugin.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Disable {
    /// Why. Agents read it when they use the plugin. At most 500 characters.
    #[schemars(length(max = 500))]
    pub reason: Option<String>,
}

/// An organization's settings of a plugin. What is left out stays.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetInstance {
    /// When the breakers open. Replaces all limits set before; a limit that is left out is the plugin's own.
    pub breaker: Option<BreakerLimits>,
    /// Whether the ledger records reads as well.
    pub record_reads: Option<bool>,
    /// The permissions of a registered plugin. They replace all earlier grants.
    #[schemars(with = "Option<Vec<String>>")]
    pub permissions: Option<BTreeSet<Permission>>,
}

impl Engine {
    /// Disables a plugin for the organization until an administrator enables it.
    pub async fn disable_plugin(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        request: Disable,
    ) -> Result<InstanceView, Error> {
        let span = debug_span!("disable_plugin", org = %principal.org, plugin, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            if request.reason.as_ref().is_some_and(|reason| reason.chars().count() > REASON_MAX) {
                return Err(Error::field("/reason", format!("must have at most {REASON_MAX} characters")));
            }
            let disabled = Disabled {
                at: self.ports.clock.now(),
                by: principal.user.clone(),
                key: principal.key.clone(),
                reason: request.reason,
            };
            let plugin = self.plugin_latest(&principal.org, plugin).await?;
            self.ensure_no_dependents(&principal.org, &plugin.manifest.name).await?;
            self.administer(principal, plugin, EventKind::PluginDisabled, json!({}), move |instance| {
                instance.disabled = Some(disabled.clone());
                Ok(())
            })
            .await
        })
        .await
    }

    /// Closes the breakers of a plugin and forgets its failures.
    pub async fn reset_breaker(self: &Arc<Self>, principal: &Principal, plugin: &str) -> Result<InstanceView, Error> {
        let span = debug_span!("reset_breaker", org = %principal.org, plugin, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let plugin = self.plugin_latest(&principal.org, plugin).await?;
            self.administer(principal, plugin, EventKind::PluginReset, json!({}), |instance| {
                instance.forget_failures();
                Ok(())
            })
            .await
        })
        .await
    }

    /// Changes an organization's settings of a plugin.
    pub async fn set_instance(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        request: SetInstance,
    ) -> Result<InstanceView, Error> {
        let span = debug_span!("set_instance", org = %principal.org, plugin, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let plugin = self.plugin_latest(&principal.org, plugin).await?;
            let limits = request.breaker.unwrap_or_default().or(plugin.manifest.breaker);
            let problem = |(field, message)| FieldProblem::new(format!("/breaker/{field}"), message);
            let problems: Vec<_> = limits.problems().into_iter().map(problem).collect();
            if !problems.is_empty() {
                return Err(Error::Invalid(problems));
            }
            let consented = checked_grant(&plugin, request.permissions.as_ref())?;
            let checked = Arc::clone(&plugin);
            self.administer(principal, plugin, EventKind::PluginConfigured, json!({}), move |instance| {
                instance.breaker = request.breaker.unwrap_or(instance.breaker);
                instance.record_reads = request.record_reads.unwrap_or(instance.record_reads);
                if let Some(permissions) = &consented {
                    must_be_signable(&checked.manifest, permissions, instance)?;
                    instance.grant(&checked, permissions);
                    instance.note_hooks(&checked.manifest);
                }
                Ok(())
            })
            .await
        })
        .await
    }
}
