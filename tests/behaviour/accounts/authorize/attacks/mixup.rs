//! A provider that tries to obtain another's codes or secrets (RFC 9700, 4.4), and a manifest that exposes a secret.

use super::*;

const CLIENT: &str = "honest-client-secret";

/// An authorization request with some of its parameters replaced.
fn forged(request: &str, base: &Provider, replaced: &[(&str, &str)]) -> String {
    let request: url::Url = request.parse().unwrap();
    let mut pairs: Vec<(String, String)> = request.query_pairs().into_owned().collect();
    for (name, value) in &mut pairs {
        if let Some((_, other)) = replaced.iter().find(|(replaced, _)| replaced == name) {
            (*other).clone_into(value);
        }
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    format!("http://{}/authorize?{query}", base.address)
}

#[tokio::test]
async fn code_reaches_its_own_provider_only() {
    let client = json!({ "clientId": "overseer", "clientSecret": CLIENT });
    let stage = Stage::with(&json!({}), &client).await;
    let callback = format!("http://{}/api/plugin-engine/oauth/callback", stage.app.address);
    let honests = format!("{callback}/honest");

    // The user chose the malicious one, which sends the browser on to the honest one: with its own redirect URI, which
    // is not registered there, ...
    let mut flow = stage.flow("other", &json!({})).await;
    assert_eq!(stage.honest.grant(&forged(&flow.request, &stage.honest, &[])), None);
    // ... or with the honest one's: then the answer comes to where this state is not expected.
    let request = forged(&flow.request, &stage.honest, &[("redirect_uri", &honests)]);
    let code = stage.honest.grant(&request).unwrap();
    let url = format!("{honests}?code={code}&state={}", flow.state);
    let answer = flow.browser.open(&url).await;
    stage.refused(&answer, 400, OTHER_PROVIDER, &flow).await;
    let answer = flow.finish().await;
    stage.refused(&answer, 400, NOT_KNOWN, &flow).await;

    // The user chose the honest one, whose answer is turned to the malicious one's address.
    let mut flow = stage.flow("honest", &json!({})).await;
    let answer = flow.browser.open(&format!("{callback}/other?code={}&state={}", flow.code, flow.state)).await;
    stage.refused(&answer, 400, OTHER_PROVIDER, &flow).await;

    // Two attempts in one browser, with their states exchanged.
    let mut honest = stage.flow("honest", &json!({})).await;
    let link = link(&stage.app, "other", &json!({})).await;
    let browser = Browser::with(&stage.app, honest.browser.cookie.clone());
    let other = stage.flow_of("other", &link, browser).await;
    for (back, code, state) in [(&honest.back, &honest.code, &other.state), (&other.back, &honest.code, &honest.state)]
    {
        let answer = honest.browser.open(&format!("{back}?code={code}&state={state}")).await;
        stage.refused(&answer, 400, OTHER_PROVIDER, &other).await;
    }
    assert!(stage.honest.asked().is_empty() && stage.other.asked().is_empty());
}

#[tokio::test]
async fn provider_gets_its_own_client_only() {
    let stage = Stage::with(&json!({}), &json!({ "clientId": "overseer", "clientSecret": CLIENT })).await;
    set_client(&stage.app, "other", &json!({ "clientId": "elsewhere", "clientSecret": "other-client-secret" })).await;
    let (mut honest, mut other) = (stage.flow("honest", &json!({})).await, stage.flow("other", &json!({})).await);
    honest.finishes().await;
    other.finishes().await;
    let decoded = |asked: Vec<String>| {
        let asked = asked.concat();
        let basic = asked.strip_prefix("Basic ").unwrap().split(' ').next().unwrap().to_owned();
        let basic = base64::engine::general_purpose::STANDARD.decode(basic).unwrap();
        format!("{asked} {}", String::from_utf8(basic).unwrap())
    };
    let (honest, other) = (decoded(stage.honest.asked()), decoded(stage.other.asked()));
    for (own, foreign) in [("code-honest", "code-other"), (CLIENT, "other-client-secret"), ("overseer:", "elsewhere:")]
    {
        assert!(honest.contains(own) && !honest.contains(foreign), "{honest}");
        assert!(other.contains(foreign) && !other.contains(own), "{other}");
    }
}

/// RFC 9207: a provider that names itself must do so in every answer, also in one with an error.
#[tokio::test]
async fn callback_of_another_issuer_is_refused() {
    let issuer = "https://honest.example";
    let stage = Stage::with(&json!({ "issuer": issuer }), &json!({ "clientId": "overseer" })).await;
    for iss in
        [None, Some(""), Some("https://other.example"), Some("https://honest.example/"), Some("HTTPS://honest.example")]
    {
        for answers in ["code", "error"] {
            let mut flow = stage.flow("honest", &json!({ "returnTo": "https://agent.example/done" })).await;
            let value = if answers == "code" { flow.code.as_str() } else { "access_denied" };
            let mut pairs = vec![(answers, value), ("state", flow.state.as_str())];
            pairs.extend(iss.map(|iss| ("iss", iss)));
            let answer = flow.browser.open(&flow.with(&pairs)).await;
            stage.refused(&answer, 400, OTHER_PROVIDER, &flow).await;
            let right = flow.with(&[("code", &flow.code), ("state", &flow.state), ("iss", issuer)]);
            let answer = flow.browser.open(&right).await;
            stage.refused(&answer, 400, NOT_KNOWN, &flow).await;
        }
    }
    let mut flow = stage.flow("honest", &json!({})).await;
    for both in [[issuer, issuer], [issuer, "https://other.example"], ["", issuer]] {
        let url = flow.with(&[("code", &flow.code), ("state", &flow.state), ("iss", both[0]), ("iss", both[1])]);
        let answer = flow.browser.open(&url).await;
        stage.refused(&answer, 400, "twice", &flow).await;
    }
    assert!(stage.honest.asked().is_empty());
    let answer = flow.browser.open(&flow.with(&[("code", &flow.code), ("state", &flow.state), ("iss", issuer)])).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}

/// A manifest says where an answer has the account's name and scopes, which are shown; a token is neither.
#[tokio::test]
async fn token_is_never_shown_as_a_name() {
    for (account, scope) in
        [("body.access_token", "body.refresh_token"), ("body.refresh_token ~ ' x'", "body.access_token")]
    {
        let shape = json!({ "token_response": { "account": account, "scope": scope } });
        let stage = Stage::with(&shape, &json!({ "clientId": "overseer" })).await;
        let mut flow = stage.flow("honest", &json!({})).await;
        let page = flow.finish().await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        let shown = json!(accounts(&stage.app, "honest", "admin").await).to_string();
        let events = format!("{:?}", stage.app.events.lock().unwrap());
        for text in [page.text, shown, events] {
            assert!(!text.contains("access-code") && !text.contains("refresh-code"), "{text}");
        }
    }
}
