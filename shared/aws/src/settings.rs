//! A Lambda's AWS resources, named by environment variables that `template.yaml` sets, and the ports on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use overseer_engine::engine::Ports;
use overseer_engine::outbound::config::ConfigError;
use overseer_engine::ports::{Clock, Ids, Table, Vault};
use overseer_engine::storage::vault::EnvelopeVault;

use crate::timer::TimerConfig;
use crate::{AwsEvents, AwsTimer, DynamoTable, KmsKeys, SecretsManagerVault};

/// Attempts of one request to AWS, including the first.
const ATTEMPTS: u32 = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The timeout of one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// The timeout of a request with all its attempts.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);
/// The longest wait before the second attempt; it doubles before each further one.
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);

/// The AWS resources of a Lambda.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The table's name: `OVERSEER_TABLE`.
    pub table: String,
    /// The kind of vault: `OVERSEER_VAULT`.
    pub vault: VaultKind,
    /// The work queue's URL: `OVERSEER_QUEUE_URL`.
    pub queue_url: String,
    /// The work queue's ARN, for schedules that send to it: `OVERSEER_QUEUE_ARN`.
    pub queue_arn: String,
    /// The name of the schedule group: `OVERSEER_SCHEDULE_GROUP`.
    pub schedule_group: String,
    /// The ARN of the role that schedules send to the queue with: `OVERSEER_SCHEDULE_ROLE`.
    pub schedule_role: String,
    /// The event bus's name: `OVERSEER_EVENT_BUS`.
    pub event_bus: String,
}

/// Where secrets are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultKind {
    /// `secrets-manager`: each in its own secret of Secrets Manager.
    SecretsManager {
        /// The prefix of the secrets' names: `OVERSEER_SECRETS`.
        prefix: String,
        /// The ARN of the KMS key that encrypts them, instead of the account's default key: `OVERSEER_KMS_KEY`.
        key: Option<String>,
    },
    /// `envelope`: in the table, encrypted with data keys that a KMS key wraps.
    Envelope {
        /// The ARN of that KMS key: `OVERSEER_KMS_KEY`.
        key: String,
    },
}

impl Settings {
    /// Reads the settings; `variable` returns the value of an environment variable.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let present = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let required = |name: &str, meaning: &str| {
            let expected = || format!("must be {meaning}; template.yaml sets it");
            present(name).ok_or_else(|| ConfigError { name: name.to_owned(), expected: expected() })
        };
        let kms = "OVERSEER_KMS_KEY";
        let vault = match present("OVERSEER_VAULT").as_deref() {
            None | Some("secrets-manager") => VaultKind::SecretsManager {
                prefix: required("OVERSEER_SECRETS", "the prefix of the secrets' names")?,
                key: present(kms),
            },
            Some("envelope") => VaultKind::Envelope { key: required(kms, "the ARN of the key that wraps data keys")? },
            Some(_) => {
                let expected = "must be secrets-manager or envelope".to_owned();
                return Err(ConfigError { name: "OVERSEER_VAULT".to_owned(), expected });
            }
        };
        Ok(Self {
            table: required("OVERSEER_TABLE", "the name of the DynamoDB table")?,
            vault,
            queue_url: required("OVERSEER_QUEUE_URL", "the URL of the work queue")?,
            queue_arn: required("OVERSEER_QUEUE_ARN", "the ARN of the work queue")?,
            schedule_group: required("OVERSEER_SCHEDULE_GROUP", "the name of the schedule group")?,
            schedule_role: required(
                "OVERSEER_SCHEDULE_ROLE",
                "the ARN of the role that schedules send to the queue with",
            )?,
            event_bus: required("OVERSEER_EVENT_BUS", "the name of the event bus")?,
        })
    }
}

/// The configuration that every client shares: region, credentials and endpoints from the environment, and one connection
/// pool. Clients retry in the standard mode. After one throttled request the adaptive mode would make a process that sends
/// few requests wait longer than an intent may take. DynamoDB alone has the adaptive mode: its on-demand table throttles
/// only sudden peaks, and in a peak it helps if all processes wait.
pub async fn load() -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(REQUEST_TIMEOUT);
    aws_config::defaults(BehaviorVersion::latest())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(INITIAL_BACKOFF))
        .timeout_config(timeouts.build())
        // The timeout of an attempt ends a stalled one sooner than this protection would, after 5 s.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .load()
        .await
}

/// The engine's ports. This sends no request, and clients that most invocations never use are made on first use.
pub fn ports(settings: Settings, sdk: &SdkConfig, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Ports {
    let Settings { table, vault, queue_url, queue_arn, schedule_group, schedule_role, event_bus } = settings;
    let adaptive = RetryConfig::adaptive().with_max_attempts(ATTEMPTS).with_initial_backoff(INITIAL_BACKOFF);
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
    let config = TimerConfig { queue_url, queue_arn, group: schedule_group, role_arn: schedule_role };
    let (sqs_sdk, scheduler_sdk, events_sdk) = (sdk.clone(), sdk.clone(), sdk.clone());
    let sqs = move || aws_sdk_sqs::Client::new(&sqs_sdk);
    let scheduler = move || aws_sdk_scheduler::Client::new(&scheduler_sdk);
    let timer = AwsTimer::new(sqs, scheduler, config, Arc::clone(&clock));
    let eventbridge = move || aws_sdk_eventbridge::Client::new(&events_sdk);
    let events = AwsEvents::new(eventbridge, event_bus, Arc::clone(&ids));
    Ports { table, vault, timer: Arc::new(timer), events: Arc::new(events), clock, ids }
}

/// The variables in a secret of Secrets Manager, which is one JSON object of strings. Secrets do not belong in a Lambda's
/// environment: everyone with read access to the function sees it, and it is limited to 4 KB.
pub async fn secret_variables(sdk: &SdkConfig, secret: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    let invalid = |expected: String| ConfigError { name: "OVERSEER_SETTINGS".to_owned(), expected };
    let client = aws_sdk_secretsmanager::Client::new(sdk);
    let response = client.get_secret_value().secret_id(secret).send().await.map_err(|error| {
        let code =
            aws_sdk_secretsmanager::error::ProvideErrorMetadata::code(&error).unwrap_or("no response").to_owned();
        invalid(format!("must name a secret that can be read; Secrets Manager answered {code}"))
    })?;
    // serde's message would quote the secret.
    serde_json::from_str(response.secret_string().unwrap_or_default()).map_err(|_| {
        invalid("must name a secret that is one JSON object of strings, such as {\"SLACK_CLIENT_ID\": \"…\"}".into())
    })
}
