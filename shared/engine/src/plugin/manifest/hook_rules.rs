//! What the hooks of a manifest need and ask, and their problems.

use std::collections::BTreeSet;

use url::Url;

use super::{DeclaredHook, Hook, Manifest, Permission, Runtime};

impl Manifest {
    /// The URL that a hook is called at, for the runtime `http`.
    pub(crate) fn hook_url(&self, hook: &DeclaredHook) -> Option<Url> {
        let Runtime::Http { base_url } = &self.runtime else { return None };
        if let Some(url) = &hook.url {
            return Some(url.clone());
        }
        let mut url = base_url.clone();
        let path = format!("{}/hooks/{}", base_url.path().trim_end_matches('/'), hook.on);
        url.set_path(&path);
        Some(url)
    }

    /// Whether one of its hooks `on` is called at another URL than those of `old`, or for more tools.
    pub(crate) fn widens_hook(&self, old: &Self, on: Hook) -> bool {
        let targets = |manifest: &Self| -> Vec<(Option<Url>, BTreeSet<String>)> {
            let hooks = manifest.hooks.iter().filter(|hook| hook.on == on);
            hooks.map(|hook| (manifest.hook_url(hook), hook.tools.clone())).collect()
        };
        let old_targets = targets(old);
        !targets(self).iter().all(|(url, tools)| {
            let covers = |old: &BTreeSet<String>| old.is_empty() || (!tools.is_empty() && tools.is_subset(old));
            old_targets.iter().any(|(old_url, old_tools)| old_url == url && covers(old_tools))
        })
    }

    /// The permissions that a hook needs: the one for the hook itself, and its host.
    pub(crate) fn needed_by(&self, hook: &DeclaredHook) -> impl Iterator<Item = Permission> {
        let host = self.hook_url(hook).and_then(|url| Some(Permission::Network(url.host_str()?.to_owned())));
        std::iter::once(Permission::Hook(hook.on)).chain(host)
    }

    /// Every problem of its hooks.
    pub(super) fn hook_problems(&self, url_problem: impl Fn(&Url) -> Option<&'static str>) -> Vec<String> {
        let mut problems: Vec<String> = self.hooks.iter().flat_map(DeclaredHook::problems).collect();
        for hook in &self.hooks {
            let place = format!("hooks.{}.url", hook.on);
            match (&self.runtime, &hook.url) {
                (Runtime::Http { .. }, Some(url)) => {
                    problems.extend(url_problem(url).map(|problem| format!("{place}: {problem}")));
                    let host = url.host_str().unwrap_or_default();
                    if !self.hosts().any(|permitted| permitted == host) {
                        problems.push(format!("permissions: add network:{host}, where {place} points"));
                    }
                }
                (Runtime::Container(_) | Runtime::Module(_) | Runtime::Native, Some(_)) => {
                    problems.push(format!("{place}: is for the runtime http only; leave it out"));
                }
                (_, None) => {}
            }
        }
        for permission in &self.permissions {
            if let Permission::Hook(on) = permission
                && !self.hooks.iter().any(|hook| hook.on == *on)
            {
                problems
                    .push(format!("permissions: {permission} is listed, but there is no such hook; add it to hooks"));
            }
        }
        problems
    }

    /// Adds the permissions that its hooks need and that its author left out, so that an administrator grants each of them.
    pub(super) fn with_hook_permissions(mut self) -> Self {
        for on in self.hooks.iter().map(|hook| hook.on).collect::<BTreeSet<_>>() {
            if !self.permissions.contains(&Permission::Hook(on)) {
                self.permissions.push(Permission::Hook(on));
            }
        }
        self
    }
}
