//! The pages that people read: each is run as a reader would, its commands pasted into one shell, and must print what it shows;
//! and every link leads to a file and a heading that are there.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use overseer_pages::Anchors;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use serde_json::Value;
use tempfile::tempdir;

use crate::support::process::{Server, program};

/// The address that the pages name.
const ADDRESS: &str = "127.0.0.1:8787";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What a page says a command prints.
#[derive(Debug)]
enum Shown {
    Json(Value),
    Text(String),
}

/// A block of commands or a program, and what the page shows that it prints.
struct Step {
    language: String,
    code: String,
    shown: Option<Shown>,
}

/// The blocks of a page that a reader runs, in order.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    // A block shows what the one before it prints, if no other block stands between them.
    let mut follows_step = false;
    let mut fence = None;
    for event in Parser::new(page) {
        if let Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) = &event {
            fence = Some((info.to_string(), String::new()));
        } else if let (Event::Text(text), Some((_, code))) = (&event, &mut fence) {
            code.push_str(text);
        } else if event == Event::End(TagEnd::CodeBlock)
            && let Some((language, code)) = fence.take()
        {
            let is_step = matches!(language.as_str(), "sh" | "python");
            match language.as_str() {
                "sh" | "python" => steps.push(Step { language, code, shown: None }),
                "json" => {
                    let value = serde_json::from_str(&code).unwrap_or_else(|error| panic!("{error}: {code}"));
                    if follows_step {
                        steps.last_mut().unwrap().shown = Some(Shown::Json(value));
                    }
                }
                "text" if follows_step => steps.last_mut().unwrap().shown = Some(Shown::Text(code)),
                _ => {}
            }
            follows_step = is_step;
        }
    }
    // The reader starts the server; the test has started one.
    steps.retain(|step| !["cargo run", "tests/run"].contains(&step.code.trim()));
    steps
}

/// Whether a response matches the documented one: it must have all documented fields, and `"…"` matches any value.
fn is_as_shown(shown: &Value, answer: &Value) -> bool {
    match (shown, answer) {
        (Value::String(dots), answer) if dots == "…" => !answer.is_null(),
        (Value::Object(shown), Value::Object(answer)) => {
            shown.iter().all(|(key, shown)| answer.get(key).is_some_and(|answer| is_as_shown(shown, answer)))
        }
        (Value::Array(shown), Value::Array(answer)) => {
            shown.len() == answer.len() && shown.iter().zip(answer).all(|(shown, answer)| is_as_shown(shown, answer))
        }
        (shown, answer) => shown == answer,
    }
}

/// The last JSON value that was printed, which may follow lines of other text.
fn last_json(printed: &str) -> Option<Value> {
    let starts = printed.match_indices('\n').map(|(at, _)| at + 1);
    let mut rests = std::iter::once(0).chain(starts).filter_map(|at| printed.get(at..));
    rests.find_map(|rest| {
        let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(rest).into_iter().collect();
        values.ok()?.pop()
    })
}

/// Whether an output has this line, where `…` stands for any text.
fn has_line(printed: &str, shown: &str) -> bool {
    let parts: Vec<&str> = shown.trim().split('…').collect();
    printed.lines().any(|line| {
        let mut rest = line.trim();
        let ends = rest.ends_with(parts.last().unwrap()) && rest.starts_with(parts[0]);
        ends && parts.iter().all(|part| {
            rest.split_once(part).is_some_and(|(_, after)| {
                rest = after;
                true
            })
        })
    })
}

/// A folder with the command `overseer`, which speaks to this server rather than to the default port.
fn command_for(server: &Server, folder: &Path) -> PathBuf {
    let commands = folder.join(".commands");
    fs::create_dir(&commands).unwrap();
    let (_, port) = server.address.rsplit_once(':').unwrap();
    let command = commands.join("overseer");
    fs::write(&command, format!("#!/bin/sh\nexec '{}' --port {port} \"$@\"\n", program("overseer").display())).unwrap();
    fs::set_permissions(&command, Permissions::from_mode(0o755)).unwrap();
    commands
}

/// Runs the commands of a page against a server of its own, and compares what they print with what the page shows.
fn run(page: &str) {
    let text = fs::read_to_string(workspace().join(page)).unwrap();
    if steps(&text).is_empty() {
        return;
    }
    let folder = tempdir().unwrap();
    let server = Server::start(&folder.path().join(".overseer"), &[], &[]);
    let steps = steps(&text.replace(ADDRESS, &server.address));
    let mut script = String::from("set -euo pipefail\n");
    for (index, step) in steps.iter().enumerate() {
        let code = &step.code;
        if step.language == "python" {
            fs::write(folder.path().join(format!(".step-{index}.py")), code).unwrap();
            writeln!(script, "python3 .step-{index}.py > .printed-{index}").unwrap();
        } else {
            // Braces, not a subshell: each block sees the variables and functions of earlier blocks.
            writeln!(script, "{{\n{code}\n}} > .printed-{index}").unwrap();
        }
    }
    let path = format!("{}:{}", command_for(&server, folder.path()).display(), std::env::var("PATH").unwrap());
    let ran = Command::new("bash").args(["-c", &script]).env("PATH", path).current_dir(folder.path()).output().unwrap();
    let printed =
        |index: usize| fs::read_to_string(folder.path().join(format!(".printed-{index}"))).unwrap_or_default();
    let last = (0..steps.len()).rfind(|index| folder.path().join(format!(".printed-{index}")).exists()).unwrap_or(0);
    let failed = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{page}: this failed: {}\n{}\n{failed}", steps[last].code, printed(last));
    for (index, step) in steps.iter().enumerate() {
        let printed = printed(index);
        match &step.shown {
            None => {}
            Some(Shown::Text(lines)) => {
                for line in lines.lines().filter(|line| !line.trim().is_empty()) {
                    assert!(has_line(&printed, line), "{page}: {}\nprints no {line:?}, but {printed}", step.code);
                }
            }
            Some(Shown::Json(shown)) => {
                let answer = last_json(&printed).unwrap_or_else(|| panic!("{page}: {}\nprints {printed}", step.code));
                assert!(is_as_shown(shown, &answer), "{page}: {}\nprints {printed}", step.code);
            }
        }
    }
}

/// One test for each page whose commands are run.
macro_rules! pages {
    ($($name:ident: $path:literal,)*) => {
        const PAGES: &[&str] = &[$($path),*];

        $(#[test]
        fn $name() {
            run($path);
        })*
    };
}

pages! {
    readme_runs: "README.md",
    accounts_runs: "docs/accounts.md",
    agents_runs: "docs/agents.md",
    aws_runs: "docs/aws.md",
    channels_runs: "docs/channels.md",
    cli_runs: "docs/cli.md",
    concepts_runs: "docs/concepts.md",
    configuration_runs: "docs/configuration.md",
    errors_runs: "docs/errors.md",
    figures_runs: "docs/figures.md",
    internals_runs: "docs/internals.md",
    limits_runs: "docs/limits.md",
    organizations_runs: "docs/organizations.md",
    plugin_reference_runs: "docs/plugin-reference.md",
    plugins_runs: "docs/plugins.md",
    policy_runs: "docs/policy.md",
    quickstart_runs: "docs/quickstart.md",
    registry_runs: "docs/registry.md",
    reliability_runs: "docs/reliability.md",
    roles_runs: "docs/roles.md",
    security_runs: "docs/security.md",
    tasks_runs: "docs/tasks.md",
    webhooks_runs: "docs/webhooks.md",
}

/// Every page of the repository, relative to it.
fn all_pages() -> Vec<String> {
    let mut pages: Vec<String> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "plugins/README.md", "infra/README.md"]
            .map(str::to_owned)
            .to_vec();
    let docs = fs::read_dir(workspace().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let pages_of_docs = docs.map(PathBuf::from).filter(|name| name.extension().is_some_and(|kind| kind == "md"));
    pages.extend(pages_of_docs.map(|name| format!("docs/{}", name.display())));
    pages
}

#[test]
fn every_page_of_the_docs_is_run() {
    let run: BTreeSet<&str> = PAGES.iter().copied().collect();
    let pages = all_pages();
    let docs: BTreeSet<&str> =
        pages.iter().map(String::as_str).filter(|page| page.starts_with("docs/") || *page == "README.md").collect();
    assert_eq!(run, docs);
}

/// The anchors of a page's headings.
fn anchors(page: &str) -> Anchors {
    let mut anchors = Anchors::default();
    let mut heading: Option<String> = None;
    for event in Parser::new_ext(page, Options::ENABLE_TABLES) {
        if let Event::Start(Tag::Heading { .. }) = &event {
            heading = Some(String::new());
        } else if let (Event::Text(text) | Event::Code(text), Some(heading)) = (&event, &mut heading) {
            heading.push_str(text);
        } else if let Event::End(TagEnd::Heading(_)) = &event {
            anchors.next(&heading.take().unwrap());
        }
    }
    anchors
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for page in all_pages() {
        let text = fs::read_to_string(workspace().join(&page)).unwrap();
        let folder = Path::new(&page).parent().unwrap();
        for event in Parser::new_ext(&text, Options::ENABLE_TABLES) {
            let Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) = event else { continue };
            if url::Url::parse(&dest_url).is_ok() {
                let is_local = dest_url.starts_with("http://127.0.0.1:8787");
                let is_well_formed = dest_url.starts_with("https://") || is_local;
                if !is_well_formed {
                    broken.push(format!("{page}: {dest_url}"));
                }
                continue;
            }
            let (path, anchor) = dest_url.split_once('#').unwrap_or((&dest_url, ""));
            let target = if path.is_empty() { PathBuf::from(&page) } else { folder.join(path) };
            let target = workspace().join(target);
            if !target.exists() {
                broken.push(format!("{page}: {dest_url}"));
            } else if !anchor.is_empty() && !anchors(&fs::read_to_string(&target).unwrap()).contains(anchor) {
                broken.push(format!("{page}: {dest_url} has no such heading"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn front_pages_stay_short() {
    for page in ["README.md", "ARCHITECTURE.md"] {
        let lines = fs::read_to_string(workspace().join(page)).unwrap().lines().count();
        assert!(lines <= 150, "{page} has {lines} lines");
    }
}

/// A page of the running server, as a browser asks for it.
async fn open(server: &Server, path: &str) -> (u16, String) {
    let url = format!("http://{}{path}", server.address);
    let answer = reqwest::Client::new().get(url).header("accept", "text/html").send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn server_serves_every_page_of_the_docs() {
    let folder = tempdir().unwrap();
    let server = Server::start(folder.path(), &[], &[]);
    let (_, contents) = open(&server, "/docs").await;
    for page in PAGES.iter().filter_map(|page| page.strip_prefix("docs/")) {
        let link = format!("/docs/{}", page.strip_suffix(".md").unwrap());
        assert!(contents.contains(&format!("href=\"{link}\"")), "{link}: {contents}");
        let (status, text) = open(&server, &link).await;
        assert!(status == 200 && text.contains("<h1 id="), "{link}: {status}");
    }
    for path in ["/docs/nothing", "/docs/..%2Fadmin-key"] {
        assert_eq!(open(&server, path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn links_of_served_docs_lead_to_pages_and_headings() {
    let folder = tempdir().unwrap();
    let server = Server::start(folder.path(), &[], &[]);
    let (_, all) = open(&server, "/docs/all").await;
    let links: BTreeSet<&str> = all.split("href=\"/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(links.len() > 30, "{links:?}");
    for link in links {
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let (status, text) = open(&server, &format!("/{path}")).await;
        assert_eq!(status, 200, "{link}");
        assert!(anchor.is_empty() || text.contains(&format!("id=\"{anchor}\"")), "{link}");
    }
}

#[tokio::test]
async fn browser_gets_links_at_the_root() {
    let folder = tempdir().unwrap();
    let server = Server::start(folder.path(), &[], &[]);
    let (status, home) = open(&server, "/").await;
    assert_eq!(status, 200);
    for link in ["/docs", "/playground", "/health"] {
        assert!(home.contains(&format!("href=\"{link}\"")), "{home}");
        assert_eq!(open(&server, link).await.0, 200, "{link}");
    }
}

/// The text of every file of Rust below a folder.
fn rust_below(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = entries.map(|path| {
        let is_rust = path.extension().is_some_and(|kind| kind == "rs");
        if path.is_dir() {
            rust_below(&path)
        } else if is_rust {
            fs::read_to_string(path).unwrap()
        } else {
            String::new()
        }
    });
    text.collect()
}

#[test]
fn security_page_names_tests_that_exist() {
    let page = fs::read_to_string(workspace().join("docs/security.md")).unwrap();
    let tests = rust_below(&workspace().join("tests/behaviour")) + &rust_below(&workspace().join("shared"));
    // The last column has `file.rs`: `name_of_a_test`; names of tests have three words at least.
    let last_cells = page.lines().filter(|line| line.starts_with('|')).filter_map(|line| line.rsplit(" | ").next());
    let names = last_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let names: Vec<&str> = names.filter(|name| name.matches('_').count() > 1).collect();
    assert!(names.len() > 40, "{names:?}");
    let missing: Vec<&&str> = names.iter().filter(|name| !tests.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
