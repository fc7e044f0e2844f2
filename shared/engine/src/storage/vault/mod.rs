//! A [`Vault`] in the table: envelope encryption with AES-256-GCM. An organization's data key seals its secrets, and
//! something outside the table wraps the data key ([`Wrap`]). What a secret belongs to and its version are bound into the
//! seal, so that a ciphertext which is moved to another record does not open.

mod wrap;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use quick_cache::sync::Cache;
use secrecy::{ExposeSecret as _, ExposeSecretMut as _, SecretSlice, SecretString};
use serde::{Deserialize, Serialize};
pub use wrap::{MASTER_KEY_BYTES, MasterKey, MasterKeys, Wrap};

use crate::core::ids::OrgId;
use crate::ports::table::{Condition, Item, Key, NewItem, Query, Read, Table, TableError};
use crate::ports::vault::{SecretId, Vault, VaultError};
use crate::ports::{Clock, Ids};
use crate::storage::keys;
use crate::storage::seal::NamedKey;
pub use crate::storage::seal::Sealed;

const DATA_KEY_BYTES: usize = 32;
/// Organizations whose data keys a warm process remembers.
const OPENED_MAX: usize = 1_000;
/// For how long it remembers them: then a new data key seals, and a key that was taken away no longer opens.
const OPENED_FOR: SignedDuration = SignedDuration::from_hours(1);

/// The vault in the table.
pub struct EnvelopeVault {
    table: Arc<dyn Table>,
    ids: Arc<dyn Ids>,
    clock: Arc<dyn Clock>,
    wrap: Box<dyn Wrap>,
    opened: Cache<OrgId, Arc<DataKeys>>,
}

/// What [`EnvelopeVault::rewrap`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Data keys that are now wrapped with the current key, and were not before.
    pub data_keys: usize,
    /// Data keys that no key here opens. They stay as they are.
    pub left: usize,
}

/// An organization's data keys, as the table has them.
#[derive(Serialize, Deserialize)]
struct WrappedKeys {
    /// Whose they are, for a rotation, which finds them by a list.
    org: OrgId,
    /// Which one seals.
    current: String,
    keys: BTreeMap<String, Sealed>,
}

/// Those of an organization's data keys that were needed so far.
struct DataKeys {
    /// Since when the first of them is known.
    since: Timestamp,
    /// Which one seals.
    current: String,
    keys: Vec<Arc<NamedKey>>,
}

impl DataKeys {
    fn named(&self, name: &str) -> Option<Arc<NamedKey>> {
        self.keys.iter().find(|key| key.name == name).cloned()
    }
}

impl EnvelopeVault {
    /// A vault in `table`, whose data keys `wrap` wraps.
    pub fn new(table: Arc<dyn Table>, ids: Arc<dyn Ids>, clock: Arc<dyn Clock>, wrap: impl Wrap + 'static) -> Self {
        Self { table, ids, clock, wrap: Box::new(wrap), opened: Cache::new(OPENED_MAX) }
    }

    /// Makes a new current data key for `org`, or for every organization, and says for how many. The older ones stay: what
    /// they sealed opens, and is sealed with the new one when it is written next. They stay for good, since nobody counts
    /// what they sealed; each takes some 200 bytes. An organization without secrets has no data key, and gets none.
    ///
    /// Another process that knows an organization's data keys already goes on sealing with the one it knows, for an hour at
    /// most.
    pub async fn rotate_data_keys(&self, org: Option<&OrgId>) -> Result<usize, VaultError> {
        let places = match org {
            Some(org) => vec![keys::data_keys(org)],
            None => self.places().await?,
        };
        let mut rotated = 0;
        for place in places {
            rotated += usize::from(self.change(&place, async |keys| self.add(keys).await).await?.is_some());
        }
        Ok(rotated)
    }

    /// Wraps every data key that an older key wrapped with the current one. It may be broken off at any point and begun
    /// again. Another process may make data keys meanwhile, if its current key is the same; one that has an older one must
    /// have stopped a moment before, since nothing sees what it wraps later.
    pub async fn rewrap(&self) -> Result<Rewrapped, VaultError> {
        let mut all = Rewrapped::default();
        for place in self.places().await? {
            let done = self.change(&place, async |keys| self.rewrap_one(keys).await).await?.unwrap_or_default();
            all.data_keys += done.data_keys;
            all.left += done.left;
        }
        Ok(all)
    }

    async fn rewrap_one(&self, keys: &mut WrappedKeys) -> Result<Rewrapped, VaultError> {
        let mut done = Rewrapped::default();
        for (name, wrapped) in &mut keys.keys {
            match self.wrap.open(&keys.org, name, wrapped).await {
                Ok(_) if wrapped.key == self.wrap.current() => {}
                Ok(bytes) => {
                    *wrapped = self.wrap.wrap(&keys.org, name, &bytes).await?;
                    done.data_keys += 1;
                }
                Err(VaultError::DoesNotOpen) => done.left += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Where each organization has its data keys.
    async fn places(&self) -> Result<Vec<Key>, VaultError> {
        let (mut query, mut places) = (Query::partition(keys::VAULT_KEYS, 100), Vec::new());
        loop {
            let page = self.table.query_list(query.clone()).await?;
            places.extend(page.entries);
            let Some(next) = page.next else { return Ok(places) };
            query.cursor = Some(next);
        }
    }

    /// Changes data keys where they stand, and again if somebody else did so meanwhile. `None` if there are none.
    async fn change<T>(
        &self,
        place: &Key,
        change: impl AsyncFn(&mut WrappedKeys) -> Result<T, VaultError>,
    ) -> Result<Option<T>, VaultError> {
        while let Some(item) = self.table.get(place, Read::Consistent).await? {
            let mut keys: WrappedKeys = item.record()?;
            let result = change(&mut keys).await?;
            let new = NewItem { list: item.stored.list.clone(), ..NewItem::new(place.clone(), &keys)? };
            if new == item.stored {
                return Ok(Some(result));
            }
            match self.table.put(new, Condition::Version(item.version)).await {
                Err(TableError::Condition { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    self.opened.remove(&keys.org);
                    return Ok(Some(result));
                }
            }
        }
        Ok(None)
    }

    /// Adds a new data key, and makes it the current one.
    async fn add(&self, keys: &mut WrappedKeys) -> Result<(), VaultError> {
        let mut bytes = SecretSlice::from(vec![0; DATA_KEY_BYTES]);
        self.ids.fill(bytes.expose_secret_mut());
        let name = self.ids.hex(8);
        let wrapped = self.wrap.wrap(&keys.org, &name, &bytes).await?;
        keys.keys.insert(name.clone(), wrapped);
        keys.current = name;
        Ok(())
    }

    /// What this process knows of an organization's data keys, unless it has known that for too long.
    fn remembered(&self, org: &OrgId) -> Option<Arc<DataKeys>> {
        let now = self.clock.now();
        self.opened.get(org).filter(|keys| (keys.since..keys.since + OPENED_FOR).contains(&now))
    }

    /// Opens one data key, and remembers it.
    async fn open(&self, wrapped: &WrappedKeys, name: &str) -> Result<Arc<NamedKey>, VaultError> {
        let (org, since) = (&wrapped.org, self.clock.now());
        let key = wrapped.keys.get(name).ok_or(VaultError::DoesNotOpen)?;
        let bytes = self.wrap.open(org, name, key).await?;
        let key = Arc::new(NamedKey::new(name.to_owned(), bytes.expose_secret())?);
        let known = self.remembered(org).map(|known| (known.since, known.keys.clone()));
        let (since, mut keys) = known.unwrap_or((since, Vec::new()));
        keys.retain(|known| known.name != name);
        keys.push(Arc::clone(&key));
        let known = DataKeys { since, current: wrapped.current.clone(), keys };
        self.opened.insert(org.clone(), Arc::new(known));
        Ok(key)
    }

    /// The current data key; makes it where there is none. A new one is opened once before anything is sealed with it.
    async fn to_seal(&self, org: &OrgId) -> Result<Arc<NamedKey>, VaultError> {
        if let Some(key) = self.remembered(org).and_then(|keys| keys.named(&keys.current)) {
            return Ok(key);
        }
        let place = keys::data_keys(org);
        let mut standing = self.table.get(&place, Read::Consistent).await?;
        loop {
            let (mut keys, condition) = if let Some(item) = standing {
                let keys = WrappedKeys { org: org.clone(), ..item.record()? };
                match self.open(&keys, &keys.current).await {
                    Err(VaultError::DoesNotOpen) => {}
                    opened => return opened,
                }
                tracing::warn!(%org, "the data key does not open with the vault's master key; a new one is made");
                (keys, Condition::Version(item.version))
            } else {
                let none = WrappedKeys { org: org.clone(), current: String::new(), keys: BTreeMap::new() };
                (none, Condition::Absent)
            };
            self.add(&mut keys).await?;
            let item = NewItem { list: Some(keys::data_keys_in_list(org)), ..NewItem::new(place.clone(), &keys)? };
            standing = match self.table.put(item.clone(), condition).await {
                Ok(version) => Some(Item { stored: item, version }),
                // Somebody else made one just now; it counts.
                Err(TableError::Condition { standing, .. }) => standing.map(|item| *item),
                Err(error) => return Err(error.into()),
            };
        }
    }

    /// The data key of that name.
    async fn to_open(&self, org: &OrgId, name: &str) -> Result<Arc<NamedKey>, VaultError> {
        if let Some(key) = self.remembered(org).and_then(|keys| keys.named(name)) {
            return Ok(key);
        }
        let item = self.table.get(&keys::data_keys(org), Read::Consistent).await?;
        let keys: WrappedKeys = item.ok_or(VaultError::DoesNotOpen)?.record()?;
        self.open(&WrappedKeys { org: org.clone(), ..keys }, name).await
    }

    /// The secret in an item.
    async fn unseal(&self, id: &SecretId, version: &str, item: &Item) -> Result<SecretString, VaultError> {
        let sealed: Sealed = item.record()?;
        let text = self.to_open(&id.org, &sealed.key).await?.open(&(id, version), &sealed)?;
        String::from_utf8(text).map(SecretString::from).map_err(|_| VaultError::DoesNotOpen)
    }
}

#[async_trait]
impl Vault for EnvelopeVault {
    async fn put(&self, id: &SecretId, version: &str, secret: &SecretString) -> Result<(), VaultError> {
        let key = self.to_seal(&id.org).await?;
        let sealed = key.seal(&(id, version), secret.expose_secret().as_bytes().to_vec())?;
        let item = NewItem::new(keys::secret(&id.org, &id.id, version), &sealed)?;
        let standing = match self.table.put(item, Condition::Absent).await {
            Ok(_) => return Ok(()),
            Err(TableError::Condition { standing, .. }) => standing.ok_or(VaultError::VersionExists)?,
            Err(error) => return Err(error.into()),
        };
        match self.unseal(id, version, &standing).await {
            Ok(stands) if stands.expose_secret() == secret.expose_secret() => Ok(()),
            Ok(_) | Err(VaultError::DoesNotOpen) => Err(VaultError::VersionExists),
            Err(error) => Err(error),
        }
    }

    async fn get(&self, id: &SecretId, version: &str) -> Result<Option<SecretString>, VaultError> {
        match self.table.get(&keys::secret(&id.org, &id.id, version), Read::Consistent).await? {
            Some(item) => self.unseal(id, version, &item).await.map(Some),
            None => Ok(None),
        }
    }

    async fn delete_version(&self, id: &SecretId, version: &str) -> Result<(), VaultError> {
        Ok(self.table.delete(&keys::secret(&id.org, &id.id, version), Condition::Any).await?)
    }

    async fn delete(&self, id: &SecretId) -> Result<(), VaultError> {
        let mut query = Query::partition(keys::secret_versions(&id.org, &id.id), 100);
        loop {
            let page = self.table.query(query.clone()).await?;
            for item in page.entries {
                self.table.delete(&item.stored.key, Condition::Any).await?;
            }
            let Some(next) = page.next else { return Ok(()) };
            query.cursor = Some(next);
        }
    }
}
