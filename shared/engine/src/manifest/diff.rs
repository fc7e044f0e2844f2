//! What two versions of a plugin have apart, by what their manifests mean: whoever moves an instance from one to the other
//! has to know what it may do then, and what models will read.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::{Action, Auth, Hook, Manifest, Permission, Runtime};
use crate::ids::ActionName;

/// What a newer manifest changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Changes {
    /// Actions that are there no more, under their own name.
    pub actions_removed: Vec<ActionName>,
    /// Actions that were not there.
    pub actions_added: Vec<ActionName>,
    /// Actions that are otherwise.
    pub actions_changed: Vec<ActionChanged>,
    /// What calls may reach no more.
    pub permissions_removed: Vec<Permission>,
    /// What calls could not reach.
    pub permissions_added: Vec<Permission>,
    /// Scopes of the service that are asked for no more.
    pub scopes_removed: Vec<String>,
    /// Scopes of the service that were not asked for.
    pub scopes_added: Vec<String>,
    /// Moments at which it takes part no more.
    pub hooks_removed: Vec<Hook>,
    /// Moments at which it did not take part.
    pub hooks_added: Vec<Hook>,
    /// Texts that models read and that are otherwise, of the plugin and of actions that stay.
    pub description_changed: Vec<TextChanged>,
    /// Whether the service knows otherwise whose call it is.
    pub auth_changed: bool,
    /// Whether requests go elsewhere: by the base URL, or by the hosts that calls may reach.
    pub hosts_changed: bool,
    /// Whether accounts have to be connected again: their credentials do not go where they were not given for, and do not
    /// have scopes that nobody consented to.
    pub reconnect: bool,
    /// Whether an instance's configuration may be something else. Whether one still validates is another question.
    pub config_schema_changed: bool,
    /// Which of the manifest's other keys have another meaning.
    pub keys_changed: Vec<&'static str>,
}

/// An action that is otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ActionChanged {
    /// Its name.
    pub name: ActionName,
    /// Which of its keys have another meaning.
    pub keys: Vec<&'static str>,
}

/// A text that models read and that is otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextChanged {
    /// Where it stands, such as `actions.send.parameters/properties/to/description`.
    pub place: String,
    /// What it was, if it was there.
    pub old: Option<String>,
    /// What it is, if it is there.
    pub new: Option<String>,
}

impl Changes {
    /// Whether the newer manifest may do or reach more than the older, so that an administrator has to consent again.
    pub fn widens(&self) -> bool {
        let more = [self.permissions_added.is_empty(), self.hooks_added.is_empty(), self.scopes_added.is_empty()];
        self.hosts_changed || more.contains(&false)
    }

    /// Whether nothing has another meaning.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What `new` changes of `old`. Neither the order of keys nor that of actions means anything, and the version is not
/// looked at.
pub fn diff(old: &Manifest, new: &Manifest) -> Changes {
    let (permissions_removed, permissions_added) = apart(&old.permissions, &new.permissions);
    let (scopes_removed, scopes_added) = apart(old.auth.scopes(), new.auth.scopes());
    let (hooks_removed, hooks_added) = apart(&old.hooks, &new.hooks);
    let (actions_removed, actions_added) = apart(names(old), names(new));
    let hosts_changed = old.runtime.base_url() != new.runtime.base_url()
        || old.hosts().collect::<BTreeSet<_>>() != new.hosts().collect::<BTreeSet<_>>();
    Changes {
        actions_changed: actions_changed(old, new),
        description_changed: texts_changed(old, new),
        auth_changed: old.auth != new.auth,
        hosts_changed,
        reconnect: old.bound_to() != new.bound_to() || !scopes_added.is_empty(),
        config_schema_changed: old.config_schema != new.config_schema,
        keys_changed: keys_changed(old, new),
        actions_removed,
        actions_added,
        permissions_removed,
        permissions_added,
        scopes_removed,
        scopes_added,
        hooks_removed,
        hooks_added,
    }
}

/// What is only in the one, and what is only in the other.
fn apart<'a, T: Ord + Clone + 'a>(
    old: impl IntoIterator<Item = &'a T>,
    new: impl IntoIterator<Item = &'a T>,
) -> (Vec<T>, Vec<T>) {
    let (old, new): (BTreeSet<&T>, BTreeSet<&T>) = (old.into_iter().collect(), new.into_iter().collect());
    (old.difference(&new).copied().cloned().collect(), new.difference(&old).copied().cloned().collect())
}

fn names(manifest: &Manifest) -> impl Iterator<Item = &ActionName> {
    manifest.actions.iter().map(|action| &action.name)
}

/// The names of what is not the same.
fn changed(keys: &[(&'static str, bool)]) -> Vec<&'static str> {
    keys.iter().filter(|(_, same)| !same).map(|(key, _)| *key).collect()
}

fn keys_changed(old: &Manifest, new: &Manifest) -> Vec<&'static str> {
    changed(&[
        ("author", old.author == new.author),
        ("license", old.license == new.license),
        ("website", old.website == new.website),
        ("categories", old.categories == new.categories),
        ("runtime", old.runtime == new.runtime),
        ("retry", old.retry == new.retry),
        ("breaker", old.breaker == new.breaker),
        ("mappings", old.mappings == new.mappings),
        ("default_config", old.default_config == new.default_config),
        ("dependencies", old.dependencies == new.dependencies),
        ("compatible_versions", old.compatible_versions == new.compatible_versions),
        ("data_adapters", old.data_adapters == new.data_adapters),
        ("default_enabled", old.default_enabled == new.default_enabled),
    ])
}

fn actions_changed(old: &Manifest, new: &Manifest) -> Vec<ActionChanged> {
    let keys = |old: &Action, new: &Action| {
        changed(&[
            ("aliases", old.aliases.iter().collect::<BTreeSet<_>>() == new.aliases.iter().collect()),
            ("description", old.description == new.description),
            ("effect", old.effect == new.effect),
            ("parameters", old.parameters == new.parameters),
            ("returns", old.returns == new.returns),
            ("streaming_supported", old.streaming_supported == new.streaming_supported),
            ("request", old.request == new.request),
            ("response", old.response == new.response),
            ("paginate", old.paginate == new.paginate),
            ("each", old.each == new.each),
        ])
    };
    let both = old.actions.iter().filter_map(|action| Some((action, new.action(&action.name)?)));
    let changed = both.map(|(old, new)| ActionChanged { name: new.name.clone(), keys: keys(old, new) });
    changed.filter(|action| !action.keys.is_empty()).collect()
}

fn texts_changed(old: &Manifest, new: &Manifest) -> Vec<TextChanged> {
    let (old, new) = (texts(old, new), texts(new, old));
    let places: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = places.into_iter().filter(|place| old.get(*place) != new.get(*place));
    changed
        .map(|place| TextChanged { place: place.clone(), old: old.get(place).cloned(), new: new.get(place).cloned() })
        .collect()
}

/// What models read of a manifest, by its place, but nothing of actions that `other` does not have.
fn texts(manifest: &Manifest, other: &Manifest) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::from([
        ("description".to_owned(), manifest.description.clone()),
        ("display_name".to_owned(), manifest.display_name.clone()),
    ]);
    let template = manifest.instruction_template.as_ref();
    texts.extend(template.map(|text| ("instruction_template".to_owned(), text.source().to_owned())));
    for action in manifest.actions.iter().filter(|action| other.action(&action.name).is_some()) {
        let place = format!("actions.{}", action.name);
        texts.insert(format!("{place}.description"), action.description.clone());
        texts_in(&action.parameters, &format!("{place}.parameters"), &mut texts);
        if let Some(returns) = &action.returns {
            texts_in(returns, &format!("{place}.returns"), &mut texts);
        }
    }
    texts
}

/// The texts in a schema that are written for a reader.
fn texts_in(schema: &Value, place: &str, texts: &mut BTreeMap<String, String>) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                let place = format!("{place}/{key}");
                match value.as_str().filter(|_| matches!(key.as_str(), "description" | "title")) {
                    Some(text) => {
                        texts.insert(place, text.to_owned());
                    }
                    None => texts_in(value, &place, texts),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                texts_in(item, &format!("{place}/{index}"), texts);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl Manifest {
    fn action(&self, name: &ActionName) -> Option<&Action> {
        self.actions.iter().find(|action| action.name == *name)
    }

    /// Where a credential of the plugin goes and how. One serves only what it was handed over for: a manifest that says
    /// otherwise later does not get it.
    pub(crate) fn bound_to(&self) -> String {
        let hosts: BTreeSet<&str> = self.hosts().collect();
        let hosts = hosts.into_iter().collect::<Vec<_>>().join(" ");
        let way = match &self.auth {
            Auth::None => "nothing".to_owned(),
            Auth::Oauth2(oauth) => format!("oauth2 of {} {:?}", oauth.authorization_url, oauth.issuer),
            Auth::ClientCredentials(_) => "client_credentials".to_owned(),
            Auth::ApiKey(key) => format!("api_key in {}", key.header.to_ascii_lowercase()),
            Auth::Basic(_) => "basic".to_owned(),
        };
        let provider = self.auth.provider().map(|provider| {
            let back = provider.revocation_url.as_ref().map(url::Url::as_str).unwrap_or_default();
            format!(" by {} {back}", provider.token_url)
        });
        let provider = provider.unwrap_or_default();
        let base = match &self.runtime {
            Runtime::Http { base_url } => base_url.origin().ascii_serialization(),
            Runtime::Container(_) | Runtime::Module(_) => "nowhere".to_owned(),
        };
        format!("{way}{provider} to {base} {hosts}")
    }
}
