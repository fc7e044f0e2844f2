//! Secrets Manager and KMS, for the tests: ministack behind a proxy that counts requests and can replace responses.
//!
//! The proxy itself implements three documented rules of `PutSecretValue` that ministack lacks: a repeated token is answered
//! by what it stored first, all labels are attached and not `AWSCURRENT` alone, and a secret has twenty labels at most.
//! Neither has permissions, the size limit of a secret, eventual consistency, or the grace period of a version without a
//! label.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use overseer_aws::SecretsManagerVault;
use reqwest::Client;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::ministack::Ministack;

const TARGET: &str = "x-amz-target";

/// What the proxy does instead of forwarding a request and its response.
pub(super) enum Instead {
    /// The request is executed, but the response is lost: the SDK sends it again.
    Lose,
    /// The request is refused with this body.
    Refuse(u16, String),
}

/// A request: its operation and its body.
pub(super) type Request = (String, Value);

struct Wire {
    ministack: Ministack,
    http: Client,
    requests: Mutex<Vec<Request>>,
    instead: Mutex<VecDeque<(&'static str, Instead)>>,
    /// AWS serializes the writes of a secret.
    writing: tokio::sync::Mutex<()>,
}

/// A running stand-in, which stops when this is dropped.
pub(super) struct Aws {
    wire: Arc<Wire>,
    endpoint: String,
}

impl Aws {
    pub(super) async fn start() -> Self {
        let wire = Arc::new(Wire {
            ministack: Ministack::start().await,
            http: Client::builder().no_proxy().build().unwrap(),
            requests: Mutex::default(),
            instead: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&wire));
        tokio::spawn(axum::serve(listener, router).into_future());
        Self { wire, endpoint }
    }

    pub(super) fn secrets_manager(&self) -> aws_sdk_secretsmanager::Client {
        use aws_sdk_secretsmanager::config::retry::RetryConfig;
        use aws_sdk_secretsmanager::config::{BehaviorVersion, Config, Credentials, Region};
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "a test"))
            .endpoint_url(&self.endpoint)
            .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(1)))
            .build();
        aws_sdk_secretsmanager::Client::from_conf(config)
    }

    pub(super) fn secrets_manager_vault(&self) -> SecretsManagerVault {
        let client = self.secrets_manager();
        SecretsManagerVault::new(|| client, "overseer/", Some("alias/overseer".to_owned()))
    }

    pub(super) fn kms(&self) -> aws_sdk_kms::Client {
        use aws_sdk_kms::config::retry::RetryConfig;
        use aws_sdk_kms::config::{BehaviorVersion, Config, Credentials, Region};
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "a test"))
            .endpoint_url(&self.endpoint)
            .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(1)))
            .build();
        aws_sdk_kms::Client::from_conf(config)
    }

    /// The ARN of a new key.
    pub(super) async fn new_key(&self) -> String {
        let answer = self.kms().create_key().send().await.unwrap();
        self.requests();
        answer.key_metadata.unwrap().arn.unwrap()
    }

    /// The requests since the last call.
    pub(super) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.wire.requests.lock().unwrap())
    }

    /// Their operations.
    pub(super) fn operations(&self) -> Vec<String> {
        self.requests().into_iter().map(|(operation, _)| operation).collect()
    }

    /// Replaces the handling of the next request for an operation.
    pub(super) fn next(&self, operation: &'static str, instead: Instead) {
        self.wire.instead.lock().unwrap().push_back((operation, instead));
    }
}

impl Wire {
    async fn ask(&self, headers: &HeaderMap, operation: &str, request_body: &Value) -> (StatusCode, Value) {
        let target = headers[TARGET].to_str().unwrap();
        let (service, _) = target.rsplit_once('.').unwrap();
        let request = self.http.post(&self.ministack.endpoint).header(TARGET, format!("{service}.{operation}"));
        let request =
            request.header(AUTHORIZATION, &headers[AUTHORIZATION]).header(CONTENT_TYPE, &headers[CONTENT_TYPE]);
        let answer = request.body(request_body.to_string()).send().await.unwrap();
        let status = answer.status();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default())
    }

    /// Handles `PutSecretValue` as AWS documents it.
    async fn put_secret_value(&self, headers: &HeaderMap, request_body: &Value) -> (StatusCode, Value) {
        let _one_at_a_time = self.writing.lock().await;
        let (secret, version) = (&request_body["SecretId"], &request_body["ClientRequestToken"]);
        let same = json!({ "SecretId": secret, "VersionId": version });
        let (status, stored) = self.ask(headers, "GetSecretValue", &same).await;
        if status.is_success() {
            let same = stored["SecretString"] == request_body["SecretString"];
            return if same { (StatusCode::OK, stored) } else { refused("ResourceExistsException") };
        }
        let stages: BTreeSet<String> = serde_json::from_value(request_body["VersionStages"].clone()).unwrap();
        let (_, described) = self.ask(headers, "DescribeSecret", &json!({ "SecretId": secret })).await;
        let mut labels: BTreeSet<String> = labels(&described).into_iter().map(|(label, _)| label).collect();
        if labels.contains("AWSCURRENT") {
            labels.insert("AWSPREVIOUS".to_owned());
        }
        labels.extend(stages.iter().cloned());
        if labels.len() > 20 {
            return refused("LimitExceededException");
        }
        let answer = self.ask(headers, "PutSecretValue", request_body).await;
        for label in stages.iter().filter(|label| *label != "AWSCURRENT" && answer.0.is_success()) {
            let attach = json!({ "SecretId": secret, "VersionStage": label, "MoveToVersionId": version });
            assert!(self.ask(headers, "UpdateSecretVersionStage", &attach).await.0.is_success());
        }
        answer
    }
}

/// The labels of a secret with their versions, in the form of `DescribeSecret`.
pub(super) fn labels(described: &Value) -> Vec<(String, String)> {
    let versions = described["VersionIdsToStages"].as_object().into_iter().flatten();
    let pairs = versions.flat_map(|(version, labels)| {
        labels.as_array().unwrap().iter().map(|label| (label.as_str().unwrap().to_owned(), version.clone()))
    });
    pairs.collect()
}

fn refused(code: &str) -> (StatusCode, Value) {
    (StatusCode::BAD_REQUEST, json!({ "__type": code, "message": code }))
}

async fn answer(State(wire): State<Arc<Wire>>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let operation = headers[TARGET].to_str().unwrap().rsplit('.').next().unwrap().to_owned();
    let request_body: Value = serde_json::from_slice(&body).unwrap();
    wire.requests.lock().unwrap().push((operation.clone(), request_body.clone()));
    let instead = {
        let mut waiting = wire.instead.lock().unwrap();
        let index = waiting.iter().position(|(wanted, _)| *wanted == operation);
        index.and_then(|index| waiting.remove(index)).map(|(_, instead)| instead)
    };
    if let Some(Instead::Refuse(status, answer)) = &instead {
        return ((*status).try_into().unwrap(), answer.clone());
    }
    let (status, answer) = match operation.as_str() {
        "PutSecretValue" => wire.put_secret_value(&headers, &request_body).await,
        _ => wire.ask(&headers, &operation, &request_body).await,
    };
    if matches!(instead, Some(Instead::Lose)) {
        return (StatusCode::INTERNAL_SERVER_ERROR, String::new());
    }
    (status, answer.to_string())
}
