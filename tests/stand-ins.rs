//! Starts stand-ins of AWS (dynoxide, ministack) and of Slack, Gmail and Notion (the playground), and then the command that
//! follows, with everything in its environment that `template.yaml` tells the functions on AWS. Ends with the command.
//!
//! `cargo run -p overseer-tests --example stand-ins -- cargo lambda watch --package overseer-functions`

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a program for developers that meets the unexpected should stop there, and say so"
)]
#![expect(unreachable_pub, reason = "a binary has nothing to reach; pub says what is for other files")]

#[path = "behaviour/support/ministack.rs"]
mod ministack;
#[path = "behaviour/support/stand_ins.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod stand_ins;

use std::process::{Command, ExitCode};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use stand_ins::{ServedPlayground, StandIns};

/// Where `cargo lambda watch` serves.
const WATCHED: &str = "http://127.0.0.1:9000";

#[tokio::main]
async fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let Some(program) = words.next() else {
        eprintln!("stand-ins: say what to start with them, such as cargo lambda watch");
        return ExitCode::FAILURE;
    };
    let vault = std::env::var("OVERSEER_VAULT").unwrap_or_else(|_| "secrets-manager".to_owned());
    let mut stand_ins = StandIns::start(&vault, &json!({})).await;

    let services = ServedPlayground::start(Arc::new(|| Timestamp::now().as_second())).await;
    let public_url = std::env::var("PUBLIC_URL").unwrap_or_else(|_| WATCHED.to_owned());
    let more = [
        ("AWS_ENDPOINT_URL", format!("http://{}", stand_ins.aws)),
        ("AWS_ENDPOINT_URL_DYNAMODB", format!("http://{}", stand_ins.dynamo)),
        ("AWS_REGION", "eu-central-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "stand-in".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "stand-in".to_owned()),
        ("OVERSEER_STAND_INS", stand_ins::stand_ins_variable(&services.config)),
        ("OVERSEER_ALLOW_ADDRESSES", services.address.to_string()),
        ("PUBLIC_URL", public_url),
    ];
    stand_ins.variables.extend(more.map(|(name, value)| (name.to_owned(), value)));
    eprintln!(
        "stand-ins: AWS is a stand-in on this machine, and so are Slack, Gmail and Notion; all ends with this command"
    );
    eprintln!("stand-ins: http://{}/playground shows what the services received", services.address);
    for (name, value) in stand_ins.variables.iter().filter(|(name, _)| name != "OVERSEER_STAND_INS") {
        eprintln!("stand-ins: {name}={value}");
    }

    let mut child =
        Command::new(&program).args(words).envs(stand_ins.variables.clone()).spawn().unwrap_or_else(|error| {
            panic!("{program} does not start: {error}");
        });
    let ended = tokio::task::spawn_blocking(move || child.wait()).await.expect("nothing stops the wait").unwrap();
    ended.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
