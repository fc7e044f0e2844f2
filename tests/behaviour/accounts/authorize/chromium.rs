//! The whole flow of a user: the real program, a real browser, and an intent at the end.

use std::fs;
use std::path::Path;

use axum::Router;
use axum::extract::RawQuery;
use axum::response::Html;
use axum::routing::get;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::tempdir;
use tokio::net::TcpListener;

use super::parameter;
use crate::support::browser::Browser;
use crate::support::process::Server;

const SLACK: &str = "/api/plugin-engine/integrations/slack";

/// What an agent's application does: asks the server with the administrator's key.
struct Agent {
    client: Client,
    key: String,
}

impl Agent {
    fn new(data: &Path) -> Self {
        let key = fs::read_to_string(data.join("admin-key")).unwrap().trim().to_owned();
        Self { client: Client::builder().no_proxy().build().unwrap(), key }
    }

    async fn ask(&self, server: &Server, method: Method, path: &str, body: &Value) -> Value {
        let request = self.client.request(method, format!("http://{}{path}", server.address)).bearer_auth(&self.key);
        let request = request.header("content-type", "application/json").body(body.to_string());
        serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap()
    }

    /// Reads a channel with the account of a user.
    async fn reads_as(&self, server: &Server, user: &str) -> Value {
        let context = json!({ "channel": "C0PLAYGEN1" });
        let intent = json!({ "userId": user, "tool": "slack", "intent": "fetch", "context": context });
        self.ask(server, Method::POST, "/api/plugin-engine", &intent).await
    }

    async fn link(&self, server: &Server, body: &Value) -> String {
        let answer = self.ask(server, Method::POST, &format!("{SLACK}/connect"), body).await;
        answer["connectUrl"].as_str().unwrap_or_else(|| panic!("no link: {answer}")).to_owned()
    }
}

/// Opens the link, reads what it says, goes on, and allows it.
async fn allow(browser: &Browser, link: &str, user: &str) {
    browser.open(link).await;
    let text = browser.text().await;
    for said in ["local", user, "Slack", "chat:write", "Continue only if you requested this yourself."] {
        assert!(text.contains(said), "{said}: {text}");
    }
    browser.follow("button").await;
    assert!(browser.text().await.contains("Allow Overseer to use the stand-in of Slack?"));
    browser.follow("[value=allow]").await;
}

#[tokio::test]
async fn connected_account_serves_the_agent() {
    let folder = tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Server::start(&data, &[], &[]);
    let agent = Agent::new(&data);
    assert_eq!(agent.reads_as(&server, "ann").await["error"]["code"], "not_connected");

    let browser = Browser::start().await;
    allow(&browser, &agent.link(&server, &json!({ "userId": "ann" })).await, "ann").await;
    assert!(browser.text().await.contains("Slack is connected as you at Playground."), "{}", browser.text().await);
    let answer = agent.reads_as(&server, "ann").await;
    assert_eq!(answer["success"], json!(true), "{answer}");

    // The link was for once.
    let used = browser.url().await;
    browser.open(&used).await;
    assert!(browser.text().await.contains("This link is not valid."), "{}", browser.text().await);

    // The account is there after a restart, the stand-in's side of it as well.
    server.signal("INT");
    assert_eq!(server.wait(), Some(0));
    let log = server.whole_log();
    assert!(log.contains("/api/plugin-engine/oauth/start/…") && !log.contains("xoxe"), "{log}");
    for secret in [parameter(&used, "state").unwrap(), parameter(&used, "code").unwrap()] {
        assert!(!log.contains(&secret), "{log}");
    }
    let server = Server::start(&data, &[], &[]);
    let answer = agent.reads_as(&server, "ann").await;
    assert_eq!(answer["success"], json!(true), "{answer}");
    let gone = agent.ask(&server, Method::DELETE, &format!("{SLACK}?userId=ann"), &Value::Null).await;
    assert_eq!(gone["revoked"], json!(true), "{gone}");
}

#[tokio::test]
async fn returning_user_is_confirmed_by_the_application() {
    let page = |RawQuery(query): RawQuery| async { Html(format!("<p>Back with {}.</p>", query.unwrap())) };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let application = format!("http://{}/done", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, Router::new().route("/done", get(page))).into_future());

    let folder = tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &[], &[("OVERSEER_RETURN_TO", &application)]);
    let agent = Agent::new(&data);
    let browser = Browser::start().await;
    let body = json!({ "userId": "ann", "returnTo": application });
    allow(&browser, &agent.link(&server, &body).await, "ann").await;
    assert!(browser.text().await.contains("Back with code="), "{}", browser.text().await);
    assert_eq!(agent.reads_as(&server, "ann").await["error"]["code"], "not_connected");
    let code = parameter(&browser.url().await, "code").unwrap();
    let confirm = json!({ "userId": "ann", "code": code });
    let done = agent.ask(&server, Method::POST, &format!("{SLACK}/connect/complete"), &confirm).await;
    assert_eq!(done["state"], "active", "{done}");
    assert_eq!(agent.reads_as(&server, "ann").await["success"], json!(true));

    // Who says no comes back, too.
    browser.open(&agent.link(&server, &json!({ "userId": "bob", "returnTo": application })).await).await;
    browser.follow("button").await;
    browser.follow("[value=deny]").await;
    assert!(browser.text().await.contains("Back with error=access_denied."), "{}", browser.text().await);
    assert_eq!(agent.reads_as(&server, "bob").await["error"]["code"], "not_connected");
}
