//! `overseer key`: calls the running server, with the administrator's key from the data folder.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use overseer_local::folder::read_admin_key;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::arguments::{Arguments, KeyCommand, NewKey};
use crate::failure::Failure;

/// Makes, lists or revokes keys.
pub async fn run(arguments: &Arguments, command: &KeyCommand) -> Result<(), Failure> {
    let Some(key) = read_admin_key(&arguments.data)? else {
        let folder = arguments.data.display();
        return Err(Failure::Server(format!(
            "there is no administrator's key in {folder}; start the server first, or name its folder with --data"
        )));
    };
    let server = Server {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port)),
        client: reqwest::Client::builder().no_proxy().build().map_err(|error| Failure::Server(error.to_string()))?,
        key,
    };
    match command {
        KeyCommand::Create(new) => create(&server, new).await,
        KeyCommand::List => list(&server).await,
        KeyCommand::Revoke { id } => revoke(&server, id).await,
    }
}

async fn create(server: &Server, new: &NewKey) -> Result<(), Failure> {
    let roles: Vec<&str> = new.roles.iter().map(|role| role.0.as_str()).collect();
    let body = json!({ "name": new.name, "roles": roles, "user_id": new.user, "agent_id": new.agent,
                       "channel": new.channel });
    let created = server.call(Method::POST, "", Some(body)).await?;
    print(created.get("key").and_then(Value::as_str).unwrap_or_default())
}

async fn list(server: &Server) -> Result<(), Failure> {
    let mut cursor = String::new();
    loop {
        let page = server.call(Method::GET, &format!("?limit=100{cursor}"), None).await?;
        for key in page.get("keys").and_then(Value::as_array).into_iter().flatten() {
            print(&line(key))?;
        }
        let Some(next) = page.get("next_cursor").and_then(Value::as_str) else { return Ok(()) };
        cursor = format!("&cursor={next}");
    }
}

async fn revoke(server: &Server, id: &str) -> Result<(), Failure> {
    if id.is_empty() || !id.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(Failure::Server(format!("{id:?} is not a key's id; overseer key list shows them")));
    }
    let revoked = server.call(Method::DELETE, &format!("/{id}"), None).await?;
    print(&line(&revoked))
}

struct Server {
    address: SocketAddr,
    client: reqwest::Client,
    key: SecretString,
}

impl Server {
    /// Calls `/api/v1/keys` with this behind it, and returns the body of a successful response.
    async fn call(&self, method: Method, suffix: &str, body: Option<Value>) -> Result<Value, Failure> {
        let mut request = self
            .client
            .request(method, format!("http://{}/api/v1/keys{suffix}", self.address))
            .header("authorization", format!("Bearer {}", self.key.expose_secret()));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let unreachable = |error: reqwest::Error| {
            let reason = if error.is_connect() {
                "is it running? Name its port with --port".to_owned()
            } else {
                error.to_string()
            };
            Failure::Server(format!("no response from the server at http://{}: {reason}", self.address))
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if status.is_success() {
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

/// Prints a line on standard output.
pub(crate) fn print(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}").map_err(Failure::Print)
}
