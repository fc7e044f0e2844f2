//! The Lambda of `/api/plugin-engine/tasks`: what is to be done later, again, or while nobody waits.

use lambda_http::Error;
use overseer_functions::serve;
use overseer_http::tasks;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    serve(tasks::routes(), false).await
}
