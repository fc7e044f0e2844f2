//! What stands in for AWS on one machine: dynoxide for DynamoDB, in this process, and ministack for everything else, with
//! the table, the queue, the bus, the keys and the settings that `template.yaml` makes on AWS.

use std::net::SocketAddr;
use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use overseer_aws::Settings;
use overseer_aws::table::create_table;
use overseer_engine::engine::Ports;
use overseer_engine::outbound::config::StandIn;
use overseer_engine::ports::{Clock, Ids};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::ministack::Ministack;

/// Running stand-ins, which end with this value.
pub struct StandIns {
    /// DynamoDB.
    pub dynamo: SocketAddr,
    /// Everything else.
    pub aws: SocketAddr,
    /// What functions are told: the variables that `template.yaml` sets.
    pub variables: Vec<(String, String)>,
    _ministack: Ministack,
}

impl StandIns {
    /// Starts them. `vault` is where secrets are kept: `secrets-manager` or `envelope`. `secret` are the variables that
    /// are kept in a secret.
    pub async fn start(vault: &str, secret: &Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dynamo = listener.local_addr().unwrap();
        tokio::spawn(dynoxide::server::serve_on(listener, dynoxide::Database::memory().unwrap()));
        create_table(&aws_sdk_dynamodb::Client::new(&sdk(dynamo)), "overseer").await.unwrap();

        let ministack = Ministack::start().await;
        let aws = ministack.endpoint.strip_prefix("http://").unwrap().parse().unwrap();
        let sdk = sdk(aws);
        let sqs = aws_sdk_sqs::Client::new(&sdk);
        let queue = sqs.create_queue().queue_name("work").send().await.unwrap();
        let queue_url = queue.queue_url.unwrap();
        aws_sdk_eventbridge::Client::new(&sdk).create_event_bus().name("overseer").send().await.unwrap();
        let scheduler = aws_sdk_scheduler::Client::new(&sdk);
        scheduler.create_schedule_group().name("overseer").send().await.unwrap();
        let key = aws_sdk_kms::Client::new(&sdk).create_key().send().await.unwrap().key_metadata.unwrap();
        let secrets = aws_sdk_secretsmanager::Client::new(&sdk);
        let settings = secrets.create_secret().name("overseer/settings").secret_string(secret.to_string());
        let settings = settings.send().await.unwrap();

        let variables = [
            ("OVERSEER_TABLE", "overseer".to_owned()),
            ("OVERSEER_VAULT", vault.to_owned()),
            ("OVERSEER_SECRETS", "overseer/accounts/".to_owned()),
            ("OVERSEER_KMS_KEY", key.arn.unwrap()),
            ("OVERSEER_QUEUE_URL", queue_url),
            ("OVERSEER_QUEUE_ARN", "arn:aws:sqs:eu-central-1:000000000000:work".to_owned()),
            ("OVERSEER_SCHEDULE_GROUP", "overseer".to_owned()),
            ("OVERSEER_SCHEDULE_ROLE", "arn:aws:iam::000000000000:role/schedules".to_owned()),
            ("OVERSEER_EVENT_BUS", "overseer".to_owned()),
            ("OVERSEER_SETTINGS", settings.arn.unwrap()),
        ];
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { dynamo, aws, variables, _ministack: ministack }
    }

    /// The value of a variable.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    /// The engine's ports on them. `endpoint` leads to both.
    pub fn ports(&self, endpoint: SocketAddr, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Ports {
        let settings = Settings::read(|name| self.variable(name)).unwrap();
        overseer_aws::ports(settings, &sdk(endpoint), clock, ids)
    }
}

/// What clients need to reach a stand-in, which takes any credentials.
pub fn sdk(endpoint: SocketAddr) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "a test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(format!("http://{endpoint}"))
        .build()
}

/// What functions are told of the stand-ins of the services of plugins.
pub fn services<'a>(stand_ins: impl Iterator<Item = (&'a str, &'a StandIn)>) -> String {
    let one = |stand_in: &StandIn| {
        json!({
            "base_url": stand_in.base_url, "authorization_url": stand_in.authorization_url,
            "token_url": stand_in.token_url, "revocation_url": stand_in.revocation_url,
            "client": { "id": stand_in.client.id, "secret": stand_in.client.secret.as_ref().map(ExposeSecret::expose_secret) },
        })
    };
    json!(stand_ins.map(|(plugin, stand_in)| (plugin.to_owned(), one(stand_in))).collect::<serde_json::Map<_, _>>())
        .to_string()
}
