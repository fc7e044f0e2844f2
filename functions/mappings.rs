//! The Lambda of `/api/plugin-engine/context-mappings`: names for ids of services.

use lambda_http::Error;
use overseer_functions::serve;
use overseer_http::mappings;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    serve(mappings::routes(), false).await
}
