//! The Lambda of `/api/plugin-engine/oauth`: the pages and redirects of a browser that connects an account.

use lambda_http::Error;
use overseer_functions::serve;
use overseer_http::oauth;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    serve(oauth::routes(), true).await
}
