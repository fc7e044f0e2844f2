//! The Lambda of `/api/plugin-engine/errors`: failures, their statistics, and the fallback messages for agents.

use lambda_http::Error;
use overseer_functions::serve;
use overseer_http::errors;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    serve(errors::routes(), false).await
}
