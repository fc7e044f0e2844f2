//! Key rotation in the vault: it loses no secret, and old keys stop working when they should.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use overseer_engine::core::ids::OrgId;
use overseer_engine::ports::table::{Condition, NewItem, Table};
use overseer_engine::ports::vault::{SecretId, VaultError};
use overseer_engine::ports::{Ids, RandomIds, SystemClock, Vault};
use overseer_engine::storage::vault::{EnvelopeVault, MasterKeys, Rewrapped};
use overseer_local::folder::{DataFolder, FolderError};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tempfile::tempdir;

use super::sealing::{data_keys, id, item, master, place, table, vault};
use crate::support::process::{Server, overseer, sentence};

fn of(org: &str) -> SecretId {
    id(org, "ann", "slack", "default", "s1")
}

fn org(name: &str) -> OrgId {
    OrgId::parse(name).unwrap()
}

/// A vault that wraps with the second key and opens what the first wrapped.
fn both(table: &Arc<dyn Table>, older: u8, current: u8) -> EnvelopeVault {
    let keys = MasterKeys::new(&master(current), &[&master(older)]).unwrap();
    EnvelopeVault::new(table.clone(), Arc::new(RandomIds), Arc::new(SystemClock), keys)
}

async fn put(vault: &EnvelopeVault, org: &str, version: &str) {
    vault.put(&of(org), version, &SecretString::from(format!("of {org}"))).await.unwrap();
}

#[track_caller]
fn is_of(org: &str, opened: Result<Option<SecretString>, VaultError>) {
    assert_eq!(opened.unwrap().unwrap().expose_secret(), format!("of {org}"));
}

#[track_caller]
fn stays_closed(opened: &Result<Option<SecretString>, VaultError>) {
    assert!(matches!(opened, Err(VaultError::DoesNotOpen)), "{:?}", opened.is_ok());
}

/// Which data key a secret names.
async fn sealed_with(table: &Arc<dyn Table>, org: &str, version: &str) -> String {
    let sealed: Value = item(table, &place(&of(org), version)).await.record().unwrap();
    sealed["key"].as_str().unwrap().to_owned()
}

async fn stored_keys(table: &Arc<dyn Table>, org: &str) -> Value {
    item(table, &data_keys(org)).await.record().unwrap()
}

#[tokio::test]
async fn new_data_key_seals_the_next_write() {
    let table = table();
    let (here, elsewhere) = (vault(&table, 7), vault(&table, 7));
    for org in ["acme", "other"] {
        put(&here, org, "1").await;
        is_of(org, elsewhere.get(&of(org), "1").await);
    }
    let first = sealed_with(&table, "acme", "1").await;
    assert_ne!(first, sealed_with(&table, "other", "1").await);

    assert_eq!(here.rotate_data_keys(None).await.unwrap(), 2);
    for org in ["acme", "other"] {
        put(&here, org, "2").await;
        assert_ne!(sealed_with(&table, org, "2").await, sealed_with(&table, org, "1").await);
        // One knows both keys, one knows the first, one knows none.
        for vault in [&here, &elsewhere, &vault(&table, 7)] {
            is_of(org, vault.get(&of(org), "1").await);
            is_of(org, vault.get(&of(org), "2").await);
        }
    }
    assert_eq!(sealed_with(&table, "acme", "1").await, first, "what is not written is not sealed anew");

    assert_eq!(here.rotate_data_keys(Some(&org("acme"))).await.unwrap(), 1);
    assert_eq!(here.rotate_data_keys(Some(&org("nobody"))).await.unwrap(), 0);
    for org in ["acme", "other"] {
        put(&here, org, "3").await;
    }
    assert_ne!(sealed_with(&table, "acme", "3").await, sealed_with(&table, "acme", "2").await);
    assert_eq!(sealed_with(&table, "other", "3").await, sealed_with(&table, "other", "2").await);
}

#[tokio::test]
async fn rotated_master_key_alone_opens() {
    let table = table();
    let old = vault(&table, 7);
    // More than a page of them.
    let orgs: Vec<String> = (0..103).map(|number| format!("org {number}")).collect();
    let place_of = |org: &str| org.replace(' ', "%20");
    for org in &orgs {
        put(&old, org, "1").await;
    }
    old.rotate_data_keys(None).await.unwrap();
    for org in &orgs {
        put(&old, org, "2").await;
    }
    let new = both(&table, 7, 8);
    assert_eq!(new.rewrap().await.unwrap(), Rewrapped { data_keys: 206, left: 0 });
    let before = item(&table, &data_keys(&place_of("org 0"))).await;
    assert_eq!(new.rewrap().await.unwrap(), Rewrapped::default());
    assert_eq!(item(&table, &data_keys(&place_of("org 0"))).await, before, "nothing to do, and written all the same");
    let (old, new) = (vault(&table, 7), vault(&table, 8));
    for org in &orgs {
        for version in ["1", "2"] {
            stays_closed(&old.get(&of(org), version).await);
            is_of(org, new.get(&of(org), version).await);
        }
    }
}

#[tokio::test]
async fn moved_data_key_does_not_open() {
    let table = table();
    put(&vault(&table, 7), "acme", "1").await;
    put(&vault(&table, 7), "other", "1").await;
    let others = item(&table, &data_keys("other")).await.stored;
    let mut moved: Value = stored_keys(&table, "acme").await;
    let mut renamed: Value = stored_keys(&table, "other").await;
    moved["org"] = json!("other");
    let wrapped = renamed["keys"][renamed["current"].as_str().unwrap()].clone();
    renamed["current"] = json!("0011223344556677");
    renamed["keys"] = json!({ "0011223344556677": wrapped });
    for (version, wrong) in [("2", moved), ("3", renamed)] {
        let body = wrong.to_string();
        table.put(NewItem { body, ..others.clone() }, Condition::Any).await.unwrap();
        let vault = vault(&table, 7);
        stays_closed(&vault.get(&of("other"), "1").await);
        assert_eq!(both(&table, 7, 8).rewrap().await.unwrap(), Rewrapped { data_keys: 1, left: 1 });
        assert_eq!(both(&table, 8, 7).rewrap().await.unwrap(), Rewrapped { data_keys: 1, left: 1 });
        // It seals nothing, either: a new one is made.
        put(&vault, "other", version).await;
        assert_ne!(sealed_with(&table, "other", version).await, wrong["current"].as_str().unwrap());
        is_of("other", vault.get(&of("other"), version).await);
    }
    table.put(others, Condition::Any).await.unwrap();
    is_of("other", vault(&table, 7).get(&of("other"), "1").await);
    table.delete(&data_keys("other"), Condition::Any).await.unwrap();
    stays_closed(&vault(&table, 7).get(&of("other"), "1").await);
}

#[tokio::test]
async fn restored_master_key_opens_its_data_keys() {
    let table = table();
    put(&vault(&table, 7), "acme", "1").await;
    // Lost: another one is made, and sealing goes on.
    put(&vault(&table, 8), "acme", "2").await;
    stays_closed(&vault(&table, 8).get(&of("acme"), "1").await);
    is_of("acme", vault(&table, 8).get(&of("acme"), "2").await);
    assert_eq!(both(&table, 8, 9).rewrap().await.unwrap(), Rewrapped { data_keys: 1, left: 1 });
    is_of("acme", vault(&table, 7).get(&of("acme"), "1").await);
}

#[tokio::test]
async fn concurrent_first_secrets_share_one_data_key() {
    let table = table();
    let vaults: Vec<_> = (0..8).map(|_| vault(&table, 7)).collect();
    let versions: Vec<String> = (0..8).map(|version| version.to_string()).collect();
    join_all(vaults.iter().zip(&versions).map(|(vault, version)| put(vault, "acme", version))).await;
    assert_eq!(stored_keys(&table, "acme").await["keys"].as_object().unwrap().len(), 1);
    for vault in &vaults {
        for version in &versions {
            is_of("acme", vault.get(&of("acme"), version).await);
        }
    }
}

#[tokio::test]
async fn data_keys_can_be_made_during_rotation() {
    let table = table();
    let orgs: Vec<String> = (0..20).map(|number| format!("org{number}")).collect();
    for org in &orgs {
        put(&vault(&table, 7), org, "1").await;
    }
    let (one, two, three) = (both(&table, 7, 8), both(&table, 7, 8), both(&table, 7, 8));
    let (rewrapped, again, rotated, _) = tokio::join!(
        one.rewrap(),
        two.rewrap(),
        three.rotate_data_keys(None),
        join_all(orgs.iter().map(|org| put(&two, org, "2")))
    );
    // Each data key was wrapped anew once, by one or by the other.
    assert_eq!(rewrapped.unwrap().data_keys + again.unwrap().data_keys, 20);
    assert_eq!(rotated.unwrap(), 20);
    for org in &orgs {
        put(&three, org, "3").await;
        let names = [sealed_with(&table, org, "1").await, sealed_with(&table, org, "3").await];
        let stored = stored_keys(&table, org).await;
        assert_eq!(stored["keys"].as_object().unwrap().keys().collect::<BTreeSet<_>>(), names.iter().collect());
        for version in ["1", "2", "3"] {
            is_of(org, vault(&table, 8).get(&of(org), version).await);
        }
    }
}

const ORGS: [&str; 4] = ["acme", "other", "third", "fourth"];

async fn open(path: &Path) -> Result<DataFolder, FolderError> {
    let ids: Arc<dyn Ids> = Arc::new(RandomIds);
    DataFolder::open(path, Arc::new(SystemClock), &ids).await
}

fn vault_in(folder: &DataFolder) -> EnvelopeVault {
    let keys = MasterKeys::new(folder.master_key(), &[]).unwrap();
    EnvelopeVault::new(folder.table(), Arc::new(RandomIds), Arc::new(SystemClock), keys)
}

/// Where a new master key was broken off, of what is done one after the other.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Crash {
    WithADraft,
    BeforeWrapping,
    HalfWrapped,
    BeforeTheRename,
    AfterTheRename,
}

#[tokio::test]
async fn interrupted_rotation_is_finished_on_open() {
    use Crash::{AfterTheRename, BeforeTheRename, BeforeWrapping, HalfWrapped, WithADraft};
    for crash in [WithADraft, BeforeWrapping, HalfWrapped, BeforeTheRename, AfterTheRename] {
        let temporary = tempdir().unwrap();
        let path = temporary.path();
        let (key_path, next_path) = (path.join("master-key"), path.join("master-key.next"));
        let folder = open(path).await.unwrap();
        // The fixture owns it: the test can make vaults from it.
        fs::write(&key_path, [7; 32]).unwrap();
        let table = folder.table();
        for org in ORGS {
            put(&vault(&table, 7), org, "1").await;
        }
        if crash == WithADraft {
            fs::write(path.join("master-key.new"), [8; 20]).unwrap();
        } else {
            fs::write(&next_path, [8; 32]).unwrap();
        }
        if crash >= HalfWrapped {
            let halves = [item(&table, &data_keys("acme")).await, item(&table, &data_keys("third")).await];
            both(&table, 7, 8).rewrap().await.unwrap();
            for before in halves.into_iter().filter(|_| crash == HalfWrapped) {
                table.put(before.stored, Condition::Any).await.unwrap();
            }
        }
        if crash >= AfterTheRename {
            fs::rename(&next_path, &key_path).unwrap();
        }
        drop((folder, table));

        let (good, bad) = if crash == WithADraft { (7, 8) } else { (8, 7) };
        // Once more, since what was finished must stay so.
        for _ in 0..2 {
            let folder = open(path).await.unwrap();
            assert!(!next_path.exists(), "{crash:?}");
            assert_eq!(fs::read(&key_path).unwrap(), [good; 32], "{crash:?}");
            for org in ORGS {
                is_of(org, vault_in(&folder).get(&of(org), "1").await);
                is_of(org, vault(&folder.table(), good).get(&of(org), "1").await);
                stays_closed(&vault(&folder.table(), bad).get(&of(org), "1").await);
            }
        }
        // A rotation in good order is not in the way of what is left from a broken one.
        let mut folder = open(path).await.unwrap();
        let ids: Arc<dyn Ids> = Arc::new(RandomIds);
        assert_eq!(folder.rotate_master_key(&ids).await.unwrap(), Rewrapped { data_keys: 4, left: 0 });
        for org in ORGS {
            is_of(org, vault_in(&folder).get(&of(org), "1").await);
            stays_closed(&vault(&folder.table(), good).get(&of(org), "1").await);
        }
    }
}

#[tokio::test]
async fn damaged_next_master_key_is_refused() {
    let temporary = tempdir().unwrap();
    let next_path = temporary.path().join("master-key.next");
    let folder = open(temporary.path()).await.unwrap();
    put(&vault_in(&folder), "acme", "1").await;
    drop(folder);
    fs::write(&next_path, [8; 31]).unwrap();
    let refused = open(temporary.path()).await.map(drop);
    assert!(matches!(&refused, Err(FolderError::MasterKey(path)) if path.ends_with("master-key.next")), "{refused:?}");
    fs::remove_file(&next_path).unwrap();
    is_of("acme", vault_in(&open(temporary.path()).await.unwrap()).get(&of("acme"), "1").await);
}

#[test]
fn command_rotates_keys_of_a_stopped_server() {
    let temporary = tempdir().unwrap();
    let folder = temporary.path().join("data");
    let data = folder.to_str().unwrap();
    let rotate = |flags: &[&str]| overseer(&[&["--data", data, "vault", "rotate"], flags].concat());
    let printed = |flags: &[&str]| {
        let output = rotate(flags);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let master_key = || fs::read(folder.join("master-key")).unwrap();
    let still_connected = |server: &Server| {
        let answer: Value = serde_json::from_str(&Server::paste(&server.curl)).unwrap();
        assert_eq!(answer["success"], json!(true), "{answer}");
    };

    let none = sentence(&rotate(&[]));
    assert!(none.contains("no data folder") && none.contains("--data"), "{none}");
    assert!(!folder.exists());

    let mut server = Server::start(&folder, &[], &[]);
    let first = master_key();
    let running = sentence(&rotate(&[]));
    assert!(running.contains("already open") && running.contains("stop that first"), "{running}");
    still_connected(&server);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));

    let alone = sentence(&rotate(&["--master-key", "--organization", "local"]));
    assert!(alone.contains("--organization") && alone.contains("--data-keys"), "{alone}");
    let unknown = sentence(&rotate(&["--organization", "nobody"]));
    assert!(unknown.contains("nobody") && unknown.contains("no data key"), "{unknown}");
    assert_eq!(master_key(), first);

    let (data_keys, wrapped) = ("organizations with a new data key: 1\n", "data keys that the new master key wraps: ");
    assert_eq!(printed(&["--data-keys"]), data_keys);
    assert_eq!(master_key(), first);
    assert_eq!(printed(&["--master-key"]), format!("{wrapped}2\n"));
    let second = master_key();
    assert_ne!(second, first);
    assert_eq!(printed(&[]), format!("{data_keys}{wrapped}3\n"));
    assert_ne!(master_key(), second);
    assert_eq!(
        printed(&["--data-keys", "--master-key", "--organization", "local"]),
        format!("{data_keys}{wrapped}4\n")
    );
    assert_eq!(fs::metadata(folder.join("master-key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!folder.join("master-key.next").exists());

    // The accounts of the first start are neither lost nor connected anew.
    let mut server = Server::start(&folder, &[], &[]);
    still_connected(&server);
    server.kill();
    let log = server.whole_log();
    assert!(!log.contains("does not open"), "{log}");

    // Broken off by a crash, and finished by the server.
    fs::write(folder.join("master-key.next"), [8; 32]).unwrap();
    let mut server = Server::start(&folder, &[], &[]);
    still_connected(&server);
    server.kill();
    let log = server.whole_log();
    assert!(log.contains("finished replacing the master key") && !log.contains("does not open"), "{log}");
    assert_eq!(master_key(), [8; 32]);
}
