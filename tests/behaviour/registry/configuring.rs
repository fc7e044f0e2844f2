//! The configuration of an instance.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::Bench;
use crate::support::app::Answer;

const CONFIG: &str = "/api/v1/plugins/desk/config";

async fn put(bench: &Bench, config: &Value, if_match: Option<&str>) -> Answer {
    let mut request = bench.app.request(Method::PUT, CONFIG).header("content-type", "application/json");
    request = request.header("authorization", format!("Bearer {}", bench.app.admin)).body(config.to_string());
    if let Some(tag) = if_match {
        request = request.header("if-match", tag);
    }
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test]
async fn configured_value_has_precedence() {
    let bench = Bench::start().await;
    bench.install(&bench.manifest("desk", "1.0.0")).await;
    let shown = bench.app.get(CONFIG).await.json();
    assert_eq!((&shown["config"], &shown["effective"]), (&json!({}), &json!({ "desk": "front", "loud": false })));
    let set = put(&bench, &json!({ "desk": "back" }), None).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.text);
    assert_eq!(set.json()["effective"], json!({ "desk": "back", "loud": false }));
    assert_eq!(bench.app.intend("desk", "look", json!({})).await.data()["path"], "/look/back?v=1.0.0");
    // It is replaced, not merged.
    put(&bench, &json!({ "loud": true }), None).await;
    assert_eq!(bench.app.intend("desk", "look", json!({})).await.data()["path"], "/look/front?v=1.0.0");
    assert_eq!(bench.app.intend("desk", "act", json!({})).await.data()["body"]["loud"], true);
}

#[tokio::test]
async fn invalid_configuration_names_its_pointer() {
    let bench = Bench::start().await;
    bench.install(&bench.manifest("desk", "1.0.0")).await;
    let refused = put(&bench, &json!({ "desk": "", "loud": "very", "more": 1, "code": "abc" }), None).await;
    assert_eq!(refused.problem(400), "invalid_parameters");
    assert_eq!(refused.pointers(), ["/desk", "/loud", "/more"], "{}", refused.text);
    let refused = put(&bench, &json!({ "code": "abc" }), None).await;
    assert_eq!((refused.problem(400), refused.pointers()), ("invalid_parameters".to_owned(), vec!["/code".to_owned()]));
    assert_eq!(bench.app.get(CONFIG).await.json()["config"], json!({}));
    // At the edge of what is allowed.
    let of_size = |bytes: usize| json!({ "desk": "x".repeat(bytes - json!({ "desk": "" }).to_string().len()) });
    assert_eq!(put(&bench, &of_size(16 * 1024), None).await.status, StatusCode::OK);
    assert_eq!(put(&bench, &of_size(16 * 1024 + 1), None).await.problem(400), "invalid_parameters");
}

#[tokio::test]
async fn plugin_without_schema_has_no_configuration() {
    let bench = Bench::start().await;
    let mut manifest = bench.manifest("desk", "1.0.0");
    manifest.as_object_mut().unwrap().retain(|key, _| key != "config_schema" && key != "default_config");
    manifest["actions"].as_array_mut().unwrap().truncate(1);
    manifest["actions"][0]["request"]["path"] = json!("/look");
    bench.install(&manifest).await;
    assert_eq!(put(&bench, &json!({}), None).await.status, StatusCode::OK);
    assert_eq!(put(&bench, &json!({ "a": 1 }), None).await.problem(400), "invalid_parameters");
}

#[tokio::test]
async fn configuration_secrets_are_never_shown() {
    let bench = Bench::start().await;
    bench.install(&bench.manifest("desk", "1.0.0")).await;
    let secret = "only-the-vault-knows";
    let set = put(&bench, &json!({ "desk": "back", "code": secret }), None).await;
    assert_eq!((set.status, &set.json()["secrets"]), (StatusCode::OK, &json!(["code"])));
    let tag = set.headers["etag"].clone();
    for text in [set.text, bench.app.get(CONFIG).await.text, bench.app.get("/api/v1/plugins/desk").await.text] {
        assert!(!text.contains(secret), "{text}");
    }
    for key in bench.app.table.items().await {
        let item = overseer_engine::ports::Table::get(
            &*bench.app.table,
            &key,
            overseer_engine::ports::table::Read::Consistent,
        );
        assert!(!format!("{:?}", item.await.unwrap()).contains(secret), "{key:?}");
    }
    // Left out, it stays; null, it goes.
    let kept = put(&bench, &json!({ "desk": "side" }), None).await;
    assert_eq!(kept.json()["secrets"], json!(["code"]));
    assert_ne!(kept.headers["etag"], tag);
    let gone = put(&bench, &json!({ "desk": "side", "code": null }), None).await;
    assert_eq!((gone.status, &gone.json()["secrets"]), (StatusCode::OK, &json!([])), "{}", gone.text);
    // Neither at once nor little by little may there be more than is allowed.
    let large = |bytes: usize| json!({ "code": "x".repeat(bytes - json!({ "code": "" }).to_string().len()) });
    assert_eq!(put(&bench, &large(16 * 1024), None).await.status, StatusCode::OK);
    assert_eq!(put(&bench, &large(16 * 1024 + 1), None).await.problem(400), "invalid_parameters");
    // Nowhere else may one stand.
    let enable = json!({ "config": { "code": secret } });
    let refused = bench.app.post("/api/v1/plugins/desk/enable", &enable).await;
    assert_eq!(
        (refused.problem(400), refused.pointers()),
        ("invalid_parameters".to_owned(), vec!["/config/code".to_owned()])
    );
}

#[tokio::test]
async fn concurrent_upgrade_detects_the_conflict() {
    let bench = Bench::start().await;
    bench.install(&bench.manifest("desk", "1.0.0")).await;
    let seen = bench.app.get(CONFIG).await;
    let tag = seen.headers["etag"].to_str().unwrap();
    assert_eq!(put(&bench, &json!({ "desk": "one" }), Some(tag)).await.status, StatusCode::OK);
    assert_eq!(put(&bench, &json!({ "desk": "two" }), Some(tag)).await.problem(412), "precondition_failed");
    let now = bench.app.get(CONFIG).await;
    assert_eq!(now.json()["config"], json!({ "desk": "one" }));
    let both = format!("\"other\", {}", now.headers["etag"].to_str().unwrap());
    assert_eq!(put(&bench, &json!({ "desk": "two" }), Some(&both)).await.status, StatusCode::OK);
    assert_eq!(put(&bench, &json!({ "desk": "three" }), Some("*")).await.status, StatusCode::OK);
    // Failures that are counted do not change it.
    let tag = bench.app.get(CONFIG).await.headers["etag"].clone();
    bench.app.post("/api/v1/plugins/desk/disable", &json!({})).await;
    bench.app.post("/api/v1/plugins/desk/enable", &json!({})).await;
    assert_eq!(bench.app.get(CONFIG).await.headers["etag"], tag);
}

#[tokio::test]
async fn cached_name_is_bound_to_its_configuration() {
    let bench = Bench::start().await;
    let mut manifest = bench.manifest("desk", "1.0.0");
    manifest["mappings"] = json!({ "drawer": { "lookup": {
        "action": "drawers", "items": "[data]", "name": "'top'", "id": "item.path",
    } } });
    manifest["actions"].as_array_mut().unwrap().push(json!({
        "name": "drawers", "description": "Lists drawers.", "effect": "read", "request": { "path": "/drawers/{{ config.desk }}" },
    }));
    manifest["actions"][1]["parameters"]["properties"]["drawer"] = json!({ "type": "string", "x-mapping": "drawer" });
    manifest["actions"][1]["request"]["json"] = json!({ "drawer": "{{ drawer }}" });
    bench.install(&manifest).await;
    let act =
        async || bench.app.intend("desk", "act", json!({ "drawer": "top" })).await.data()["body"]["drawer"].clone();
    assert_eq!(act().await, "/drawers/front");
    put(&bench, &json!({ "desk": "back" }), None).await;
    assert_eq!(act().await, "/drawers/back");
    put(&bench, &json!({}), None).await;
    assert_eq!(act().await, "/drawers/front");
}
