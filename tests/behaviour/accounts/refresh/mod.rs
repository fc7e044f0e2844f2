//! Token refresh against a real OIDC provider: it requires PKCE, accepts each refresh token once, and revokes the whole
//! grant on reuse.

mod race;

use std::sync::Arc;

use overseer_engine::access::principal::Principal;
use overseer_engine::core::ids::{Alias, OrgId, Owner, PluginName, UserId};
use overseer_engine::core::outcome::Outcome;
use overseer_engine::engine::{Engine, Ports};
use overseer_engine::invoke::runs::RequestOptions;
use overseer_engine::outbound::address::AllowedAddress;
use overseer_engine::ports::table::{Key, Read};
use overseer_engine::ports::vault::{Purpose, SecretId};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::accounts::authorize::{Browser, accounts, link, secrets};
use crate::support::app::{Answer, App, Options};
use crate::support::oidc;
use crate::support::oidc::{Oidc, client};

const CRM: &str = "/api/plugin-engine/integrations/crm";
const SECRET: &str = "the secret of the client, 32 bytes at least";

/// An Overseer with the plugin `crm`, whose accounts are at a provider of its own.
pub struct Setup {
    pub oidc: Oidc,
    pub app: App,
}

fn manifest(oidc: &Oidc) -> Value {
    let issuer = &oidc.issuer;
    json!({
        "name": "crm", "version": "1.0.0", "display_name": "CRM", "description": "Customers.",
        "runtime": { "type": "http", "base_url": format!("{issuer}/api") }, "permissions": ["network:127.0.0.1"],
        "auth": {
            "type": "oauth2", "issuer": issuer, "authorization_url": format!("{issuer}/auth"),
            "token_url": format!("{issuer}/token"), "revocation_url": format!("{issuer}/token/revocation"),
            "scopes": ["openid", "read"],
            "test": { "request": { "path": "/me" }, "account": "body.name" },
        },
        "actions": [
            { "name": "me", "description": "Says who is there.", "effect": "read", "request": { "path": "/me" } },
            { "name": "echo", "description": "Has an effect.", "effect": "unsafe",
              "request": { "method": "POST", "path": "/echo", "json": {} } },
        ],
    })
}

impl Setup {
    /// Nothing is connected yet.
    pub async fn start() -> Self {
        Self::with(oidc::Options::default()).await
    }

    pub async fn with(options: oidc::Options) -> Self {
        let oidc = Oidc::with(options).await;
        let allowed = vec![AllowedAddress::Socket(oidc.address.parse().unwrap())];
        let plugins = vec![manifest(&oidc).to_string()];
        let app = App::with(Options { plugins, allowed, unconnected: true, ..Options::default() }).await;
        let redirect_uri = format!("http://{}/api/plugin-engine/oauth/callback/crm", app.address);
        oidc.register(&client("overseer", SECRET, &redirect_uri)).await;
        let setup = Self { oidc, app };
        setup.set_secret(SECRET).await;
        setup
    }

    /// With an account of `admin`.
    pub async fn connected() -> Self {
        let setup = Self::start().await;
        let page = setup.connect().await;
        assert!(page.text.contains("is connected as admin-at-crm"), "{}", page.text);
        setup
    }

    async fn set_secret(&self, secret: &str) {
        let body = json!({ "clientId": "overseer", "clientSecret": secret });
        let answer = self.app.send(&self.app.admin, Method::PUT, &format!("{CRM}/client"), Some(&body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }

    /// The whole way through the browser; gives the page at its end.
    pub async fn connect(&self) -> Answer {
        let mut browser = Browser::new(&self.app);
        let provider = browser.go(&link(&self.app, "crm", &json!({})).await).await;
        let back = self.oidc.allow(&provider, "admin-at-crm").await;
        browser.open(&back).await
    }

    pub async fn intend(&self, action: &str) -> Answer {
        self.app.intend("crm", action, json!({})).await
    }

    /// The account of `admin` as it is shown.
    pub async fn account(&self) -> Value {
        accounts(&self.app, "crm", "admin").await[0].clone()
    }

    /// The account of `admin` as it is stored.
    pub async fn record(&self) -> Value {
        let key = Key { partition: "org#acme#user#admin".to_owned(), sort: "integrations#crm".to_owned() };
        let item =
            self.app.engine.ports.table.get(&key, Read::Consistent).await.unwrap().expect("nothing is connected");
        item.record::<Value>().unwrap()["accounts"]["default"].clone()
    }

    /// The credential of `admin` that counts, as the vault has it.
    pub async fn credential(&self) -> Value {
        let version = self.record().await["version"].as_str().unwrap().to_owned();
        self.credential_of(&version).await
    }

    /// One version of the credential of `admin`.
    pub async fn credential_of(&self, version: &str) -> Value {
        let record = self.record().await;
        let purpose = Purpose::Integration {
            owner: Owner::User(UserId::parse("admin").unwrap()),
            plugin: PluginName::parse("crm").unwrap(),
            alias: Alias::default(),
        };
        let id = record["secret"].as_str().unwrap().to_owned();
        let id = SecretId { org: OrgId::parse("acme").unwrap(), purpose, id };
        let text = self.app.engine.ports.vault.get(&id, version).await.unwrap().unwrap();
        serde_json::from_str(text.expose_secret()).unwrap()
    }

    /// Another engine over the same records, as another Lambda would be.
    pub fn engine(&self, ports: Ports) -> Arc<Engine> {
        Engine::new(ports, self.app.engine.catalog.clone(), self.app.engine.config.clone()).unwrap()
    }

    pub async fn principal(&self) -> Principal {
        self.app.engine.authenticate(&SecretString::from(self.app.admin.as_str())).await.unwrap()
    }

    /// What the service says to a credential, past Overseer.
    pub async fn status_of(&self, credential: &Value) -> StatusCode {
        let me = reqwest::Client::builder().no_proxy().build().unwrap().get(format!("{}/api/me", self.oidc.issuer));
        me.bearer_auth(credential["token"].as_str().unwrap()).send().await.unwrap().status()
    }

    /// How often a refresh token was exchanged, and how often one that was used already was noticed.
    pub async fn refreshes(&self) -> (u64, u64) {
        let counts = self.oidc.counts().await;
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        (number(&counts["results"]["refresh_token"]["200"]), number(&counts["reuses"]))
    }

    /// The kinds of the events about accounts, so far.
    pub fn events(&self) -> Vec<&'static str> {
        let events = self.app.events.lock().unwrap();
        events.iter().map(|event| event.kind).filter(|kind| kind.starts_with("integration.")).collect()
    }
}

/// An intent for the plugin `crm` of one engine, past HTTP.
pub async fn intend(engine: &Arc<Engine>, principal: &Principal) -> Outcome {
    let intent = serde_json::from_value(json!({ "tool": "crm", "intent": "me", "context": {} })).unwrap();
    engine.execute(principal.clone(), intent, RequestOptions::default()).await.unwrap().answer
}

#[tokio::test]
async fn account_lifecycle_is_complete() {
    let setup = Setup::connected().await;
    assert_eq!(setup.intend("me").await.data()["name"], "admin-at-crm");
    let shown = setup.account().await;
    assert_eq!(
        (&shown["account"], &shown["expiresAt"], &shown["renews"], &shown["scopes"]["missing"]),
        (&json!("admin-at-crm"), &json!("2026-11-21T10:00:00Z"), &json!(true), &json!([])),
        "{shown}"
    );
    // Five minutes before its end it is renewed, and not a second before.
    setup.app.clock.advance(3299);
    setup.intend("me").await.data();
    assert_eq!(setup.refreshes().await, (0, 0));
    setup.app.clock.advance(1);
    let before = setup.credential().await;
    setup.intend("me").await.data();
    assert_eq!(setup.refreshes().await, (1, 0));
    let after = setup.credential().await;
    assert_ne!(before["token"], after["token"]);
    assert_ne!(before["refresh_token"], after["refresh_token"]);
    assert_eq!(setup.account().await["expiresAt"], "2026-11-21T10:55:00Z");
    assert_eq!(setup.record().await["generation"], 2);
    assert_eq!(secrets(&setup.app).await, 2, "the client's secret and one version of the credential");

    let gone = setup.app.delete(CRM).await.json();
    assert_eq!((&gone["revoked"], gone.get("notRevokedBecause")), (&json!(true), None), "{gone}");
    assert_eq!(secrets(&setup.app).await, 1);
    // The provider knows it no more.
    assert_eq!(setup.status_of(&after).await, StatusCode::UNAUTHORIZED);
    assert_eq!(setup.events(), ["integration.connected", "integration.refreshed", "integration.disconnected"]);
}

#[tokio::test]
async fn refused_token_is_refreshed_once_for_an_effect() {
    let setup = Setup::connected().await;
    setup.app.clock.advance(60);
    for (action, generation) in [("me", 2), ("echo", 3)] {
        // The provider's clock is ahead of ours: the token is no longer good, although it looks so.
        let token = setup.credential().await["token"].as_str().unwrap().to_owned();
        setup.oidc.expire(&token).await;
        let answer = setup.intend(action).await;
        answer.data();
        assert_eq!(answer.json()["metadata"]["attempts"], 2, "{}", answer.text);
        assert_eq!(setup.record().await["generation"], generation);
        setup.app.clock.advance(60);
    }
    assert_eq!(setup.oidc.counts().await["effects"], 1, "the effect happened once");
    assert_eq!(setup.refreshes().await, (2, 0));
}

#[tokio::test]
async fn skewed_clock_still_refreshes() {
    let setup = Setup::connected().await;
    // Ahead: it looks expired to us, and the provider does not mind.
    setup.app.clock.advance(86_400);
    setup.intend("me").await.data();
    assert_eq!(setup.refreshes().await, (1, 0));
    // Set back: what was given in the future is good for longer than it is.
    setup.app.clock.advance(-86_400);
    setup.intend("me").await.data();
    let token = setup.credential().await["token"].as_str().unwrap().to_owned();
    setup.oidc.expire(&token).await;
    setup.app.clock.advance(86_400 + 60);
    setup.intend("me").await.data();
    assert_eq!(setup.refreshes().await, (2, 0));
}

#[tokio::test]
async fn reused_refresh_token_ends_the_account() {
    let setup = Setup::connected().await;
    let stolen = setup.credential().await["refresh_token"].as_str().unwrap().to_owned();
    let form = oidc::form(&[("grant_type", "refresh_token"), ("refresh_token", &stolen)]);
    let thief = reqwest::Client::builder().no_proxy().build().unwrap().post(format!("{}/token", setup.oidc.issuer));
    let secret = form_encoded(SECRET);
    let answer = thief
        .basic_auth("overseer", Some(secret))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap());

    setup.app.clock.advance(3600);
    let ended = setup.intend("me").await;
    assert_eq!(ended.failure(), "reconnect_required");
    let shown = setup.account().await;
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("revoked"), &json!("invalid_grant")), "{shown}");
    assert_eq!(shown["remedy"], "connect the account again");
    assert_eq!(setup.refreshes().await, (1, 1));
    // Overseer does not ask the provider again.
    assert_eq!(setup.intend("me").await.failure(), "reconnect_required");
    assert_eq!(setup.refreshes().await, (1, 1));
    assert_eq!(setup.events(), ["integration.connected", "integration.failed"]);
    setup.connect().await;
    setup.intend("me").await.data();
    assert_eq!(setup.account().await["state"], "active");
}

/// As a client writes its secret into the header (RFC 6749, 2.3.1).
fn form_encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[tokio::test]
async fn corrected_client_secret_needs_no_reconnect() {
    let setup = Setup::start().await;
    setup.set_secret("not the secret of the client").await;
    let page = setup.connect().await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    assert!(page.text.contains("invalid_client") && page.text.contains("request a new link"), "{}", page.text);
    assert!(accounts(&setup.app, "crm", "admin").await.is_empty());
    assert_eq!(secrets(&setup.app).await, 1, "the client's secret");

    setup.set_secret(SECRET).await;
    setup.connect().await;
    setup.set_secret("not the secret of the client").await;
    setup.app.clock.advance(3600);
    let failed = setup.intend("me").await;
    assert_eq!(failed.failure(), "unavailable");
    assert!(failed.json()["message"].as_str().unwrap().contains("invalid_client"), "{}", failed.text);
    assert_eq!(setup.account().await["lastError"]["code"], "invalid_client");
    setup.set_secret(SECRET).await;
    // The pause after the refusal lapses with the client that was refused.
    setup.intend("me").await.data();
    assert_eq!(setup.refreshes().await, (1, 0));
}

#[tokio::test]
async fn refused_client_is_not_sent_again_at_once() {
    let setup = Setup::start().await;
    setup.connect().await;
    setup.set_secret("not the secret of the client").await;
    setup.app.clock.advance(3600);
    assert_eq!(setup.intend("me").await.failure(), "unavailable");
    let before = setup.oidc.counts().await["calls"].clone();
    assert_eq!(setup.intend("me").await.failure(), "unavailable");
    assert_eq!(setup.oidc.counts().await["calls"], before);
}

#[tokio::test]
async fn denied_consent_connects_nothing() {
    let setup = Setup::start().await;
    let mut browser = Browser::new(&setup.app);
    let provider = browser.go(&link(&setup.app, "crm", &json!({})).await).await;
    let back = setup.oidc.deny(&provider, "admin-at-crm").await;
    let page = browser.open(&back).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    assert!(page.text.contains("Access was denied at the service"), "{}", page.text);
    assert!(accounts(&setup.app, "crm", "admin").await.is_empty());
    assert_eq!(setup.oidc.counts().await["calls"], json!({}));
}

#[tokio::test]
async fn unavailable_provider_is_retried() {
    let setup = Setup::start().await;
    for mode in ["down", "error", "hang_up_before"] {
        setup.oidc.token_endpoint(mode, 1).await;
        let page = setup.connect().await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{mode}");
        assert!(page.text.contains("try again"), "{}", page.text);
        assert!(accounts(&setup.app, "crm", "admin").await.is_empty());
    }
    setup.connect().await;
    // While the token is valid, intents succeed.
    setup.app.clock.advance(3300);
    setup.oidc.token_endpoint("down", 1).await;
    setup.intend("me").await.data();
    assert_eq!(setup.account().await["state"], "error");
    setup.app.clock.advance(300);
    for mode in ["down", "error", "hang_up_before"] {
        setup.oidc.token_endpoint(mode, 1).await;
        let failed = setup.intend("me").await;
        assert_eq!(failed.failure(), "unavailable", "{mode}");
        assert_eq!(failed.json()["error"]["retryable"], json!(true));
        setup.app.clock.advance(failed.json()["error"]["retryAfter"].as_i64().unwrap());
    }
    setup.intend("me").await.data();
    assert_eq!(setup.account().await["state"], "active");
    assert_eq!(setup.refreshes().await, (1, 0));
}

#[tokio::test]
async fn lost_tokens_need_reconnecting() {
    let setup = Setup::connected().await;
    setup.app.clock.advance(3600);
    // The provider has used up the refresh token, and its answer with the next one was lost.
    setup.oidc.token_endpoint("hang_up_after", 1).await;
    assert_eq!(setup.intend("me").await.failure(), "unavailable");
    setup.app.clock.advance(30);
    let lost = setup.intend("me").await;
    assert_eq!(lost.failure(), "reconnect_required");
    assert!(lost.json()["message"].as_str().unwrap().contains("refresh_interrupted"), "{}", lost.text);
    let shown = setup.account().await;
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("reconnect_required"), &json!("refresh_interrupted")));
}

#[tokio::test]
async fn non_rotating_provider_recovers_from_a_lost_answer() {
    let setup = Setup::with(oidc::Options { rotate: false, ..oidc::Options::default() }).await;
    setup.connect().await;
    let before = setup.credential().await["refresh_token"].clone();
    setup.app.clock.advance(3600);
    setup.oidc.token_endpoint("hang_up_after", 1).await;
    assert_eq!(setup.intend("me").await.failure(), "unavailable");
    setup.app.clock.advance(30);
    setup.intend("me").await.data();
    assert_eq!(setup.credential().await["refresh_token"], before);
}

#[tokio::test]
async fn account_without_refresh_token_expires() {
    let setup = Setup::with(oidc::Options { offline_access: true, ..oidc::Options::default() }).await;
    setup.connect().await;
    setup.intend("me").await.data();
    assert_eq!(setup.account().await["renews"], json!(false));
    setup.app.clock.advance(3599);
    setup.intend("me").await.data();
    setup.app.clock.advance(1);
    assert_eq!(setup.intend("me").await.failure(), "reconnect_required");
    let shown = setup.account().await;
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("expired"), &json!("token_expired")), "{shown}");
    assert_eq!(shown["since"], shown["expiresAt"]);
    assert_eq!(setup.refreshes().await, (0, 0));
}
