//! The `overseer` program as a person runs it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// A program of this workspace, built by `cargo build`.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join(name);
    assert!(program.exists(), "{} is not there: run cargo build --workspace --bins first", program.display());
    program
}

/// The program, with none of Overseer's variables in its environment.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    for (variable, _) in std::env::vars_os() {
        let text = variable.to_string_lossy().into_owned();
        let endings = ["_TOKEN", "_CLIENT_ID", "_CLIENT_SECRET", "PUBLIC_URL"];
        if text.starts_with("OVERSEER_") || endings.iter().any(|ending| text.ends_with(ending)) {
            command.env_remove(variable);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs `overseer` and waits for its end.
pub fn overseer(arguments: &[&str]) -> Output {
    command("overseer").args(arguments).output().unwrap()
}

/// Checks that a run failed with one sentence, and returns it.
#[track_caller]
pub fn sentence(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let mut sentences = stderr.lines().filter_map(|line| line.strip_prefix("overseer: "));
    let sentence = sentences.next().unwrap_or_else(|| panic!("it gave no reason: {stderr}")).to_owned();
    assert_eq!(sentences.next(), None, "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    sentence
}

/// A running server.
pub struct Server {
    child: Child,
    /// The address that it listens on, such as `127.0.0.1:41234`.
    pub address: String,
    /// The lines that it printed before it was ready.
    pub greeting: String,
    /// The `curl` line of its banner.
    pub curl: String,
    log: Receiver<String>,
    logged: Vec<String>,
}

impl Server {
    /// Starts `overseer --port 0 --data DATA` with more arguments and variables.
    pub fn start(data: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = command("overseer");
        command.args(["--port", "0", "--data"]).arg(data).args(arguments).envs(variables.iter().copied());
        let mut child = command.spawn().unwrap();
        let (send, log) = channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let mut greeting = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let curl = loop {
            let mut line = String::new();
            let read = out.read_line(&mut line).unwrap();
            assert!(read > 0, "it ended before it was ready: {greeting} {:?}", log.iter().collect::<Vec<_>>());
            greeting.push_str(&line);
            if line.starts_with("curl ") {
                break line;
            }
        };
        let address = greeting.lines().next().unwrap().rsplit("http://").next().unwrap().trim().to_owned();
        Self { child, address, greeting, curl, log, logged: Vec::new() }
    }

    /// Waits for a line of the log that contains `text`.
    pub fn wait_for_log(&mut self, text: &str) {
        while !self.logged.iter().any(|line| line.contains(text)) {
            let line = self.log.recv().unwrap_or_else(|_| panic!("it never logged {text:?}: {:#?}", self.logged));
            self.logged.push(line);
        }
    }

    /// The whole log, once the server has ended.
    pub fn whole_log(&mut self) -> String {
        self.logged.extend(self.log.iter());
        self.logged.join("\n")
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Sets the largest size that its files may have (`RLIMIT_FSIZE`), in bytes or `unlimited`.
    pub fn limit_file_size(&self, limit: &str) {
        let limit = format!("--fsize={limit}:");
        let set = Command::new("prlimit").args(["--pid", &self.child.id().to_string(), &limit]).status().unwrap();
        assert!(set.success());
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended by itself, and returns its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Runs a line of shell and returns its output.
    pub fn paste(line: &str) -> String {
        let mut child =
            Command::new("bash").args(["-euo", "pipefail", "-c", line]).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = String::new();
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        assert!(child.wait().unwrap().success(), "{line}: {out}");
        out
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
