//! The Lambda of `/plugins`, what is registered, and `/api/v1/plugins`, the plugins as an organization has them.

use lambda_http::Error;
use overseer_functions::serve;
use overseer_http::{health, plugins, registry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    serve(plugins::routes().merge(registry::routes()).merge(health::routes()), false).await
}
