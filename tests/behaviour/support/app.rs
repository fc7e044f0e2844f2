//! A whole Overseer in the test's process: every route and the playground on a real port, records in memory, and a clock
//! that only the test moves. If `OVERSEER_TESTS_ON` is `lambdas`, the functions of the AWS bundle serve the same routes
//! behind a gateway, over stand-ins of AWS and by the machine's clock.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use overseer_engine::access::api_keys::NewApiKey;
use overseer_engine::access::principal::Role;
use overseer_engine::core::ids::{OrgId, PluginName, UserId};
use overseer_engine::engine::{Engine, Ports};
use overseer_engine::outbound::address::AllowedAddress;
use overseer_engine::outbound::config::{Config, Limits};
use overseer_engine::plugin::catalog::Catalog;
use overseer_engine::ports::timer::TimerError;
use overseer_engine::ports::{Clock, Event, Ids, SystemClock, Table, Timer, Work};
use overseer_local::RedbTable;
use overseer_local::embedded::Embedded;
use overseer_playground::{Mode, Playground, Received, Service, Switch};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretBox};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::counting::Counting;
use crate::support::hooked::{Hooked, Hooks};
use crate::support::lambdas::Lambdas;
use crate::support::stand_ins::{ServedPlayground, stand_ins_variable};

/// 2026-11-21T09:00:00Z.
pub const START_S: i64 = 1_795_251_600;

/// A clock that only the test moves; the machine's clock with Lambdas.
pub struct TestClock(Option<AtomicI64>);

impl TestClock {
    pub fn start() -> Arc<Self> {
        Arc::new(Self(Some(AtomicI64::new(START_S))))
    }

    pub fn advance(&self, seconds: i64) {
        let time = self.0.as_ref().expect("the clock of Lambdas cannot be moved: keep this test from them");
        time.fetch_add(seconds, Ordering::SeqCst);
    }

    fn seconds(&self) -> i64 {
        self.0.as_ref().map_or_else(|| Timestamp::now().as_second(), |time| time.load(Ordering::SeqCst))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.seconds()).unwrap()
    }
}

/// The same values in every run (splitmix64).
pub struct TestIds(AtomicU64);

impl TestIds {
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Ids for TestIds {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Test ids in the order of their making: ids begin with the time, which stands still, and go on with eight random bytes. Lists are
/// ordered by id, so that tests can tell which of two records is the newer one.
struct OrderedIds {
    random: TestIds,
    made: AtomicU32,
}

impl Ids for OrderedIds {
    fn fill(&self, bytes: &mut [u8]) {
        self.random.fill(bytes);
        if bytes.len() == 8 {
            bytes[..4].copy_from_slice(&self.made.fetch_add(1, Ordering::SeqCst).to_be_bytes());
        }
    }
}

/// A timer whose alarms never fire.
struct Deaf;

#[async_trait]
impl Timer for Deaf {
    async fn set(&self, _: Work, _: Timestamp) -> Result<(), TimerError> {
        Ok(())
    }

    async fn cancel(&self, _: &Work) -> Result<(), TimerError> {
        Ok(())
    }
}

/// An answer over the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        Self { status, headers, text: response.text().await.unwrap() }
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The error code of a failed outcome, whose status is 200.
    #[track_caller]
    pub fn failure(&self) -> String {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        assert_eq!(self.json()["success"], json!(false), "{}", self.text);
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }

    /// The data of a successful outcome.
    #[track_caller]
    pub fn data(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        assert_eq!(self.json()["success"], json!(true), "{}", self.text);
        self.json()["data"].clone()
    }

    /// Checks the form of a problem, and returns its code.
    #[track_caller]
    pub fn problem(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], json!(status));
        assert_eq!(problem["requestId"].as_str().unwrap(), self.headers["x-request-id"].to_str().unwrap());
        for field in ["type", "title", "detail"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {}", self.text);
        }
        problem["code"].as_str().unwrap().to_owned()
    }

    /// The pointers of a request's problems, sorted.
    #[track_caller]
    pub fn pointers(&self) -> Vec<String> {
        let problem = self.json();
        let errors = problem["errors"].as_array().unwrap_or_else(|| panic!("no errors: {}", self.text));
        let mut pointers: Vec<_> = errors.iter().map(|e| e["pointer"].as_str().unwrap().to_owned()).collect();
        pointers.sort();
        pointers
    }
}

/// The `auth` of a plugin whose provider no test calls.
pub fn oauth2() -> Value {
    json!({ "type": "oauth2", "authorization_url": "https://provider.example/authorize",
            "token_url": "https://provider.example/token" })
}

/// The differences from a plain Overseer.
#[derive(Default)]
pub struct Options {
    /// Manifests of more plugins.
    pub plugins: Vec<String>,
    /// Private addresses that calls may reach, beside the playground.
    pub allowed: Vec<AllowedAddress>,
    /// The budget of an intent.
    pub budget: Option<Duration>,
    /// Leaves the current tokens of the playground unconnected.
    pub unconnected: bool,
    /// URLs that browsers may be redirected to.
    pub return_to: Vec<String>,
    /// The token of the cron route.
    pub cron_token: Option<String>,
    /// The public URL, if it is not the address of the gateway. For Lambdas.
    pub public_url: Option<String>,
    /// The log level. For Lambdas.
    pub log: Option<String>,
    /// Slack's token endpoint, if it is not the playground's. For Lambdas.
    pub slack_tokens: Option<url::Url>,
}

/// A running Overseer.
pub struct App {
    pub address: SocketAddr,
    pub engine: Arc<Engine>,
    pub playground: Playground,
    pub clock: Arc<TestClock>,
    pub table: Arc<Counting>,
    /// The key of an administrator who is the user `admin` of the organization `acme`.
    pub admin: String,
    pub events: Arc<Mutex<Vec<Event>>>,
    pub client: reqwest::Client,
    lambdas: Option<Lambdas>,
}

impl App {
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let unconnected = options.unconnected;
        let on = std::env::var("OVERSEER_TESTS_ON").unwrap_or_default();
        let mut app = match on.as_str() {
            "" => Self::here(options).await,
            "lambdas" => Self::on_lambdas(options, "secrets-manager").await,
            other => panic!("OVERSEER_TESTS_ON is {other}, and may only be lambdas"),
        };
        app.admin = app.key("acme", &[Role::Administrator], Some("admin")).await;
        if !unconnected {
            for service in Service::ALL {
                app.connect(service.name(), service.standing_token()).await;
            }
        }
        app
    }

    /// With every part in this process.
    async fn here(options: Options) -> Self {
        let clock = TestClock::start();
        let ids: Arc<dyn Ids> = Arc::new(OrderedIds { random: TestIds::new(1), made: AtomicU32::new(0) });
        let catalog = Catalog::built_in();
        for manifest in &options.plugins {
            catalog.add(manifest).unwrap();
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();

        let mut config = Config::read(&catalog, |_| None).unwrap();
        config.public_url = format!("http://{address}").parse().ok();
        overseer::server::point_at_playground(&mut config, address);
        config.allowed_addresses.extend(options.allowed);
        config.return_to = options.return_to.iter().map(|url| url.parse().unwrap()).collect();
        config.cron_token = options.cron_token.map(Into::into);
        if let Some(budget) = options.budget {
            config.limits = Limits { budget, ..config.limits };
        }
        let store = Arc::new(RedbTable::in_memory(clock.clone(), ids.clone()).unwrap());
        let table = Arc::new(Counting::new(store, Arc::default()));
        let mut embedded =
            Embedded::new(table.clone(), &SecretBox::new(Box::new([7; 32])), clock.clone(), ids).unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let (mut heard, log) = (embedded.events.subscribe(), events.clone());
        tokio::spawn(async move {
            while let Ok(event) = heard.recv().await {
                log.lock().unwrap().push(event);
            }
        });
        let engine = Engine::new(embedded.ports, catalog, config).unwrap();
        let waking = engine.clone();
        tokio::spawn(async move {
            while let Some(work) = embedded.due.recv().await {
                waking.dispatch(work, None).await.unwrap();
            }
        });
        let now = clock.clone();
        let playground = Playground::new(Arc::new(move || now.seconds()));
        let routes = overseer::server::routes(engine.clone(), &playground, address);
        tokio::spawn(axum::serve(listener, routes).into_future());

        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let admin = String::new();
        Self { address, engine, playground, clock, table, admin, events, client, lambdas: None }
    }

    /// With Lambdas that serve the routes, and the test's own engine over the same stand-ins of AWS.
    pub async fn on_lambdas(options: Options, vault: &str) -> Self {
        let Options { plugins, allowed, budget, unconnected: _, return_to, cron_token, public_url, log, slack_tokens } =
            options;
        assert!(plugins.is_empty() && budget.is_none(), "Lambdas have the built-in plugins and limits only");
        let clock = Arc::new(TestClock(None));
        let now = clock.clone();
        let served = ServedPlayground::start(Arc::new(move || now.seconds())).await;
        let ServedPlayground { playground, address: playground_address, mut config } = served;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();

        let public_url = public_url.unwrap_or_else(|| format!("http://{address}"));
        config.public_url = public_url.parse().ok();
        config.allowed_addresses.extend(allowed.clone());
        config.return_to = return_to.iter().map(|url| url.parse().unwrap()).collect();
        if let Some(slack) = config.stand_ins.get_mut(&PluginName::parse("slack").unwrap()) {
            slack.token_url = slack_tokens.unwrap_or(slack.token_url.clone());
        }

        let secret = cron_token.map_or(json!({}), |token| json!({ "CRON_SECRET_TOKEN": token }));
        let allowed = allowed.iter().map(|address| match address {
            AllowedAddress::Network(network) => network.to_string(),
            AllowedAddress::Socket(address) => address.to_string(),
        });
        let allowed = allowed.chain([playground_address.to_string()]);
        let variables = [
            ("PUBLIC_URL", public_url),
            ("OVERSEER_ALLOW_ADDRESSES", allowed.collect::<Vec<_>>().join(",")),
            ("OVERSEER_STAND_INS", stand_ins_variable(&config)),
            ("OVERSEER_RETURN_TO", return_to.join(",")),
            ("OVERSEER_LOG", log.unwrap_or_else(|| "info".to_owned())),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        let lambdas = Lambdas::start(listener, vault, &secret, variables.into()).await;
        let ports = lambdas.ports(Arc::new(SystemClock)).await;
        let table = Arc::new(Counting::new(ports.table.clone(), Arc::default()));
        let engine = Engine::new(Ports { table: table.clone(), ..ports }, Catalog::built_in(), config).unwrap();
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let (admin, events) = (String::new(), Arc::default());
        Self { address, engine, playground, clock, table, admin, events, client, lambdas: Some(lambdas) }
    }

    /// The Lambdas; panics if the app has none.
    #[track_caller]
    pub fn lambdas(&self) -> &Lambdas {
        self.lambdas.as_ref().expect("this app has no Lambdas")
    }

    /// Another engine over the same records. Its alarms never fire.
    pub fn deaf(&self) -> Arc<Engine> {
        self.deaf_over(self.table.clone())
    }

    /// As [`Self::deaf`], with hooks around each operation of its table.
    pub fn hooked(&self, hooks: Arc<impl Hooks + 'static>) -> Arc<Engine> {
        self.deaf_over(Arc::new(Hooked::new(self.table.clone(), hooks)))
    }

    fn deaf_over(&self, table: Arc<dyn Table>) -> Arc<Engine> {
        let Engine { ports, catalog, config, .. } = self.engine.as_ref();
        let ports = Ports { table, timer: Arc::new(Deaf), ..ports.clone() };
        Engine::new(ports, catalog.clone(), config.clone()).unwrap()
    }

    /// Makes a key of an organization, and the organization if it does not exist.
    pub async fn key(&self, org: &str, roles: &[Role], user: Option<&str>) -> String {
        let org = OrgId::parse(org).unwrap();
        self.engine.create_organization(&org).await.unwrap();
        let new = NewApiKey {
            name: "a test's".to_owned(),
            roles: roles.iter().copied().collect(),
            user_id: user.map(|user| UserId::parse(user).unwrap()),
            channel: None,
            agent_id: None,
        };
        self.engine.create_api_key(&org, new).await.unwrap().0.expose_secret().to_owned()
    }

    pub async fn connect(&self, plugin: &str, token: &str) {
        let answer =
            self.post(&format!("/api/plugin-engine/integrations/{plugin}/connect"), &json!({ "token": token })).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }

    /// A plain request, without a key.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    /// Sends a request with the key `key`, and with a JSON body if there is one.
    pub async fn send(&self, key: &str, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self.request(method, path).header("authorization", format!("Bearer {key}"));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        Answer::of(request.send().await.unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(&self.admin, Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(&self.admin, Method::POST, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(&self.admin, Method::DELETE, path, None).await
    }

    /// Sends an intent of the administrator.
    pub async fn intend(&self, tool: &str, intent: &str, context: Value) -> Answer {
        let body = json!({ "agentId": "agent_1", "tool": tool, "intent": intent, "context": context });
        self.post("/api/plugin-engine", &body).await
    }

    /// Makes the next `calls` calls of a service misbehave.
    pub fn misbehave(&self, service: Service, mode: Mode, calls: u32) {
        self.playground.set_switch(Switch::new(service, mode, calls));
    }

    /// The last call that the playground received.
    #[track_caller]
    pub fn last_received(&self) -> Received {
        self.playground.received().pop().expect("the playground received nothing")
    }
}

/// Checks that a request was refused with exactly these pointers, and that no service was called.
#[track_caller]
pub fn refused(app: &App, answer: &Answer, pointers: &[&str]) {
    assert_eq!(answer.problem(400), "invalid_parameters", "{}", answer.text);
    assert_eq!(answer.pointers(), pointers, "{}", answer.text);
    assert_eq!(app.playground.received_total(), 0, "a service was called");
}
