//! Compares the roles of the template with what functions do: a day with every kind of request, whose requests to AWS are
//! recorded.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::routing::any;
use overseer_engine::access::principal::Role;
use overseer_engine::outbound::address::AllowedAddress;
use reqwest::StatusCode;

use super::day::{Day, RETURN_TO};
use super::{App, Options};
use crate::support::bundle::Bundle;
use crate::support::own::OwnService;

const FUNCTIONS: [&str; 11] = [
    "intent",
    "integrations",
    "oauth_callback",
    "tasks",
    "cron",
    "runs",
    "mappings",
    "errors",
    "keys",
    "plugins",
    "agents",
];

/// The actions that a day without failures does not use.
fn needed_rarely(function: &str) -> Vec<&'static str> {
    // For an alarm that a request whose response was lost had set already.
    let moved = "scheduler:UpdateSchedule schedules";
    // For a new data key in place of one that no longer opens.
    let wrap = "kms:Encrypt key";
    // For an account that is disconnected during a refresh.
    let (remade, removed) = ("secretsmanager:CreateSecret accounts", "secretsmanager:DeleteSecret accounts");
    match function {
        "intent" => vec![moved, wrap, remade, removed],
        // The last for a name without a mapping, in a task.
        "cron" => vec![moved, wrap, remade, "dynamodb:Query table"],
        "tasks" => vec![moved],
        "plugins" => vec![wrap],
        // For the secret of an organization's own OAuth client; the client of the stand-in replaces it here.
        "oauth_callback" => vec!["secretsmanager:GetSecretValue accounts"],
        _ => Vec::new(),
    }
}

/// The actions with which Lambda receives from the queue on the function's behalf.
const QUEUE: [&str; 3] = ["sqs:DeleteMessage queue", "sqs:GetQueueAttributes queue", "sqs:ReceiveMessage queue"];

async fn day(vault: &str) {
    let routes = Router::new().route("/fails", any(|| async { StatusCode::BAD_GATEWAY })).fallback(any(|| async {}));
    let receiver = OwnService::start(routes).await;
    let options = Options {
        unconnected: true,
        return_to: vec![RETURN_TO.to_owned()],
        allowed: vec![AllowedAddress::Socket(receiver.address)],
        ..Options::default()
    };
    let mut app = App::on_lambdas(options, vault).await;
    app.admin = app.key("acme", &[Role::Administrator], Some("admin")).await;
    let day = Day { app };
    day.keys().await;
    day.webhooks(&receiver).await;
    day.integrations().await;
    day.browsers().await;
    day.intents().await;
    day.tasks().await;
    day.cron().await;
    day.runs().await;
    day.mappings().await;
    day.errors().await;
    day.plugins().await;
    day.hooks(&receiver).await;
    day.agents().await;

    let mut made = BTreeMap::<String, BTreeSet<String>>::new();
    for call in day.app.lambdas().gateway.calls() {
        made.entry(call.function).or_default().extend(call.needs);
    }
    let bundle = Bundle::read();
    let (mut missing, mut unused) = (Vec::new(), Vec::new());
    for function in FUNCTIONS {
        let needed = made.remove(function).unwrap_or_default();
        let allowed = bundle.allowed(function, vault);
        missing.extend(needed.difference(&allowed).map(|action| format!("{function}: {action}")));
        let rare = needed_rarely(function);
        let known = |action: &&String| {
            !rare.contains(&action.as_str()) && (function != "cron" || !QUEUE.contains(&action.as_str()))
        };
        unused.extend(allowed.difference(&needed).filter(known).map(|action| format!("{function}: {action}")));
    }
    assert!(missing.is_empty() && unused.is_empty(), "missing: {missing:#?}\nunused: {unused:#?}");
}

#[tokio::test]
async fn roles_allow_exactly_what_functions_do_with_secrets_manager() {
    day("secrets-manager").await;
}

#[tokio::test]
async fn roles_allow_exactly_what_functions_do_with_an_envelope() {
    day("envelope").await;
}
