//! Stand-ins of the services around a Lambda: API Gateway, which turns requests into events by the routes of the template,
//! and Lambda's runtime API, from which functions take their events. A proxy between each function and the stand-ins of AWS
//! records every request.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex as AsyncMutex, oneshot, watch};

/// The largest body that API Gateway accepts: 10 MB.
const BODY_MAX_BYTES: usize = 10 * 1024 * 1024;

/// The result of an invocation: the function's response, or its error.
type Answered = Result<Value, Value>;

/// The functions, each in its own process from its first event on, behind a gateway.
pub struct Gateway {
    functions: Arc<Functions>,
}

/// Returns the command that starts a process of a function, with the function's environment.
pub type Launch = Box<dyn Fn(&str) -> Command + Send + Sync>;

/// The addresses of the stand-ins of AWS.
#[derive(Debug, Clone, Copy)]
pub struct AwsEndpoints {
    /// DynamoDB.
    pub dynamo: SocketAddr,
    /// Every other service.
    pub aws: SocketAddr,
}

struct Functions {
    routes: Vec<Route>,
    launch: Launch,
    endpoints: AwsEndpoints,
    running: AsyncMutex<BTreeMap<String, Arc<Function>>>,
    /// The requests that functions sent to AWS.
    calls: Arc<Mutex<Vec<Call>>>,
    client: reqwest::Client,
}

/// A request that a function sent to AWS.
#[derive(Debug, Clone)]
pub struct Call {
    /// The function's name.
    pub function: String,
    /// The operation, such as `dynamodb:GetItem`.
    pub operation: String,
    /// The IAM actions that it requires, each with its resource, such as `dynamodb:Query table/index/list`.
    pub needs: Vec<String>,
}

/// A route of the template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// `ANY` or a method.
    pub method: String,
    /// With parameters in braces.
    pub path: String,
    /// The function that handles it.
    pub function: String,
}

impl Route {
    fn takes(&self, method: &Method, path: &str) -> bool {
        let (pattern, segments): (Vec<_>, Vec<_>) = (self.path.split('/').collect(), path.split('/').collect());
        let mut pairs = pattern.iter().zip(&segments);
        (self.method == "ANY" || self.method == method.as_str())
            && pattern.len() == segments.len()
            && pairs.all(|(part, segment)| (part.starts_with('{') && !segment.is_empty()) || part == segment)
    }

    /// The route that a request takes: fixed parts go before parameters, as in API Gateway.
    pub fn of<'a>(routes: &'a [Self], method: &Method, path: &str) -> Option<&'a Self> {
        routes.iter().filter(|route| route.takes(method, path)).min_by_key(|route| route.path.matches('{').count())
    }
}

/// A function's events and processes.
struct Function {
    name: String,
    events: UnboundedSender<Invocation>,
    waiting: Arc<Mutex<HashMap<String, oneshot::Sender<Answered>>>>,
    /// How often a process requested its next event.
    asked: watch::Receiver<usize>,
    next_id: AtomicU64,
    processes: Mutex<Vec<Child>>,
    runtime: SocketAddr,
    aws: SocketAddr,
}

struct Invocation {
    id: String,
    event: Value,
    deadline_ms: u64,
}

impl Drop for Function {
    fn drop(&mut self) {
        for child in self.processes.get_mut().unwrap() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Gateway {
    /// A gateway with these routes before functions that use these stand-ins.
    pub fn start(listener: TcpListener, routes: Vec<Route>, endpoints: AwsEndpoints, launch: Launch) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let running = AsyncMutex::default();
        let functions = Arc::new(Functions { routes, launch, endpoints, running, calls: Arc::default(), client });
        let routes = Router::new().fallback(gateway).with_state(functions.clone());
        tokio::spawn(axum::serve(listener, routes).into_future());
        Self { functions }
    }

    /// Invokes a function with an event, and returns its response or its error.
    pub async fn invoke(&self, name: &str, event: Value) -> Answered {
        self.functions.function(name).await.invoke(event, Duration::from_mins(3)).await
    }

    /// As [`Self::invoke`], with the invocation's timeout.
    pub async fn invoke_within(&self, name: &str, event: Value, time: Duration) -> Answered {
        self.functions.function(name).await.invoke(event, time).await
    }

    /// Starts processes of a function until it has this many.
    pub async fn processes(&self, name: &str, count: usize) {
        let function = self.functions.function(name).await;
        while function.processes.lock().unwrap().len() < count {
            function.spawn(&self.functions);
        }
    }

    /// Waits until the processes of a function have requested this many events: the handled ones, and the next one.
    pub async fn asked(&self, name: &str, count: usize) {
        let mut asked = self.functions.function(name).await.asked.clone();
        asked.wait_for(|asked| *asked >= count).await.unwrap();
    }

    /// Terminates the only process of a function, and waits for its end.
    pub async fn end(&self, name: &str) -> ExitStatus {
        let function = self.functions.running.lock().await.remove(name).unwrap();
        let mut child = function.processes.lock().unwrap().pop().unwrap();
        Command::new("kill").arg(child.id().to_string()).status().unwrap();
        tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap()
    }

    /// Kills the processes of a function; the next event is a cold start.
    pub async fn stop(&self, name: &str) {
        self.functions.running.lock().await.remove(name);
    }

    /// The address of a new proxy to the stand-ins of AWS, which records requests under this name.
    pub async fn tap(&self, name: &str) -> SocketAddr {
        self.functions.tap(name).await
    }

    /// The requests that functions sent to AWS since the last call of this.
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.functions.calls.lock().unwrap())
    }
}

impl Functions {
    async fn function(&self, name: &str) -> Arc<Function> {
        let mut running = self.running.lock().await;
        if let Some(function) = running.get(name) {
            return function.clone();
        }
        let (events, given) = unbounded_channel();
        let waiting = Arc::default();
        let (asking, asked) = watch::channel(0);
        let events_given = Arc::new(AsyncMutex::new(given));
        let runtime = RuntimeApi { events: events_given, waiting: Arc::clone(&waiting), asking: Arc::new(asking) };
        let runtime = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(respond))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(fail))
            .with_state(runtime);
        let function = Arc::new(Function {
            name: name.to_owned(),
            events,
            waiting,
            asked,
            next_id: AtomicU64::new(1),
            processes: Mutex::default(),
            runtime: serve(runtime).await,
            aws: self.tap(name).await,
        });
        function.spawn(self);
        running.insert(name.to_owned(), function.clone());
        function
    }
}

impl Functions {
    async fn tap(&self, name: &str) -> SocketAddr {
        let (function, calls, client) = (name.to_owned(), self.calls.clone(), self.client.clone());
        let tap = Tap { function, endpoints: self.endpoints, calls, client };
        serve(Router::new().fallback(pass_on).with_state(tap)).await
    }
}

async fn serve(routes: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, routes).into_future());
    address
}

impl Function {
    fn spawn(&self, functions: &Functions) {
        let endpoint = format!("http://{}", self.aws);
        let child = (functions.launch)(&self.name)
            .envs([("AWS_LAMBDA_RUNTIME_API", self.runtime.to_string()), ("AWS_ENDPOINT_URL", endpoint)])
            .envs([("AWS_LAMBDA_FUNCTION_NAME", format!("test-{}", self.name))])
            .envs([("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"), ("AWS_LAMBDA_FUNCTION_VERSION", "1")])
            .envs([("AWS_REGION", "eu-central-1"), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
            .spawn()
            .unwrap();
        self.processes.lock().unwrap().push(child);
    }

    async fn invoke(&self, event: Value, time: Duration) -> Answered {
        let id = format!("8476a536-e9f4-11e8-9739-{:012x}", self.next_id.fetch_add(1, Ordering::Relaxed));
        let until = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() + time;
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap().insert(id.clone(), answer);
        let deadline_ms = u64::try_from(until.as_millis()).unwrap();
        self.events.send(Invocation { id, event, deadline_ms }).unwrap();
        answered.await.unwrap()
    }
}

#[derive(Clone)]
struct RuntimeApi {
    asking: Arc<watch::Sender<usize>>,
    events: Arc<AsyncMutex<UnboundedReceiver<Invocation>>>,
    waiting: Arc<Mutex<HashMap<String, oneshot::Sender<Answered>>>>,
}

/// The next event. As at Lambda, the response waits until there is one.
async fn next(State(api): State<RuntimeApi>) -> impl IntoResponse {
    api.asking.send_modify(|asked| *asked += 1);
    let invocation = api.events.lock().await.recv().await;
    let Some(Invocation { id, event, deadline_ms }) = invocation else { return std::future::pending().await };
    let headers = [
        ("lambda-runtime-aws-request-id", id),
        ("lambda-runtime-deadline-ms", deadline_ms.to_string()),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-central-1:123456789012:function:test".to_owned()),
        ("lambda-runtime-trace-id", "Root=1-6920a1b2-0123456789abcdef01234567".to_owned()),
    ];
    (headers, event.to_string())
}

async fn respond(State(api): State<RuntimeApi>, Path(id): Path<String>, body: String) -> &'static str {
    api.end(&id, Ok(serde_json::from_str(&body).unwrap()))
}

async fn fail(State(api): State<RuntimeApi>, Path(id): Path<String>, body: String) -> &'static str {
    api.end(&id, Err(serde_json::from_str(&body).unwrap()))
}

impl RuntimeApi {
    fn end(&self, id: &str, answered: Answered) -> &'static str {
        let waiting = self.waiting.lock().unwrap().remove(id);
        // The caller may have stopped waiting.
        let _ = waiting.unwrap().send(answered);
        r#"{"status": "OK"}"#
    }
}

/// A proxy between a function and the stand-ins of AWS.
#[derive(Clone)]
struct Tap {
    function: String,
    endpoints: AwsEndpoints,
    calls: Arc<Mutex<Vec<Call>>>,
    client: reqwest::Client,
}

async fn pass_on(State(tap): State<Tap>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").map(|target| target.to_str().unwrap().to_owned());
    let operation = operation(&method, uri.path(), target.as_deref());
    let to = if operation.starts_with("dynamodb:") { tap.endpoints.dynamo } else { tap.endpoints.aws };
    let needs = needs(&operation, &serde_json::from_slice(&body).unwrap_or_default());
    tap.calls.lock().unwrap().push(Call { function: tap.function.clone(), operation, needs });
    let mut request = tap.client.request(method, format!("http://{to}{uri}")).body(body);
    for (name, value) in &headers {
        if name != "host" && name != "content-length" {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut response = (status, answer.bytes().await.unwrap()).into_response();
    for (name, value) in headers {
        if let Some(name) = name.filter(|name| name != "content-length" && name != "transfer-encoding") {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The operation of a request to AWS, named as an IAM action.
fn operation(method: &Method, path: &str, target: Option<&str>) -> String {
    if let Some((service, operation)) = target.and_then(|target| target.split_once('.')) {
        let service = match service {
            "DynamoDB_20120810" => "dynamodb",
            "secretsmanager" => "secretsmanager",
            "TrentService" => "kms",
            "AmazonSQS" => "sqs",
            "AWSEvents" => "events",
            other => panic!("unknown service: {other}"),
        };
        return format!("{service}:{operation}");
    }
    assert!(path.starts_with("/schedules/"), "unknown request: {method} {path}");
    let operation = match method.as_str() {
        "POST" => "CreateSchedule",
        "PUT" => "UpdateSchedule",
        "DELETE" => "DeleteSchedule",
        "GET" => "GetSchedule",
        other => panic!("unknown method: {other}"),
    };
    format!("scheduler:{operation}")
}

/// The IAM actions that a request requires, with their resources.
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html>
fn needs(operation: &str, body: &Value) -> Vec<String> {
    let (service, name) = operation.split_once(':').unwrap();
    let one = |on: &str| vec![format!("{operation} {on}")];
    match (service, name) {
        // A transaction requires the actions of its parts.
        ("dynamodb", "TransactWriteItems") => {
            let parts = body["TransactItems"].as_array().unwrap().iter();
            let actions = parts.map(|part| match part.as_object().unwrap().keys().next().unwrap().as_str() {
                "ConditionCheck" => "dynamodb:ConditionCheckItem table".to_owned(),
                other => format!("dynamodb:{other}Item table"),
            });
            actions.collect()
        }
        ("dynamodb", "Query") if body["IndexName"].is_string() => {
            one(&format!("table/index/{}", body["IndexName"].as_str().unwrap()))
        }
        ("dynamodb", _) => one("table"),
        ("secretsmanager", _) => {
            let secret = body["SecretId"].as_str().or(body["Name"].as_str()).unwrap();
            let on = if secret.contains("accounts/") { "accounts" } else { "settings" };
            // Secrets Manager uses the KMS key on behalf of the caller.
            let key: &[&str] = match name {
                "GetSecretValue" => &["kms:Decrypt key"],
                "CreateSecret" | "PutSecretValue" => &["kms:Decrypt key", "kms:GenerateDataKey key"],
                _ => &[],
            };
            one(on).into_iter().chain(key.iter().map(|action| (*action).to_owned())).collect()
        }
        ("scheduler", "CreateSchedule" | "UpdateSchedule") => {
            one("schedules").into_iter().chain(["iam:PassRole schedule role".to_owned()]).collect()
        }
        ("scheduler", _) => one("schedules"),
        ("sqs", _) => one("queue"),
        ("events", _) => one("bus"),
        ("kms", _) => one("key"),
        _ => panic!("unknown request: {operation}"),
    }
}

/// Handles a request as API Gateway does for an HTTP API.
async fn gateway(State(functions): State<Arc<Functions>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let Some(route) = Route::of(&functions.routes, &parts.method, &path) else {
        return (StatusCode::NOT_FOUND, axum::Json(json!({ "message": "Not Found" }))).into_response();
    };
    let body = axum::body::to_bytes(body, BODY_MAX_BYTES).await.unwrap();
    let event = event(route, &parts.method, &parts.uri, &parts.headers, &body);
    match functions.function(&route.function).await.invoke(event, Duration::from_secs(29)).await {
        Ok(answer) => response(&answer),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(json!({ "message": "Internal Server Error" })))
            .into_response(),
    }
}

/// An event of payload version 2.0.
fn event(route: &Route, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Value {
    let key = format!("{} {}", route.method, route.path);
    let mut texts = BTreeMap::<String, String>::new();
    let mut cookies = Vec::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        if name == "cookie" {
            cookies.extend(value.split("; ").map(str::to_owned));
        } else {
            texts.entry(name.to_string()).and_modify(|all| *all = format!("{all},{value}")).or_insert(value);
        }
    }
    let query = uri.query().unwrap_or_default();
    let mut event = json!({
        "version": "2.0", "routeKey": key, "rawPath": uri.path(), "rawQueryString": query, "headers": texts,
        "requestContext": {
            "accountId": "123456789012", "apiId": "abcdef1234", "stage": "$default", "routeKey": key,
            "domainName": "abcdef1234.execute-api.eu-central-1.amazonaws.com", "domainPrefix": "abcdef1234",
            "http": { "method": method.as_str(), "path": uri.path(), "protocol": "HTTP/1.1",
                      "sourceIp": "203.0.113.10", "userAgent": "agent/1.0" },
            "requestId": "JKJaXmPLvHcESHA=", "time": "21/Nov/2026:09:00:00 +0000", "timeEpoch": 1_795_251_600_000_u64,
        },
        "isBase64Encoded": false,
    });
    if !cookies.is_empty() {
        event["cookies"] = json!(cookies);
    }
    if !body.is_empty() {
        let text = std::str::from_utf8(body);
        event["isBase64Encoded"] = json!(text.is_err());
        event["body"] = text.map_or_else(|_| STANDARD.encode(body), str::to_owned).into();
    }
    event
}

fn response(answer: &Value) -> Response {
    let status = StatusCode::from_u16(u16::try_from(answer["statusCode"].as_u64().unwrap()).unwrap()).unwrap();
    let body = answer["body"].as_str().unwrap_or_default();
    let body = if answer["isBase64Encoded"] == json!(true) {
        STANDARD.decode(body).unwrap()
    } else {
        body.as_bytes().to_vec()
    };
    let mut response = (status, body).into_response();
    response.headers_mut().clear();
    let single = answer["headers"].as_object().into_iter().flatten();
    let single = single.map(|(name, value)| (name.as_str(), value.as_str().unwrap()));
    let cookies = answer["cookies"].as_array().into_iter().flatten();
    for (name, value) in single.chain(cookies.map(|cookie| ("set-cookie", cookie.as_str().unwrap()))) {
        let name: HeaderName = name.parse().unwrap();
        response.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
    }
    response
}
