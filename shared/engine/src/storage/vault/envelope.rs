//! Envelope encryption with AES-256-GCM: an organization's data key seals its secrets, and a key outside of the table wraps the
//! data key ([`Wrap`]). The identity and version of a secret are bound into its seal, so that a ciphertext that is moved to
//! another record does not open.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use quick_cache::sync::Cache;
use secrecy::{ExposeSecret as _, ExposeSecretMut as _, SecretSlice, SecretString};
use serde::{Deserialize, Serialize};

use super::wrap::Wrap;
use crate::core::ids::OrgId;
use crate::ports::table::{Condition, Item, Key, NewItem, Query, Read, Table, TableError};
use crate::ports::vault::{SecretId, Vault, VaultError};
use crate::ports::{Clock, Ids};
use crate::storage::keys;
use crate::storage::seal::{NamedKey, Sealed};

const DATA_KEY_BYTES: usize = 32;
/// The most organizations whose data keys a process caches.
const CACHED_ORGS_MAX: usize = 1_000;
/// The lifetime of cached data keys. After it, a rotated data key takes effect, and a removed master key no longer opens them.
const CACHE_LIFETIME: SignedDuration = SignedDuration::from_hours(1);

/// A vault in the table.
pub struct EnvelopeVault {
    table: Arc<dyn Table>,
    ids: Arc<dyn Ids>,
    clock: Arc<dyn Clock>,
    wrap: Box<dyn Wrap>,
    cache: Cache<OrgId, Arc<DataKeys>>,
}

/// The result of [`EnvelopeVault::rewrap`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Data keys that it wrapped anew with the current key.
    pub data_keys: usize,
    /// Data keys that no known key opens. They are unchanged.
    pub left: usize,
}

/// An organization's data keys, as stored in the table.
#[derive(Serialize, Deserialize)]
struct WrappedKeys {
    /// The organization, for rotations, which find the keys by a list.
    org: OrgId,
    /// The name of the key that seals.
    current: String,
    keys: BTreeMap<String, Sealed>,
}

/// The unwrapped data keys of an organization that were needed so far.
struct DataKeys {
    /// The time at which the first of them was unwrapped.
    since: Timestamp,
    /// The name of the key that seals.
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
        Self { table, ids, clock, wrap: Box::new(wrap), cache: Cache::new(CACHED_ORGS_MAX) }
    }

    /// Makes a new current data key for `org`, or for every organization, and returns the number of organizations. The older
    /// keys stay and still open what they sealed; a secret is sealed with the new key when it is next written. Older keys are
    /// never removed, since no record says what they sealed; each takes about 200 bytes. An organization without secrets
    /// has no data key and gets none.
    ///
    /// Another process with cached data keys continues to seal with its cached one for up to an hour.
    pub async fn rotate_data_keys(&self, org: Option<&OrgId>) -> Result<usize, VaultError> {
        let records = match org {
            Some(org) => vec![keys::data_keys(org)],
            None => self.all_records().await?,
        };
        let mut rotated = 0;
        for record in records {
            rotated += usize::from(self.change(&record, async |keys| self.add_key(keys).await).await?.is_some());
        }
        Ok(rotated)
    }

    /// Wraps every data key that an older key wrapped with the current key. It can be interrupted at any point and started
    /// again. Other processes may make data keys meanwhile if they have the same current key. Processes with an older current
    /// key have to be stopped first, since this function would miss the keys that they wrap later.
    pub async fn rewrap(&self) -> Result<Rewrapped, VaultError> {
        let mut total = Rewrapped::default();
        for record in self.all_records().await? {
            let done = self.change(&record, async |keys| self.rewrap_keys(keys).await).await?.unwrap_or_default();
            total.data_keys += done.data_keys;
            total.left += done.left;
        }
        Ok(total)
    }

    async fn rewrap_keys(&self, keys: &mut WrappedKeys) -> Result<Rewrapped, VaultError> {
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

    /// The keys of all organizations' data key records.
    async fn all_records(&self) -> Result<Vec<Key>, VaultError> {
        let (mut query, mut records) = (Query::partition(keys::VAULT_KEYS, 100), Vec::new());
        loop {
            let page = self.table.query_list(query.clone()).await?;
            records.extend(page.entries);
            let Some(next) = page.next else { return Ok(records) };
            query.cursor = Some(next);
        }
    }

    /// Changes a record of data keys by compare-and-set until it wins. `None` if there is no record.
    async fn change<T>(
        &self,
        record: &Key,
        change: impl AsyncFn(&mut WrappedKeys) -> Result<T, VaultError>,
    ) -> Result<Option<T>, VaultError> {
        while let Some(item) = self.table.get(record, Read::Consistent).await? {
            let mut keys: WrappedKeys = item.record()?;
            let result = change(&mut keys).await?;
            let new = NewItem { list: item.stored.list.clone(), ..NewItem::new(record.clone(), &keys)? };
            if new == item.stored {
                return Ok(Some(result));
            }
            match self.table.put(new, Condition::Version(item.version)).await {
                Err(TableError::Condition { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    self.cache.remove(&keys.org);
                    return Ok(Some(result));
                }
            }
        }
        Ok(None)
    }

    /// Adds a new data key as the current one.
    async fn add_key(&self, keys: &mut WrappedKeys) -> Result<(), VaultError> {
        let mut bytes = SecretSlice::from(vec![0; DATA_KEY_BYTES]);
        self.ids.fill(bytes.expose_secret_mut());
        let name = self.ids.hex(8);
        let wrapped = self.wrap.wrap(&keys.org, &name, &bytes).await?;
        keys.keys.insert(name.clone(), wrapped);
        keys.current = name;
        Ok(())
    }

    /// The cached data keys of an organization, unless their lifetime is over.
    fn cached(&self, org: &OrgId) -> Option<Arc<DataKeys>> {
        let now = self.clock.now();
        self.cache.get(org).filter(|keys| (keys.since..keys.since + CACHE_LIFETIME).contains(&now))
    }

    /// Unwraps one data key and caches it.
    async fn unwrap_key(&self, wrapped: &WrappedKeys, name: &str) -> Result<Arc<NamedKey>, VaultError> {
        let (org, since) = (&wrapped.org, self.clock.now());
        let key = wrapped.keys.get(name).ok_or(VaultError::DoesNotOpen)?;
        let bytes = self.wrap.open(org, name, key).await?;
        let key = Arc::new(NamedKey::new(name.to_owned(), bytes.expose_secret())?);
        let cached = self.cached(org).map(|cached| (cached.since, cached.keys.clone()));
        let (since, mut keys) = cached.unwrap_or((since, Vec::new()));
        keys.retain(|cached| cached.name != name);
        keys.push(Arc::clone(&key));
        let data_keys = DataKeys { since, current: wrapped.current.clone(), keys };
        self.cache.insert(org.clone(), Arc::new(data_keys));
        Ok(key)
    }

    /// The current data key, for sealing; makes one if there is none. A new key is unwrapped once before it seals anything.
    async fn sealing_key(&self, org: &OrgId) -> Result<Arc<NamedKey>, VaultError> {
        if let Some(key) = self.cached(org).and_then(|keys| keys.named(&keys.current)) {
            return Ok(key);
        }
        let record = keys::data_keys(org);
        let mut current = self.table.get(&record, Read::Consistent).await?;
        loop {
            let (mut keys, condition) = if let Some(item) = current {
                let keys = WrappedKeys { org: org.clone(), ..item.record()? };
                match self.unwrap_key(&keys, &keys.current).await {
                    Err(VaultError::DoesNotOpen) => {}
                    result => return result,
                }
                tracing::warn!(%org, "data key does not open with the master key; making a new one");
                (keys, Condition::Version(item.version))
            } else {
                let empty = WrappedKeys { org: org.clone(), current: String::new(), keys: BTreeMap::new() };
                (empty, Condition::Absent)
            };
            self.add_key(&mut keys).await?;
            let item = NewItem { list: Some(keys::data_keys_in_list(org)), ..NewItem::new(record.clone(), &keys)? };
            current = match self.table.put(item.clone(), condition).await {
                Ok(version) => Some(Item { stored: item, version }),
                // Another process made a key in the meantime; use that one.
                Err(TableError::Condition { current, .. }) => current.map(|item| *item),
                Err(error) => return Err(error.into()),
            };
        }
    }

    /// The data key of that name, for opening.
    async fn opening_key(&self, org: &OrgId, name: &str) -> Result<Arc<NamedKey>, VaultError> {
        if let Some(key) = self.cached(org).and_then(|keys| keys.named(name)) {
            return Ok(key);
        }
        let item = self.table.get(&keys::data_keys(org), Read::Consistent).await?;
        let keys: WrappedKeys = item.ok_or(VaultError::DoesNotOpen)?.record()?;
        self.unwrap_key(&WrappedKeys { org: org.clone(), ..keys }, name).await
    }

    /// The secret in an item.
    async fn unseal(&self, id: &SecretId, version: &str, item: &Item) -> Result<SecretString, VaultError> {
        let sealed: Sealed = item.record()?;
        let text = self.opening_key(&id.org, &sealed.key).await?.open(&(id, version), &sealed)?;
        String::from_utf8(text).map(SecretString::from).map_err(|_| VaultError::DoesNotOpen)
    }
}

#[async_trait]
impl Vault for EnvelopeVault {
    async fn put(&self, id: &SecretId, version: &str, secret: &SecretString) -> Result<(), VaultError> {
        let key = self.sealing_key(&id.org).await?;
        let sealed = key.seal(&(id, version), secret.expose_secret().as_bytes().to_vec())?;
        let item = NewItem::new(keys::secret(&id.org, &id.id, version), &sealed)?;
        let existing = match self.table.put(item, Condition::Absent).await {
            Ok(_) => return Ok(()),
            Err(TableError::Condition { current, .. }) => current.ok_or(VaultError::VersionExists)?,
            Err(error) => return Err(error.into()),
        };
        match self.unseal(id, version, &existing).await {
            Ok(stored) if stored.expose_secret() == secret.expose_secret() => Ok(()),
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
