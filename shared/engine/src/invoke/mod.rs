//! Running an action. An intent takes these steps from the route to the service:
//!
//! 1. [`Engine::execute`](crate::engine::Engine::execute): runs the rest to completion, even if the client hangs up.
//! 2. `intent::execute_intent`: checks the caller's agent and channel, and finds the plugin's current version.
//! 3. `execute::execute_action`: reads the snapshot; waits for, replays or runs the request, by its idempotency key. An
//!    attempt of a task (`tasks::run`) starts here.
//! 4. `attempt::attempt`: runs one attempt.
//!    1. `prepare`: the account, the breaker's permit (`permit`), ids in place of names, and the hooks before the call.
//!    2. `record::record_start`: the run in the ledger (`runs`), before the call can have an effect.
//!    3. `attempt::call_service`: see below.
//!    4. `hook_points::after_call`: the hooks after the call.
//!    5. `record::record_outcome`: the result in the ledger and under the key, a failure in the error log (`failures`).
//! 5. `call::call_with_retry`: repeats a call where that is safe, and refreshes a credential that the service refuses.
//! 6. `outbound::call::call_once`: one call through the plugin's runtime, which redacts the credential.
//! 7. `outbound::runtime::http::run`: the requests that the manifest declares, and the reading of their answers.
//! 8. `outbound::host::Host::fetch`: adds the credential, for the plugin's own service only.
//! 9. `outbound::client::Outbound::send`: the one outbound client.

pub(crate) mod attempt;
pub(crate) mod call;
mod execute;
pub mod failures;
mod hook_points;
pub mod hooks;
pub(crate) mod intent;
pub mod mappings;
mod permit;
mod prepare;
mod record;
pub(crate) mod request;
pub mod runs;
pub(crate) mod snapshot;
