//! A stand-in of AWS: ministack, a Python program that `tests/run` installs. It shows that requests are well formed and that
//! responses are understood, and nothing about permissions, quotas or time. Tests that depend on another difference from AWS
//! say so.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// The log line that says that it listens.
const READY: &str = "Running on http://";

/// A running stand-in, empty at first, which stops when this is dropped.
pub struct Ministack {
    child: Child,
    /// Such as `http://127.0.0.1:41234`, for every service, region and credential.
    pub endpoint: String,
    _folder: TempDir,
}

impl Ministack {
    /// Starts a stand-in for one test.
    #[expect(clippy::unused_async, reason = "other parts of the harness start asynchronously")]
    pub async fn start() -> Self {
        let mut log = String::new();
        // Another process may take the port between the look and the listen.
        for _ in 0..5 {
            match Self::on(free_port()) {
                Ok(started) => return started,
                Err(failed) => log = failed,
            }
        }
        panic!("ministack ended before it was ready: {log}")
    }

    /// Starts it on this port. The error is its log, if it ended before it was ready.
    fn on(port: u16) -> Result<Self, String> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let program = workspace.join("target/tools/bin/ministack");
        assert!(program.exists(), "{} is not there: run tests/run once", program.display());
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(program)
            .env_clear()
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            .env("LOG_LEVEL", "INFO")
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut log = String::new();
        while !log.contains(READY) {
            let Some(line) = lines.next() else {
                child.wait().unwrap();
                return Err(log);
            };
            log = format!("{log}{line}\n");
        }
        // It would block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, endpoint: format!("http://127.0.0.1:{port}"), _folder: folder })
    }
}

impl Drop for Ministack {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
