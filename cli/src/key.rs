//! `overseer key`: asks the running server, with the administrator's key from the data folder.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use overseer_local::folder::read_admin_key;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::arguments::{Arguments, KeyCommand};
use crate::failure::Failure;

/// Makes, lists or revokes keys.
pub async fn run(arguments: &Arguments, command: &KeyCommand) -> Result<(), Failure> {
    let Some(key) = read_admin_key(&arguments.data)? else {
        let folder = arguments.data.display();
        return Err(Failure::Server(format!(
            "there is no administrator's key in {folder}; start the server first, or say --data"
        )));
    };
    let server = Server {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port)),
        client: reqwest::Client::builder().no_proxy().build().map_err(|error| Failure::Server(error.to_string()))?,
        key,
    };
    match command {
        KeyCommand::Create(new) => {
            let roles: Vec<&str> = new.roles.iter().map(|role| role.0.as_str()).collect();
            let body = json!({ "name": new.name, "roles": roles, "user_id": new.user, "agent_id": new.agent,
                               "channel": new.channel });
            let made = server.ask(Method::POST, "", Some(body)).await?;
            print(made.get("key").and_then(Value::as_str).unwrap_or_default())
        }
        KeyCommand::List => {
            let mut cursor = String::new();
            loop {
                let page = server.ask(Method::GET, &format!("?limit=100{cursor}"), None).await?;
                for key in page.get("keys").and_then(Value::as_array).into_iter().flatten() {
                    print(&line(key))?;
                }
                let Some(next) = page.get("next_cursor").and_then(Value::as_str) else { return Ok(()) };
                cursor = format!("&cursor={next}");
            }
        }
        KeyCommand::Revoke { id } => {
            if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric()) {
                return Err(Failure::Server(format!("{id:?} is not a key's id; overseer key list shows them")));
            }
            let revoked = server.ask(Method::DELETE, &format!("/{id}"), None).await?;
            print(&line(&revoked))
        }
    }
}

struct Server {
    address: SocketAddr,
    client: reqwest::Client,
    key: SecretString,
}

impl Server {
    async fn ask(&self, method: Method, rest: &str, body: Option<Value>) -> Result<Value, Failure> {
        let mut request = self
            .client
            .request(method, format!("http://{}/api/v1/keys{rest}", self.address))
            .header("authorization", format!("Bearer {}", self.key.expose_secret()));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let unreachable = |error: reqwest::Error| {
            let reason =
                if error.is_connect() { "is it running? --port says where".to_owned() } else { error.to_string() };
            Failure::Server(format!("no answer from the server at http://{}: {reason}", self.address))
        };
        let answer = request.send().await.map_err(unreachable)?;
        let good = answer.status().is_success();
        let text = answer.text().await.map_err(unreachable)?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if good {
            return Ok(value);
        }
        let detail = value.get("detail").and_then(Value::as_str).unwrap_or("it is not an Overseer");
        Err(Failure::Server(format!("the server at http://{} refused: {detail}", self.address)))
    }
}

fn line(key: &Value) -> String {
    let text = |name: &str| key.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let roles: Vec<&str> =
        key.get("roles").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let state = key.get("revoked_at").and_then(Value::as_str).map_or("good".to_owned(), |at| format!("revoked {at}"));
    [text("id"), text("created_at"), roles.join(","), text("user_id"), state, text("name")].join("\t")
}

/// Prints a line.
pub(crate) fn print(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}").map_err(Failure::Print)
}
