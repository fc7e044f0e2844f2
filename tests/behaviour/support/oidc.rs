//! A real OIDC provider for one test: npm's oidc-provider, which `tests/providers/oidc.mjs` starts in Node.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Client, Method, StatusCode, Url};
use serde_json::{Value, json};

/// The differences from a provider that rotates refresh tokens, always issues one, and sends `iss`.
pub struct Options {
    /// Client metadata by the names of RFC 7591, as [`client`] makes it.
    pub clients: Vec<Value>,
    /// Scopes that it knows.
    pub scopes: Vec<&'static str>,
    /// A refresh token works once.
    pub rotate: bool,
    /// A refresh token only for the scope `offline_access`, which counts only with `prompt=consent`.
    pub offline_access: bool,
    pub access_ttl_s: u64,
    /// RFC 9207.
    pub iss: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clients: Vec::new(),
            scopes: vec!["openid", "offline_access", "read", "write"],
            rotate: true,
            offline_access: false,
            access_ttl_s: 3600,
            iss: true,
        }
    }
}

/// A client for the authorization code flow that authenticates by `client_secret_basic`.
pub fn client(id: &str, secret: &str, redirect_uri: &str) -> Value {
    json!({
        "client_id": id,
        "client_secret": secret,
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "client_secret_basic",
    })
}

/// A client for the client credentials grant.
pub fn service_client(id: &str, secret: &str) -> Value {
    json!({
        "client_id": id,
        "client_secret": secret,
        "redirect_uris": [],
        "response_types": [],
        "grant_types": ["client_credentials"],
        "token_endpoint_auth_method": "client_secret_basic",
    })
}

/// Parameters as a form or a query.
pub fn form(parameters: &[(&str, &str)]) -> String {
    Url::parse_with_params("http://form", parameters).unwrap().query().unwrap().to_owned()
}

/// A running provider.
pub struct Oidc {
    child: Child,
    /// Such as `http://127.0.0.1:41234`.
    pub issuer: String,
    /// Such as `127.0.0.1:41234`; its resource API is at `/api/me` and `/api/echo`.
    pub address: String,
    http: Client,
}

impl Oidc {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    #[expect(clippy::unused_async, reason = "the other parts start so too")]
    pub async fn with(options: Options) -> Self {
        let providers = Path::new(env!("CARGO_MANIFEST_DIR")).join("providers");
        let node = providers.join("node_modules/.bin/node");
        assert!(node.exists(), "Node or the packages of tests/providers are not there: run tests/run once");
        let options = json!({
            "clients": options.clients,
            "scopes": options.scopes,
            "rotate": options.rotate,
            "refresh": if options.offline_access { "offline_access" } else { "always" },
            "access_ttl_s": options.access_ttl_s,
            "iss": options.iss,
        });
        let mut child = Command::new(node)
            .arg(providers.join("oidc.mjs"))
            .arg(options.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut greeting = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut greeting).unwrap();
        assert!(!greeting.is_empty(), "the provider ended before it was ready; if a package is missing, run tests/run");
        let greeting: Value = serde_json::from_str(&greeting).unwrap();
        let issuer = greeting["issuer"].as_str().unwrap().to_owned();
        let address = issuer.strip_prefix("http://").unwrap().to_owned();
        let http = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { child, issuer, address, http }
    }

    /// Adds a client to the running provider, for a redirect URI that was not known when it started.
    pub async fn register(&self, client: &Value) {
        self.control(Method::POST, "clients", client).await;
    }

    /// Signs in as `account`, grants consent, and returns the URL that the browser is redirected to.
    pub async fn allow(&self, authorization_url: &str, account: &str) -> String {
        self.decide(authorization_url, &[("login", account), ("decision", "allow")]).await
    }

    /// Denies consent, and returns the URL that the browser is redirected to.
    pub async fn deny(&self, authorization_url: &str, account: &str) -> String {
        self.decide(authorization_url, &[("login", account), ("decision", "deny")]).await
    }

    /// Follows the flow as a browser without cookies.
    async fn decide(&self, authorization_url: &str, decision: &[(&str, &str)]) -> String {
        let mut cookies = BTreeMap::new();
        let mut url = Url::parse(authorization_url).unwrap();
        let mut filled_in = None;
        for _ in 0..10 {
            let mut request = match filled_in.take() {
                Some(form) => self.http.post(url.clone()).body(form),
                None => self.http.get(url.clone()),
            };
            if !cookies.is_empty() {
                let all: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
                request = request.header(COOKIE, all.join("; "));
            }
            let answer = request.send().await.unwrap();
            for cookie in answer.headers().get_all(SET_COOKIE) {
                let (name, value) = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
                cookies.insert(name.to_owned(), value.to_owned());
            }
            if let Some(location) = answer.headers().get(LOCATION) {
                url = url.join(location.to_str().unwrap()).unwrap();
                if !url.as_str().starts_with(&format!("{}/", self.issuer)) {
                    return url.into();
                }
            } else {
                let status = answer.status();
                let page = answer.text().await.unwrap();
                assert!(status == StatusCode::OK && page.contains("name=\"decision\""), "{url}: {status} {page}");
                filled_in = Some(form(decision));
            }
        }
        panic!("the provider does not come to an end: {url}");
    }

    /// `calls` of the token endpoint by grant type, their `results` by grant type and result (the status of a success,
    /// the code of an OAuth error, or the mode of a switch), how many `reuses` of a refresh token it noticed, how many `revocations` it took, the calls of
    /// the `resource` API by status, and the `effects` of `/api/echo`.
    pub async fn counts(&self) -> Value {
        self.control(Method::GET, "counts", &Value::Null).await
    }

    /// Ends an access token before the time that the client was told.
    pub async fn expire(&self, access_token: &str) {
        self.control(Method::POST, "expire", &json!({ "access_token": access_token })).await;
    }

    /// What the next `calls` calls of the token endpoint meet: `ok`, `down` (503), `error` (500 with HTML),
    /// `hang_up_before` or `hang_up_after` it was done, or `hold` until [`Oidc::release`].
    pub async fn token_endpoint(&self, mode: &str, calls: u32) {
        self.control(Method::POST, "token-endpoint", &json!({ "mode": mode, "calls": calls })).await;
    }

    /// Waits until this many calls of the token endpoint are held.
    pub async fn held(&self, calls: u32) {
        self.control(Method::POST, "held", &json!({ "calls": calls })).await;
    }

    /// Releases the held calls, and holds no more.
    pub async fn release(&self) {
        self.control(Method::POST, "release", &json!({})).await;
    }

    async fn control(&self, method: Method, what: &str, body: &Value) -> Value {
        let request = self.http.request(method, format!("{}/control/{what}", self.issuer)).body(body.to_string());
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{what}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Oidc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
