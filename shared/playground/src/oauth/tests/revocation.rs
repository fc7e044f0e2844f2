//! Revocation, by each vendor's method.

use super::*;

#[tokio::test]
async fn revocation_covers_the_family() {
    let bench = Bench::new();
    for service in Service::ALL {
        for kind in ["access_token", "refresh_token"] {
            // At Slack a token revokes itself, and a refresh token is no bearer token.
            if (service, kind) == (Service::Slack, "refresh_token") {
                continue;
            }
            let (tokens, others) = (granted(&bench, service).await, granted(&bench, service).await);
            assert_eq!(revoke(&bench, service, &tokens[kind]).await.status, 200);
            assert_ne!(refusal(&bench, service, &tokens["access_token"]).await, "");
            let refused = error_of(&refresh(&bench, service, &tokens["refresh_token"]).await);
            assert_eq!(refused, if service == Service::Slack { "invalid_refresh_token" } else { "invalid_grant" });
            assert_eq!(refusal(&bench, service, &others["access_token"]).await, "");
        }
        let standing = json!(service.standing_token());
        assert_eq!(revoke(&bench, service, &standing).await.status, 200);
        assert_eq!(refusal(&bench, service, &standing).await, "");
    }
}

#[tokio::test]
async fn slack_revokes_the_token_of_the_call() {
    let bench = Bench::new();
    let token = granted(&bench, Service::Slack).await["access_token"].clone();
    let tried = slack_method(&bench, "auth.revoke?test=1", &token).await;
    assert_eq!(tried, json!({"ok": true, "revoked": false}));
    assert_eq!(slack_method(&bench, "auth.revoke", &token).await, json!({"ok": true, "revoked": true}));
    for method in ["auth.test", "auth.revoke"] {
        assert_eq!(slack_method(&bench, method, &token).await, json!({"ok": false, "error": "token_revoked"}));
    }
    let standing = json!(Service::Slack.standing_token());
    assert_eq!(slack_method(&bench, "auth.revoke", &standing).await, json!({"ok": true, "revoked": false}));
    assert_eq!(slack_method(&bench, "auth.revoke", &json!("unknown")).await["error"], "invalid_auth");
    assert_eq!(post(&bench, Service::Slack, "revoke", CLIENT_SECRET, &[]).await.status, 404);
}

#[tokio::test]
async fn google_revokes_without_client_credentials() {
    let bench = Bench::new();
    let is_dead = async |token: &Value| {
        let reply = revoke(&bench, Service::Gmail, token).await;
        (reply.status.as_u16(), error_of(&reply)) == (400, "invalid_token".to_owned())
    };
    let tokens = granted(&bench, Service::Gmail).await;
    let query = serde_urlencoded::to_string([("token", tokens["refresh_token"].as_str().unwrap())]).unwrap();
    let reply = bench.form(&format!("/playground/oauth/gmail/revoke?{query}"), &[]).await;
    assert_eq!((reply.status.as_u16(), reply.json(), reply.header("cache-control")), (200, json!({}), "no-store"));
    assert!(is_dead(&tokens["refresh_token"]).await && is_dead(&tokens["access_token"]).await);
    assert!(is_dead(&json!("unknown")).await && is_dead(&json!("xoxb-playground")).await);

    let expired = granted(&bench, Service::Gmail).await;
    bench.wait(3600);
    assert!(is_dead(&expired["access_token"]).await);
    assert_eq!(refresh(&bench, Service::Gmail, &expired["refresh_token"]).await.status, 200);
    let empty = bench.form("/playground/oauth/gmail/revoke", &[]).await;
    assert_eq!((empty.status.as_u16(), error_of(&empty).as_str()), (400, "invalid_request"));
}

#[tokio::test]
async fn notion_revokes_for_its_client() {
    let bench = Bench::new();
    let tokens = granted(&bench, Service::Notion).await;
    let fields = [("token", tokens["access_token"].as_str().unwrap())];
    let guess = post(&bench, Service::Notion, "revoke", "guess", &fields).await;
    assert_eq!((guess.status.as_u16(), error_of(&guess).as_str()), (401, "invalid_client"));
    assert!(guess.json()["request_id"].is_string());
    let body = json!({"token": tokens["access_token"]}).to_string();
    assert_eq!(bench.send("POST", "/playground/oauth/notion/revoke", &[], body).await.status, 401);
    assert_eq!(refusal(&bench, Service::Notion, &tokens["access_token"]).await, "");
    let missing = post(&bench, Service::Notion, "revoke", CLIENT_SECRET, &[]).await;
    assert_eq!((missing.status.as_u16(), error_of(&missing).as_str()), (400, "invalid_request"));
    for token in [&tokens["access_token"], &json!("unknown")] {
        let reply = revoke(&bench, Service::Notion, token).await;
        assert_eq!((reply.status.as_u16(), reply.json()["request_id"].is_string()), (200, true));
    }
}
