//! The Lambda of `/api/plugin-engine/tasks`: intents that run later, on a schedule, or asynchronously.

use lambda_http::Error;
use overseer_functions::serve;
use overseer_http::tasks;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    serve(tasks::routes(), false).await
}
