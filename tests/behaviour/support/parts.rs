//! Tests of the harness itself: the real OIDC provider, and the real browser.

use axum::Router;
use axum::extract::RawQuery;
use axum::response::Html;
use axum::routing::get;
use reqwest::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Url};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::browser::Browser;
use crate::support::oidc::{Oidc, Options, client, form, service_client};

/// No server listens there: `allow` does not follow the redirect.
const CALLBACK: &str = "http://127.0.0.1:9/callback";
/// The example of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

async fn provider(options: Options) -> Oidc {
    Oidc::with(Options { clients: vec![client("app", "secret", CALLBACK)], ..options }).await
}

fn authorization_url(oidc: &Oidc, redirect_uri: &str, more: &[(&str, &str)]) -> String {
    let mut parameters = vec![
        ("client_id", "app"),
        ("response_type", "code"),
        ("redirect_uri", redirect_uri),
        ("state", "s t"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    parameters.extend(more);
    format!("{}/auth?{}", oidc.issuer, form(&parameters))
}

fn parameter(url: &str, name: &str) -> Option<String> {
    let url = Url::parse(url).unwrap();
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn http() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

async fn answered(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn token_request(oidc: &Oidc, id: &str, secret: &str, parameters: &[(&str, &str)]) -> RequestBuilder {
    let request = http().post(format!("{}/token", oidc.issuer)).basic_auth(id, Some(secret));
    request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form(parameters))
}

async fn redeem(oidc: &Oidc, code: &str) -> (u16, Value) {
    let parameters =
        [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", CALLBACK), ("code_verifier", VERIFIER)];
    answered(token_request(oidc, "app", "secret", &parameters)).await
}

fn refresh_request(oidc: &Oidc, tokens: &Value) -> RequestBuilder {
    let token = tokens["refresh_token"].as_str().unwrap();
    token_request(oidc, "app", "secret", &[("grant_type", "refresh_token"), ("refresh_token", token)])
}

async fn refresh(oidc: &Oidc, tokens: &Value) -> (u16, Value) {
    answered(refresh_request(oidc, tokens)).await
}

async fn me(oidc: &Oidc, tokens: &Value) -> (u16, Value) {
    let token = tokens["access_token"].as_str().unwrap();
    answered(http().get(format!("http://{}/api/me", oidc.address)).bearer_auth(token)).await
}

/// The tokens of `ada`, who allowed the scope `read`.
async fn connected(oidc: &Oidc) -> Value {
    let back = oidc.allow(&authorization_url(oidc, CALLBACK, &[("scope", "read")]), "ada").await;
    let (status, tokens) = redeem(oidc, &parameter(&back, "code").unwrap()).await;
    assert_eq!(status, 200, "{tokens}");
    tokens
}

fn refused(error: &str) -> impl Fn((u16, Value)) {
    move |(status, body)| assert_eq!((status, &body["error"]), (400, &json!(error)), "{body}")
}

#[tokio::test]
async fn code_is_exchanged_for_working_tokens() {
    let oidc = provider(Options { access_ttl_s: 120, ..Options::default() }).await;
    let back = oidc.allow(&authorization_url(&oidc, CALLBACK, &[("scope", "read")]), "ada").await;
    assert!(back.starts_with(CALLBACK), "{back}");
    assert_eq!(parameter(&back, "state").unwrap(), "s t");
    assert_eq!(parameter(&back, "iss").unwrap(), oidc.issuer);
    let code = parameter(&back, "code").unwrap();

    let (status, tokens) = redeem(&oidc, &code).await;
    assert_eq!((status, &tokens["token_type"], &tokens["expires_in"]), (200, &json!("Bearer"), &json!(120)));
    assert_eq!(me(&oidc, &tokens).await, (200, json!({ "name": "ada", "scope": "read" })));
    let echo = http().post(format!("http://{}/api/echo", oidc.address));
    let token = tokens["access_token"].as_str().unwrap();
    assert_eq!(answered(echo.try_clone().unwrap().bearer_auth(token)).await, (200, json!({ "count": 1 })));
    let without = echo.send().await.unwrap();
    assert_eq!((without.status().as_u16(), &without.headers()[WWW_AUTHENTICATE]), (401, &"Bearer".parse().unwrap()));

    // A code works once, and its second use ends what the first one gave.
    refused("invalid_grant")(redeem(&oidc, &code).await);
    assert_eq!(me(&oidc, &tokens).await.0, 401);
    assert_eq!(
        oidc.counts().await,
        json!({
            "calls": { "authorization_code": 2 },
            "results": { "authorization_code": { "200": 1, "invalid_grant": 1 } },
            "reuses": 0, "revocations": 0,
            "resource": { "200": 2, "401": 2 },
            "effects": 1,
        })
    );
}

#[tokio::test]
async fn provider_refuses_forged_credentials() {
    let oidc = provider(Options::default()).await;
    refused("invalid_grant")(redeem(&oidc, "made-up").await);
    refused("invalid_grant")(refresh(&oidc, &json!({ "refresh_token": "made-up" })).await);
    assert_eq!(me(&oidc, &json!({ "access_token": "made-up" })).await.0, 401);
    let wrong = [("grant_type", "refresh_token"), ("refresh_token", "made-up")];
    let (status, body) = answered(token_request(&oidc, "app", "wrong", &wrong)).await;
    assert_eq!((status, &body["error"]), (401, &json!("invalid_client")));
    let unproven = format!("{}/auth?client_id=app&response_type=code&state=s&scope=read", oidc.issuer);
    assert_eq!(parameter(&oidc.allow(&unproven, "ada").await, "error").unwrap(), "invalid_request");
}

#[tokio::test]
async fn reused_refresh_token_revokes_its_family() {
    let oidc = provider(Options::default()).await;
    let first = connected(&oidc).await;
    let other = connected(&oidc).await;
    let (status, second) = refresh(&oidc, &first).await;
    assert_eq!(status, 200, "{second}");
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    assert_eq!(me(&oidc, &second).await.0, 200);

    refused("invalid_grant")(refresh(&oidc, &first).await);
    refused("invalid_grant")(refresh(&oidc, &second).await);
    assert_eq!(me(&oidc, &second).await.0, 401);
    assert_eq!(me(&oidc, &other).await.0, 200, "another consent is another family");
    let counts = oidc.counts().await;
    assert_eq!(counts["results"]["refresh_token"], json!({ "200": 1, "invalid_grant": 2 }));
    assert_eq!(counts["reuses"], json!(1));
}

#[tokio::test]
async fn provider_options_apply() {
    let options = Options { rotate: false, offline_access: true, iss: false, ..Options::default() };
    let oidc = provider(options).await;
    let back = oidc.allow(&authorization_url(&oidc, CALLBACK, &[("scope", "read")]), "ada").await;
    assert_eq!(parameter(&back, "iss"), None);
    let metadata = answered(http().get(format!("{}/.well-known/openid-configuration", oidc.issuer))).await.1;
    assert_eq!(metadata["authorization_response_iss_parameter_supported"], Value::Null);
    assert_eq!(metadata["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(redeem(&oidc, &parameter(&back, "code").unwrap()).await.1["refresh_token"], Value::Null);

    let offline = [("scope", "openid offline_access"), ("prompt", "consent")];
    let back = oidc.allow(&authorization_url(&oidc, CALLBACK, &offline), "ada").await;
    let tokens = redeem(&oidc, &parameter(&back, "code").unwrap()).await.1;
    assert!(tokens["id_token"].is_string(), "{tokens}");
    let (status, again) = refresh(&oidc, &tokens).await;
    assert_eq!((status, &again["refresh_token"]), (200, &tokens["refresh_token"]));
}

#[tokio::test]
async fn denied_consent_returns_an_error() {
    let oidc = provider(Options::default()).await;
    let back = oidc.deny(&authorization_url(&oidc, CALLBACK, &[("scope", "read")]), "ada").await;
    assert_eq!(parameter(&back, "error").unwrap(), "access_denied");
    assert_eq!(parameter(&back, "state").unwrap(), "s t");
    assert_eq!(parameter(&back, "code"), None);
}

#[tokio::test]
async fn provider_ends_an_expired_token() {
    let oidc = provider(Options::default()).await;
    let tokens = connected(&oidc).await;
    oidc.expire(tokens["access_token"].as_str().unwrap()).await;
    assert_eq!(me(&oidc, &tokens).await.0, 401);
    let tokens = refresh(&oidc, &tokens).await.1;
    assert_eq!(me(&oidc, &tokens).await.0, 200);
}

#[tokio::test]
async fn provider_ends_a_revoked_grant() {
    let oidc = provider(Options::default()).await;
    let tokens = connected(&oidc).await;
    let revoke = http().post(format!("{}/token/revocation", oidc.issuer)).basic_auth("app", Some("secret"));
    let token = form(&[("token", tokens["refresh_token"].as_str().unwrap())]);
    let revoke = revoke.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(token);
    assert_eq!(answered(revoke).await.0, 200);
    assert_eq!(me(&oidc, &tokens).await.0, 401);
    refused("invalid_grant")(refresh(&oidc, &tokens).await);
    assert_eq!(oidc.counts().await["reuses"], json!(0));
}

#[tokio::test]
async fn client_credentials_grant_gives_a_token() {
    let oidc = Oidc::start().await;
    oidc.register(&service_client("robot", "secret")).await;
    let asked = [("grant_type", "client_credentials"), ("scope", "read")];
    let (status, tokens) = answered(token_request(&oidc, "robot", "secret", &asked)).await;
    assert_eq!((status, &tokens["refresh_token"]), (200, &Value::Null), "{tokens}");
    assert_eq!(me(&oidc, &tokens).await, (200, json!({ "name": "robot", "scope": "read" })));
    let (status, body) = answered(token_request(&oidc, "robot", "wrong", &asked)).await;
    assert_eq!((status, &body["error"]), (401, &json!("invalid_client")));
}

#[tokio::test]
async fn token_endpoint_fails_on_request() {
    let oidc = provider(Options::default()).await;
    let tokens = connected(&oidc).await;
    oidc.token_endpoint("down", 1).await;
    assert_eq!(refresh(&oidc, &tokens).await.0, 503);
    oidc.token_endpoint("error", 1).await;
    let (status, page) = refresh(&oidc, &tokens).await;
    assert!(status == 500 && page.as_str().unwrap().starts_with("<!doctype html>"), "{page}");
    oidc.token_endpoint("hang_up_before", 1).await;
    refresh_request(&oidc, &tokens).send().await.unwrap_err();
    let (status, tokens) = refresh(&oidc, &tokens).await;
    assert_eq!(status, 200, "nothing was used up: {tokens}");

    // Several at once take their turn: one refreshes, and the others are a reuse.
    oidc.token_endpoint("hold", 2).await;
    let ((), one, other) = tokio::join!(
        async {
            oidc.held(2).await;
            oidc.release().await;
        },
        refresh(&oidc, &tokens),
        refresh(&oidc, &tokens),
    );
    let mut statuses = [one.0, other.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400]);

    let tokens = connected(&oidc).await;
    oidc.token_endpoint("hang_up_after", 1).await;
    refresh_request(&oidc, &tokens).send().await.unwrap_err();
    refused("invalid_grant")(refresh(&oidc, &tokens).await);
    let counts = oidc.counts().await;
    assert_eq!(counts["reuses"], json!(2));
    assert_eq!(counts["calls"]["refresh_token"], json!(8));
    assert_eq!(
        counts["results"]["refresh_token"],
        json!({ "down": 1, "error": 1, "hang_up_before": 1, "200": 2, "invalid_grant": 2, "hang_up_after": 1 })
    );
}

/// Serves a page of the test's own, and gives its origin.
async fn serve(routes: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, routes).into_future());
    origin
}

#[tokio::test]
async fn browser_follows_the_link() {
    const PAGE: &str = "<!doctype html><title>A page</title><form action=/done><input name=who value=nobody>
        <button id=go>Go</button></form><button id=late onclick=\"setTimeout(() => {
        document.body.insertAdjacentHTML('beforeend', '<p id=came>It came late.</p>') })\">Late</button>";
    let origin = serve(
        Router::new()
            .route("/", get(async || ([("set-cookie", "seen=yes; HttpOnly")], Html(PAGE))))
            .route("/done", get(async |RawQuery(query): RawQuery| Html(format!("<p>Done: {}</p>", query.unwrap())))),
    )
    .await;
    let browser = Browser::start().await;
    browser.open(&origin).await;
    assert_eq!(browser.execute("return document.title").await, json!("A page"));
    let cookies = browser.cookies().await;
    assert_eq!((cookies.len(), &cookies[0]["value"], &cookies[0]["httpOnly"]), (1, &json!("yes"), &json!(true)));
    browser.click("#late").await;
    browser.wait_until("document.querySelector('#came')").await;
    assert!(browser.text().await.contains("It came late."));
    browser.fill("input", "Ada").await;
    browser.follow("#go").await;
    assert_eq!(browser.url().await, format!("{origin}/done?who=Ada"));
    assert_eq!(browser.text().await, "Done: who=Ada");
    assert!(browser.source().await.contains("<p>Done: who=Ada</p>"));
}

#[tokio::test]
async fn browser_consents_at_the_provider() {
    let origin = serve(Router::new().route("/callback", get(async || "You can close this page."))).await;
    let callback = format!("{origin}/callback");
    let oidc = Oidc::start().await;
    oidc.register(&client("app", "secret", &callback)).await;
    let browser = Browser::start().await;
    browser.open(&authorization_url(&oidc, &callback, &[("scope", "read")])).await;
    assert!(browser.text().await.contains("app asks for read"));
    browser.fill("[name=login]", "ada").await;
    browser.follow("[value=allow]").await;
    assert_eq!(browser.text().await, "You can close this page.");
    assert!(parameter(&browser.url().await, "code").is_some());

    // The browser is signed in now, and the provider asks only for consent.
    browser.open(&authorization_url(&oidc, &callback, &[("scope", "read"), ("prompt", "consent")])).await;
    assert!(browser.text().await.contains("Signed in as ada."));
    browser.follow("[value=deny]").await;
    assert_eq!(parameter(&browser.url().await, "error").unwrap(), "access_denied");
}
