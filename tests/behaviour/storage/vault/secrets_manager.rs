//! What the vault on Secrets Manager promises beyond the port: its requests, their number, and what it refuses.

use overseer_aws::SecretsManagerVault;
use overseer_aws::vault::SECRET_MAX_BYTES;
use overseer_engine::ports::Vault as _;
use overseer_engine::ports::vault::{SecretId, VaultError};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::wire::{Aws, Instead, labels};
use super::{anns, exists, log_text, read};

async fn start() -> (Aws, SecretsManagerVault, SecretId) {
    let aws = Aws::start().await;
    let vault = aws.secrets_manager_vault();
    (aws, vault, anns("0123456789abcdef0123456789abcdef"))
}

/// The labels of a secret's versions.
async fn labelled(aws: &Aws, name: &str) -> Vec<(String, String)> {
    let described = aws.secrets_manager().describe_secret().secret_id(name).send().await.unwrap();
    aws.requests();
    let mut all = labels(&json!({ "VersionIdsToStages": described.version_ids_to_stages.unwrap() }));
    all.sort();
    all
}

#[tokio::test]
async fn each_operation_sends_the_documented_requests() {
    let (aws, vault, id) = start().await;
    vault.put(&id, "1", &"the secret".into()).await.unwrap();
    assert_eq!(aws.operations(), ["PutSecretValue", "CreateSecret", "PutSecretValue"]);
    vault.put(&id, "2", &"the secret".into()).await.unwrap();
    vault.put(&id, "2", &"the secret".into()).await.unwrap();
    assert_eq!(aws.operations(), ["PutSecretValue"; 2]);
    read(&vault, &id, "1").await.unwrap();
    assert_eq!(read(&vault, &id, "3").await, None);
    assert_eq!(aws.operations(), ["GetSecretValue"; 2]);
    vault.delete_version(&id, "1").await.unwrap();
    vault.delete_version(&id, "1").await.unwrap();
    assert_eq!(aws.operations(), ["UpdateSecretVersionStage"; 2]);
    vault.delete(&id).await.unwrap();
    vault.delete(&id).await.unwrap();
    assert_eq!(aws.operations(), ["DeleteSecret"; 2]);
}

#[tokio::test]
async fn version_is_labelled_until_it_is_deleted() {
    let (aws, vault, id) = start().await;
    let name = format!("overseer/{}", id.id);
    let versions = ["1", "2"].map(|version| id.digest(version).unwrap());
    for version in ["1", "2"] {
        vault.put(&id, version, &"the secret".into()).await.unwrap();
    }
    read(&vault, &id, "1").await.unwrap();
    let requests = aws.requests();
    let put = |version: &String| {
        let stages = json!(["AWSCURRENT", version]);
        let asked = json!({
            "SecretId": name, "ClientRequestToken": version, "VersionStages": stages, "SecretString": "the secret",
        });
        ("PutSecretValue".to_owned(), asked)
    };
    assert_eq!(requests[0], put(&versions[0]));
    let create = &requests[1].1;
    assert_eq!(create["Name"], json!(name));
    assert_eq!(create["KmsKeyId"], json!("alias/overseer"));
    assert_eq!((create.get("SecretString"), create.get("SecretBinary")), (None, None));
    assert_eq!(requests[3], put(&versions[1]));
    assert_eq!(requests[4], ("GetSecretValue".to_owned(), json!({ "SecretId": name, "VersionId": versions[0] })));
    for (_, asked) in &requests {
        let asked = asked.to_string();
        assert!(!["acme", "ann", "slack", "default"].iter().any(|log_text| asked.contains(log_text)), "{asked}");
    }
    let own = |version: usize| (versions[version].clone(), versions[version].clone());
    let all = labelled(&aws, &name).await;
    assert!(all.contains(&own(0)) && all.contains(&own(1)), "{all:?}");
    assert!(all.contains(&("AWSCURRENT".to_owned(), versions[1].clone())), "{all:?}");
    vault.delete_version(&id, "1").await.unwrap();
    let all = labelled(&aws, &name).await;
    assert!(!all.contains(&own(0)) && all.contains(&own(1)), "{all:?}");
}

#[tokio::test]
async fn secret_size_is_checked_before_the_request() {
    let (aws, vault, id) = start().await;
    let largest = format!("{}é", "x".repeat(SECRET_MAX_BYTES - 2));
    vault.put(&id, "1", &largest.as_str().into()).await.unwrap();
    assert_eq!(read(&vault, &id, "1").await.unwrap(), largest);
    aws.requests();
    // The same number of characters, one byte more.
    let too_large = vault.put(&id, "2", &largest.replacen('x', "é", 1).into()).await.unwrap_err();
    assert!(matches!(too_large, VaultError::TooLarge { bytes: 65_537, limit: 65_536 }), "{too_large:?}");
    assert!(!log_text(&too_large).contains('x'.to_string().repeat(9).as_str()));
    assert_eq!(aws.operations(), [""; 0]);
}

#[tokio::test]
async fn invalid_id_or_prefix_is_refused_without_a_request() {
    let aws = Aws::start().await;
    let vault = |prefix: &str| {
        let client = aws.secrets_manager();
        SecretsManagerVault::new(|| client, prefix, None)
    };
    let (long, longest) = ("p".repeat(449), "p".repeat(448));
    let mut cases: Vec<_> = ["", "a/b", "a b", "ü", &"a".repeat(65)].map(|id| ("p", anns(id), "id of a secret")).into();
    cases.extend(["a b", "ü", "a:b", &long].map(|prefix| (prefix, anns("a"), "prefix of secrets")));
    for (prefix, id, expected) in cases {
        let vault = vault(prefix);
        let results = [
            vault.put(&id, "1", &"the secret".into()).await,
            vault.get(&id, "1").await.map(drop),
            vault.delete_version(&id, "1").await,
            vault.delete(&id).await,
        ];
        for result in results {
            let log_text = log_text(&result.unwrap_err());
            assert!(log_text.contains(expected), "{log_text}");
        }
    }
    assert_eq!(aws.operations(), [""; 0]);
    for (prefix, id) in [("", anns("a")), (&longest, anns(&"a".repeat(64)))] {
        let vault = vault(prefix);
        vault.put(&id, "1", &"the secret".into()).await.unwrap();
        assert_eq!(read(&vault, &id, "1").await.unwrap(), "the secret");
    }
}

#[tokio::test]
async fn exhausted_labels_take_no_label_from_a_version() {
    let (aws, vault, id) = start().await;
    let (name, own) = (format!("overseer/{}", id.id), |version: &str| id.digest(version).unwrap());
    for number in 0..18 {
        vault.put(&id, &number.to_string(), &format!("secret {number}").into()).await.unwrap();
    }
    let before = labelled(&aws, &name).await;
    assert_eq!(before.len(), 20);
    vault.put(&id, "18", &"secret 18".into()).await.unwrap();
    // The SDK tries three times, since it retries this error as transient.
    assert_eq!(aws.operations(), ["PutSecretValue"; 3 + 1]);
    let after = labelled(&aws, &name).await;
    let owned =
        |all: &[(String, String)]| all.iter().filter(|(label, version)| label == version).cloned().collect::<Vec<_>>();
    assert_eq!(owned(&after), owned(&before));
    assert!(after.contains(&("AWSCURRENT".to_owned(), own("18"))), "{after:?}");
    for number in 0..19 {
        assert_eq!(read(&vault, &id, &number.to_string()).await.unwrap(), format!("secret {number}"));
    }
    // Deleting a version without its own label succeeds; deleting another makes room for the next label.
    vault.delete_version(&id, "18").await.unwrap();
    vault.delete_version(&id, "3").await.unwrap();
    aws.requests();
    vault.put(&id, "19", &"secret 19".into()).await.unwrap();
    assert_eq!(aws.operations(), ["PutSecretValue"]);
    assert!(labelled(&aws, &name).await.contains(&(own("19"), own("19"))));
    // The same error code also means the limit of versions, where dropping the label does not help.
    for _ in 0..6 {
        aws.next("PutSecretValue", Instead::Refuse(400, error("LimitExceededException", "too many versions")));
    }
    let log_text = log_text(&vault.put(&id, "20", &"secret 20".into()).await.unwrap_err());
    assert!(
        log_text.contains("PutSecretValue: LimitExceededException") && log_text.contains("too many versions"),
        "{log_text}"
    );
}

#[tokio::test]
async fn write_with_a_lost_response_succeeds() {
    let (aws, vault, id) = start().await;
    for operation in ["PutSecretValue", "CreateSecret"] {
        aws.next(operation, Instead::Lose);
    }
    vault.put(&id, "1", &"the secret".into()).await.unwrap();
    aws.next("PutSecretValue", Instead::Lose);
    vault.put(&id, "2", &"the next".into()).await.unwrap();
    exists(&vault.put(&id, "2", &"another".into()).await);
    assert_eq!(read(&vault, &id, "1").await.unwrap(), "the secret");
    assert_eq!(read(&vault, &id, "2").await.unwrap(), "the next");
    aws.next("UpdateSecretVersionStage", Instead::Lose);
    vault.delete_version(&id, "1").await.unwrap();
    aws.next("DeleteSecret", Instead::Lose);
    vault.delete(&id).await.unwrap();
    assert_eq!(read(&vault, &id, "2").await, None);
}

#[tokio::test]
async fn secret_marked_as_deleted_is_absent() {
    let (aws, vault, id) = start().await;
    vault.put(&id, "1", &"the secret".into()).await.unwrap();
    let name = format!("overseer/{}", id.id);
    aws.secrets_manager().delete_secret().secret_id(name).recovery_window_in_days(7).send().await.unwrap();
    assert_eq!(read(&vault, &id, "1").await, None);
    vault.delete_version(&id, "1").await.unwrap();
    let log_text = log_text(&vault.put(&id, "2", &"the secret".into()).await.unwrap_err());
    assert!(log_text.contains("InvalidRequestException") && log_text.contains("marked for deletion"), "{log_text}");
    vault.delete(&id).await.unwrap();
    vault.put(&anns("1"), "1", &"connected anew".into()).await.unwrap();
    assert_eq!(read(&vault, &anns("1"), "1").await.unwrap(), "connected anew");
}

#[tokio::test]
async fn failure_reveals_nothing_of_a_secret() {
    let (aws, vault, id) = start().await;
    let secret = "THE-SECRET";
    vault.put(&id, "1", &secret.into()).await.unwrap();
    let (denied, invalid) = ("AccessDeniedException", "InvalidParameterException");
    let cases = [
        (400, error(denied, "not allowed to do that"), "not allowed to do that"),
        (400, error("DecryptionFailure", "the key is disabled"), "the key is disabled"),
        (400, error("com.amazon.coral.validate#ValidationException", secret), "ValidationException"),
        (400, error("SerializationException", secret), "SerializationException"),
        (400, format!("<{secret}>"), "an error without a code"),
        (200, format!("{{\"SecretString\": \"{secret}"), ""),
    ];
    for (status, answer, expected) in cases {
        for operation in ["PutSecretValue", "GetSecretValue", "UpdateSecretVersionStage", "DeleteSecret"] {
            aws.next(operation, Instead::Refuse(status, answer.clone()));
        }
        let results = [
            ("PutSecretValue", vault.put(&id, "2", &secret.into()).await),
            ("GetSecretValue", vault.get(&id, "1").await.map(drop)),
            ("UpdateSecretVersionStage", vault.delete_version(&id, "1").await),
            ("DeleteSecret", vault.delete(&id).await),
        ];
        for (operation, result) in results {
            let error = result.unwrap_err();
            assert!(matches!(error, VaultError::Service(_)), "{error:?}");
            let log_text = log_text(&error);
            assert!(
                log_text.contains(operation) && log_text.contains(expected) && !log_text.contains(secret),
                "{log_text}"
            );
        }
    }
    aws.next("PutSecretValue", Instead::Refuse(400, error(invalid, secret)));
    let log_text = log_text(&vault.put(&id, "2", &secret.into()).await.unwrap_err());
    assert!(log_text.contains(invalid) && !log_text.contains(secret), "{log_text}");
    assert_eq!(vault.get(&id, "1").await.unwrap().unwrap().expose_secret(), secret);
    assert_eq!(format!("{vault:?}"), "SecretsManagerVault { prefix: \"overseer/\", .. }");
}

fn error(code: &str, message: &str) -> String {
    let body: Value = json!({ "__type": code, "message": message });
    body.to_string()
}
