//! Changes in Overseer while the browser is at the provider.

use axum::body::{Body, to_bytes};
use axum::http::Request;
use overseer_engine::engine::Engine;
use overseer_engine::plugin::catalog::Catalog;
use tower::ServiceExt as _;

use super::*;

/// Opens a URL at another process of the same Overseer, whose plugins are `manifests`; with `POST`, presses Continue of the page
/// that the browser saw last.
async fn open_elsewhere(stage: &Stage, manifests: &[String], method: Method, flow: &Flow<'_>, url: &str) -> Answer {
    let catalog = Catalog::built_in();
    for manifest in manifests {
        catalog.add(manifest).unwrap();
    }
    let engine = Engine::new(stage.app.engine.ports.clone(), catalog, stage.app.engine.config.clone()).unwrap();
    let served = overseer_http::service(engine, overseer_http::oauth::routes());
    let path = url.replace(&format!("http://{}", stage.app.address), "");
    let request = Request::builder().method(method).uri(path).header("cookie", flow.browser.cookie.clone().unwrap());
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let response = served.oneshot(request.body(Body::from(flow.browser.consent.clone())).unwrap()).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    Answer { status, headers, text: String::from_utf8(body.to_vec()).unwrap() }
}

#[tokio::test]
async fn attempt_ends_with_its_plugin() {
    let stage = Stage::new().await;
    let base = format!("http://{}", stage.other.address);
    let mut moved = Vec::new();
    for more in [
        json!({ "token_url": format!("{base}/token") }),
        json!({ "authorization_url": format!("{base}/authorize") }),
        json!({ "revocation_url": format!("{base}/revoke") }),
        json!({ "issuer": "https://honest.example" }),
    ] {
        moved.push(vec![stage.honest.manifest(&more)]);
    }
    let elsewhere = stage.honest.manifest(&json!({}));
    moved.push(vec![
        elsewhere
            .replace(&format!("\"base_url\":\"http://{}", stage.honest.address), &format!("\"base_url\":\"{base}")),
    ]);
    moved.push(vec![
        elsewhere
            .replace("network:127.0.0.1", "network:127.0.0.2")
            .replace("\"base_url\":\"http://127.0.0.1", "\"base_url\":\"http://127.0.0.2"),
    ]);
    // The plugin is gone.
    moved.push(vec![]);
    for manifests in moved {
        let mut flow = stage.flow("honest", &json!({ "returnTo": "https://agent.example/done" })).await;
        let start = format!("/api/plugin-engine/oauth/start/{}", flow.ticket);
        for method in [Method::GET, Method::POST] {
            let answer = open_elsewhere(&stage, &manifests, method, &flow, &start).await;
            stage.refused(&answer, 400, CHANGED, &flow).await;
        }
        let answer = open_elsewhere(&stage, &manifests, Method::GET, &flow, &flow.answer()).await;
        stage.refused(&answer, 400, CHANGED, &flow).await;
        let answer = flow.finish().await;
        stage.refused(&answer, 400, NOT_KNOWN, &flow).await;
    }
    assert!(stage.honest.asked().is_empty() && stage.other.asked().is_empty());

    // Another process with the same plugin takes the answer.
    let flow = stage.flow("honest", &json!({})).await;
    let answer = open_elsewhere(&stage, &[elsewhere], Method::GET, &flow, &flow.answer()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}

#[tokio::test]
async fn attempt_ends_with_its_client() {
    let stage = Stage::new().await;
    let client = "/api/plugin-engine/integrations/honest/client";
    let mut flow = stage.flow("honest", &json!({})).await;
    set_client(&stage.app, "honest", &json!({ "clientId": "another" })).await;
    let answer = flow.finish().await;
    stage.refused(&answer, 400, CHANGED, &flow).await;

    let mut flow = stage.flow("honest", &json!({})).await;
    assert_eq!(parameter(&flow.request, "client_id").unwrap(), "another");
    stage.app.delete(client).await;
    let answer = flow.finish().await;
    stage.refused(&answer, 400, CHANGED, &flow).await;
    assert!(stage.honest.asked().is_empty());

    // Another secret of the same client is the same client.
    set_client(&stage.app, "honest", &json!({ "clientId": "overseer" })).await;
    let mut flow = stage.flow("honest", &json!({})).await;
    set_client(&stage.app, "honest", &json!({ "clientId": "overseer", "clientSecret": "a-new-secret" })).await;
    flow.finishes().await;
}

/// Who comes back last wins, by the same user's own will; of the account before nothing stays.
#[tokio::test]
async fn concurrent_replacement_keeps_one_whole_account() {
    let stage = Stage::new().await;
    let mut flow = stage.flow("honest", &json!({})).await;
    let mut pending = stage.flow("honest", &json!({ "returnTo": "https://agent.example/done" })).await;
    let code = parameter(&leads_to(&pending.finish().await), "code").unwrap();
    stage.app.connect("honest", "a-token-by-hand").await;
    flow.finishes().await;
    let complete = "/api/plugin-engine/integrations/honest/connect/complete";
    assert_eq!(stage.app.post(complete, &json!({ "code": code })).await.json()["state"], "active");
    assert_eq!(accounts(&stage.app, "honest", "admin").await.len(), 1);
    // The record and one secret.
    assert_eq!(kept(&stage.app).await.len(), stage.before.len() + 2);
}

#[tokio::test]
async fn consent_covers_only_the_scopes_that_were_shown() {
    let stage = Stage::new().await;
    let flow_link = link(&stage.app, "honest", &json!({})).await;
    let mut flow = stage.flow_of("honest", &flow_link, Browser::new(&stage.app)).await;
    let upgraded =
        [stage.honest.manifest(&json!({ "scopes": [{ "name": "erase", "description": "Erase everything" }] }))];
    let before = stage.app.table.items().await;
    let again = open_elsewhere(&stage, &upgraded, Method::POST, &flow, &flow_link).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text);
    for shown in ["was changed after this page was opened. Check it again.", "Erase everything"] {
        assert!(again.text.contains(shown), "{shown}: {}", again.text);
    }
    assert_eq!(stage.app.table.items().await, before, "an attempt was begun");

    flow.browser.consent = consent(&again.text);
    let agreed = open_elsewhere(&stage, &upgraded, Method::POST, &flow, &flow_link).await;
    assert_eq!(parameter(&leads_to(&agreed), "scope").as_deref(), Some("erase"));
}
