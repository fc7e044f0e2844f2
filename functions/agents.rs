//! The Lambda of `/api/v1/channels`, which plugins agents have, and `/api/v1/agents`, what comes of that.

use lambda_http::Error;
use overseer_functions::serve;
use overseer_http::{agents, channels};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    serve(channels::routes().merge(agents::routes()), false).await
}
