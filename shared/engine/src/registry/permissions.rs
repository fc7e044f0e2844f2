//! Consent: which permissions of its manifest a plugin may use in an organization.
//!
//! The rule, and where each part of it is enforced:
//!
//! 1. A catalog plugin (built in, or added by the operator) has every permission that its manifest declares. Administrators
//!    cannot grant or withdraw them.
//! 2. A registered plugin has only the permissions that an administrator granted to the organization's instance, and an
//!    administrator can grant only what the manifest declares ([`checked_grant`]). Enabling a plugin without `permissions`
//!    grants none.
//! 3. A grant replaces all earlier grants. What it withdraws is also withdrawn from the version before, because a rollback
//!    would bring it back ([`Instance::grant`]).
//! 4. After a change of version, the granted permissions that the new version still declares stay granted. A hook permission
//!    does not stay if the new version is asked elsewhere, or about more, than the administrator consented to
//!    ([`carried_over`]). New permissions need a grant that names them.
//! 5. A hook permission needs a signing secret first, if the hooks are called over HTTP ([`must_be_signable`]).
//! 6. Calls of a plugin are refused until it has what every call needs: the hosts of its service, and those that receive
//!    credentials ([`Manifest::needed`], [`Instance::must_be_granted`]). A hook is not called until it has what that hook
//!    needs ([`super::hooks`]).
//!
//! The grants are stored in the instance, as `installed.permissions`.

use std::collections::BTreeSet;

use super::hooks::calls_hooks_over_http;
use super::instances::{Instance, LoadedInstance};
use crate::core::error::Error;
use crate::core::ids::OrgId;
use crate::core::problem::FieldProblem;
use crate::engine::Engine;
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::{Manifest, Permission};
use crate::ports::table::Read;
use crate::storage::keys;

impl Manifest {
    /// The permissions that every call needs: the hosts of the service, and those that issue and revoke its tokens.
    pub(crate) fn needed(&self) -> impl Iterator<Item = Permission> {
        let provider = self.auth.provider();
        let tokens = provider.map(|provider| &provider.token_url);
        let revocation = provider.and_then(|provider| provider.revocation_url.as_ref());
        let urls = [self.runtime.base_url(), tokens, revocation];
        urls.into_iter().flatten().filter_map(|url| Some(Permission::Network(url.host_str()?.to_owned())))
    }

    /// The declared permissions that are not in `granted`.
    pub(crate) fn permissions_beyond(&self, granted: &BTreeSet<Permission>) -> BTreeSet<Permission> {
        self.permissions.iter().filter(|permission| !granted.contains(permission)).cloned().collect()
    }
}

impl Instance {
    /// Grants exactly these permissions of a registered plugin. Withdrawn ones are withdrawn from the version before as well.
    pub(super) fn grant(&mut self, plugin: &Plugin, permissions: &BTreeSet<Permission>) {
        let Some(installed) = &mut self.installed else { return };
        installed.permissions.clone_from(permissions);
        if let Some(before) = &mut self.before {
            let withdrawn = |permission: &Permission| {
                plugin.manifest.permissions.contains(permission) && !permissions.contains(permission)
            };
            before.installed.permissions.retain(|permission| !withdrawn(permission));
        }
    }

    /// The permissions that an administrator granted to a registered plugin; `None` for a catalog plugin, which has all.
    pub(super) fn granted(&self, plugin: &Plugin) -> Option<&BTreeSet<Permission>> {
        let installed = self.installed.as_ref().filter(|_| plugin.digest.is_some());
        installed.map(|installed| &installed.permissions)
    }

    /// The first permission that calls of the plugin need and that no administrator granted.
    pub(crate) fn not_granted(&self, plugin: &Plugin) -> Option<Permission> {
        let (granted, manifest) = (self.granted(plugin)?, &plugin.manifest);
        manifest.needed().find(|needed| !granted.contains(needed))
    }

    /// Refuses a plugin whose calls need a permission that no administrator granted.
    pub(crate) fn must_be_granted(&self, plugin: &Plugin) -> Result<(), Error> {
        let Some(missing) = self.not_granted(plugin) else { return Ok(()) };
        let name = &plugin.manifest.name;
        Err(Error::Forbidden(format!(
            "{name} was not granted the permission {missing}; an administrator grants it with PATCH /api/v1/plugins/{name}"
        )))
    }
}

impl Engine {
    /// As [`Instance::must_be_granted`], for callers that have not read the instance.
    pub(crate) async fn must_be_granted(&self, org: &OrgId, plugin: &Plugin) -> Result<(), Error> {
        if plugin.digest.is_none() {
            return Ok(());
        }
        let item = self.ports.table.get(&keys::instance(org, &plugin.manifest.name), Read::Consistent).await?;
        LoadedInstance::of(item)?.instance.must_be_granted(plugin)
    }
}

/// The permissions that an administrator asks to grant, if the plugin is registered and declares each of them. `None` where
/// the request names none, which changes no grant.
pub(super) fn checked_grant(
    plugin: &Plugin,
    requested: Option<&BTreeSet<Permission>>,
) -> Result<Option<BTreeSet<Permission>>, Error> {
    let manifest = &plugin.manifest;
    let Some(requested) = requested else { return Ok(None) };
    if plugin.digest.is_none() {
        let message = format!("{} comes with Overseer and has its permissions from there; leave it out", manifest.name);
        return Err(Error::field("/permissions", message));
    }
    let undeclared = requested.iter().enumerate().filter(|(_, permission)| !manifest.permissions.contains(permission));
    let problem = |(index, _): (usize, &Permission)| {
        let declared: Vec<_> = manifest.permissions.iter().map(ToString::to_string).collect();
        let declared = if declared.is_empty() { "none".to_owned() } else { declared.join(", ") };
        let message = format!("is not one that {} has: {declared}", manifest.name);
        FieldProblem::new(format!("/permissions/{index}"), message)
    };
    let problems: Vec<_> = undeclared.map(problem).collect();
    if problems.is_empty() { Ok(Some(requested.clone())) } else { Err(Error::Invalid(problems)) }
}

/// The granted permissions that stay granted when `new` replaces `old`. Without `old`, a version that cannot be read any
/// more, no hook permission stays.
pub(super) fn carried_over(
    old: Option<&Manifest>,
    new: &Manifest,
    granted: &BTreeSet<Permission>,
) -> BTreeSet<Permission> {
    let stays = |permission: &&Permission| {
        let widened = match permission {
            Permission::Hook(on) => old.is_none_or(|old| new.widens_hook(old, *on)),
            Permission::Network(_) | Permission::Named(_) => false,
        };
        new.permissions.contains(permission) && !widened
    };
    granted.iter().filter(stays).cloned().collect()
}

/// Refuses a hook permission while the plugin has no secret to sign the hook's requests with.
pub(super) fn must_be_signable(
    manifest: &Manifest,
    permissions: &BTreeSet<Permission>,
    instance: &Instance,
) -> Result<(), Error> {
    if !calls_hooks_over_http(manifest) || instance.hook_secret.is_some() {
        return Ok(());
    }
    let Some(hook) = permissions.iter().find(|permission| matches!(permission, Permission::Hook(_))) else {
        return Ok(());
    };
    let name = &manifest.name;
    let (first, last) = match &instance.installed {
        Some(_) => (format!("enable it without {hook}, "), "grant that"),
        None => (String::new(), "enable it"),
    };
    Err(Error::Conflict(format!(
        "the hooks of {name} have no secret to sign with yet: {first}make the secret with POST \
         /api/v1/plugins/{name}/hook-secret, give it to the server that receives them, and {last} then"
    )))
}
