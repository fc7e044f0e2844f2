//! One call of a service through the plugin's runtime. Nothing of the credential is in what comes back.

use tokio::time::{Instant, timeout_at};
use tracing::field::{self, Empty};
use tracing::{Span, instrument};

use super::credential::Credential;
use super::host::Host;
use super::runtime;
use super::runtime::{Call, CallError, CallResult};
use crate::core::outcome::{Failure, OutcomeCode, Success};
use crate::core::redactor::Redactor;
use crate::engine::Engine;
use crate::plugin::manifest::Runtime;

/// The result of one call.
pub(crate) struct CallOnce {
    pub result: CallResult,
    /// Whether the service was called.
    pub called: bool,
}

impl Engine {
    /// Runs one call through its runtime, and redacts the credential in the result.
    #[instrument(
        name = "call",
        level = "debug",
        skip_all,
        fields(plugin = %call.manifest.name, action = %call.action.name, outcome = Empty)
    )]
    pub(crate) async fn call_once(
        &self,
        call: &Call<'_>,
        credential: Option<&Credential>,
        deadline: Instant,
    ) -> CallOnce {
        let Runtime::Http { base_url } = &call.manifest.runtime else {
            return CallOnce { result: Err(cannot_run(call)), called: false };
        };
        let secrets = credential.map(Credential::secrets).unwrap_or_default();
        let redactor = Redactor::new(&secrets);
        let base = self.config.stand_ins.get(&call.manifest.name).map_or(base_url, |stand_in| &stand_in.base_url);
        let limit = self.config.limits.answer_max_bytes;
        let host = Host::new(&self.outbound, call.manifest, base, credential, &redactor, deadline, limit);
        // The host keeps the deadline itself; this one covers everything else that a runtime does.
        let result = timeout_at(deadline, runtime::http::run(call, &host)).await;
        let result = result.unwrap_or_else(|_| Err(runtime::out_of_time(call)));
        match &result {
            Ok(_) => Span::current().record("outcome", "ok"),
            Err(CallError::Failed(failure)) => Span::current().record("outcome", field::display(failure.code)),
            Err(CallError::Parameter(_)) => Span::current().record("outcome", "invalid_parameters"),
        };
        CallOnce { result: redact(result, &redactor), called: host.called() }
    }
}

fn redact(result: CallResult, redactor: &Redactor) -> CallResult {
    match result {
        Ok(Success { message, data, external_id }) => Ok(Success {
            message: redactor.text(message),
            data: redactor.value(data),
            external_id: external_id.map(|id| redactor.text(id)),
        }),
        Err(CallError::Failed(failure)) => Err(Failure { message: redactor.text(failure.message), ..failure }.into()),
        Err(parameter @ CallError::Parameter(_)) => Err(parameter),
    }
}

/// The failure of a call of a plugin that is registered but runs elsewhere.
fn cannot_run(call: &Call<'_>) -> CallError {
    let reason = call.manifest.cannot_run().unwrap_or_default();
    let message = format!("{} cannot run here: {reason}", call.manifest.display_name);
    Failure::new(OutcomeCode::Disabled, message, false).into()
}
