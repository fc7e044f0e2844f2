//! The Lambda of `/plugins` (the registered plugins) and `/api/v1/plugins` (the plugins of an organization).

use lambda_http::Error;
use overseer_functions::serve;
use overseer_http::{health, plugins, registry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    serve(plugins::routes().merge(registry::routes()).merge(health::routes()), false).await
}
