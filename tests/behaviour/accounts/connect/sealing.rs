//! The vault opens a ciphertext only for the record that it was sealed for.

use std::sync::Arc;

use overseer_engine::core::ids::{Alias, OrgId, Owner, PluginName, UserId};
use overseer_engine::ports::table::{Condition, Item, Key, NewItem, Query, Read, Table};
use overseer_engine::ports::vault::{Purpose, SecretId, VaultError};
use overseer_engine::ports::{RandomIds, SystemClock, Vault};
use overseer_engine::storage::vault::{EnvelopeVault, MasterKey, MasterKeys};
use overseer_local::RedbTable;
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use serde_json::{Value, json};

use crate::support::app::App;

pub fn master(key: u8) -> MasterKey {
    SecretBox::new(Box::new([key; 32]))
}

pub fn vault(table: &Arc<dyn Table>, key: u8) -> EnvelopeVault {
    let keys = MasterKeys::new(&master(key), &[]).unwrap();
    EnvelopeVault::new(table.clone(), Arc::new(RandomIds), Arc::new(SystemClock), keys)
}

fn owned(org: &str, owner: Owner, plugin: &str, alias: &str, id: &str) -> SecretId {
    let (plugin, alias) = (PluginName::parse(plugin).unwrap(), Alias::parse(alias).unwrap());
    let purpose = Purpose::Integration { owner, plugin, alias };
    SecretId { org: OrgId::parse(org).unwrap(), purpose, id: id.to_owned() }
}

pub fn id(org: &str, user: &str, plugin: &str, alias: &str, id: &str) -> SecretId {
    owned(org, Owner::User(UserId::parse(user).unwrap()), plugin, alias, id)
}

/// Where the table has a secret.
pub fn place(id: &SecretId, version: &str) -> Key {
    Key { partition: format!("org#{}#secret#{}", id.org, id.id), sort: version.to_owned() }
}

/// Where the table has an organization's data keys.
pub fn data_keys(org: &str) -> Key {
    Key { partition: format!("org#{org}"), sort: "data-keys".to_owned() }
}

pub async fn item(table: &Arc<dyn Table>, key: &Key) -> Item {
    table.get(key, Read::Consistent).await.unwrap().expect("the vault keeps its secrets elsewhere now")
}

pub fn table() -> Arc<dyn Table> {
    Arc::new(RedbTable::in_memory(Arc::new(SystemClock), Arc::new(RandomIds)).unwrap())
}

#[tokio::test]
async fn ciphertext_is_bound_to_its_record() {
    let base = id("acme", "ann", "slack", "default", "s1");
    let client = Purpose::Client { plugin: PluginName::parse("slack").unwrap() };
    let others = [
        (base.clone(), "1"),
        (base.clone(), "2"),
        (SecretId { purpose: client, ..base }, "1"),
        (id("acme", "ann", "slack", "default", "s2"), "1"),
        (id("acme", "ann", "slack", "work", "s1"), "1"),
        (id("acme", "ann", "gmail", "default", "s1"), "1"),
        (id("acme", "bob", "slack", "default", "s1"), "1"),
        (owned("acme", Owner::Organization, "slack", "default", "s1"), "1"),
        (id("acme", "organization", "slack", "default", "s1"), "1"),
        (id("other", "ann", "slack", "default", "s1"), "1"),
        // Where one part ends and the next begins counts, too.
        (id("acme", "anns", "lack", "default", "s1"), "1"),
        (id("acme", "ann", "slackd", "efault", "s1"), "1"),
    ];
    for (from, from_version) in &others {
        for (to, to_version) in &others {
            let table = table();
            vault(&table, 7).put(from, from_version, &SecretString::from("the secret")).await.unwrap();
            // The data keys move, too: the vault has them and still refuses to open it.
            for (from, to) in [
                (place(from, from_version), place(to, to_version)),
                (data_keys(from.org.as_str()), data_keys(to.org.as_str())),
            ] {
                let stored = item(&table, &from).await.stored;
                table.put(NewItem { key: to, ..stored }, Condition::Any).await.unwrap();
            }
            let opened = vault(&table, 7).get(to, to_version).await;
            if (from, from_version) == (to, to_version) {
                assert_eq!(opened.unwrap().unwrap().expose_secret(), "the secret");
            } else {
                assert!(
                    matches!(opened, Err(VaultError::DoesNotOpen)),
                    "{from:?} {from_version} -> {to:?} {to_version}"
                );
            }
        }
    }
}

#[tokio::test]
async fn changed_ciphertext_does_not_open() {
    let table = table();
    let id = id("acme", "ann", "slack", "default", "s1");
    vault(&table, 7).put(&id, "1", &SecretString::from("the secret")).await.unwrap();
    assert!(matches!(vault(&table, 8).get(&id, "1").await, Err(VaultError::DoesNotOpen)));
    let key = place(&id, "1");
    let sealed: Value = item(&table, &key).await.record().unwrap();
    for (field, value) in [
        ("ciphertext", json!("")),
        ("ciphertext", json!("AAAA")),
        ("ciphertext", json!("not base64")),
        ("ciphertext", json!(format!("AAAA{}", sealed["ciphertext"].as_str().unwrap()))),
        ("nonce", json!("AAAAAAAAAAAAAAAA")),
        ("nonce", json!("AAAA")),
        // As in a folder from before there were data keys: sealed by the master key itself.
        ("key", json!("0123456789abcdef")),
    ] {
        let mut changed = sealed.clone();
        changed[field] = value;
        table.put(NewItem::new(key.clone(), &changed).unwrap(), Condition::Any).await.unwrap();
        assert!(matches!(vault(&table, 7).get(&id, "1").await, Err(VaultError::DoesNotOpen)), "{changed}");
    }
}

#[tokio::test]
async fn sealing_is_randomized() {
    let table = table();
    let vault = vault(&table, 7);
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..10 {
        let id = id("acme", "ann", "slack", "default", &format!("s{number}"));
        vault.put(&id, "1", &SecretString::from("the secret")).await.unwrap();
        let again = vault.put(&id, "1", &SecretString::from("another")).await;
        assert!(matches!(again, Err(VaultError::VersionExists)));
        assert_eq!(vault.get(&id, "1").await.unwrap().unwrap().expose_secret(), "the secret");
        assert!(vault.get(&id, "2").await.unwrap().is_none());
        let sealed: Value = item(&table, &place(&id, "1")).await.record().unwrap();
        assert!(seen.insert(sealed["nonce"].to_string()) && seen.insert(sealed["ciphertext"].to_string()));
        vault.delete(&id).await.unwrap();
        assert!(vault.get(&id, "1").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn record_naming_another_secret_does_not_open_it() {
    let app = App::start().await;
    let table = &app.engine.ports.table;
    let connect = json!({ "token": "xoxb-playground", "userId": "bob" });
    app.post("/api/plugin-engine/integrations/slack/connect", &connect).await.json();
    let account =
        |user: &str| Key { partition: format!("org#acme#user#{user}"), sort: "integrations#slack".to_owned() };
    let bobs: Value = item(table, &account("bob")).await.record().unwrap();
    let mut admins: Value = item(table, &account("admin")).await.record().unwrap();
    admins["accounts"]["default"]["secret"] = bobs["accounts"]["default"]["secret"].clone();
    table.put(NewItem::new(account("admin"), &admins).unwrap(), Condition::Any).await.unwrap();
    let context = json!({ "channel": "#general", "text": "hello" });
    let answer = app.intend("slack", "send", context).await;
    assert_eq!(answer.failure(), "reconnect_required");
    assert_eq!(app.playground.received_total(), 0);
}

#[tokio::test]
async fn replaced_token_is_deleted() {
    let app = App::start().await;
    let table = &app.engine.ports.table;
    let account = Key { partition: "org#acme#user#admin".to_owned(), sort: "integrations#slack".to_owned() };
    let before: Value = item(table, &account).await.record().unwrap();
    app.connect("slack", "xoxb-of-tomorrow").await;
    let after: Value = item(table, &account).await.record().unwrap();
    for (record, count) in [(before, 0), (after, 1)] {
        let partition = format!("org#acme#secret#{}", record["accounts"]["default"]["secret"].as_str().unwrap());
        assert_eq!(table.query(Query::partition(partition, 10)).await.unwrap().entries.len(), count);
    }
}
