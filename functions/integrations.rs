//! The Lambda of `/api/plugin-engine/integrations`: the accounts of plugins.

use lambda_http::Error;
use overseer_functions::serve;
use overseer_http::integrations;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    serve(integrations::routes(), true).await
}
