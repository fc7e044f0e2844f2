//! Stand-ins on one machine. For AWS: dynoxide for DynamoDB, in this process, and ministack for everything else, with the
//! table, the queue, the bus, the keys and the settings that `template.yaml` makes on AWS. For Slack, Gmail and Notion: the
//! playground.

use std::net::SocketAddr;
use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use overseer_aws::Settings;
use overseer_aws::table::create_table;
use overseer_engine::engine::Ports;
use overseer_engine::outbound::config::{Config, StandIn};
use overseer_engine::plugin::catalog::Catalog;
use overseer_engine::ports::{Clock, Ids};
use overseer_playground::Playground;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::ministack::Ministack;

/// Running stand-ins of AWS, which stop when this is dropped.
pub struct StandIns {
    /// DynamoDB.
    pub dynamo: SocketAddr,
    /// Everything else.
    pub aws: SocketAddr,
    /// The environment variables that `template.yaml` sets for functions.
    pub variables: Vec<(String, String)>,
    _ministack: Ministack,
}

impl StandIns {
    /// Starts them. `vault` is the kind of vault: `secrets-manager` or `envelope`. `secret` holds the variables that come
    /// from a secret.
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

    /// The engine's ports on them. `endpoint` must forward to both.
    pub fn ports(&self, endpoint: SocketAddr, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Ports {
        let settings = Settings::read(|name| self.variable(name)).unwrap();
        overseer_aws::ports(settings, &sdk(endpoint), clock, ids)
    }
}

/// The configuration of clients for a stand-in, which accepts any credentials.
pub fn sdk(endpoint: SocketAddr) -> SdkConfig {
    let credentials = Credentials::new("test", "test", None, None, "a test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(format!("http://{endpoint}"))
        .build()
}

/// The playground on a port of this machine.
pub struct ServedPlayground {
    pub playground: Playground,
    pub address: SocketAddr,
    /// An empty configuration but for its stand-ins, which are this playground.
    pub config: Config,
}

impl ServedPlayground {
    /// Serves a playground; `clock` returns the time in Unix seconds.
    pub async fn start(clock: Arc<dyn Fn() -> i64 + Send + Sync>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let playground = Playground::new(clock);
        tokio::spawn(axum::serve(listener, playground.router().with_state(())).into_future());
        let mut config = Config::read(&Catalog::built_in(), |_| None).unwrap();
        overseer::server::point_at_playground(&mut config, address);
        Self { playground, address, config }
    }
}

/// The value of `OVERSEER_STAND_INS`, which tells functions the stand-ins of this configuration.
pub fn stand_ins_variable(config: &Config) -> String {
    let document = |stand_in: &StandIn| {
        json!({
            "base_url": stand_in.base_url, "authorization_url": stand_in.authorization_url,
            "token_url": stand_in.token_url, "revocation_url": stand_in.revocation_url,
            "client": { "id": stand_in.client.id, "secret": stand_in.client.secret.as_ref().map(ExposeSecret::expose_secret) },
        })
    };
    let documents = config.stand_ins.iter().map(|(plugin, stand_in)| (plugin.as_str().to_owned(), document(stand_in)));
    Value::Object(documents.collect()).to_string()
}
