//! The Lambda of `/api/plugin-engine/runs`: the ledger of actions and their outcomes.

use lambda_http::Error;
use overseer_functions::serve;
use overseer_http::runs;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    serve(runs::routes(), false).await
}
