//! A [`Vault`] in the table: envelope encryption with AES-256-GCM. An organization's data key seals its secrets, and the
//! operator's master key wraps the data key. What a secret belongs to and its version are bound into the seal, so that a
//! ciphertext which is moved to another record does not open.

use std::collections::BTreeMap;
use std::iter::once;
use std::sync::Arc;

use async_trait::async_trait;
use quick_cache::sync::Cache;
use secrecy::{ExposeSecret as _, ExposeSecretMut as _, SecretBox, SecretSlice, SecretString};
use serde::{Deserialize, Serialize};

use crate::ids::OrgId;
use crate::keys;
use crate::ports::Ids;
use crate::ports::ids::sha256;
use crate::ports::table::{Condition, Item, Key, NewItem, Query, Read, Table, TableError};
use crate::ports::vault::{SecretId, Vault, VaultError};
use crate::seal::{NamedKey, Sealed};

/// A key that wraps the data keys of a vault, in bytes.
pub const MASTER_KEY_BYTES: usize = 32;
const DATA_KEY_BYTES: usize = 32;
/// Organizations whose data keys a warm process remembers.
const OPENED_MAX: usize = 1_000;

/// A key that wraps the data keys of a vault.
pub type MasterKey = SecretBox<[u8; MASTER_KEY_BYTES]>;

/// The vault in the table.
pub struct EnvelopeVault {
    table: Arc<dyn Table>,
    ids: Arc<dyn Ids>,
    current: NamedKey,
    older: Vec<NamedKey>,
    opened: Cache<OrgId, Arc<DataKeys>>,
}

/// What [`EnvelopeVault::rewrap`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Data keys that are now wrapped with the current master key, and were not before.
    pub data_keys: usize,
    /// Data keys that no master key here opens. They stay as they are.
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

/// An organization's data keys, without those that do not open.
struct DataKeys {
    current: String,
    keys: Vec<NamedKey>,
}

/// A master key, called by the beginning of its hash.
fn master(key: &MasterKey) -> Result<NamedKey, VaultError> {
    let bytes = key.expose_secret();
    NamedKey::new(sha256(bytes).chars().take(16).collect(), bytes)
}

impl DataKeys {
    fn named(&self, name: &str) -> Option<&NamedKey> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl EnvelopeVault {
    /// A vault whose data keys `current` wraps; those that an `older` key wrapped open, too.
    pub fn new(
        table: Arc<dyn Table>,
        ids: Arc<dyn Ids>,
        current: &MasterKey,
        older: &[&MasterKey],
    ) -> Result<Self, VaultError> {
        let current = master(current)?;
        let older = older.iter().map(|key| master(key)).collect::<Result<_, _>>()?;
        Ok(Self { table, ids, current, older, opened: Cache::new(OPENED_MAX) })
    }

    /// Makes a new current data key for `org`, or for every organization, and says for how many. The older ones stay: what
    /// they sealed opens, and is sealed with the new one when it is written next. They stay for good, since nobody counts
    /// what they sealed; each takes some 200 bytes. An organization without secrets has no data key, and gets none.
    ///
    /// Another process that knows an organization's data keys already goes on sealing with the one it knows.
    pub async fn rotate_data_keys(&self, org: Option<&OrgId>) -> Result<usize, VaultError> {
        let places = match org {
            Some(org) => vec![keys::data_keys(org)],
            None => self.places().await?,
        };
        let mut rotated = 0;
        for place in places {
            rotated += usize::from(self.change(&place, |keys| self.add(keys)).await?.is_some());
        }
        Ok(rotated)
    }

    /// Wraps every data key that an older master key wrapped with the current one. It may be broken off at any point and
    /// begun again. Another process may make data keys meanwhile, if its current master key is the same; one that has an
    /// older one must have stopped a moment before, since nothing sees what it wraps later.
    pub async fn rewrap(&self) -> Result<Rewrapped, VaultError> {
        let mut all = Rewrapped::default();
        for place in self.places().await? {
            let done = self.change(&place, |keys| self.rewrap_one(keys)).await?.unwrap_or_default();
            all.data_keys += done.data_keys;
            all.left += done.left;
        }
        Ok(all)
    }

    fn rewrap_one(&self, keys: &mut WrappedKeys) -> Result<Rewrapped, VaultError> {
        let mut done = Rewrapped::default();
        for (name, wrapped) in &mut keys.keys {
            match self.data_key(&keys.org, name, wrapped) {
                Ok(_) if wrapped.key == self.current.name => {}
                Ok(bytes) => {
                    *wrapped = self.wrap(&keys.org, name, &bytes)?;
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
        change: impl Fn(&mut WrappedKeys) -> Result<T, VaultError>,
    ) -> Result<Option<T>, VaultError> {
        while let Some(item) = self.table.get(place, Read::Consistent).await? {
            let mut keys: WrappedKeys = item.record()?;
            let result = change(&mut keys)?;
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
    fn add(&self, keys: &mut WrappedKeys) -> Result<(), VaultError> {
        let mut bytes = SecretSlice::from(vec![0; DATA_KEY_BYTES]);
        self.ids.fill(bytes.expose_secret_mut());
        let name = self.ids.hex(8);
        let wrapped = self.wrap(&keys.org, &name, &bytes)?;
        keys.keys.insert(name.clone(), wrapped);
        keys.current = name;
        Ok(())
    }

    fn wrap(&self, org: &OrgId, name: &str, data_key: &SecretSlice<u8>) -> Result<Sealed, VaultError> {
        self.current.seal(&(org, name), data_key.expose_secret().to_vec())
    }

    /// The bytes of a wrapped data key.
    fn data_key(&self, org: &OrgId, name: &str, wrapped: &Sealed) -> Result<SecretSlice<u8>, VaultError> {
        let mut masters = once(&self.current).chain(&self.older);
        let master = masters.find(|master| master.name == wrapped.key).ok_or(VaultError::DoesNotOpen)?;
        Ok(master.open(&(org, name), wrapped)?.into())
    }

    /// Those of the data keys that open, and remembers them.
    fn open_all(&self, wrapped: &WrappedKeys) -> Arc<DataKeys> {
        let open = |(name, key): (&String, &Sealed)| {
            let bytes = self.data_key(&wrapped.org, name, key).ok()?;
            NamedKey::new(name.clone(), bytes.expose_secret()).ok()
        };
        let keys = wrapped.keys.iter().filter_map(open).collect();
        let opened = Arc::new(DataKeys { current: wrapped.current.clone(), keys });
        self.opened.insert(wrapped.org.clone(), Arc::clone(&opened));
        opened
    }

    /// Data keys of which the current one opens; makes it where there is none.
    async fn to_seal(&self, org: &OrgId) -> Result<Arc<DataKeys>, VaultError> {
        let good = |keys: &DataKeys| keys.named(&keys.current).is_some();
        if let Some(keys) = self.opened.get(org).filter(|keys| good(keys)) {
            return Ok(keys);
        }
        let place = keys::data_keys(org);
        let mut standing = self.table.get(&place, Read::Consistent).await?;
        loop {
            let (mut keys, condition) = if let Some(item) = standing {
                let keys = WrappedKeys { org: org.clone(), ..item.record()? };
                let opened = self.open_all(&keys);
                if good(&opened) {
                    return Ok(opened);
                }
                tracing::warn!(%org, "the data key does not open with the vault's master key; a new one is made");
                (keys, Condition::Version(item.version))
            } else {
                let none = WrappedKeys { org: org.clone(), current: String::new(), keys: BTreeMap::new() };
                (none, Condition::Absent)
            };
            self.add(&mut keys)?;
            let item = NewItem { list: Some(keys::data_keys_in_list(org)), ..NewItem::new(place.clone(), &keys)? };
            standing = match self.table.put(item.clone(), condition).await {
                Ok(version) => Some(Item { stored: item, version }),
                // Somebody else made one just now; it counts.
                Err(TableError::Condition { standing, .. }) => standing.map(|item| *item),
                Err(error) => return Err(error.into()),
            };
        }
    }

    /// Data keys among which is the named one.
    async fn to_open(&self, org: &OrgId, name: &str) -> Result<Arc<DataKeys>, VaultError> {
        if let Some(keys) = self.opened.get(org).filter(|keys| keys.named(name).is_some()) {
            return Ok(keys);
        }
        let item = self.table.get(&keys::data_keys(org), Read::Consistent).await?;
        let keys: WrappedKeys = item.ok_or(VaultError::DoesNotOpen)?.record()?;
        Ok(self.open_all(&WrappedKeys { org: org.clone(), ..keys }))
    }
}

#[async_trait]
impl Vault for EnvelopeVault {
    async fn put(&self, id: &SecretId, version: &str, secret: &SecretString) -> Result<(), VaultError> {
        let keys = self.to_seal(&id.org).await?;
        let key = keys.named(&keys.current).ok_or(VaultError::DoesNotOpen)?;
        let sealed = key.seal(&(id, version), secret.expose_secret().as_bytes().to_vec())?;
        let item = NewItem::new(keys::secret(&id.org, &id.id, version), &sealed)?;
        match self.table.put(item, Condition::Absent).await {
            Ok(_) => Ok(()),
            Err(TableError::Condition { .. }) => Err(VaultError::VersionExists),
            Err(error) => Err(error.into()),
        }
    }

    async fn get(&self, id: &SecretId, version: &str) -> Result<Option<SecretString>, VaultError> {
        let Some(item) = self.table.get(&keys::secret(&id.org, &id.id, version), Read::Consistent).await? else {
            return Ok(None);
        };
        let sealed: Sealed = item.record()?;
        let keys = self.to_open(&id.org, &sealed.key).await?;
        let text = keys.named(&sealed.key).ok_or(VaultError::DoesNotOpen)?.open(&(id, version), &sealed)?;
        String::from_utf8(text).map(|text| Some(text.into())).map_err(|_| VaultError::DoesNotOpen)
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
