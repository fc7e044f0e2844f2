//! A stand-in of AWS: ministack, a Python program that `tests/run` installs. It shows that requests are well formed and that
//! answers are understood, and nothing about permissions, quotas or time; where else it differs from AWS, the tests that
//! meet the difference say so.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// What it logs when it listens.
const READY: &str = "Running on http://";

/// A running stand-in, empty at first, which ends with this value.
pub struct Ministack {
    child: Child,
    /// Such as `http://127.0.0.1:41234`, for every service, region and credential.
    pub endpoint: String,
    _folder: TempDir,
}

impl Ministack {
    /// Starts one of the test's own.
    #[expect(clippy::unused_async, reason = "the other parts start so too")]
    pub async fn start() -> Self {
        let mut said = String::new();
        // Somebody else may take the port between looking and listening.
        for _ in 0..5 {
            match Self::on(free_port()) {
                Ok(started) => return started,
                Err(instead) => said = instead,
            }
        }
        panic!("ministack ended before it was ready: {said}")
    }

    /// What it said, where it ended before it was ready.
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
        let mut said = String::new();
        while !said.contains(READY) {
            let Some(line) = lines.next() else {
                child.wait().unwrap();
                return Err(said);
            };
            said = format!("{said}{line}\n");
        }
        // It would stop at a full pipe.
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
