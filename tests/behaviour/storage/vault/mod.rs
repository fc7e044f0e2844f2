//! The conformance suite of the `Vault` port: every implementation must pass every case.
//!
//! A case takes a fresh [`Store`] and knows only one difference of the implementations: whether a deleted version is
//! unreadable at once. The two on AWS are tested against a stand-in (`ministack.rs`, `vault/wire.rs`).

mod envelope;
mod secrets_manager;
mod wire;

use std::collections::BTreeSet;
use std::error::Error;
use std::future::{Ready, ready};
use std::sync::Arc;

use futures_util::future::join_all;
use overseer_engine::core::ids::{Alias, OrgId, Owner, PluginName, UserId};
use overseer_engine::ports::vault::{Purpose, SecretId, VaultError};
use overseer_engine::ports::{RandomIds, SystemClock, Table, Vault};
use overseer_engine::storage::vault::{EnvelopeVault, MasterKeys};
use overseer_local::RedbTable;
use secrecy::{ExposeSecret as _, SecretBox};
use wire::Aws;

macro_rules! conformance {
    ($($implementation:ident),*; $cases:tt) => { $(conformance!(@ $implementation $cases);)* };
    (@ $implementation:ident { $($case:ident),* $(,)? }) => {
        mod $implementation {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(super::Store::$implementation().await).await;
                }
            )*
        }
    };
}

conformance! { local_envelope, on_secrets_manager, kms_envelope; {
    version_is_read_as_written,
    version_never_changes_its_content,
    one_of_many_writers_of_a_version_wins,
    concurrent_first_versions_are_all_stored,
    deleted_version_leaves_the_others,
    deleted_secret_is_absent,
    moved_secret_does_not_open,
    late_loser_keeps_the_committed_version,
} }

/// A vault of some implementation, empty at first.
struct Store {
    /// Makes vaults over the same store, which share no cache.
    vaults: Box<dyn Fn() -> Arc<dyn Vault> + Send + Sync>,
    /// Whether a deleted version is unreadable at once.
    gone_at_once: bool,
}

impl Store {
    fn local_envelope() -> Ready<Self> {
        let table = table();
        let vaults = move || -> Arc<dyn Vault> {
            let keys = MasterKeys::new(&SecretBox::new(Box::new([7; 32])), &[]).unwrap();
            Arc::new(EnvelopeVault::new(table.clone(), Arc::new(RandomIds), Arc::new(SystemClock), keys))
        };
        ready(Self { vaults: Box::new(vaults), gone_at_once: true })
    }

    async fn on_secrets_manager() -> Self {
        let aws = Aws::start().await;
        Self { vaults: Box::new(move || Arc::new(aws.secrets_manager_vault())), gone_at_once: false }
    }

    async fn kms_envelope() -> Self {
        let (aws, table) = (Aws::start().await, table());
        let key = aws.new_key().await;
        let vaults = move || -> Arc<dyn Vault> {
            let client = aws.kms();
            let keys = overseer_aws::KmsKeys::new(|| client, key.as_str(), Vec::new());
            Arc::new(EnvelopeVault::new(table.clone(), Arc::new(RandomIds), Arc::new(SystemClock), keys))
        };
        Self { vaults: Box::new(vaults), gone_at_once: true }
    }

    fn vault(&self) -> Arc<dyn Vault> {
        (self.vaults)()
    }
}

fn table() -> Arc<dyn Table> {
    Arc::new(RedbTable::in_memory(Arc::new(SystemClock), Arc::new(RandomIds)).unwrap())
}

fn owned(org: &str, owner: Owner, plugin: &str, alias: &str, id: &str) -> SecretId {
    let (plugin, alias) = (PluginName::parse(plugin).unwrap(), Alias::parse(alias).unwrap());
    let purpose = Purpose::Integration { owner, plugin, alias };
    SecretId { org: OrgId::parse(org).unwrap(), purpose, id: id.to_owned() }
}

/// A secret of Ann's at Slack.
fn anns(id: &str) -> SecretId {
    owned("acme", Owner::User(UserId::parse("ann").unwrap()), "slack", "default", id)
}

/// Everything that a log could contain of an error.
fn log_text(error: &dyn Error) -> String {
    let mut text = format!("{error:?}");
    let mut cause = Some(error);
    while let Some(error) = cause {
        text = format!("{text}\n{error}");
        cause = error.source();
    }
    text
}

#[track_caller]
fn exists(result: &Result<(), VaultError>) {
    assert!(matches!(result, Err(VaultError::VersionExists)), "{result:?}");
}

async fn read(vault: &dyn Vault, id: &SecretId, version: &str) -> Option<String> {
    vault.get(id, version).await.unwrap().map(|secret| secret.expose_secret().to_owned())
}

async fn version_is_read_as_written(store: Store) {
    let (vault, id) = (store.vault(), anns("s1"));
    assert_eq!(read(&*vault, &id, "1").await, None);
    let secrets = [("1", "the secret".to_owned()), ("2", "über\n\"{}\u{1F511}".to_owned()), ("3", "x".repeat(60_000))];
    for (version, secret) in &secrets {
        vault.put(&id, version, &secret.as_str().into()).await.unwrap();
    }
    for vault in [vault, store.vault()] {
        for (version, secret) in &secrets {
            assert_eq!(read(&*vault, &id, version).await.as_ref(), Some(secret));
        }
        assert_eq!(read(&*vault, &id, "4").await, None);
        assert_eq!(read(&*vault, &anns("s2"), "1").await, None);
    }
}

async fn version_never_changes_its_content(store: Store) {
    let id = anns("s1");
    for (vault, other) in [(store.vault(), "another"), (store.vault(), "the secret "), (store.vault(), "the secre")] {
        vault.put(&id, "1", &"the secret".into()).await.unwrap();
        exists(&vault.put(&id, "1", &other.into()).await);
        assert_eq!(read(&*vault, &id, "1").await.unwrap(), "the secret");
    }
}

async fn one_of_many_writers_of_a_version_wins(store: Store) {
    let id = anns("s1");
    let write = |number: usize| {
        let (vault, id) = (store.vault(), &id);
        async move { vault.put(id, "1", &format!("secret {number}").into()).await }
    };
    let results = join_all((0..8).map(write)).await;
    let winners: Vec<_> = (0..8).filter(|number| results[*number].is_ok()).collect();
    results.iter().filter(|result| result.is_err()).for_each(exists);
    assert_eq!(winners.len(), 1);
    assert_eq!(read(&*store.vault(), &id, "1").await.unwrap(), format!("secret {}", winners[0]));
}

async fn concurrent_first_versions_are_all_stored(store: Store) {
    let id = anns("s1");
    let versions: Vec<_> = (0..8).map(|number| number.to_string()).collect();
    let write = |version: &String| {
        let (vault, id, version) = (store.vault(), &id, version.clone());
        async move { vault.put(id, &version, &format!("secret {version}").into()).await.unwrap() }
    };
    join_all(versions.iter().map(write)).await;
    let vault = store.vault();
    for version in &versions {
        assert_eq!(read(&*vault, &id, version).await.unwrap(), format!("secret {version}"));
    }
}

async fn deleted_version_leaves_the_others(store: Store) {
    let (vault, id) = (store.vault(), anns("s1"));
    vault.delete_version(&id, "1").await.unwrap();
    for version in ["1", "2", "3"] {
        vault.put(&id, version, &version.into()).await.unwrap();
    }
    for version in ["1", "1", "3", "4"] {
        vault.delete_version(&id, version).await.unwrap();
    }
    assert_eq!(read(&*vault, &id, "2").await.unwrap(), "2");
    if store.gone_at_once {
        assert_eq!(read(&*vault, &id, "1").await, None);
        assert_eq!(read(&*vault, &id, "3").await, None);
    }
}

async fn deleted_secret_is_absent(store: Store) {
    let (vault, id) = (store.vault(), anns("s1"));
    vault.delete(&id).await.unwrap();
    for version in ["1", "2"] {
        vault.put(&id, version, &"the secret".into()).await.unwrap();
    }
    vault.put(&anns("s2"), "1", &"another account's".into()).await.unwrap();
    for _ in 0..2 {
        vault.delete(&id).await.unwrap();
        for version in ["1", "2"] {
            assert_eq!(read(&*vault, &id, version).await, None);
        }
    }
    vault.delete_version(&id, "1").await.unwrap();
    assert_eq!(read(&*vault, &anns("s2"), "1").await.unwrap(), "another account's");
    vault.put(&anns("s3"), "1", &"connected anew".into()).await.unwrap();
    assert_eq!(read(&*vault, &anns("s3"), "1").await.unwrap(), "connected anew");
}

async fn moved_secret_does_not_open(store: Store) {
    let base = anns("s1");
    let user = |name| Owner::User(UserId::parse(name).unwrap());
    let client = Purpose::Client { plugin: PluginName::parse("slack").unwrap() };
    store.vault().put(&base, "1", &"the secret".into()).await.unwrap();
    let others = [
        (anns("s2"), "1"),
        (base.clone(), "2"),
        (SecretId { purpose: client, ..base.clone() }, "1"),
        (owned("acme", user("bob"), "slack", "default", "s1"), "1"),
        (owned("acme", Owner::Organization, "slack", "default", "s1"), "1"),
        (owned("acme", user("ann"), "gmail", "default", "s1"), "1"),
        (owned("acme", user("ann"), "slack", "work", "s1"), "1"),
        (owned("acme", user("anns"), "lack", "default", "s1"), "1"),
        (owned("other", user("ann"), "slack", "default", "s1"), "1"),
    ];
    for (other, version) in &others {
        for vault in [store.vault(), store.vault()] {
            let opened = vault.get(other, version).await;
            assert!(matches!(opened, Ok(None) | Err(VaultError::DoesNotOpen)), "{other:?} {version}");
        }
    }
    // The same id in another organization is a separate secret.
    let (theirs, _) = others.last().unwrap();
    store.vault().put(theirs, "1", &"theirs".into()).await.unwrap();
    assert_eq!(read(&*store.vault(), theirs, "1").await.unwrap(), "theirs");
    assert_eq!(read(&*store.vault(), &base, "1").await.unwrap(), "the secret");
}

async fn late_loser_keeps_the_committed_version(store: Store) {
    let (vault, id) = (store.vault(), anns("s1"));
    vault.put(&id, "1-first", &"1".into()).await.unwrap();
    vault.put(&id, "2-winner", &"2".into()).await.unwrap();
    vault.delete_version(&id, "1-first").await.unwrap();
    let losers: BTreeSet<_> = ["a", "b", "c", "d"].map(|loser| format!("2-{loser}")).into();
    for loser in &losers {
        vault.put(&id, loser, &"late".into()).await.unwrap();
        assert_eq!(read(&*store.vault(), &id, "2-winner").await.unwrap(), "2");
    }
    // Two losers delete their versions; the others crashed.
    for loser in losers.iter().take(2) {
        vault.delete_version(&id, loser).await.unwrap();
    }
    assert_eq!(read(&*store.vault(), &id, "2-winner").await.unwrap(), "2");
    vault.put(&id, "3-next", &"3".into()).await.unwrap();
    assert_eq!(read(&*store.vault(), &id, "2-winner").await.unwrap(), "2");
    vault.delete_version(&id, "2-winner").await.unwrap();
    assert_eq!(read(&*store.vault(), &id, "3-next").await.unwrap(), "3");
    // Deleting the secret deletes the remaining versions.
    vault.delete(&id).await.unwrap();
    for loser in &losers {
        assert_eq!(read(&*vault, &id, loser).await, None);
    }
}
