//! The Lambda of `/api/plugin-engine`: intents, now.

use lambda_http::Error;
use overseer_functions::serve;
use overseer_http::intent;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    serve(intent::routes(), false).await
}
