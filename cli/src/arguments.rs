//! The command line.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, Parser, Subcommand, ValueEnum};
use overseer_engine::access::principal::Role;
use overseer_engine::core::ids::OrgId;

/// What `--help` says of the environment.
const ENVIRONMENT: &str = "Environment:
  OVERSEER_ALLOW_ADDRESSES  addresses that calls may go to although they are not public
  OVERSEER_LOG              what is logged: error, warn, info (if unset), debug or trace
  SLACK_TOKEN, GMAIL_TOKEN, NOTION_TOKEN
                            the service is real, and this is the administrator's token there
  SLACK_CLIENT_ID and SLACK_CLIENT_SECRET, GMAIL_…, NOTION_…
                            the service is real, and this is your OAuth client there
  PUBLIC_URL                where browsers reach this server; http://127.0.0.1:PORT if unset
  OVERSEER_RETURN_TO        URLs that a browser may be sent on to after connecting, separated by commas
  CRON_SECRET_TOKEN         what POST /api/plugin-engine/cron is called with; if unset, it refuses everybody";

/// A plugin engine for AI agents. Without a command it serves on this machine until Ctrl-C.
#[derive(Debug, Parser)]
#[command(version, after_help = ENVIRONMENT)]
pub struct Arguments {
    /// The port of 127.0.0.1 to serve on, or that the running server serves on; 0 takes a free one.
    #[arg(long, global = true, default_value_t = 8787)]
    pub port: u16,

    /// The folder that keeps everything: records, secrets, keys.
    #[arg(long, global = true, env = "OVERSEER_DATA", default_value = ".overseer")]
    pub data: PathBuf,

    /// A folder with more plugins, one in each of its folders; read at start, and again when something in it changes.
    #[arg(long)]
    pub plugins: Option<PathBuf>,

    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes, lists and revokes API keys, by asking the running server.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Replaces the keys that encrypt secrets, in the data folder of a server that is stopped.
    #[command(subcommand)]
    Vault(VaultCommand),
}

/// What to do with API keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Makes a key and prints it, once.
    Create(NewKey),
    /// Lists the keys, the oldest first.
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
    /// What it is for.
    #[arg(long)]
    pub name: String,
    /// What its bearer may do; may be given several times.
    #[arg(long = "role", required = true)]
    pub roles: Vec<RoleName>,
    /// The user that it acts for.
    #[arg(long)]
    pub user: Option<String>,
    /// The agent that it is for: with the role agent.
    #[arg(long)]
    pub agent: Option<String>,
    /// The channel whose plugins the agent may use: with the role agent.
    #[arg(long)]
    pub channel: Option<String>,
}

/// What to do with the vault.
#[derive(Debug, Subcommand)]
pub enum VaultCommand {
    /// Makes new keys. Connected accounts stay connected.
    ///
    /// Without flags it makes a new data key for each organization and a new master key. Stop the server first.
    Rotate(Rotate),
}

/// The keys to make.
#[derive(Debug, Args)]
pub struct Rotate {
    /// Only a new master key: what wraps the data keys. The old one opens nothing afterwards.
    #[arg(long)]
    pub master_key: bool,
    /// Only new data keys: what encrypts secrets. What is stored is encrypted anew when it is next written.
    #[arg(long)]
    pub data_keys: bool,
    /// The one organization that gets a new data key, instead of all.
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
