//! The command line.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};
use overseer_engine::access::principal::Role;
use overseer_engine::core::ids::OrgId;

/// The end of `--help`: the environment variables.
const ENVIRONMENT: &str = "Environment:
  OVERSEER_ALLOW_ADDRESSES  private addresses that outbound calls may reach
  OVERSEER_STAND_INS        what is called in place of the services of built-in plugins, as JSON; for tests
  OVERSEER_LOG              what is logged: error, warn, info (if unset), debug or trace
  SLACK_TOKEN, GMAIL_TOKEN, NOTION_TOKEN
                            use the real service, with this token for the administrator
  SLACK_CLIENT_ID and SLACK_CLIENT_SECRET, GMAIL_…, NOTION_…
                            use the real service, with your OAuth client there
  PUBLIC_URL                where browsers reach this server; http://127.0.0.1:PORT if unset
  OVERSEER_RETURN_TO        URLs that a browser may be redirected to after connecting, separated by commas
  CRON_SECRET_TOKEN         the Bearer token of POST /api/plugin-engine/cron; if unset, every call is refused";

/// A plugin engine for AI agents. Without a command it serves on this machine until Ctrl-C.
#[derive(Debug, Parser)]
#[command(version, after_help = ENVIRONMENT)]
pub struct Arguments {
    /// The port on 127.0.0.1 to serve on, or of the running server; 0 takes a free one.
    #[arg(long, global = true, default_value_t = 8787)]
    pub port: u16,

    /// The data folder: records, secrets, keys.
    #[arg(long, global = true, env = "OVERSEER_DATA", default_value = ".overseer")]
    pub data: PathBuf,

    /// How the log is written on standard error.
    #[arg(long, global = true, env = "OVERSEER_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// A folder with more plugins, one in each subfolder; read at start and after each change.
    #[arg(long)]
    pub plugins: Option<PathBuf>,

    /// The command to run instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line, as the Lambda functions log.
    Json,
}

/// The command to run instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes, lists and revokes API keys on the running server.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Replaces the keys that encrypt secrets, in the data folder of a stopped server.
    #[command(subcommand)]
    Vault(VaultCommand),
}

/// A command about API keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Makes a key and prints it, once.
    Create(NewKey),
    /// Lists the keys, oldest first.
    List,
    /// Revokes a key.
    Revoke {
        /// The key's id: the part between `ovs_` and the second `_`.
        id: String,
    },
}

/// The key to make.
#[derive(Debug, Args)]
pub struct NewKey {
    /// A name that says what the key is for.
    #[arg(long)]
    pub name: String,
    /// A role of the key; repeat the flag for more than one.
    #[arg(long = "role", required = true)]
    pub roles: Vec<RoleName>,
    /// The user that the key acts for.
    #[arg(long)]
    pub user: Option<String>,
    /// The agent that the key belongs to; needs the role agent.
    #[arg(long)]
    pub agent: Option<String>,
    /// The channel whose plugins the agent may use; needs the role agent.
    #[arg(long)]
    pub channel: Option<String>,
}

/// A command about the vault.
#[derive(Debug, Subcommand)]
pub enum VaultCommand {
    /// Makes new keys. Connected accounts stay connected.
    ///
    /// Without flags this makes a new data key for each organization and a new master key. Stop the server first.
    Rotate(Rotate),
}

/// The keys to make.
#[derive(Debug, Args)]
pub struct Rotate {
    /// Only a new master key, which wraps the data keys. The old one opens nothing afterwards.
    #[arg(long)]
    pub master_key: bool,
    /// Only new data keys, which encrypt secrets. A stored secret changes over when it is next written.
    #[arg(long)]
    pub data_keys: bool,
    /// The only organization that gets a new data key, instead of all.
    #[arg(long, value_name = "ORG", value_parser = |text: &str| OrgId::parse(text))]
    pub organization: Option<OrgId>,
}

/// A role by its name in the API.
#[derive(Debug, Clone, Copy)]
pub struct RoleName(pub Role);

impl ValueEnum for RoleName {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [RoleName; Role::ALL.len()] = {
            let [first, second, third, fourth, fifth, sixth] = Role::ALL;
            [RoleName(first), RoleName(second), RoleName(third), RoleName(fourth), RoleName(fifth), RoleName(sixth)]
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.as_str()).help(self.0.description()))
    }
}
