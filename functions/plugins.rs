//! The Lambda of `/api/v1/plugins`: the plugins as an organization has them.

use lambda_http::Error;
use overseer_functions::serve;
use overseer_http::plugins;

#[tokio::main]
async fn main() -> Result<(), Error> {
    serve(plugins::routes(), false).await
}
