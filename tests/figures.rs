//! What a cold start and a warm invocation of the functions cost: the size of each binary, the instructions from the start
//! to the first request for an event and for each event after, and the requests to AWS. `tests/figures` builds the
//! functions as they are deployed, and runs this. Then, what each route asks of AWS.
//!
//! Instructions are counted by callgrind, over stand-ins of AWS without TLS, but for the clients' own setting up of it: a
//! handshake costs some 2 M more for each service that is reached.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for developers that meets the unexpected should stop there, and say so"
)]
#![expect(unreachable_pub, reason = "a binary has nothing to reach; pub says what is for other files")]

#[path = "behaviour/support/bundle.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod bundle;
#[path = "behaviour/support/gateway.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod gateway;
#[path = "behaviour/support/ministack.rs"]
mod ministack;
#[path = "figures_routes.rs"]
mod routes;
#[path = "behaviour/support/stand_ins.rs"]
mod stand_ins;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bundle::Bundle;
use gateway::{AwsEndpoints, Gateway, Launch};
use overseer_engine::ports::{RandomIds, SystemClock};
use overseer_playground::{Playground, Service};
use routes::{Figures, counted};
use serde_json::{Value, json};
use stand_ins::{ServedPlayground, StandIns};
use tempfile::tempdir;
use tokio::net::TcpListener;

/// The functions, each with the event that it is measured with.
const FUNCTIONS: [(&str, &str); 11] = [
    ("intent", "intent"),
    ("integrations", "integrations"),
    ("oauth_callback", "oauth_callback"),
    ("tasks", "tasks"),
    ("cron", "cron_sweep"),
    ("runs", "runs"),
    ("mappings", "mappings"),
    ("errors", "errors"),
    ("keys", "keys"),
    ("plugins", "plugins"),
    ("agents", "agents"),
];
/// Warm invocations that the average is of.
const WARM: usize = 10;

#[tokio::main]
async fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // The folder with the functions, and those to measure; all, if none is named. `why` says instead which crates take the
    // instructions of the start and of the first event, for functions that still have their symbols.
    let programs = std::env::args().nth(1).map_or_else(|| root.join("target/lambda"), PathBuf::from);
    let cron_token = "0123456789abcdef0123456789abcdef".to_owned();
    let stand_ins = StandIns::start("secrets-manager", &json!({ "CRON_SECRET_TOKEN": cron_token })).await;
    let (variables, playground, playing) = playing(&stand_ins).await;
    let endpoints = AwsEndpoints { dynamo: stand_ins.dynamo, aws: stand_ins.aws };

    // Who is measured: a user with an account, by the function itself.
    let (told, folder) = (variables.clone(), programs.clone());
    let plain: Launch = Box::new(move |name| {
        let mut command = Command::new(folder.join(name).join("bootstrap"));
        command.envs(Bundle::read().environment(name, &told)).stdout(Stdio::null()).stderr(Stdio::inherit());
        command
    });
    let (listener, routes) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Bundle::read().routes());
    let address = listener.local_addr().unwrap();
    let gateway = Gateway::start(listener, routes.clone(), endpoints, plain);
    let first = json!({ "name": "figures", "roles": ["administrator"], "user_id": "user_456" });
    let made = gateway.invoke("keys", json!({ "setup": { "organization": "local", "key": first } })).await.unwrap();
    let key = made["key"].as_str().unwrap();
    let mut connect = event(root, "integrations", key);
    connect["body"] = json!({ "userId": "user_456", "token": Service::Slack.standing_token() }).to_string().into();
    let connected = gateway.invoke("integrations", connect).await.unwrap();
    assert_eq!(connected["statusCode"], json!(200), "{connected}");

    let mut only: Vec<String> = std::env::args().skip(2).collect();
    let asked = |what: &str| only.iter().any(|word| word == what);
    let (why, routes_only) = (asked("why"), asked("routes"));
    only.retain(|word| word != "why" && word != "routes");
    let of_routes = async {
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let (key, rows, gateway, playground) = (key.to_owned(), Vec::new(), &gateway, &playground);
        let table = stand_ins.ports(stand_ins.dynamo, Arc::new(SystemClock), Arc::new(RandomIds)).table;
        Figures { gateway, address, playing, playground, table, routes, key, cron_token, client, rows }.print().await;
    };
    if routes_only {
        of_routes.await;
        return;
    }
    if why {
        for (name, event_name) in FUNCTIONS.into_iter().filter(|(name, _)| only.iter().any(|wanted| wanted == name)) {
            let event = event(root, event_name, key);
            let mut before = BTreeMap::new();
            for (what, times, of) in [("start", 0, 1), ("first event", 1, 1), ("warm event", 1 + WARM, WARM)] {
                let (_, crates) = measured(&variables, endpoints, &programs, name, &event, times).await;
                println!("{name}, {what}, by crate:");
                let of = u64::try_from(of).unwrap();
                let since =
                    |from: &String, count: u64| count.saturating_sub(before.get(from).copied().unwrap_or(0)) / of;
                let mut each: Vec<_> = crates.iter().map(|(from, count)| (since(from, *count), from.clone())).collect();
                each.sort_unstable_by(|a, b| b.cmp(a));
                // The last is libc's name for all of it.
                for (count, from) in each.iter().filter(|(_, from)| from != "__libc_start_main").take(12) {
                    println!("{:>10} {from}", millions(*count));
                }
                before = crates.into_iter().collect();
            }
        }
        return;
    }
    let mut missed = Vec::new();
    println!("| function | binary | start to first event | first event | warm event | requests to AWS, cold | warm |");
    println!("| --- | ---: | ---: | ---: | ---: | --- | --- |");
    for (name, event_name) in FUNCTIONS {
        if !only.is_empty() && !only.iter().any(|wanted| wanted == name) {
            continue;
        }
        let event = event(root, event_name, key);
        let size = std::fs::metadata(programs.join(name).join("bootstrap")).unwrap().len();
        let start_ = instructions(&variables, endpoints, &programs, name, &event, 0).await;
        let first = instructions(&variables, endpoints, &programs, name, &event, 1).await;
        let all = instructions(&variables, endpoints, &programs, name, &event, 1 + WARM).await;
        let (cold, warm) = requests(&gateway, name, &event).await;
        println!(
            "| {name} | {:.1} MB | {} | {} | {} | {cold} | {warm} |",
            size_mb(size),
            millions(start_),
            millions(first.saturating_sub(start_)),
            millions(all.saturating_sub(first) / u64::try_from(WARM).unwrap()),
        );
        if name == "intent" {
            let warm = all.saturating_sub(first) / u64::try_from(WARM).unwrap();
            let aims =
                [("size in bytes", size, 16_000_000), ("start", start_, 35_000_000), ("warm event", warm, 1_500_000)];
            missed.extend(aims.into_iter().filter(|(_, is, aim)| is > aim));
        }
    }
    for (what, is, aim) in missed {
        println!(
            "missed by intent: {what} is {is}, and the aim {aim}: {} more. `tests/figures why` says what costs it.",
            is - aim
        );
    }
    if only.is_empty() {
        of_routes.await;
    }
}

/// The environment of functions, and the playground that they use.
async fn playing(stand_ins: &StandIns) -> (Vec<(String, String)>, Playground, SocketAddr) {
    let clock = Arc::new(|| jiff::Timestamp::now().as_second());
    let ServedPlayground { playground, address, config } = ServedPlayground::start(clock).await;
    let more = [
        ("OVERSEER_STAND_INS", stand_ins::stand_ins_variable(&config)),
        ("OVERSEER_ALLOW_ADDRESSES", address.to_string()),
        ("OVERSEER_LOG", "info".to_owned()),
        ("OVERSEER_RETURN_TO", routes::RETURN_TO.to_owned()),
        ("PUBLIC_URL", "https://overseer.example.com".to_owned()),
    ];
    let mut variables = stand_ins.variables.clone();
    variables.extend(more.map(|(name, value)| (name.to_owned(), value)));
    (variables, playground, address)
}

async fn start(endpoints: AwsEndpoints, launch: Launch) -> Gateway {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Gateway::start(listener, Vec::new(), endpoints, launch)
}

/// An event of the repository, with a good key.
fn event(root: &Path, name: &str, key: &str) -> Value {
    let text = std::fs::read_to_string(root.join(format!("events/{name}.json"))).unwrap();
    let mut event: Value = serde_json::from_str(&text).unwrap();
    if event["headers"].is_object() {
        event["headers"]["authorization"] = format!("Bearer {key}").into();
    }
    event
}

/// The instructions of a process that is given an event so often.
async fn instructions(
    variables: &[(String, String)],
    endpoints: AwsEndpoints,
    programs: &Path,
    name: &str,
    event: &Value,
    times: usize,
) -> u64 {
    measured(variables, endpoints, programs, name, event, times).await.0
}

/// The same, and the instructions of each crate, the most first.
async fn measured(
    variables: &[(String, String)],
    endpoints: AwsEndpoints,
    programs: &Path,
    name: &str,
    event: &Value,
    times: usize,
) -> (u64, Vec<(String, u64)>) {
    let folder = tempdir().unwrap();
    let (log, programs) = (folder.path().join("log"), programs.to_owned());
    let (written, told, profile) = (log.clone(), variables.to_vec(), folder.path().join("profile"));
    let to = profile.clone();
    let launch: Launch = Box::new(move |name| {
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind".to_owned(), format!("--callgrind-out-file={}", to.display())])
            .arg(format!("--log-file={}", written.display()))
            .arg(programs.join(name).join("bootstrap"))
            .envs(Bundle::read().environment(name, &told))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    });
    let gateway = start(endpoints, launch).await;
    for _ in 0..times {
        gateway.invoke(name, event.clone()).await.unwrap();
    }
    gateway.asked(name, times + 1).await;
    gateway.end(name).await;
    let text = std::fs::read_to_string(log).unwrap();
    let collected =
        text.lines().find_map(|line| line.split_once("Collected : ")).expect("callgrind says what it counted");
    let annotated = Command::new("callgrind_annotate").arg("--threshold=100").arg(&profile).output().unwrap();
    (collected.1.trim().parse().unwrap(), by_crate(&String::from_utf8_lossy(&annotated.stdout)))
}

/// Lines such as `1,234 (5.6%)  ???:<alloc::vec::Vec<T> as core::clone::Clone>::clone [/a/path]`, by the first crate named.
fn by_crate(annotated: &str) -> Vec<(String, u64)> {
    let mut sums = BTreeMap::<String, u64>::new();
    for line in annotated.lines() {
        let Some((count, rest)) = line.trim().split_once(" (") else { continue };
        let Ok(count) = count.replace(',', "").parse::<u64>() else { continue };
        let Some((_, function)) = rest.split_once("%)").and_then(|(_, rest)| rest.split_once(':')) else { continue };
        let name = function.trim_start_matches(['<', '&', '(', '*']).trim_start_matches("dyn ");
        let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
        *sums.entry(name.get(..end).unwrap_or(name).to_owned()).or_default() += count;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    sums
}

/// The requests to AWS for a first event and for the next, each with its number.
async fn requests(gateway: &Gateway, name: &str, event: &Value) -> (String, String) {
    gateway.stop(name).await;
    gateway.calls();
    let mut seen = Vec::new();
    for _ in 0..2 {
        gateway.invoke(name, event.clone()).await.unwrap();
        seen.push(counted(gateway));
    }
    let warm = seen.pop().unwrap();
    (seen.pop().unwrap(), warm)
}

/// Megabytes of 1,000,000 bytes, for show.
fn size_mb(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1_000).unwrap()) / 1_000.0
}

/// Millions of instructions, for show.
fn millions(count: u64) -> String {
    format!("{:.2} M", f64::from(u32::try_from(count / 1_000).unwrap()) / 1_000.0)
}
