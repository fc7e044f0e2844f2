//! Guards that the operator brings in a folder, and operator plugins of the same name.

use std::path::PathBuf;

use tempfile::TempDir;

use super::managing::{asked, plain};
use super::*;

/// A bench and a folder of the operator for the plugin `guard`.
struct Operator {
    bench: Bench,
    folder: TempDir,
    file: PathBuf,
}

impl Operator {
    async fn start() -> Self {
        let (bench, folder) = (Bench::start().await, tempfile::tempdir().unwrap());
        let file = folder.path().join("guard/plugin.yaml");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        Self { bench, folder, file }
    }

    /// With a guard in the folder, and the secret of its hooks.
    async fn with_guard() -> Self {
        let operator = Self::start().await;
        operator.brings(&operator.guard());
        operator.bench.post(&format!("{GUARD}/hook-secret"), json!({})).await;
        operator
    }

    fn guard(&self) -> Value {
        self.bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))
    }

    fn brings(&self, manifest: &Value) {
        std::fs::write(&self.file, manifest.to_string()).unwrap();
        self.bench.app.engine.catalog.read_folder(self.folder.path()).unwrap();
    }

    fn removes_it(&self) {
        std::fs::remove_file(&self.file).unwrap();
        self.bench.app.engine.catalog.read_folder(self.folder.path()).unwrap();
    }

    async fn enable(&self) -> Value {
        self.bench.post(&format!("{GUARD}/enable"), json!({})).await
    }

    /// How often the guard is asked about one call.
    async fn asks(&self) -> usize {
        let before = self.bench.asked().len();
        self.bench.act("one").await.data();
        self.bench.asked().len() - before
    }
}

#[tokio::test]
async fn operator_guard_needs_a_secret() {
    let operator = Operator::start().await;
    operator.brings(&operator.guard());
    let early = operator.bench.app.post(&format!("{GUARD}/enable"), &json!({})).await;
    assert_eq!(early.problem(409), "conflict");
    assert!(early.text.contains("and enable it then"), "{}", early.text);
}

#[tokio::test]
async fn operator_guard_is_asked_once_enabled() {
    let operator = Operator::with_guard().await;
    assert_eq!(operator.asks().await, 0);
    assert_eq!(asked(&operator.enable().await), [true]);
    assert_eq!(operator.asks().await, 1);
}

#[tokio::test]
async fn returning_hook_needs_a_new_enable() {
    let operator = Operator::with_guard().await;
    operator.enable().await;
    // The author removes the hooks, an administrator changes the configuration, and the hooks come back.
    operator.brings(&plain(&operator.bench, "1.0.0"));
    operator.bench.ok(Method::PUT, &format!("{GUARD}/config"), &json!({ "level": 2 })).await;
    operator.brings(&operator.guard());
    assert_eq!(asked(&operator.bench.app.get(GUARD).await.json()), [false]);
    assert_eq!(operator.asks().await, 0);
    assert_eq!(asked(&operator.enable().await), [true]);
    assert_eq!(operator.asks().await, 1);
}

#[tokio::test]
async fn missing_guard_fails_closed() {
    let operator = Operator::with_guard().await;
    operator.enable().await;
    operator.removes_it();
    let refused = operator.bench.act("one").await;
    assert_eq!(refused.problem(503), "unavailable");
    assert!(refused.text.contains("DELETE /api/v1/plugins/guard"), "{}", refused.text);
    assert_eq!(operator.bench.service.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn missing_guard_can_be_deleted() {
    let operator = Operator::with_guard().await;
    operator.enable().await;
    operator.removes_it();
    operator.bench.ok(Method::DELETE, GUARD, &Value::Null).await;
    assert_eq!(operator.asks().await, 0);
    assert_eq!(operator.bench.app.delete(GUARD).await.problem(404), "unknown_plugin");
}

/// An organization has a guard, and the operator brings a plugin of the same name without hooks.
async fn with_namesake() -> Operator {
    let operator = Operator::start().await;
    operator.bench.install(&operator.guard()).await;
    operator.brings(&plain(&operator.bench, "9.0.0"));
    assert_eq!(operator.bench.app.get(GUARD).await.json()["version"], "9.0.0");
    operator
}

#[tokio::test]
async fn operator_plugin_does_not_hide_a_guard() {
    let operator = with_namesake().await;
    assert_eq!(operator.asks().await, 1);
}

#[tokio::test]
async fn guard_enabled_as_its_namesake_needs_a_grant() {
    let operator = with_namesake().await;
    operator.bench.post(&format!("{GUARD}/disable"), json!({})).await;
    operator.enable().await;
    operator.removes_it();
    assert_eq!(asked(&operator.bench.app.get(GUARD).await.json()), [false]);
    assert_eq!(operator.asks().await, 0);
    operator.bench.grant("guard").await;
    assert_eq!(operator.asks().await, 1);
}
