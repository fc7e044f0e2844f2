//! Connecting through a browser, against the playground's OAuth servers: what each step answers and stores.

mod attacks;
mod chromium;

use overseer_engine::access::principal::Role;
use overseer_engine::ports::table::{Query, Read};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use crate::support::app::{Answer, App, Options};

/// A user's browser, reduced to one cookie and the form of one page.
pub struct Browser<'a> {
    pub app: &'a App,
    pub cookie: Option<String>,
    /// What the button Continue of the last consent page sends.
    pub consent: String,
    /// The current URL: the page's links and forms are relative to it.
    at: Url,
}

impl<'a> Browser<'a> {
    pub fn new(app: &'a App) -> Self {
        Self::with(app, None)
    }

    pub fn with(app: &'a App, cookie: Option<String>) -> Self {
        let at = format!("http://{}", app.address).parse().unwrap();
        Self { app, cookie, consent: consent(""), at }
    }

    /// Opens a URL of this Overseer or its playground, without following where it leads.
    pub async fn open(&mut self, url: &str) -> Answer {
        self.ask(Method::GET, url, None).await
    }

    /// Sends a request with a form. A `POST` without one presses Continue on the last consent page.
    pub async fn ask(&mut self, method: Method, url: &str, form: Option<String>) -> Answer {
        self.at = self.at.join(url).unwrap();
        let form = form.or_else(|| (method == Method::POST).then(|| self.consent.clone()));
        let mut request = self.app.client.request(method, self.at.clone());
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        if let Some(form) = form {
            request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        }
        let answer = Answer::of(request.send().await.unwrap()).await;
        if let Some(set) = answer.headers.get("set-cookie") {
            self.cookie = Some(set.to_str().unwrap().split(';').next().unwrap().to_owned());
        }
        if answer.text.contains(SHOWN) {
            self.consent = consent(&answer.text);
        }
        answer
    }

    /// From the link to the provider's page: looks, and clicks. Gives the provider's URL.
    pub async fn go(&mut self, connect_url: &str) -> String {
        let page = self.open(connect_url).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        leads_to(&self.ask(Method::POST, connect_url, None).await)
    }

    /// Decides on the playground's consent page. Gives the URL that the browser is sent back to.
    pub async fn decide(&mut self, authorization_url: &str, decision: &str) -> String {
        let page = self.open(authorization_url).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        let request = page.text.split("name=\"request\" value=\"").nth(1).unwrap().split('"').next().unwrap();
        let action = page.text.split("action=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let form = format!("request={request}&decision={decision}");
        leads_to(&self.ask(Method::POST, &action, Some(form)).await)
    }
}

/// How the consent page's form begins to say what the page showed.
const SHOWN: &str = "name=\"shown\" value=\"";

/// What the button Continue of a consent page sends.
pub fn consent(page: &str) -> String {
    let shown = page.split(SHOWN).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    format!("decision=continue&shown={shown}")
}

/// Where an answer sends a browser.
#[track_caller]
pub fn leads_to(answer: &Answer) -> String {
    assert!(answer.status.is_redirection(), "{} {}", answer.status, answer.text);
    answer.headers["location"].to_str().unwrap().to_owned()
}

/// The value of a URL's parameter.
pub fn parameter(url: &str, name: &str) -> Option<String> {
    let url: Url = url.parse().unwrap();
    url.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}

/// Asks for a link.
pub async fn link(app: &App, plugin: &str, body: &Value) -> String {
    let answer = app.post(&format!("/api/plugin-engine/integrations/{plugin}/connect"), body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json()["connectUrl"].as_str().unwrap().to_owned()
}

/// The accounts that `user` sees at a plugin.
pub async fn accounts(app: &App, plugin: &str, user: &str) -> Vec<Value> {
    let answer = app.get(&format!("/api/plugin-engine/integrations/{plugin}?userId={user}")).await;
    answer.json()["accounts"].as_array().unwrap().clone()
}

pub async fn unconnected() -> App {
    App::with(Options {
        unconnected: true,
        return_to: vec!["https://agent.example/done".to_owned()],
        ..Options::default()
    })
    .await
}

/// An intent of each plugin that only a good token lets succeed.
fn reads(plugin: &str) -> (&'static str, Value) {
    match plugin {
        "slack" => ("fetch", json!({ "channel": "C0PLAYGEN1" })),
        "gmail" => ("fetch", json!({ "limit": 1 })),
        _ => ("search", json!({ "query": "Tasks" })),
    }
}

#[tokio::test]
async fn every_plugin_completes_the_account_lifecycle() {
    let app = unconnected().await;
    for (plugin, account) in
        [("slack", "you at Playground"), ("gmail", "you@playground.example"), ("notion", "Playground")]
    {
        let mut browser = Browser::new(&app);
        let provider = browser.go(&link(&app, plugin, &json!({})).await).await;
        let back = browser.decide(&provider, "allow").await;
        let page = browser.open(&back).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        assert!(page.text.contains(account), "{}", page.text);

        let connected = &accounts(&app, plugin, "admin").await[0];
        assert_eq!(
            (&connected["state"], &connected["account"], &connected["renews"], &connected["scopes"]["missing"]),
            (
                &json!("active"),
                &json!(account),
                &json!(true),
                &if plugin == "notion" { Value::Null } else { json!([]) }
            ),
            "{connected}"
        );
        let (intent, context) = reads(plugin);
        app.intend(plugin, intent, context.clone()).await.data();
        // Past its end for us as for the provider (Notion does not say: there only the refusal tells).
        app.clock.advance(3601);
        let renewed = app.intend(plugin, intent, context.clone()).await;
        renewed.data();
        let attempts = if plugin == "notion" { 2 } else { 1 };
        assert_eq!(renewed.json()["metadata"]["attempts"], attempts, "{}", renewed.text);

        let gone = app.delete(&format!("/api/plugin-engine/integrations/{plugin}")).await.json();
        assert_eq!((&gone["revoked"], &gone["tasks"]), (&json!(true), &json!([])), "{gone}");
        assert_eq!(app.intend(plugin, intent, context).await.failure(), "not_connected");
        assert!(accounts(&app, plugin, "admin").await.is_empty());
    }
    let events: Vec<_> = app.events.lock().unwrap().iter().map(|event| event.kind).collect();
    let each = ["integration.connected", "integration.refreshed", "integration.disconnected"];
    assert_eq!(events.into_iter().filter(|kind| kind.starts_with("integration")).collect::<Vec<_>>(), each.repeat(3));
}

#[tokio::test]
async fn consent_page_names_all_parties() {
    let app = unconnected().await;
    let url = link(&app, "slack", &json!({ "userId": "<b>ann</b>", "alias": "work", "scopes": ["chat:write"] })).await;
    let page = Browser::new(&app).open(&url).await;
    for said in ["acme", "&lt;b&gt;ann&lt;/b&gt;", "Slack", "work", "<code>chat:write</code>", "127.0.0.1"] {
        assert!(page.text.contains(said), "{said}: {}", page.text);
    }
    assert!(!page.text.contains("channels:read"), "{}", page.text);
    for (header, value) in [
        ("cache-control", "no-store"),
        ("referrer-policy", "same-origin"),
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(page.headers[header], value, "{header}");
    }
    assert!(page.headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    let cookie = page.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("; HttpOnly; SameSite=Lax") && cookie.contains("; Path=/; Max-Age=600"), "{cookie}");
}

#[tokio::test]
async fn link_request_sets_no_cookie() {
    let app = unconnected().await;
    let answer = app.post("/api/plugin-engine/integrations/slack/connect", &json!({})).await;
    assert!(answer.headers.get("set-cookie").is_none());
    assert_eq!(answer.json()["expiresAt"], "2026-11-21T09:10:00Z");
    let url = answer.json()["connectUrl"].as_str().unwrap().to_owned();
    let ticket = url.rsplit('/').next().unwrap().to_owned();
    assert_eq!(ticket.len(), 64);
    let mut browser = Browser::new(&app);
    let provider = browser.go(&url).await;
    let (state, challenge) =
        (parameter(&provider, "state").unwrap(), parameter(&provider, "code_challenge_method").unwrap());
    assert_eq!(challenge, "S256");
    // What is stored names neither; nor the browser's secret, nor the verifier.
    let cookie = browser.cookie.clone().unwrap();
    let secret = cookie.split('=').nth(1).unwrap();
    for hashed in [&ticket, &state] {
        let kind = if *hashed == ticket { "ticket" } else { "state" };
        let hash = sha256(hashed);
        let table = &app.engine.ports.table;
        let items = table.query(Query::partition(format!("{kind}#{hash}"), 10)).await.unwrap().entries;
        assert_eq!(items.len(), 1, "{kind}");
        let item = table.get(&items[0].stored.key, Read::Consistent).await.unwrap().unwrap();
        // The link is still looked for when the browser comes back, which may be ten minutes later.
        let ends = if kind == "ticket" { "2026-11-21T09:20:00Z" } else { "2026-11-21T09:10:00Z" };
        assert_eq!(item.stored.expires_at.unwrap().to_string(), ends);
        for secret in [ticket.as_str(), state.as_str(), secret] {
            assert!(!item.stored.body.contains(secret), "{}", item.stored.body);
        }
    }
}

/// In hexadecimal digits.
pub fn sha256(text: &str) -> String {
    use std::fmt::Write as _;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

#[tokio::test]
async fn account_with_return_to_waits_for_its_user() {
    let app = unconnected().await;
    let body = json!({ "userId": "ann", "returnTo": "https://agent.example/done?x=1" });
    let mut browser = Browser::new(&app);
    let provider = browser.go(&link(&app, "slack", &body).await).await;
    let back = browser.decide(&provider, "allow").await;
    let on = leads_to(&browser.open(&back).await);
    assert!(on.starts_with("https://agent.example/done?x=1&code="), "{on}");
    let code = parameter(&on, "code").unwrap();

    let pending = &accounts(&app, "slack", "ann").await[0];
    assert_eq!((&pending["state"], &pending["reason"]), (&json!("pending"), &json!("not_completed")), "{pending}");
    let intent = json!({ "userId": "ann", "tool": "slack", "intent": "fetch", "context": { "channel": "C0PLAYGEN1" } });
    assert_eq!(app.post("/api/plugin-engine", &intent).await.failure(), "not_connected");

    let complete = "/api/plugin-engine/integrations/slack/connect/complete";
    for wrong in [json!({ "userId": "ann", "code": "0".repeat(64) }), json!({ "userId": "ann", "code": "x" })] {
        assert_eq!(app.post(complete, &wrong).await.pointers(), ["/code"]);
    }
    let other = "/api/plugin-engine/integrations/gmail/connect/complete";
    assert_eq!(app.post(other, &json!({ "userId": "ann", "code": code })).await.pointers(), ["/code"]);
    let done = app.post(complete, &json!({ "userId": "ann", "code": code })).await;
    assert_eq!(done.json()["state"], "active", "{}", done.text);
    app.post("/api/plugin-engine", &intent).await.data();
    // Once.
    assert_eq!(app.post(complete, &json!({ "userId": "ann", "code": code })).await.pointers(), ["/code"]);
    assert_eq!(accounts(&app, "slack", "ann").await.len(), 1);
}

#[tokio::test]
async fn account_allowed_by_another_user_is_revoked() {
    let app = unconnected().await;
    // Mallory asks, and gets Ann to open the link and to allow it.
    let mallory = app.key("acme", &[Role::User], Some("mallory")).await;
    let ann = app.key("acme", &[Role::User], Some("ann")).await;
    let connect = "/api/plugin-engine/integrations/slack/connect";
    let body = json!({ "returnTo": "https://agent.example/done" });
    let url = app.send(&mallory, Method::POST, connect, Some(&body)).await.json()["connectUrl"].clone();
    let mut browser = Browser::new(&app);
    let provider = browser.go(url.as_str().unwrap()).await;
    let back = browser.decide(&provider, "allow").await;
    let code = parameter(&leads_to(&browser.open(&back).await), "code").unwrap();
    // Ann's browser came back to the application, where Ann is signed in.
    let complete = format!("{connect}/complete");
    let answer = app.send(&ann, Method::POST, &complete, Some(&json!({ "code": code }))).await;
    assert_eq!(answer.problem(403), "forbidden");
    // Neither user has the account: the code no longer works.
    let answer = app.send(&mallory, Method::POST, &complete, Some(&json!({ "code": code }))).await;
    assert_eq!(answer.pointers(), ["/code"]);
    for user in ["ann", "mallory"] {
        assert!(accounts(&app, "slack", user).await.is_empty(), "{user}");
    }
    let revoked = app.playground.received().into_iter().any(|call| call.path.ends_with("/auth.revoke"));
    assert!(revoked, "the tokens were not given back");
    assert_eq!(secrets(&app).await, 0);
}

/// How many secrets the organization has in its vault, of accounts that are waiting or were.
pub async fn secrets(app: &App) -> usize {
    app.table.items().await.iter().filter(|key| key.partition.starts_with("org#acme#secret#")).count()
}

#[tokio::test]
async fn unconfirmed_account_is_revoked_after_ten_minutes() {
    let app = unconnected().await;
    let mut browser = Browser::new(&app);
    let provider = browser.go(&link(&app, "gmail", &json!({ "returnTo": "https://agent.example/done" })).await).await;
    let back = browser.decide(&provider, "allow").await;
    let code = parameter(&leads_to(&browser.open(&back).await), "code").unwrap();
    assert_eq!(secrets(&app).await, 1);
    app.clock.advance(600);
    let complete = "/api/plugin-engine/integrations/gmail/connect/complete";
    assert_eq!(app.post(complete, &json!({ "code": code })).await.pointers(), ["/code"]);
    // As after a restart: what is overdue fires at once.
    app.engine.set_alarms().await.unwrap();
    while secrets(&app).await > 0 {
        tokio::task::yield_now().await;
    }
    assert!(accounts(&app, "gmail", "admin").await.is_empty());
}

#[tokio::test]
async fn expired_pending_account_spares_the_active_one() {
    let app = unconnected().await;
    let back = async |body: Value| {
        let mut browser = Browser::new(&app);
        let provider = browser.go(&link(&app, "slack", &body).await).await;
        let back = browser.decide(&provider, "allow").await;
        browser.open(&back).await;
    };
    back(json!({})).await;
    // The same user connects again under another alias and does not confirm it.
    back(json!({ "alias": "again", "returnTo": "https://agent.example/done" })).await;
    assert_eq!(secrets(&app).await, 2);
    app.clock.advance(600);
    app.engine.set_alarms().await.unwrap();
    while secrets(&app).await > 1 {
        tokio::task::yield_now().await;
    }
    let revoked = async || app.playground.received().into_iter().any(|call| call.path.ends_with("/auth.revoke"));
    assert!(!revoked().await, "a provider with one grant for each person would have ended the other, too");
    // Nor does one of two that are the same at the provider.
    back(json!({ "alias": "twin" })).await;
    let gone = app.delete("/api/plugin-engine/integrations/slack?alias=twin").await.json();
    assert_eq!(gone["revoked"], json!(false));
    assert!(gone["notRevokedBecause"].as_str().unwrap().contains("\"default\""), "{gone}");
    assert_eq!(app.delete("/api/plugin-engine/integrations/slack").await.json()["revoked"], json!(true));
    assert!(revoked().await);
}

#[tokio::test]
async fn link_followed_twice_connects_one_account() {
    let app = unconnected().await;
    let url = link(&app, "slack", &json!({})).await;
    let (mut first, mut second) = (Browser::new(&app), Browser::new(&app));
    let (to_first, to_second) = (first.go(&url).await, second.go(&url).await);
    let (first_back, second_back) = (first.decide(&to_first, "allow").await, second.decide(&to_second, "allow").await);
    assert_eq!(first.open(&first_back).await.status, StatusCode::OK);
    let late = second.open(&second_back).await;
    assert_eq!(late.status, StatusCode::BAD_REQUEST);
    assert!(late.text.contains("used already"), "{}", late.text);
    assert_eq!(secrets(&app).await, 1);
}

#[tokio::test]
async fn late_click_gets_its_own_ten_minutes() {
    let app = unconnected().await;
    let url = link(&app, "slack", &json!({})).await;
    let mut browser = Browser::new(&app);
    app.clock.advance(599);
    let provider = browser.go(&url).await;
    app.clock.advance(599);
    let back = browser.decide(&provider, "allow").await;
    assert_eq!(browser.open(&back).await.status, StatusCode::OK);
}

#[tokio::test]
async fn account_limit_is_checked_before_consent() {
    let app = unconnected().await;
    let connect = "/api/plugin-engine/integrations/slack/connect";
    for number in 0..20 {
        app.post(connect, &json!({ "token": "xoxb-playground", "alias": format!("a{number}") })).await.json();
    }
    assert_eq!(app.post(connect, &json!({ "alias": "one-more" })).await.pointers(), ["/alias"]);
    assert_eq!(app.post(connect, &json!({ "alias": "a3" })).await.status, StatusCode::OK);
}
