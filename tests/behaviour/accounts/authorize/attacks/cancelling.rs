//! The button Cancel of the consent page.

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::super::{Browser, leads_to, link, parameter};
use super::{NOT_KNOWN, Stage};

fn cancel() -> String {
    "decision=cancel".to_owned()
}

#[tokio::test]
async fn cancel_uses_up_the_link() {
    let stage = Stage::new().await;
    let mut flow = stage.flow("honest", &json!({})).await;
    let start = format!("/api/plugin-engine/oauth/start/{}", flow.ticket);
    let answer = flow.browser.ask(Method::POST, &start, Some(cancel())).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert!(answer.text.contains("No account was connected, and the link no longer works."), "{}", answer.text);
    for form in [None, Some(cancel())] {
        let again = flow.browser.ask(Method::POST, &start, form).await;
        stage.refused(&again, 400, NOT_KNOWN, &flow).await;
    }
    // The browser was at the provider before; its way back is closed.
    let answer = flow.finish().await;
    stage.refused(&answer, 400, NOT_KNOWN, &flow).await;
}

#[tokio::test]
async fn cancel_tells_the_application() {
    let stage = Stage::new().await;
    let url = link(&stage.app, "honest", &json!({ "returnTo": "https://agent.example/done?flow=7" })).await;
    let mut browser = Browser::new(&stage.app);
    browser.open(&url).await;
    let sent_to = leads_to(&browser.ask(Method::POST, &url, Some(cancel())).await);
    assert!(sent_to.starts_with("https://agent.example/done?"), "{sent_to}");
    assert_eq!(parameter(&sent_to, "flow").as_deref(), Some("7"));
    assert_eq!(parameter(&sent_to, "error").as_deref(), Some("access_denied"));
}

#[tokio::test]
async fn cancel_needs_the_cookie_of_the_page() {
    let stage = Stage::new().await;
    let mut flow = stage.flow("honest", &json!({})).await;
    let start = format!("/api/plugin-engine/oauth/start/{}", flow.ticket);
    let answer = Browser::new(&stage.app).ask(Method::POST, &start, Some(cancel())).await;
    stage.refused(&answer, 400, "Allow cookies for this site", &flow).await;
    flow.finishes().await;
}

#[tokio::test]
async fn unknown_decision_is_refused() {
    let stage = Stage::new().await;
    let mut flow = stage.flow("honest", &json!({})).await;
    let start = format!("/api/plugin-engine/oauth/start/{}", flow.ticket);
    for form in ["", "shown=x", "decision=", "decision=Cancel", "decision=cancel&decision=x"] {
        let answer = flow.browser.ask(Method::POST, &start, Some(form.to_owned())).await;
        stage.refused(&answer, 400, "The form is not that of this page.", &flow).await;
    }
    flow.finishes().await;
}
