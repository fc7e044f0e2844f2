//! The consent page that a link opens.

use std::fs;
use std::path::Path;

use tempfile::tempdir;

use super::*;
use crate::support::process::Server;

async fn all(app: &App) -> Vec<Key> {
    app.table.items().await
}

#[tokio::test]
async fn viewing_a_link_changes_nothing() {
    let app = super::super::unconnected().await;
    let url = link(&app, "slack", &json!({})).await;
    let before = all(&app).await;
    // Chats and mail scanners look at links, again and again, and keep no cookies.
    for method in [Method::GET, Method::HEAD, Method::GET] {
        for _ in 0..20 {
            let answer = Browser::new(&app).ask(method.clone(), &url, None).await;
            assert_eq!(answer.status, StatusCode::OK);
            assert_eq!(answer.text.is_empty(), method == Method::HEAD);
        }
    }
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let answer = Browser::new(&app).ask(method, &url, None).await;
        assert_eq!(answer.problem(405), "method_not_allowed");
    }
    assert_eq!(all(&app).await, before);
    let mut browser = Browser::new(&app);
    let provider = browser.go(&url).await;
    let back = browser.decide(&provider, "allow").await;
    assert_eq!(browser.open(&back).await.status, StatusCode::OK);
}

/// Only a click on the page goes on: no other site's form, and no browser that never saw the page.
#[tokio::test]
async fn consent_click_needs_the_pages_own_origin() {
    let stage = Stage::new().await;
    let app = &stage.app;
    let mut flow = stage.flow("honest", &json!({})).await;
    let url = link(app, "honest", &json!({})).await;
    let path = url.replace(&format!("http://{}", app.address), "");
    let before = all(app).await;
    let cookie = flow.browser.cookie.clone().unwrap();
    let name = cookie.split('=').next().unwrap();
    for cookie in [None, Some(format!("{name}=x")), Some(format!("{cookie}; {cookie}")), Some(format!("x{cookie}"))] {
        let answer = Browser::with(app, cookie).ask(Method::POST, &url, None).await;
        stage.refused(&answer, 400, "Allow cookies for this site", &flow).await;
    }
    let form = consent(&Browser::with(app, Some(cookie.clone())).open(&url).await.text);
    let click = async |name: &str, value: &str| {
        let request = app.request(Method::POST, &path).header("cookie", &cookie).header(name, value);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form.clone());
        Answer::of(request.send().await.unwrap()).await
    };
    let port = app.address.port();
    let others = format!("http://127.0.0.1:{}", port.wrapping_add(1));
    for origin in ["https://evil.example", "null", &others, &format!("https://127.0.0.1:{port}"), ""] {
        assert_eq!(click("origin", origin).await.problem(403), "forbidden", "{origin}");
    }
    for site in ["cross-site", "same-site", "none", "", "same-origin, cross-site"] {
        let answer = click("sec-fetch-site", site).await;
        stage.refused(&answer, 403, "did not come from this page", &flow).await;
    }
    assert_eq!(all(app).await, before, "an attempt was begun");
    leads_to(&click("sec-fetch-site", "same-origin").await);
    leads_to(&click("origin", &format!("http://127.0.0.1:{port}")).await);
    flow.finishes().await;
}

#[tokio::test]
async fn link_expires_after_ten_minutes() {
    let stage = Stage::new().await;
    let mut flow = stage.flow("honest", &json!({})).await;
    let start = format!("/api/plugin-engine/oauth/start/{}", flow.ticket);
    stage.app.clock.advance(599);
    assert_eq!(flow.browser.open(&start).await.status, StatusCode::OK);
    // A late click has its ten minutes at the provider, and so has the cookie.
    let before = flow.browser.cookie.clone();
    let clicked = flow.browser.ask(Method::POST, &start, None).await;
    leads_to(&clicked);
    assert!(clicked.headers["set-cookie"].to_str().unwrap().contains("; Max-Age=600; HttpOnly; SameSite=Lax"));
    assert_eq!(flow.browser.cookie, before);
    stage.app.clock.advance(1);
    for method in [Method::GET, Method::POST] {
        let answer = flow.browser.ask(method, &start, None).await;
        stage.refused(&answer, 400, NOT_KNOWN, &flow).await;
    }

    let mut flow = stage.flow("honest", &json!({})).await;
    let start = format!("/api/plugin-engine/oauth/start/{}", flow.ticket);
    flow.finishes().await;
    for method in [Method::GET, Method::POST] {
        let answer = flow.browser.ask(method, &start, None).await;
        is_page(&answer, 400, NOT_KNOWN, &flow);
        assert!(answer.headers.get("set-cookie").is_none());
    }
}

#[tokio::test]
async fn invalid_ticket_gets_a_page() {
    let stage = Stage::new().await;
    let flow = stage.flow("honest", &json!({})).await;
    let (upper, long) = (flow.ticket.to_ascii_uppercase(), "a".repeat(60_000));
    for ticket in [
        "0",
        &upper,
        &flow.state,
        "%00",
        "%FF",
        "%FF%FE",
        "..%2F..%2Fkeys",
        "%3Cscript%3E",
        "%0d%0aset-cookie:x",
        "a%20b",
        &long,
    ] {
        for method in [Method::GET, Method::POST] {
            let url = format!("/api/plugin-engine/oauth/start/{ticket}");
            let answer = Browser::with(&stage.app, flow.browser.cookie.clone()).ask(method, &url, None).await;
            stage.refused(&answer, 400, NOT_KNOWN, &flow).await;
            assert!(!answer.text.contains("script>"), "{}", answer.text);
        }
    }
}

/// Connects Slack at a server, in a browser that gets links wrong and comes back too often, for an application that confirms the
/// account. Gives every secret on the way.
async fn connect(server: &Server, key: &str, decision: &str) -> Vec<String> {
    let base = format!("http://{}", server.address);
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let sent = async |request: reqwest::RequestBuilder| Answer::of(request.send().await.unwrap()).await;
    let json = |request: reqwest::RequestBuilder, body: Value| {
        request.bearer_auth(key).header("content-type", "application/json").body(body.to_string())
    };
    let form = |url: &str, body: String| {
        client.post(url).header("content-type", "application/x-www-form-urlencoded").body(body)
    };
    let mut secrets = vec![key.to_owned()];
    let connect = format!("{base}/api/plugin-engine/integrations/slack/connect");
    let asked = sent(json(client.post(&connect), json!({ "returnTo": "https://agent.example/done" }))).await;
    let link = asked.json()["connectUrl"].as_str().unwrap().to_owned();
    secrets.push(link.rsplit('/').next().unwrap().to_owned());
    // As people and programs get links wrong.
    for wrong in
        [format!("{link}/"), format!("{link}/x"), format!("{link}%20"), format!("{link}?x"), format!("{link}).")]
    {
        sent(client.get(wrong)).await;
    }
    sent(client.put(&link)).await;
    let page = sent(client.get(&link)).await;
    let cookie = page.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    secrets.push(cookie.split('=').nth(1).unwrap().to_owned());
    let request = leads_to(&sent(form(&link, consent(&page.text)).header("cookie", &cookie)).await);
    secrets.push(parameter(&request, "state").unwrap());
    let page = sent(client.get(&request)).await;
    let asked = page.text.split("name=\"request\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let decided =
        form(&format!("{base}/playground/oauth/slack/consent"), format!("request={asked}&decision={decision}"));
    let back = leads_to(&sent(decided).await);
    secrets.extend(parameter(&back, "code"));
    sent(client.get(&back)).await;
    sent(client.get(format!("{back}&state=twice")).header("cookie", &cookie)).await;
    let on = leads_to(&sent(client.get(&back).header("cookie", &cookie)).await);
    if let Some(code) = parameter(&on, "code") {
        let confirmed = sent(json(client.post(format!("{connect}/complete")), json!({ "code": code }))).await;
        assert_eq!(confirmed.json()["state"], "active", "{}", confirmed.text);
        secrets.push(code);
    }
    secrets
}

fn start(folder: &Path, variables: &[(&str, &str)]) -> (Server, String) {
    let variables = [&[("OVERSEER_RETURN_TO", "https://agent.example/done")], variables].concat();
    let server = Server::start(folder, &[], &variables);
    (server, fs::read_to_string(folder.join("admin-key")).unwrap().trim().to_owned())
}

/// The log is read by more people than may connect an account.
#[tokio::test]
async fn log_has_no_secret_of_an_attempt() {
    let folder = tempdir().unwrap();
    let (mut server, key) = start(folder.path(), &[("OVERSEER_LOG", "trace")]);
    let secrets = [connect(&server, &key, "deny").await, connect(&server, &key, "allow").await].concat();
    server.kill();
    let log = server.whole_log();
    assert!(log.contains("/api/plugin-engine/oauth/start/…") && log.contains("/oauth/callback/slack"), "{log}");
    assert_eq!(secrets.len(), 10);
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(&secret));
        assert_eq!(line, None, "{secret}");
    }
}

#[tokio::test]
async fn denial_is_the_outcome_of_its_span() {
    let folder = tempdir().unwrap();
    let (mut server, key) = start(folder.path(), &[("OVERSEER_LOG", "debug"), ("OVERSEER_LOG_FORMAT", "json")]);
    connect(&server, &key, "deny").await;
    server.kill();
    let log = server.whole_log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let callbacks: Vec<Value> =
        lines.map(|line| line["span"].clone()).filter(|span| span["name"] == "callback").collect();
    let outcomes: Vec<&Value> = callbacks.iter().map(|span| &span["outcome"]).collect();
    assert_eq!(outcomes, ["other_browser", "denied"], "{callbacks:#?}");
}
