//! What the envelope vault promises with KMS: its requests, what does not open, and that data keys are cached for an hour at
//! most.

use std::sync::Arc;

use overseer_aws::KmsKeys;
use overseer_engine::core::ids::OrgId;
use overseer_engine::ports::table::{Condition, Key, NewItem, Read};
use overseer_engine::ports::vault::{SecretId, VaultError};
use overseer_engine::ports::{RandomIds, Table, Vault as _};
use overseer_engine::storage::vault::{EnvelopeVault, Rewrapped, Wrap as _};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::wire::{Aws, Instead};
use super::{anns, log_text, read, table};
use crate::support::app::TestClock;

struct Setup {
    aws: Aws,
    table: Arc<dyn Table>,
    clock: Arc<TestClock>,
    key: String,
}

impl Setup {
    async fn start() -> Self {
        let aws = Aws::start().await;
        let key = aws.new_key().await;
        Self { aws, table: table(), clock: TestClock::start(), key }
    }

    fn with(&self, current: &str, older: &[&str]) -> EnvelopeVault {
        let older = older.iter().map(|key| (*key).to_owned()).collect();
        let client = self.aws.kms();
        let keys = KmsKeys::new(|| client, current, older);
        EnvelopeVault::new(self.table.clone(), Arc::new(RandomIds), self.clock.clone(), keys)
    }

    fn vault(&self) -> EnvelopeVault {
        self.with(&self.key, &[])
    }

    async fn stored(&self, key: &Key) -> (NewItem, Value) {
        let item = self.table.get(key, Read::Consistent).await.unwrap().unwrap();
        (item.stored.clone(), item.record().unwrap())
    }

    async fn store(&self, item: &NewItem, record: &Value) {
        self.table.put(NewItem { body: record.to_string(), ..item.clone() }, Condition::Any).await.unwrap();
    }

    /// The data key that sealed a secret.
    async fn sealed_with(&self, id: &SecretId, version: &str) -> Value {
        let record_key = Key { partition: format!("org#{}#secret#{}", id.org, id.id), sort: version.to_owned() };
        self.stored(&record_key).await.1["key"].clone()
    }
}

/// The key of an organization's data keys in the table.
fn data_keys(org: &str) -> Key {
    Key { partition: format!("org#{org}"), sort: "data-keys".to_owned() }
}

fn of(org: &str) -> SecretId {
    SecretId { org: OrgId::parse(org).unwrap(), ..anns("s1") }
}

#[track_caller]
fn stays_closed<T>(opened: Result<T, VaultError>) {
    assert!(matches!(opened.map(drop), Err(VaultError::DoesNotOpen)));
}

#[tokio::test]
async fn kms_is_called_once_an_hour_for_each_data_key() {
    let setup = Setup::start().await;
    let (vault, id) = (setup.vault(), of("acme"));
    vault.put(&id, "1", &"the secret".into()).await.unwrap();
    // A new data key is opened once before its first use.
    let requests = setup.aws.requests();
    let operations: Vec<_> = requests.iter().map(|(operation, _)| operation.as_str()).collect();
    assert_eq!(operations, ["Encrypt", "Decrypt"]);
    let name = setup.sealed_with(&id, "1").await;
    for (_, asked) in &requests {
        assert_eq!(asked["EncryptionContext"], json!({ "organization": "acme", "data-key": name }));
        assert_eq!(asked["KeyId"], json!(setup.key));
    }
    setup.clock.advance(3_599);
    read(&vault, &id, "1").await.unwrap();
    vault.put(&id, "2", &"the secret".into()).await.unwrap();
    assert_eq!(setup.aws.operations(), [""; 0]);
    setup.clock.advance(1);
    read(&vault, &id, "1").await.unwrap();
    vault.put(&id, "3", &"the secret".into()).await.unwrap();
    assert_eq!(setup.aws.operations(), ["Decrypt"]);
    // Another process opens only the data key that it needs.
    vault.rotate_data_keys(None).await.unwrap();
    setup.aws.requests();
    let other = setup.vault();
    read(&other, &id, "1").await.unwrap();
    read(&other, &id, "2").await.unwrap();
    assert_eq!(setup.aws.operations(), ["Decrypt"]);
    other.put(&id, "4", &"the secret".into()).await.unwrap();
    read(&other, &id, "4").await.unwrap();
    read(&other, &id, "1").await.unwrap();
    assert_eq!(setup.aws.operations(), ["Decrypt"]);
    // The older of two cached keys decides when the hour is over.
    let third = setup.vault();
    read(&third, &id, "1").await.unwrap();
    setup.clock.advance(3_000);
    read(&third, &id, "4").await.unwrap();
    setup.clock.advance(600);
    setup.aws.requests();
    read(&third, &id, "1").await.unwrap();
    assert_eq!(setup.aws.operations(), ["Decrypt"]);
}

#[tokio::test]
async fn moved_wrapped_key_does_not_open() {
    let setup = Setup::start().await;
    for org in ["acme", "other"] {
        setup.vault().put(&of(org), "1", &format!("of {org}").as_str().into()).await.unwrap();
    }
    let (_, acmes) = setup.stored(&data_keys("acme")).await;
    let (item, others) = setup.stored(&data_keys("other")).await;
    let mut moved = others.clone();
    let (acmes_name, others_name) = (acmes["current"].as_str().unwrap(), others["current"].as_str().unwrap());
    moved["keys"][others_name] = acmes["keys"][acmes_name].clone();
    // The whole record moved to acme.
    let mut whole = acmes.clone();
    whole["org"] = json!("other");
    for (version, wrong) in [("2", moved), ("3", whole)] {
        setup.store(&item, &wrong).await;
        stays_closed(setup.vault().get(&of("other"), "1").await);
        // The moved key seals nothing either: a new one is made.
        setup.vault().put(&of("other"), version, &"the secret".into()).await.unwrap();
        assert_ne!(setup.sealed_with(&of("other"), version).await, wrong["current"]);
    }
    setup.store(&item, &others).await;
    assert_eq!(read(&setup.vault(), &of("other"), "1").await.unwrap(), "of other");
    assert_eq!(read(&setup.vault(), &of("acme"), "1").await.unwrap(), "of acme");
}

#[tokio::test]
async fn data_key_opens_for_its_organization_and_name_only() {
    let setup = Setup::start().await;
    let client = setup.aws.kms();
    let keys = KmsKeys::new(|| client, setup.key.as_str(), Vec::new());
    let [acme, other] = ["acme", "other"].map(|org| OrgId::parse(org).unwrap());
    let sealed = keys.wrap(&acme, "k1", &vec![7; 32].into()).await.unwrap();
    assert_eq!(keys.open(&acme, "k1", &sealed).await.unwrap().expose_secret(), [7; 32]);
    for (org, name) in [(&other, "k1"), (&acme, "k2"), (&other, "k2")] {
        stays_closed(keys.open(org, name, &sealed).await);
    }
}

#[tokio::test]
async fn unknown_kms_key_is_never_called() {
    let setup = Setup::start().await;
    let (id, somebodys) = (of("acme"), setup.aws.new_key().await);
    setup.with(&somebodys, &[]).put(&id, "1", &"known to somebody".into()).await.unwrap();
    setup.aws.requests();
    stays_closed(setup.vault().get(&id, "1").await);
    assert_eq!(setup.aws.operations(), [""; 0]);
    // It seals nothing either.
    setup.vault().put(&id, "2", &"the secret".into()).await.unwrap();
    assert_ne!(setup.sealed_with(&id, "2").await, setup.sealed_with(&id, "1").await);
}

#[tokio::test]
async fn new_kms_key_opens_what_an_older_one_wrapped() {
    let setup = Setup::start().await;
    let (id, next) = (of("acme"), setup.aws.new_key().await);
    let old = setup.vault();
    old.put(&id, "1", &"the secret".into()).await.unwrap();
    old.rotate_data_keys(None).await.unwrap();
    let both = setup.with(&next, &[&setup.key]);
    assert_eq!(read(&both, &id, "1").await.unwrap(), "the secret");
    assert_eq!(both.rewrap().await.unwrap(), Rewrapped { data_keys: 2, left: 0 });
    assert_eq!(both.rewrap().await.unwrap(), Rewrapped::default());
    assert_eq!(read(&setup.with(&next, &[]), &id, "1").await.unwrap(), "the secret");
    stays_closed(setup.vault().get(&id, "1").await);
}

#[tokio::test]
async fn rotated_data_key_is_replaced_after_an_hour() {
    let setup = Setup::start().await;
    let (vault, id) = (setup.vault(), of("acme"));
    vault.put(&id, "1", &"the secret".into()).await.unwrap();
    setup.vault().rotate_data_keys(None).await.unwrap();
    setup.clock.advance(3_599);
    vault.put(&id, "2", &"the secret".into()).await.unwrap();
    assert_eq!(setup.sealed_with(&id, "2").await, setup.sealed_with(&id, "1").await);
    setup.clock.advance(1);
    vault.put(&id, "3", &"the secret".into()).await.unwrap();
    assert_ne!(setup.sealed_with(&id, "3").await, setup.sealed_with(&id, "1").await);
}

#[tokio::test]
async fn disabled_kms_key_is_noticed_after_an_hour() {
    let setup = Setup::start().await;
    let (vault, id) = (setup.vault(), of("acme"));
    vault.put(&id, "3", &"the secret".into()).await.unwrap();
    setup.aws.kms().disable_key().key_id(&setup.key).send().await.unwrap();
    assert_eq!(read(&vault, &id, "3").await.unwrap(), "the secret");
    setup.clock.advance(3_600);
    let (_, before) = setup.stored(&data_keys("acme")).await;
    let results = [vault.get(&id, "3").await.map(drop), vault.put(&id, "4", &"the secret".into()).await];
    for result in results {
        // Not `DoesNotOpen`: the secret opens again when the KMS key is back, and no account must be connected again.
        let error = result.unwrap_err();
        assert!(matches!(error, VaultError::Service(_)), "{error:?}");
        assert!(log_text(&error).contains("Decrypt: DisabledException"), "{error:?}");
    }
    assert_eq!(setup.stored(&data_keys("acme")).await.1, before, "no data key is made in place of those");
    setup.aws.kms().enable_key().key_id(&setup.key).send().await.unwrap();
    assert_eq!(read(&vault, &id, "3").await.unwrap(), "the secret");
}

#[tokio::test]
async fn kms_failure_reveals_nothing_of_a_key() {
    let setup = Setup::start().await;
    let error = |code, message| json!({ "__type": code, "message": message }).to_string();
    for (answer, expected) in [
        (error("AccessDeniedException", "not allowed to do that"), "not allowed to do that"),
        (error("ValidationException", "THE-KEY"), "ValidationException"),
        ("<THE-KEY>".to_owned(), "an error without a code"),
    ] {
        setup.aws.next("Encrypt", Instead::Refuse(400, answer));
        let error = setup.vault().put(&of("acme"), "1", &"the secret".into()).await.unwrap_err();
        let log_text = log_text(&error);
        assert!(
            log_text.contains("Encrypt: ") && log_text.contains(expected) && !log_text.contains("THE-KEY"),
            "{log_text}"
        );
    }
    let client = setup.aws.kms();
    let keys = KmsKeys::new(|| client, "current", vec!["older".to_owned()]);
    assert_eq!(format!("{keys:?}"), "KmsKeys { current: \"current\", older: [\"older\"], .. }");
}
