//! The secrets that sign what Overseer asks hooks.

use overseer_engine::access::principal::Role;

use super::managing::{BOTH, grant, with_ungranted_guard};
use super::*;

#[tokio::test]
async fn hook_secret_is_shown_once() {
    let (bench, _) = with_ungranted_guard().await;
    let made = bench.post(&format!("{GUARD}/hook-secret"), json!({})).await;
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_"), "{secret}");
    bench.ok(Method::PATCH, GUARD, &grant(&BOTH)).await;
    for path in [GUARD, "/api/v1/plugins", "/api/v1/plugins/guard/config"] {
        assert!(!bench.app.get(path).await.text.contains(secret), "{path}");
    }
}

#[tokio::test]
async fn first_hook_secret_replaces_none() {
    let (bench, _) = with_ungranted_guard().await;
    let made = bench.post(&format!("{GUARD}/hook-secret"), json!({})).await;
    assert_eq!(made.get("old_signs_until"), None, "{made}");
}

#[tokio::test]
async fn replaced_hook_secret_signs_for_a_day() {
    let bench = Bench::start().await;
    let first = bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    let made = bench.post("/api/v1/plugins/guard/hook-secret", json!({})).await;
    let second = made["secret"].as_str().unwrap().to_owned();
    assert_eq!(made["old_signs_until"], "2026-11-22T09:00:00Z");
    bench.act("one").await.data();
    assert_eq!((bench.last().signed_with(&first), bench.last().signed_with(&second)), (1, 1));
    bench.app.clock.advance(24 * 3600);
    bench.act("one").await.data();
    assert_eq!((bench.last().signed_with(&first), bench.last().signed_with(&second)), (0, 1));
}

async fn stored_secrets(bench: &Bench) -> usize {
    bench.app.table.items().await.iter().filter(|key| key.partition.contains("#secret#")).count()
}

/// Replaces the secret of the guard's hooks five times; gives all secrets, the oldest first.
async fn replace_secrets(bench: &Bench, first: String) -> Vec<String> {
    let mut secrets = vec![first];
    for _ in 0..5 {
        let made = bench.post(&format!("{GUARD}/hook-secret"), json!({})).await;
        secrets.push(made["secret"].as_str().unwrap().to_owned());
    }
    secrets
}

#[tokio::test]
async fn four_newest_hook_secrets_sign() {
    let bench = Bench::start().await;
    let first = bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    let secrets = replace_secrets(&bench, first).await;
    bench.act("one").await.data();
    let signs: Vec<_> = secrets.iter().map(|secret| bench.last().signed_with(secret)).collect();
    assert_eq!(signs, [0, 0, 1, 1, 1, 1]);
}

#[tokio::test]
async fn hook_secret_that_signs_no_more_is_deleted() {
    let bench = Bench::start().await;
    let first = bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    let before = stored_secrets(&bench).await;
    replace_secrets(&bench, first).await;
    assert_eq!(stored_secrets(&bench).await, before + 3);
}

#[tokio::test]
async fn removed_plugin_leaves_no_replaced_secret() {
    let bench = Bench::start().await;
    let first = bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    let before = stored_secrets(&bench).await;
    replace_secrets(&bench, first).await;
    bench.ok(Method::DELETE, GUARD, &Value::Null).await;
    assert_eq!(stored_secrets(&bench).await, before - 1);
}

#[tokio::test]
async fn hook_secret_requires_an_administrator() {
    let bench = Bench::start().await;
    bench.post("/plugins", bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    bench.post("/api/v1/plugins/guard/enable", json!({})).await;
    for role in [Role::Operator, Role::Service] {
        let key = bench.app.key("acme", &[role], None).await;
        let answer = bench.app.send(&key, Method::POST, "/api/v1/plugins/guard/hook-secret", None).await;
        assert_eq!(answer.problem(403), "forbidden");
    }
}

#[tokio::test]
async fn plugin_without_external_hooks_gets_no_secret() {
    let bench = Bench::start().await;
    for name in ["slack", "policy"] {
        let answer = bench.app.post(&format!("/api/v1/plugins/{name}/hook-secret"), &json!({})).await;
        assert_eq!(answer.problem(409), "conflict", "{name}");
    }
}

#[tokio::test]
async fn hook_secret_of_an_unknown_plugin_is_not_found() {
    let bench = Bench::start().await;
    assert_eq!(bench.app.post("/api/v1/plugins/nothing/hook-secret", &json!({})).await.problem(404), "unknown_plugin");
}

#[tokio::test]
async fn processes_share_the_hook_secret() {
    let bench = Bench::start().await;
    let secret = bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    let engine = bench.app.deaf();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = overseer::server::routes(engine, &bench.app.playground, address);
    tokio::spawn(axum::serve(listener, routes).into_future());
    let intent = json!({ "tool": "own", "intent": "act", "context": { "path": "one" } });
    let request = bench.app.client.post(format!("http://{address}{INTENTS}")).bearer_auth(&bench.app.admin);
    let request = request.header("content-type", "application/json").body(intent.to_string());
    Answer::of(request.send().await.unwrap()).await.data();
    assert_eq!(bench.last().signed_with(&secret), 1);
}
