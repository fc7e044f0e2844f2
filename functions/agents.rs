//! The Lambda of `/api/v1/channels`, which plugins agents have, `/api/v1/agents`, what comes of that, and `/api/v1/hooks`,
//! what agents tell of themselves.

use lambda_http::Error;
use overseer_functions::serve;
use overseer_http::{agents, channels, hooks};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    serve(channels::routes().merge(agents::routes()).merge(hooks::routes()), false).await
}
