//! Connecting an account by way of a browser (RFC 6749, 4.1; RFC 7636; RFC 9700): the link, the page that asks, the
//! provider's answer, and the confirmation. ARCHITECTURE.md says which attack each check stops.

use std::sync::Arc;

use aws_lc_rs::{constant_time, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use url::Url;

use super::clients::no_client;
use super::record::{ConnectAttempt, Pending, accounts_in};
use super::refresh::credential_of;
use super::state::{Reason, State};
use super::{Integration, NewAccount};
use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{Alias, OrgId, Owner, PluginName, UserId};
use crate::engine::Engine;
use crate::outbound::oauth::{TokenError, authorization_url, plain};
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::{Auth, Manifest};
use crate::ports::ids::sha256;
use crate::ports::table::{Condition, Item, NewItem, Query, Read, TableError, Version, Write};
use crate::ports::timer::{Queue, Work, WorkKind};
use crate::ports::vault::VaultError;
use crate::storage::keys;
use crate::storage::seal::{NamedKey, Sealed};

/// How long a link, a state and a code to confirm are good.
pub const CONNECTING_TIME: SignedDuration = SignedDuration::from_mins(10);
/// The longest state, code, `iss` or `error` that a provider may send, in bytes.
pub const PARAMETER_MAX_BYTES: usize = 4096;

/// Where to send a user who wants to connect an account.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectLink {
    /// What the user is to open in a browser.
    pub connect_url: Url,
    /// When it stops being good.
    pub expires_at: Timestamp,
}

/// What a user is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// For which organization the account is to be connected.
    pub org: OrgId,
    /// By whom.
    pub user: UserId,
    /// For whom.
    pub owner: Owner,
    /// What people call the plugin.
    pub plugin: String,
    /// Under which alias.
    pub alias: Alias,
    /// What the provider will be asked for.
    pub scopes: Vec<String>,
    /// Where the browser goes next.
    pub host: String,
}

/// What a provider sends a browser back with.
#[derive(Debug, Default)]
pub struct Callback {
    /// Which attempt it is.
    pub state: Option<SecretString>,
    /// What tokens are given for.
    pub code: Option<SecretString>,
    /// Who says so (RFC 9207).
    pub iss: Option<String>,
    /// Why there is no code.
    pub error: Option<String>,
}

/// How connecting ends.
#[derive(Clone, PartialEq, Eq)]
pub enum CallbackOutcome {
    /// The account is connected: what people call the plugin, and the account.
    Connected(String, Option<String>),
    /// The browser is sent on to the application that began, which has to confirm or to take note of an error.
    Redirect(Url),
}

/// Why connecting by a browser does not go on. Nothing is kept.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No such attempt.
    #[error("This link is not known here. It was used already, or it is older than 10 minutes.")]
    UnknownLink,
    /// The browser that came back is not the one that was sent.
    #[error(
        "This browser did not begin this connection. If somebody sent you this link, do not use it: the account would be \
         connected for somebody else."
    )]
    OtherBrowser,
    /// The answer came to another plugin's address, or in another provider's name.
    #[error("The answer did not come from the service that was asked. Nothing was given to anybody.")]
    OtherProvider,
    /// A parameter is missing, there twice, or too long.
    #[error("The answer of the service cannot be used: {0}.")]
    Malformed(&'static str),
    /// The user said no.
    #[error("The service was not allowed to be used, so that nothing was connected.")]
    Denied,
    /// The provider would not.
    #[error("The service refused ({0}).")]
    Provider(String),
    /// The plugin or its client is not the same any more, or a permission was taken from it.
    #[error("The plugin was changed in the meantime.")]
    Changed,
    /// Overseer failed.
    #[error("Something failed on Overseer's side.")]
    Failed(#[from] Error),
}

impl From<TableError> for ConnectError {
    fn from(error: TableError) -> Self {
        Self::Failed(error.into())
    }
}

/// An attempt while its browser is at the provider.
#[derive(Serialize, Deserialize)]
struct PendingAuthorization {
    attempt: ConnectAttempt,
    /// The hash of the ticket that it began with, and the version of its item: whoever comes back first takes both.
    ticket: (String, Version),
    /// The hash of the browser's secret.
    browser: String,
    /// The PKCE verifier, sealed with a key that only the browser's secret and the state give.
    verifier: Option<Sealed>,
}

fn hash(secret: &SecretString) -> String {
    sha256(secret.expose_secret().as_bytes())
}

impl Engine {
    /// Makes the link that a browser opens to connect an account.
    pub(super) async fn begin(
        self: &Arc<Self>,
        principal: &Principal,
        manifest: &Manifest,
        (user, owner, alias): (UserId, Owner, Alias),
        asked: Option<Vec<String>>,
        return_to: Option<Url>,
    ) -> Result<ConnectLink, Error> {
        let (Some(base), Some(redirect_uri)) =
            (&self.config.public_url, self.redirect_uri(&principal.org, &manifest.name))
        else {
            let message = "this Overseer does not know its own address, so that no browser can come back to it; the \
                           operator sets PUBLIC_URL";
            return Err(Error::field("", message));
        };
        let client = self.client(&principal.org, manifest).await?.ok_or_else(|| no_client(manifest))?;
        let key = keys::integrations(&principal.org, &owner, &manifest.name);
        let standing = self.ports.table.get(&key, Read::Eventual).await?;
        accounts_in(standing.as_ref(), &owner, &manifest.name)?.check_room(&alias)?;
        let ticket = SecretString::from(self.ports.ids.hex(32));
        let expires_at = self.ports.clock.now() + CONNECTING_TIME;
        let attempt = ConnectAttempt {
            until: expires_at,
            org: principal.org.clone(),
            user,
            owner,
            plugin: manifest.name.clone(),
            alias,
            asked,
            bound_to: self.audience(manifest),
            client_id: client.id,
            redirect_uri,
            return_to,
        };
        let base = base.as_str().trim_end_matches('/');
        let connect_url = format!("{base}/api/plugin-engine/oauth/start/{}", ticket.expose_secret());
        let connect_url = Url::parse(&connect_url).map_err(Error::internal)?;
        let mut item = NewItem::new(keys::ticket(&hash(&ticket)), &attempt)?;
        // It is looked for once more when the browser comes back, which may be as late again.
        item.expires_at = Some(expires_at + CONNECTING_TIME);
        self.ports.table.put(item, Condition::Absent).await?;
        Ok(ConnectLink { connect_url, expires_at })
    }

    /// The attempt that a ticket is for, and the version of its item.
    async fn connect_attempt(&self, ticket: &SecretString) -> Result<(ConnectAttempt, Version), ConnectError> {
        let item = self.ports.table.get(&keys::ticket(&hash(ticket)), Read::Consistent).await?;
        let item = item.ok_or(ConnectError::UnknownLink)?;
        let attempt: ConnectAttempt = item.record()?;
        if attempt.until <= self.ports.clock.now() {
            return Err(ConnectError::UnknownLink);
        }
        Ok((attempt, item.version))
    }

    /// The plugin of an attempt, if it is as it was.
    async fn plugin_of(&self, attempt: &ConnectAttempt) -> Result<Arc<Plugin>, ConnectError> {
        let plugin = self.plugin_if_any(&attempt.org, &attempt.plugin).await?.ok_or(ConnectError::Changed)?;
        if attempt.bound_to != self.audience(&plugin.manifest) {
            return Err(ConnectError::Changed);
        }
        match self.must_be_granted(&attempt.org, &plugin).await {
            Ok(()) => Ok(plugin),
            Err(Error::Forbidden(_)) => Err(ConnectError::Changed),
            Err(error) => Err(error.into()),
        }
    }

    /// What the user with this ticket is asked. Looking changes nothing: programs look at links, too.
    pub async fn consent(&self, ticket: &SecretString) -> Result<Offer, ConnectError> {
        let (attempt, _) = self.connect_attempt(ticket).await?;
        let plugin = self.plugin_of(&attempt).await?;
        let manifest = &plugin.manifest;
        let Auth::Oauth2(oauth) = &manifest.auth else { return Err(ConnectError::Changed) };
        let stand_in = self.config.stand_ins.get(&manifest.name);
        let url = stand_in.map_or(&oauth.authorization_url, |stand_in| &stand_in.authorization_url);
        Ok(Offer {
            plugin: manifest.display_name.clone(),
            scopes: attempt.asked.unwrap_or_else(|| oauth.scopes.clone()),
            host: url.host_str().unwrap_or_default().to_owned(),
            org: attempt.org,
            user: attempt.user,
            owner: attempt.owner,
            alias: attempt.alias,
        })
    }

    /// The user has agreed: where the browser that has the secret `browser` goes now.
    pub async fn authorize(&self, ticket: &SecretString, browser: &SecretString) -> Result<Url, ConnectError> {
        let (attempt, version) = self.connect_attempt(ticket).await?;
        let plugin = self.plugin_of(&attempt).await?;
        let manifest = &plugin.manifest;
        let Auth::Oauth2(oauth) = &manifest.auth else { return Err(ConnectError::Changed) };
        let state = SecretString::from(self.ports.ids.hex(32));
        let verifier = oauth.pkce.then(|| {
            let mut random = [0; 32];
            self.ports.ids.fill(&mut random);
            SecretString::from(URL_SAFE_NO_PAD.encode(random))
        });
        let url = authorization_url(
            oauth,
            self.config.stand_ins.get(&manifest.name),
            &attempt.client_id,
            &attempt.redirect_uri,
            attempt.asked.as_ref().unwrap_or(&oauth.scopes),
            &state,
            verifier.as_ref(),
        );
        let sealed = verifier.map(|verifier| {
            verifier_key(browser, &state)?.seal(&attempt, verifier.expose_secret().as_bytes().to_vec())
        });
        let verifier = sealed.transpose().map_err(Error::from)?;
        let at_provider =
            PendingAuthorization { ticket: (hash(ticket), version), browser: hash(browser), verifier, attempt };
        let mut item = NewItem::new(keys::state(&hash(&state)), &at_provider)?;
        item.expires_at = Some(self.ports.clock.now() + CONNECTING_TIME);
        self.ports.table.put(item, Condition::Absent).await?;
        Ok(url)
    }

    /// A browser comes back from a provider, to the address of `plugin`, with the secret `browser` if it has one.
    pub async fn callback(
        self: &Arc<Self>,
        plugin: Option<&str>,
        callback: Callback,
        browser: Option<SecretString>,
    ) -> Result<CallbackOutcome, ConnectError> {
        let state = callback.state.as_ref().ok_or(ConnectError::Malformed("it has no state"))?;
        let key = keys::state(&hash(state));
        let item = self.ports.table.get(&key, Read::Consistent).await?.ok_or(ConnectError::UnknownLink)?;
        let at_provider: PendingAuthorization = item.record()?;
        // Another browser must not be able to spoil the attempt, so that this comes first and takes nothing away.
        let browser = browser.ok_or(ConnectError::OtherBrowser)?;
        if constant_time::verify_slices_are_equal(hash(&browser).as_bytes(), at_provider.browser.as_bytes()).is_err() {
            return Err(ConnectError::OtherBrowser);
        }
        let engine = Arc::clone(self);
        let plugin = plugin.map(str::to_owned);
        let landing = self.run_to_completion(async move {
            Ok(engine.take_answer(plugin.as_deref(), callback, &browser, (key, item.version), at_provider).await)
        });
        landing.await?
    }

    /// From here on the state is used up, whatever comes of it.
    async fn take_answer(
        &self,
        plugin: Option<&str>,
        callback: Callback,
        browser: &SecretString,
        (key, version): (crate::ports::table::Key, Version),
        at_provider: PendingAuthorization,
    ) -> Result<CallbackOutcome, ConnectError> {
        let PendingAuthorization { attempt, ticket, verifier, .. } = at_provider;
        let claimed = vec![
            Write::Delete(key, Condition::Version(version)),
            Write::Delete(keys::ticket(&ticket.0), Condition::Version(ticket.1)),
        ];
        match self.ports.table.transact(claimed).await {
            Ok(_) => {}
            Err(TableError::Condition { .. }) => return Err(ConnectError::UnknownLink),
            Err(error) => return Err(error.into()),
        }
        let return_to = attempt.return_to.clone();
        let landed = self.exchange(plugin, callback, browser, verifier, attempt).await;
        let stopped = match landed {
            Ok(landing) => return Ok(landing),
            Err(stopped) => stopped,
        };
        // An answer that is not the asked provider's is nothing to go on with; the rest the application may learn.
        let code = match &stopped {
            ConnectError::Denied => "access_denied",
            ConnectError::Provider(_) | ConnectError::Failed(_) => "server_error",
            ConnectError::Changed
            | ConnectError::UnknownLink
            | ConnectError::OtherBrowser
            | ConnectError::OtherProvider
            | ConnectError::Malformed(_) => return Err(stopped),
        };
        let Some(mut on) = return_to else { return Err(stopped) };
        if let ConnectError::Failed(error) = &stopped {
            tracing::error!(error = %causes(error), "connecting an account failed");
        }
        on.query_pairs_mut().append_pair("error", code);
        Ok(CallbackOutcome::Redirect(on))
    }

    async fn exchange(
        &self,
        plugin: Option<&str>,
        callback: Callback,
        browser: &SecretString,
        verifier: Option<Sealed>,
        attempt: ConnectAttempt,
    ) -> Result<CallbackOutcome, ConnectError> {
        let found = self.plugin_of(&attempt).await?;
        // By its name first: a path such as `x%2F..%2Fslack` makes the same URI.
        let own = plugin.is_some_and(|plugin| plugin == self.callback_name(&attempt.org, &attempt.plugin));
        if !own || self.redirect_uri(&attempt.org, &attempt.plugin).as_ref() != Some(&attempt.redirect_uri) {
            return Err(ConnectError::OtherProvider);
        }
        let manifest = &found.manifest;
        let Auth::Oauth2(oauth) = &manifest.auth else { return Err(ConnectError::Changed) };
        if let Some(issuer) = &oauth.issuer
            && !self.config.stand_ins.contains_key(&manifest.name)
            && callback.iss.as_ref() != Some(issuer)
        {
            return Err(ConnectError::OtherProvider);
        }
        if let Some(error) = callback.error {
            tracing::info!(org = %attempt.org, plugin = %attempt.plugin, error = plain(&error), "not connected");
            return Err(if error == "access_denied" {
                ConnectError::Denied
            } else {
                ConnectError::Provider(plain(&error))
            });
        }
        let code = callback.code.ok_or(ConnectError::Malformed("it has no code"))?;
        let client = self.client(&attempt.org, manifest).await?.filter(|client| client.id == attempt.client_id);
        let client = client.ok_or(ConnectError::Changed)?;
        let state = callback.state.unwrap_or_default();
        let verifier = verifier.map(|sealed| unseal(&verifier_key(browser, &state)?, &attempt, &sealed));
        let verifier = verifier.transpose().map_err(Error::from)?;

        let asked_at = self.ports.clock.now();
        let deadline = Instant::now() + self.config.limits.budget;
        let protocol = self.protocol(manifest, &client, deadline).ok_or(ConnectError::Changed)?;
        let tokens = protocol.exchange(&code, &attempt.redirect_uri, verifier.as_ref()).await.map_err(|refusal| {
            tracing::warn!(org = %attempt.org, plugin = %attempt.plugin, error = %causes(&refusal), "no tokens for a code");
            ConnectError::Provider(match refusal {
                TokenError::InvalidGrant => "invalid_grant".to_owned(),
                TokenError::Refused(code) => code,
                TokenError::Unavailable(_) | TokenError::Unknown(_) => "it gave no tokens; try again".to_owned(),
            })
        })?;
        let mut name = tokens.account.clone();
        let credential = credential_of(tokens, asked_at, None);
        if name.is_none() && manifest.auth.test().is_some() {
            // The tokens are good, or the provider would not have given them: this only asks whose they are.
            match self.test(&attempt.org, manifest, &attempt.user, &credential, deadline).await {
                Ok(said) => name = said,
                Err(failure) => tracing::warn!(plugin = %manifest.name, "no account name: {}", failure.message),
            }
        }
        let new = NewAccount {
            user: attempt.user.clone(),
            owner: attempt.owner.clone(),
            alias: attempt.alias.clone(),
            credential,
            client_id: Some(attempt.client_id.clone()),
            asked: attempt.asked.clone(),
            name,
        };
        match attempt.return_to {
            None => {
                let connected = self.connect_account(&attempt.org, manifest, new).await?;
                Ok(CallbackOutcome::Connected(manifest.display_name.clone(), connected.account))
            }
            Some(mut on) => {
                let code = self.keep_pending(&attempt.org, manifest, new).await?;
                on.query_pairs_mut().append_pair("code", code.expose_secret());
                Ok(CallbackOutcome::Redirect(on))
            }
        }
    }

    /// Keeps an account until somebody confirms it with the code that this gives.
    async fn keep_pending(&self, org: &OrgId, manifest: &Manifest, new: NewAccount) -> Result<SecretString, Error> {
        let code = SecretString::from(self.ports.ids.hex(32));
        let until = self.ports.clock.now() + CONNECTING_TIME;
        let (owner, alias) = (new.owner.clone(), new.alias.clone());
        let mut account = self.new_account(org, manifest, new).await?;
        (account.state, account.reason) = (State::Pending, Some(Reason::NotCompleted));
        let pending = Pending { org: org.clone(), owner, plugin: manifest.name.clone(), alias, account, until };
        let hash = hash(&code);
        let mut item = NewItem::new(keys::pending(org, &hash), &pending)?;
        item.list = Some(keys::pending_in_list(org, &pending.owner, &pending.plugin, &hash));
        item.due = Some(Queue::PendingAccounts.due(until));
        let put = self.ports.table.put(item, Condition::Absent).await;
        if let Err(error) = put {
            // Unless it may be there all the same.
            if !matches!(error, TableError::Store(_)) {
                let none = accounts_in(None, &pending.owner, &pending.plugin)?;
                let given_back = self.give_back(org, &pending.alias, &pending.account, &none).await;
                tracing::warn!(%org, ?given_back, "an account could not be kept, and was given back");
            }
            return Err(error.into());
        }
        self.set_pending_alarm(&pending, hash).await;
        Ok(code)
    }

    /// Sets the alarm of a pending account. One that is not set is found by the sweep.
    async fn set_pending_alarm(&self, pending: &Pending, hash: String) {
        if let Err(error) = self.ports.timer.set(pending.work(hash), pending.until).await {
            tracing::error!(org = %pending.org, error = %causes(&error), "no alarm was set; the sweep will find it");
        }
    }

    /// Confirms an account that was connected on behalf of the caller.
    pub async fn complete(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        complete: Complete,
    ) -> Result<Integration, Error> {
        let manifest = self.plugin(&principal.org, plugin).await?.manifest.clone();
        let user = principal.resolve_user(complete.user_id)?;
        let (engine, principal) = (Arc::clone(self), principal.clone());
        let code = complete.code;
        self.run_to_completion(async move { engine.confirm(&principal, &manifest, &user, &code).await }).await
    }

    async fn confirm(
        &self,
        principal: &Principal,
        manifest: &Manifest,
        user: &UserId,
        code: &SecretString,
    ) -> Result<Integration, Error> {
        let (org, now) = (&principal.org, self.ports.clock.now());
        let key = keys::pending(org, &hash(code));
        let unknown =
            || Error::field("/code", "is not known: it was used, or it is older than 10 minutes; connect again");
        let item = self.ports.table.get(&key, Read::Consistent).await?.ok_or_else(unknown)?;
        let pending: Pending = item.record()?;
        if pending.plugin != manifest.name || pending.until <= now {
            return Err(unknown());
        }
        if pending.account.connected_by != *user {
            // Somebody was made to allow it in another's name: nobody is to have it.
            self.drop_pending(org, &item, &pending, false).await?;
            let message = "this account was connected in another user's name, and has been given back; connect again";
            return Err(Error::Forbidden(message.to_owned()));
        }
        if pending.owner == Owner::Organization {
            principal.must_administer()?;
        }
        let owners = keys::integrations(org, &pending.owner, &pending.plugin);
        let mut standing = self.ports.table.get(&owners, Read::Consistent).await?;
        loop {
            let mut accounts = accounts_in(standing.as_ref(), &pending.owner, &pending.plugin)?;
            let mut account = pending.account.clone();
            account.becomes(State::Active, None, now);
            let before = accounts.insert(&pending.alias, account.clone())?;
            let condition = standing.map_or(Condition::Absent, |item| Condition::Version(item.version));
            let writes = vec![
                Write::Delete(key.clone(), Condition::Version(item.version.clone())),
                Write::Put(NewItem::new(owners.clone(), &accounts)?, condition),
            ];
            let connected = self.connected(org, manifest, &accounts, &pending.alias)?;
            match self.transact_with(writes, Some(&connected.event)).await {
                Ok(_) => {
                    let before =
                        before.map(|before| before.secret_id(org, &accounts.owner, &accounts.plugin, &pending.alias));
                    return Ok(self.after_connecting(connected, before).await);
                }
                Err(TableError::Condition { index: 0, .. }) => return Err(unknown()),
                Err(TableError::Condition { standing: found, .. }) => standing = found.map(|item| *item),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives a pending account back, if nobody has confirmed it. `spare` says that what the owner has besides must go on,
    /// even if the provider takes it for the same.
    async fn drop_pending(&self, org: &OrgId, item: &Item, pending: &Pending, spare: bool) -> Result<(), Error> {
        match self.ports.table.delete(&item.stored.key, Condition::Version(item.version.clone())).await {
            Ok(()) => {}
            Err(TableError::Condition { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let Pending { owner, plugin, alias, account, .. } = pending;
        let standing = if spare {
            self.ports.table.get(&keys::integrations(org, owner, plugin), Read::Consistent).await?
        } else {
            None
        };
        let others = accounts_in(standing.as_ref(), owner, plugin)?;
        let given_back = self.give_back(org, alias, account, &others).await;
        tracing::info!(%org, %plugin, %alias, ?given_back, "an account that nobody confirmed was dropped");
        Ok(())
    }

    /// Drops a pending account whose time has passed.
    pub(crate) async fn drop_if_due(&self, org: &OrgId, id: &str) -> Result<(), Error> {
        let Some(item) = self.ports.table.get(&keys::pending(org, id), Read::Consistent).await? else { return Ok(()) };
        let pending: Pending = item.record()?;
        if pending.until > self.ports.clock.now() {
            // The alarm was early.
            self.set_pending_alarm(&pending, id.to_owned()).await;
            return Ok(());
        }
        self.drop_pending(org, &item, &pending, true).await
    }

    /// The pending accounts of an owner, of one plugin or of all.
    pub(super) async fn pending_of(
        &self,
        org: &OrgId,
        owner: &Owner,
        plugin: Option<&PluginName>,
    ) -> Result<Vec<Pending>, Error> {
        let mut query = Query::partition(keys::pending_of(org, owner), 100);
        if let Some(plugin) = plugin {
            query.range = crate::ports::table::Range::Prefix(format!("{plugin}#"));
        }
        let found = self.ports.table.query_list(query).await?.entries;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.ports.clock.now();
        let items = self.ports.table.batch_get(&found, Read::Eventual).await?;
        let records = items.iter().flatten().map(Item::record).collect::<Result<Vec<Pending>, _>>()?;
        Ok(records.into_iter().filter(|pending| pending.until > now).collect())
    }
}

impl Pending {
    /// What an alarm for it carries; `hash` is that of its code.
    fn work(&self, hash: String) -> Work {
        Work { org: self.org.clone(), kind: WorkKind::PendingAccount, id: hash, revision: 0 }
    }
}

/// What an alarm for a pending account carries.
pub(crate) fn pending_work(item: &Item) -> Result<Work, TableError> {
    Ok(item.record::<Pending>()?.work(item.stored.key.sort.clone()))
}

/// Confirms an account.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Complete {
    /// The code that the browser came back to `returnTo` with.
    #[schemars(with = "String", length(min = 1, max = 255))]
    pub code: SecretString,
    /// The user who is signed in where the browser came back. Left out, the user that the API key is bound to.
    pub user_id: Option<UserId>,
}

/// The key that seals a verifier: neither the table nor the provider has what it is made of.
fn verifier_key(browser: &SecretString, state: &SecretString) -> Result<NamedKey, VaultError> {
    let both = format!("verifier\0{}\0{}", browser.expose_secret(), state.expose_secret());
    NamedKey::new("verifier".to_owned(), digest::digest(&digest::SHA256, both.as_bytes()).as_ref())
}

fn unseal(key: &NamedKey, attempt: &ConnectAttempt, sealed: &Sealed) -> Result<SecretString, VaultError> {
    let text = String::from_utf8(key.open(attempt, sealed)?);
    text.map(SecretString::from).map_err(|_| VaultError::DoesNotOpen)
}

/// Whether a browser may be sent on to `url`: the operator named its origin, and its path or one above.
pub(super) fn may_return_to(allowed: &[Url], url: &Url) -> bool {
    let anonymous = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let dots = ["%2e", "%2f", "%5c"].iter().any(|escape| url.path().to_ascii_lowercase().contains(escape));
    let taken = url.query_pairs().any(|(name, _)| name == "code" || name == "error");
    anonymous
        && !dots
        && !taken
        && allowed.iter().any(|allowed| {
            let base = allowed.path().trim_end_matches('/');
            let below = url.path().strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            allowed.origin() == url.origin() && below
        })
}
