//! The Lambda of `/api/plugin-engine` and `/api/plugins`: executes intents and lists tools.

use lambda_http::Error;
use overseer_functions::serve;
use overseer_http::{calls, intent};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    serve(intent::routes().merge(calls::routes()), false).await
}
