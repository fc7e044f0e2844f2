//! What must exist before the first request: the organization `local`, its administrator's key, and accounts at the
//! services that have a token or a stand-in.

use std::collections::BTreeSet;
use std::sync::Arc;

use overseer_engine::access::api_keys::NewApiKey;
use overseer_engine::access::principal::{Principal, Role};
use overseer_engine::accounts::Connect;
use overseer_engine::core::error::Error;
use overseer_engine::core::ids::{OrgId, PluginName, UserId};
use overseer_engine::engine::Engine;
use overseer_local::folder::DataFolder;
use overseer_playground::Service;
use secrecy::SecretString;

use crate::failure::Failure;

/// The organization of a server on one machine.
const ORGANIZATION: &str = "local";
/// The user that its administrator's key is bound to.
const ADMINISTRATOR: &str = "admin";

/// Makes what is missing. Returns whether the administrator's key is new.
pub async fn prepare(engine: &Arc<Engine>, folder: &DataFolder, stand_ins: &[Service]) -> Result<bool, Failure> {
    let org = OrgId::parse(ORGANIZATION).map_err(|error| Error::field("", error.to_string()))?;
    let first = engine.create_organization(&org).await?;
    let (principal, new) = administrator(engine, folder, &org).await?;
    if new && !first {
        tracing::warn!("made a new administrator's key; an old one may still be good: key list, key revoke ID");
    }
    for (plugin, service) in &engine.config.services {
        if let Some(token) = &service.token {
            connect(engine, &principal, plugin, token.clone()).await?;
        }
    }
    for service in stand_ins {
        let Ok(plugin) = PluginName::parse(service.name()) else { continue };
        if engine.wants_stand_in(&principal, &plugin).await? {
            connect(engine, &principal, &plugin, service.standing_token().into()).await?;
        }
    }
    Ok(new)
}

/// The principal of the administrator's key in the data folder, and whether the key is new. A key that is missing or no
/// longer valid is replaced: access to the folder is access to everything in it anyway.
async fn administrator(engine: &Arc<Engine>, folder: &DataFolder, org: &OrgId) -> Result<(Principal, bool), Failure> {
    if let Some(key) = folder.admin_key()? {
        match engine.authenticate(&key).await {
            Ok(principal) => return Ok((principal, false)),
            Err(Error::Unauthenticated(reason)) => {
                tracing::warn!(%reason, "replacing the administrator's key");
            }
            Err(error) => return Err(error.into()),
        }
    }
    let new = NewApiKey {
        name: "The administrator's key, made at start".to_owned(),
        roles: BTreeSet::from([Role::PlatformAdministrator, Role::Administrator]),
        user_id: UserId::parse(ADMINISTRATOR).ok(),
        channel: None,
        agent_id: None,
    };
    let (key, _) = engine.create_api_key(org, new).await?;
    folder.write_admin_key(&key)?;
    Ok((engine.authenticate(&key).await?, true))
}

async fn connect(
    engine: &Arc<Engine>,
    principal: &Principal,
    plugin: &PluginName,
    token: SecretString,
) -> Result<(), Failure> {
    let connect = Connect { token: Some(token), ..Connect::default() };
    engine.connect(principal, plugin.as_str(), connect).await?;
    Ok(())
}
