//! A real browser: headless Chromium, driven through chromedriver by the W3C's `WebDriver` standard.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a page may take to show an element.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The key of an element's reference in the standard.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A running browser with one window and a fresh profile.
pub struct Browser {
    driver: Child,
    /// Held open: the driver keeps writing to it.
    _out: BufReader<ChildStdout>,
    port: u16,
    session: String,
    http: Client,
    _profile: TempDir,
}

impl Browser {
    pub async fn start() -> Self {
        let profile = TempDir::new().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("TMPDIR", profile.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("chromedriver: {error}: run tests/run once"));
        let mut out = BufReader::new(driver.stdout.take().unwrap());
        let port = loop {
            let mut line = String::new();
            assert!(out.read_line(&mut line).unwrap() > 0, "chromedriver ended before it was ready");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim().trim_end_matches('.').parse().unwrap();
            }
        };
        // Some containers give /dev/shm too little room for a page.
        let mut arguments = vec!["--headless=new".to_owned(), "--disable-dev-shm-usage".to_owned()];
        arguments.push(format!("--user-data-dir={}", profile.path().join("profile").display()));
        // Chromium's sandbox refuses to run as root.
        if profile.path().metadata().unwrap().uid() == 0 {
            arguments.push("--no-sandbox".to_owned());
        }
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "timeouts": { "implicit": TIMEOUT.as_secs() * 1000, "pageLoad": 30_000, "script": 30_000 },
            "goog:chromeOptions": { "args": arguments },
        } } });
        let http = Client::builder().no_proxy().build().unwrap();
        // The Browser exists before its session: the driver also ends if the session cannot start.
        let mut browser = Self { driver, _out: out, port, session: String::new(), http, _profile: profile };
        let session = browser.ask(Method::POST, "", &capabilities).await.unwrap();
        browser.session = format!("/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    pub async fn open(&self, url: &str) {
        self.ask(Method::POST, "/url", &json!({ "url": url })).await.unwrap();
    }

    pub async fn url(&self) -> String {
        self.text_of("/url").await
    }

    /// The text of the page, as a person sees it.
    pub async fn text(&self) -> String {
        let body = self.find("body").await;
        self.text_of(&format!("/element/{body}/text")).await
    }

    pub async fn source(&self) -> String {
        self.text_of("/source").await
    }

    /// The cookies that belong to the page, also those that its scripts cannot see.
    pub async fn cookies(&self) -> Vec<Value> {
        self.ask(Method::GET, "/cookie", &Value::Null).await.unwrap().as_array().unwrap().clone()
    }

    /// Clicks an element without waiting for the effect.
    pub async fn click(&self, css: &str) {
        let element = self.find(css).await;
        self.ask(Method::POST, &format!("/element/{element}/click"), &json!({})).await.unwrap();
    }

    /// Clicks an element that leads to another page, and waits until that one is there. (The driver waits only for a
    /// page that is already on its way when the click returns.)
    pub async fn follow(&self, css: &str) {
        self.execute("window.isLeftBehind = true").await;
        self.click(css).await;
        self.wait_until("!window.isLeftBehind && document.readyState === 'complete'").await;
    }

    /// Empties a field, and types into it.
    pub async fn fill(&self, css: &str, text: &str) {
        let element = self.find(css).await;
        self.ask(Method::POST, &format!("/element/{element}/clear"), &json!({})).await.unwrap();
        self.ask(Method::POST, &format!("/element/{element}/value"), &json!({ "text": text })).await.unwrap();
    }

    /// Runs the body of a function in the page, and returns its value.
    pub async fn execute(&self, js: &str) -> Value {
        self.ask(Method::POST, "/execute/sync", &json!({ "script": js, "args": [] })).await.unwrap()
    }

    /// Waits until an expression is true in the current page.
    pub async fn wait_until(&self, expression: &str) {
        // The page answers with its next frame, which paces the loop.
        let script = format!(
            "const done = arguments[0]; let is = false; try {{ is = Boolean({expression}); }} catch {{}} \
             if (is) done(true); else requestAnimationFrame(() => done(false));"
        );
        let until = Instant::now() + TIMEOUT;
        // An error means that the browser left the page meanwhile.
        let ask = async || self.ask(Method::POST, "/execute/async", &json!({ "script": script, "args": [] })).await;
        while ask().await != Ok(Value::Bool(true)) {
            let page = async || format!("{}\n{}", self.url().await, self.source().await);
            assert!(Instant::now() < until, "never true: {expression}\n{}", page().await);
        }
    }

    /// The reference of the first element that matches, waiting for it if need be.
    async fn find(&self, css: &str) -> String {
        match self.ask(Method::POST, "/element", &json!({ "using": "css selector", "value": css })).await {
            Ok(element) => element[ELEMENT].as_str().unwrap().to_owned(),
            Err(error) => panic!("{css}: {error}\n{}\n{}", self.url().await, self.source().await),
        }
    }

    async fn text_of(&self, path: &str) -> String {
        self.ask(Method::GET, path, &Value::Null).await.unwrap().as_str().unwrap().to_owned()
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("http://127.0.0.1:{}/session{}{path}", self.port, self.session);
        let mut request = self.http.request(method.clone(), url);
        if method == Method::POST {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let success = answer.status().is_success();
        let mut body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let value = body["value"].take();
        if success { Ok(value) } else { Err(format!("{}: {}", value["error"], value["message"])) }
    }
}

impl Drop for Browser {
    /// Ends the session first: a killed driver would leave its browser running.
    fn drop(&mut self) {
        if !self.session.is_empty()
            && let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port))
        {
            let _ = stream.set_read_timeout(Some(TIMEOUT));
            let _ = write!(stream, "DELETE /session{} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", self.session);
            // The response begins when the browser has ended.
            let _ = stream.read(&mut [0; 64]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
