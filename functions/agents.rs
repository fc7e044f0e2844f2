//! The Lambda of `/api/v1/channels` (the plugins of agents), `/api/v1/agents` (the agents that result) and `/api/v1/hooks`
//! (what agents report).

use lambda_http::Error;
use overseer_functions::serve;
use overseer_http::{agents, channels, hooks};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    serve(channels::routes().merge(agents::routes()).merge(hooks::routes()), false).await
}
