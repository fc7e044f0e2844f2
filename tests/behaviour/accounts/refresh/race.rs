//! 200 intents at once on 8 engines with one store and one expired token: one engine refreshes it, at any crash point.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use overseer_engine::core::outcome::OutcomeCode;
use overseer_engine::engine::{Engine, Ports};
use overseer_engine::ports::table::{NewItem, TableError};
use overseer_engine::ports::vault::{SecretId, Vault, VaultError};
use reqwest::StatusCode;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Setup, intend};
use crate::accounts::authorize::secrets;
use crate::support::hooked::{Gate, Hooked, Hooks, Operation};
use crate::support::oidc;

const ENGINES: usize = 8;
const INTENTS: usize = 200;

/// Where the refreshing engine stops for ever, like a killed process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    Never,
    AfterTheLease,
    BeforeTheVault,
    AfterTheVault,
    AfterTheCommit,
}

/// A store and a vault that hold the first engine at the crash point until the test opens the gate.
struct Crashing {
    at: Crash,
    vault: Arc<dyn Vault>,
    gate: Gate,
    /// Whether a whole secret was deleted through it.
    deleted: AtomicBool,
}

impl Crashing {
    /// Ports that crash there.
    fn at(setup: &Setup, at: Crash) -> (Ports, Arc<Self>) {
        let ports = setup.app.engine.ports.clone();
        let crashing =
            Arc::new(Self { at, vault: ports.vault.clone(), gate: Gate::default(), deleted: AtomicBool::new(false) });
        let table = Arc::new(Hooked::new(ports.table.clone(), crashing.clone()));
        (Ports { table, vault: crashing.clone(), ..ports }, crashing)
    }

    /// Holds the engine at this place. A slow engine continues when the test opens the gate.
    async fn come_to(&self, place: Crash) {
        if self.at == place {
            self.gate.pass().await;
        }
    }
}

/// The account in an item of accounts, if it is one.
fn account(item: &NewItem) -> Option<Value> {
    let record: Value = serde_json::from_str(&item.body).ok()?;
    record["accounts"]["default"].as_object().map(|account| Value::Object(account.clone()))
}

#[async_trait]
impl Hooks for Crashing {
    async fn after(&self, asked: &Operation<'_>) -> Result<(), TableError> {
        let Operation::Put(item) = asked else { return Ok(()) };
        if let Some(account) = account(item) {
            if !account["lease"].is_null() {
                self.come_to(Crash::AfterTheLease).await;
            } else if account["generation"] == 2 {
                self.come_to(Crash::AfterTheCommit).await;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Vault for Crashing {
    async fn put(&self, id: &SecretId, version: &str, secret: &SecretString) -> Result<(), VaultError> {
        self.come_to(Crash::BeforeTheVault).await;
        self.vault.put(id, version, secret).await?;
        self.come_to(Crash::AfterTheVault).await;
        Ok(())
    }

    async fn get(&self, id: &SecretId, version: &str) -> Result<Option<SecretString>, VaultError> {
        self.vault.get(id, version).await
    }

    async fn delete_version(&self, id: &SecretId, version: &str) -> Result<(), VaultError> {
        self.vault.delete_version(id, version).await
    }

    async fn delete(&self, id: &SecretId) -> Result<(), VaultError> {
        self.deleted.store(true, Ordering::SeqCst);
        self.vault.delete(id).await
    }
}

/// How the intents ended, by code; `ok` is a success.
type Ends = BTreeMap<String, usize>;

/// Runs the race and returns the outcomes. If an engine crashes, one intent has no outcome, and after the crash the
/// clock advances past the lease.
#[expect(clippy::print_stdout, reason = "the counts are what is to be seen")]
async fn race(setup: &Setup, crash: Crash) -> Ends {
    let (ports, crashing) = Crashing::at(setup, crash);
    let engines: Vec<Arc<Engine>> = (0..ENGINES).map(|_| setup.engine(ports.clone())).collect();
    let principal = setup.principal().await;
    let ends: Arc<Mutex<Ends>> = Arc::default();
    let mut running = JoinSet::new();
    for number in 0..INTENTS {
        let (engine, principal, ends) = (engines[number % ENGINES].clone(), principal.clone(), ends.clone());
        running.spawn(async move {
            let end = match intend(&engine, &principal).await.result {
                Ok(_) => "ok".to_owned(),
                Err(failure) => {
                    let interrupted = failure.message.contains("refresh_interrupted");
                    assert_eq!(interrupted, failure.code == OutcomeCode::ReconnectRequired, "{}", failure.message);
                    format!("{:?}", failure.code)
                }
            };
            *ends.lock().unwrap().entry(end).or_default() += 1;
        });
    }
    let mut answered = INTENTS;
    if crash != Crash::Never {
        crashing.gate.reached().await;
        setup.app.clock.advance(61);
        answered -= 1;
    }
    for _ in 0..answered {
        running.join_next().await.unwrap().unwrap();
    }
    let ends = ends.lock().unwrap().clone();
    let (refreshes, reuses) = setup.refreshes().await;
    let asked = setup.oidc.counts().await["calls"]["refresh_token"].as_u64().unwrap_or_default();
    println!(
        "race, crash {crash:?}: {INTENTS} intents over {ENGINES} engines: {ends:?}, {} without an answer; \
         {asked} requests with a refresh token, {refreshes} renewals, {reuses} reuses",
        INTENTS - answered
    );
    ends
}

/// The token ran out, and everybody comes at once.
async fn after_crash(crash: Crash) -> (Setup, Ends) {
    let setup = Setup::connected().await;
    setup.app.clock.advance(3600);
    let ends = race(&setup, crash).await;
    (setup, ends)
}

fn all(code: &str, number: usize) -> Ends {
    Ends::from([(code.to_owned(), number)])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_intents_share_one_refresh() {
    let (setup, ends) = after_crash(Crash::Never).await;
    assert_eq!(ends, all("ok", INTENTS));
    assert_eq!(setup.refreshes().await, (1, 0));
    let record = setup.record().await;
    assert_eq!((&record["generation"], &record["lease"]), (&json!(2), &Value::Null), "{record}");
    assert_eq!(setup.events(), ["integration.connected", "integration.refreshed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_before_the_request_repeats_it_once() {
    let (setup, ends) = after_crash(Crash::AfterTheLease).await;
    assert_eq!(ends, all("ok", INTENTS - 1));
    assert_eq!(setup.refreshes().await, (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_with_unstored_tokens_needs_reconnecting() {
    let (setup, ends) = after_crash(Crash::BeforeTheVault).await;
    assert_eq!(ends, all("ReconnectRequired", INTENTS - 1));
    assert_eq!(setup.refreshes().await, (1, 1), "it was tried once more, not more often");
    let shown = setup.account().await;
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("reconnect_required"), &json!("refresh_interrupted")));
    setup.connect().await;
    setup.intend("me").await.data();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_after_storing_rolls_forward() {
    let (setup, ends) = after_crash(Crash::AfterTheVault).await;
    assert_eq!(ends, all("ok", INTENTS - 1));
    assert_eq!(setup.refreshes().await, (1, 0));
    assert_eq!(setup.record().await["generation"], 2);
    // What is rolled forward has its end, too.
    setup.app.clock.advance(3600);
    setup.intend("me").await.data();
    assert_eq!(setup.refreshes().await, (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crash_after_commit_is_harmless() {
    let (setup, ends) = after_crash(Crash::AfterTheCommit).await;
    assert_eq!(ends, all("ok", INTENTS - 1));
    assert_eq!(setup.refreshes().await, (1, 0));
}

#[tokio::test]
async fn overtaken_lease_owner_changes_nothing() {
    // A provider that does not rotate gives tokens to both.
    let setup = Setup::with(oidc::Options { rotate: false, ..oidc::Options::default() }).await;
    setup.connect().await;
    setup.app.clock.advance(3600);
    let (ports, slow) = Crashing::at(&setup, Crash::BeforeTheVault);
    let (engine, principal) = (setup.engine(ports), setup.principal().await);
    let overtaken = tokio::spawn(async move { intend(&engine, &principal).await });
    slow.gate.reached().await;
    setup.app.clock.advance(61);
    setup.intend("me").await.data();
    let before = setup.record().await;
    slow.gate.open();
    // It has tokens, and uses those that count all the same.
    assert!(overtaken.await.unwrap().result.is_ok());
    let after = setup.record().await;
    assert_eq!((&after["version"], &after["generation"]), (&before["version"], &json!(2)));
    assert_eq!(setup.refreshes().await.0, 2);
    setup.intend("me").await.data();
}

#[tokio::test]
async fn commit_deletes_versions_of_overtaken_owners() {
    // A provider that does not rotate gives tokens to both.
    let setup = Setup::with(oidc::Options { rotate: false, ..oidc::Options::default() }).await;
    setup.connect().await;
    setup.app.clock.advance(3600);
    let (late_ports, late) = Crashing::at(&setup, Crash::AfterTheVault);
    let (other_ports, other) = Crashing::at(&setup, Crash::BeforeTheVault);
    let [dying, overtaking] = [setup.engine(late_ports), setup.engine(other_ports)];
    let [first, second] = [setup.principal().await, setup.principal().await];
    setup.oidc.token_endpoint("hold", 1).await;
    let dying = tokio::spawn(async move { intend(&dying, &first).await });
    setup.oidc.held(1).await;
    setup.app.clock.advance(61);
    // It finds nothing to roll forward yet.
    let overtaking = tokio::spawn(async move { intend(&overtaking, &second).await });
    other.gate.reached().await;
    setup.oidc.release().await;
    late.gate.reached().await;
    dying.abort();
    assert_eq!(secrets(&setup.app).await, 3, "the client's secret, the old token, and the dead one's");
    other.gate.open();
    assert!(overtaking.await.unwrap().result.is_ok());
    assert_eq!(secrets(&setup.app).await, 2, "the client's secret, and what was committed");
}

#[tokio::test]
async fn rolled_forward_tokens_survive_their_slow_owner() {
    let setup = Setup::connected().await;
    setup.app.clock.advance(3600);
    let (ports, slow) = Crashing::at(&setup, Crash::AfterTheVault);
    let (engine, principal) = (setup.engine(ports), setup.principal().await);
    let overtaken = tokio::spawn(async move { intend(&engine, &principal).await });
    slow.gate.reached().await;
    setup.app.clock.advance(61);
    setup.intend("me").await.data();
    slow.gate.open();
    assert!(overtaken.await.unwrap().result.is_ok());
    setup.intend("me").await.data();
    assert_eq!(setup.refreshes().await, (1, 0));
    // Not from memory either.
    let fresh = setup.engine(setup.app.engine.ports.clone());
    assert!(intend(&fresh, &setup.principal().await).await.result.is_ok());
}

#[tokio::test]
async fn late_refusal_does_not_end_a_refreshed_account() {
    let setup = Setup::connected().await;
    setup.app.clock.advance(3600);
    setup.oidc.token_endpoint("hold", 1).await;
    let (engine, principal) = (setup.engine(setup.app.engine.ports.clone()), setup.principal().await);
    let late = tokio::spawn(async move { intend(&engine, &principal).await });
    setup.oidc.held(1).await;
    // The lease runs out, and another one renews with the same refresh token.
    setup.app.clock.advance(61);
    setup.intend("me").await.data();
    assert_eq!(setup.record().await["generation"], 2);
    setup.oidc.release().await;
    // The provider takes the late engine for a thief and revokes the grant. Its answer concerns the previous token and
    // ends no account; the service refuses the new token separately.
    assert!(late.await.unwrap().result.is_err());
    assert_eq!(setup.refreshes().await, (1, 1));
    let record = setup.record().await;
    assert_eq!((&record["generation"], &record["reason"]), (&json!(2), &json!("refused")), "{record}");
    assert_eq!(setup.events(), ["integration.connected", "integration.refreshed"]);
}

#[tokio::test]
async fn tokens_after_a_disconnect_are_revoked() {
    let setup = Setup::connected().await;
    setup.app.clock.advance(3600);
    let (ports, slow) = Crashing::at(&setup, Crash::BeforeTheVault);
    let (engine, principal) = (setup.engine(ports), setup.principal().await);
    let late = tokio::spawn(async move { intend(&engine, &principal).await });
    slow.gate.reached().await;
    setup.app.delete("/api/plugin-engine/integrations/crm").await.json();
    slow.gate.open();
    assert!(late.await.unwrap().result.is_err());
    assert_eq!(secrets(&setup.app).await, 1, "the client's secret");
    // Where a secret is more than its versions, that made it anew.
    assert!(slow.deleted.load(Ordering::SeqCst));
    assert_eq!(setup.oidc.counts().await["revocations"], 2, "of the old refresh token, and of the new one");
}

#[tokio::test]
async fn disconnect_revokes_tokens_left_by_a_crash() {
    let setup = Setup::connected().await;
    setup.app.clock.advance(3600);
    let (ports, dead) = Crashing::at(&setup, Crash::AfterTheVault);
    let (engine, principal) = (setup.engine(ports), setup.principal().await);
    let dying = tokio::spawn(async move { intend(&engine, &principal).await });
    dead.gate.reached().await;
    dying.abort();
    let version = format!("2-{}", setup.record().await["lease"]["owner"].as_str().unwrap());
    let left = setup.credential_of(&version).await;
    assert_eq!(setup.status_of(&left).await, StatusCode::OK);
    setup.app.delete("/api/plugin-engine/integrations/crm").await.json();
    assert_eq!(setup.status_of(&left).await, StatusCode::UNAUTHORIZED);
    assert_eq!(secrets(&setup.app).await, 1, "the client's secret");
}
