//! What a Lambda is told of its AWS resources, in environment variables that `template.yaml` sets, and the ports made of
//! them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use overseer_engine::engine::Ports;
use overseer_engine::outbound::config::ConfigError;
use overseer_engine::ports::{Clock, Ids, Table, Vault};
use overseer_engine::storage::vault::EnvelopeVault;

use crate::timer::TimerConfig;
use crate::{AwsEvents, AwsTimer, DynamoTable, KmsKeys, SecretsManagerVault};

/// Attempts of one request to AWS, the first one too.
const ATTEMPTS: u32 = 4;
/// For a connection to come about.
const CONNECT: Duration = Duration::from_secs(2);
/// For one attempt.
const ATTEMPT: Duration = Duration::from_secs(3);
/// For a request with all its attempts.
const REQUEST: Duration = Duration::from_secs(8);
/// Before the second attempt, at most; before each further one twice as long.
const PAUSE: Duration = Duration::from_millis(100);

/// What a Lambda is told of its AWS resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The table's name: `OVERSEER_TABLE`.
    pub table: String,
    /// Where secrets are kept: `OVERSEER_VAULT`.
    pub vault: VaultKind,
    /// The work queue's URL: `OVERSEER_QUEUE_URL`.
    pub queue_url: String,
    /// The work queue's ARN, for schedules that send to it: `OVERSEER_QUEUE_ARN`.
    pub queue_arn: String,
    /// The group that schedules are made in: `OVERSEER_SCHEDULE_GROUP`.
    pub schedule_group: String,
    /// The ARN of the role by which a schedule sends to the queue: `OVERSEER_SCHEDULE_ROLE`.
    pub schedule_role: String,
    /// The event bus's name: `OVERSEER_EVENT_BUS`.
    pub event_bus: String,
}

/// Where secrets are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultKind {
    /// `secrets-manager`: each in a secret of its own.
    SecretsManager {
        /// What the names of the secrets begin with: `OVERSEER_SECRETS`.
        prefix: String,
        /// The ARN of the key that Secrets Manager encrypts them with, in the place of its own: `OVERSEER_KMS_KEY`.
        key: Option<String>,
    },
    /// `envelope`: in the table, encrypted with data keys that a key of KMS wraps.
    Envelope {
        /// The ARN of that key: `OVERSEER_KMS_KEY`.
        key: String,
    },
}

impl Settings {
    /// Reads the settings; `variable` gives the value of an environment variable.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let present = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let needed = |name: &str, what: &str| {
            let expected = || format!("must be {what}; template.yaml sets it");
            present(name).ok_or_else(|| ConfigError { name: name.to_owned(), expected: expected() })
        };
        let kms = "OVERSEER_KMS_KEY";
        let vault = match present("OVERSEER_VAULT").as_deref() {
            None | Some("secrets-manager") => VaultKind::SecretsManager {
                prefix: needed("OVERSEER_SECRETS", "what the names of secrets begin with")?,
                key: present(kms),
            },
            Some("envelope") => VaultKind::Envelope { key: needed(kms, "the ARN of the key that wraps data keys")? },
            Some(_) => {
                let expected = "must be secrets-manager or envelope".to_owned();
                return Err(ConfigError { name: "OVERSEER_VAULT".to_owned(), expected });
            }
        };
        Ok(Self {
            table: needed("OVERSEER_TABLE", "the name of the DynamoDB table")?,
            vault,
            queue_url: needed("OVERSEER_QUEUE_URL", "the URL of the work queue")?,
            queue_arn: needed("OVERSEER_QUEUE_ARN", "the ARN of the work queue")?,
            schedule_group: needed("OVERSEER_SCHEDULE_GROUP", "the name of the schedule group")?,
            schedule_role: needed(
                "OVERSEER_SCHEDULE_ROLE",
                "the ARN of the role by which schedules send to the queue",
            )?,
            event_bus: needed("OVERSEER_EVENT_BUS", "the name of the event bus")?,
        })
    }
}

/// The configuration that every client shares: region, credentials and endpoints from the environment, and one pool of
/// connections. Each tries again by itself, after short pauses: after one throttled request the adaptive mode would make a
/// process of few requests wait for longer than an intent may take. DynamoDB has that mode all the same: its table takes
/// whatever comes but for sudden peaks, and in a peak it helps if everybody waits.
pub async fn load() -> SdkConfig {
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).operation_timeout(REQUEST);
    aws_config::defaults(BehaviorVersion::latest())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(PAUSE))
        .timeout_config(timeouts.build())
        .load()
        .await
}

/// The engine's ports. No request is made yet, and a client that many invocations never need is made when one does.
pub fn ports(settings: Settings, sdk: &SdkConfig, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Ports {
    let Settings { table, vault, queue_url, queue_arn, schedule_group, schedule_role, event_bus } = settings;
    let adaptive = RetryConfig::adaptive().with_max_attempts(ATTEMPTS).with_initial_backoff(PAUSE);
    let config = aws_sdk_dynamodb::config::Builder::from(sdk).retry_config(adaptive);
    let client = aws_sdk_dynamodb::Client::from_conf(config.build());
    let table: Arc<dyn Table> = Arc::new(DynamoTable::new(client, table, Arc::clone(&clock), Arc::clone(&ids)));
    let vault: Arc<dyn Vault> = match vault {
        VaultKind::SecretsManager { prefix, key } => {
            let sdk = sdk.clone();
            Arc::new(SecretsManagerVault::new(move || aws_sdk_secretsmanager::Client::new(&sdk), prefix, key))
        }
        VaultKind::Envelope { key } => {
            let sdk = sdk.clone();
            let keys = KmsKeys::new(move || aws_sdk_kms::Client::new(&sdk), key, Vec::new());
            Arc::new(EnvelopeVault::new(Arc::clone(&table), Arc::clone(&ids), Arc::clone(&clock), keys))
        }
    };
    let alarms = TimerConfig { queue_url, queue_arn, group: schedule_group, role_arn: schedule_role };
    let (near, far, publishing) = (sdk.clone(), sdk.clone(), sdk.clone());
    let queue = move || aws_sdk_sqs::Client::new(&near);
    let timer = AwsTimer::new(queue, move || aws_sdk_scheduler::Client::new(&far), alarms, Arc::clone(&clock));
    let bus = move || aws_sdk_eventbridge::Client::new(&publishing);
    let events = AwsEvents::new(bus, event_bus, Arc::clone(&ids));
    Ports { table, vault, timer: Arc::new(timer), events: Arc::new(events), clock, ids }
}

/// The variables in a secret of Secrets Manager, which is one JSON object of texts: what is secret does not belong into
/// the environment of a Lambda, which is shown to whoever may look at the function, and ends at 4 KB.
pub async fn secret_variables(sdk: &SdkConfig, secret: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    let wrong = |expected: String| ConfigError { name: "OVERSEER_SETTINGS".to_owned(), expected };
    let client = aws_sdk_secretsmanager::Client::new(sdk);
    let answer = client.get_secret_value().secret_id(secret).send().await.map_err(|error| {
        let code = aws_sdk_secretsmanager::error::ProvideErrorMetadata::code(&error).unwrap_or("no answer").to_owned();
        wrong(format!("must name a secret that can be read; just now Secrets Manager said {code}"))
    })?;
    // serde's words would have the text.
    serde_json::from_str(answer.secret_string().unwrap_or_default()).map_err(|_| {
        wrong("must name a secret that is one JSON object of texts, such as {\"SLACK_CLIENT_ID\": \"…\"}".into())
    })
}
