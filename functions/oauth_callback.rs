//! The Lambda of `/api/plugin-engine/oauth`: what a browser sees while its user connects an account.

use lambda_http::Error;
use overseer_functions::serve;
use overseer_http::oauth;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    serve(oauth::routes(), true).await
}
