//! The data folder: everything that a local server stores. Only its owner may read it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use overseer_engine::core::error::causes;
use overseer_engine::ports::vault::VaultError;
use overseer_engine::ports::{Clock, Ids, Table};
use overseer_engine::storage::vault::{EnvelopeVault, MASTER_KEY_BYTES, MasterKey, MasterKeys, Rewrapped};
use secrecy::{ExposeSecret, SecretBox, SecretString};

use crate::files::{OWNER_ONLY, protect, sync_folder};
use crate::table::{OpenError, RedbTable};

const TABLE: &str = "overseer.redb";
const MASTER_KEY: &str = "master-key";
/// The new master key during a rotation. It exists before the first data key is wrapped with it, and replaces
/// [`MASTER_KEY`] at the end.
const NEXT_MASTER_KEY: &str = "master-key.next";
const ADMIN_KEY: &str = "admin-key";
const PLAYGROUND_KEY: &str = "playground-key";

/// Why a data folder cannot be used: one sentence for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file or the folder cannot be read or written.
    #[error("cannot {action} {}: {reason}; choose another folder with --data", .path.display())]
    Unusable {
        /// The operation, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        reason: std::io::Error,
    },
    /// The file of the master key has the wrong length.
    #[error("{} is damaged: it does not hold {MASTER_KEY_BYTES} bytes; restore it from a backup, or connect every account again in another folder", .0.display())]
    MasterKey(PathBuf),
    /// The table's file is missing or empty, though the folder was in use.
    #[error("{} is missing or empty, though {ADMIN_KEY} beside it shows that the folder was in use; restore it from a backup, or choose another folder with --data", .0.display())]
    LostTable(PathBuf),
    /// The data keys could not be wrapped with a new master key.
    #[error("cannot replace the master key: {}; both keys stay, and the next start resumes the rotation", causes(.0))]
    Rotation(VaultError),
    /// The table's file cannot be opened.
    #[error(transparent)]
    Table(#[from] OpenError),
}

/// An open data folder.
pub struct DataFolder {
    path: PathBuf,
    table: Arc<RedbTable>,
    clock: Arc<dyn Clock>,
    master_key: MasterKey,
}

impl DataFolder {
    /// Opens the folder, and creates it and any missing file. Finishes an interrupted rotation of the master key.
    pub async fn open(path: &Path, clock: Arc<dyn Clock>, ids: &Arc<dyn Ids>) -> Result<Self, FolderError> {
        let unusable = |action| move |reason| FolderError::Unusable { action, path: path.to_owned(), reason };
        // The mode is for a new folder only: an existing one may be shared on purpose.
        let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
        created.map_err(unusable("make the data folder"))?;
        let path = path.canonicalize().map_err(unusable("find the data folder"))?;
        let (table_path, key_path) = (path.join(TABLE), path.join(MASTER_KEY));
        // The administrator's key is written after the table: without the table, every record of it is lost.
        if path.join(ADMIN_KEY).exists() && fs::metadata(&table_path).map_or(true, |file| file.len() == 0) {
            return Err(FolderError::LostTable(table_path));
        }
        let lost_key = table_path.exists() && !key_path.exists();
        let table = Arc::new(RedbTable::open(&table_path, Arc::clone(&clock), Arc::clone(ids))?);
        if lost_key {
            tracing::warn!(
                "{} is missing, so a new one was made; secrets sealed with the lost key cannot be opened: stop and restore \
                 it, or connect every account again",
                key_path.display()
            );
        }
        let master_key = match read_master_key(&key_path)? {
            Some(key) => key,
            None => new_master_key(&key_path, ids.as_ref())?,
        };
        let next = read_master_key(&path.join(NEXT_MASTER_KEY))?;
        let mut folder = Self { path, table, clock, master_key };
        if let Some(next) = next {
            let Rewrapped { data_keys, left } = folder.use_master_key(next, ids).await?;
            tracing::info!(data_keys, left, "finished replacing the master key");
        }
        Ok(folder)
    }

    /// Whether `path` is a data folder.
    pub fn exists(path: &Path) -> bool {
        path.join(TABLE).exists()
    }

    /// Makes a new master key and wraps every data key with it. It may be interrupted at any point: the next
    /// [`open`](Self::open) finishes it. A vault over the old key must not be used afterwards.
    pub async fn rotate_master_key(&mut self, ids: &Arc<dyn Ids>) -> Result<Rewrapped, FolderError> {
        let next = new_master_key(&self.path.join(NEXT_MASTER_KEY), ids.as_ref())?;
        self.use_master_key(next, ids).await
    }

    async fn use_master_key(&mut self, next: MasterKey, ids: &Arc<dyn Ids>) -> Result<Rewrapped, FolderError> {
        let keys = MasterKeys::new(&next, &[&self.master_key]).map_err(FolderError::Rotation)?;
        let vault = EnvelopeVault::new(self.table(), Arc::clone(ids), Arc::clone(&self.clock), keys);
        let rewrapped = vault.rewrap().await.map_err(FolderError::Rotation)?;
        let path = self.path.join(MASTER_KEY);
        fs::rename(self.path.join(NEXT_MASTER_KEY), &path)
            .and_then(|()| sync_folder(&path))
            .map_err(|reason| FolderError::Unusable { action: "replace", path, reason })?;
        self.master_key = next;
        Ok(rewrapped)
    }

    /// The table in the folder.
    pub fn table(&self) -> Arc<dyn Table> {
        Arc::<RedbTable>::clone(&self.table)
    }

    /// The key that wraps the vault's data keys.
    pub fn master_key(&self) -> &MasterKey {
        &self.master_key
    }

    /// The key that the stand-ins of services sign their tokens with, made on the first call.
    pub fn playground_key(&self, ids: &dyn Ids) -> Result<[u8; 32], FolderError> {
        let path = self.path.join(PLAYGROUND_KEY);
        if let Some(Ok(key)) = read(&path)?.map(<[u8; 32]>::try_from) {
            return Ok(key);
        }
        let mut key = [0; 32];
        ids.fill(&mut key);
        write(&path, &key)?;
        Ok(key)
    }

    /// The path of the administrator's API key.
    pub fn admin_key_path(&self) -> PathBuf {
        self.path.join(ADMIN_KEY)
    }

    /// The administrator's API key, if there is one.
    pub fn admin_key(&self) -> Result<Option<SecretString>, FolderError> {
        read_admin_key(&self.path)
    }

    /// Writes the administrator's API key, and replaces an older one.
    pub fn write_admin_key(&self, key: &SecretString) -> Result<(), FolderError> {
        write(&self.admin_key_path(), format!("{}\n", key.expose_secret()).as_bytes())
    }
}

/// The administrator's API key in the data folder at `path`, if there is one. Works while a server has the folder open.
pub fn read_admin_key(path: &Path) -> Result<Option<SecretString>, FolderError> {
    let text = read(&path.join(ADMIN_KEY))?;
    Ok(text.map(|text| SecretString::from(String::from_utf8_lossy(&text).trim().to_owned())))
}

fn read_master_key(path: &Path) -> Result<Option<MasterKey>, FolderError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    let bytes: [u8; MASTER_KEY_BYTES] = bytes.try_into().map_err(|_| FolderError::MasterKey(path.to_owned()))?;
    Ok(Some(SecretBox::new(Box::new(bytes))))
}

fn new_master_key(path: &Path, ids: &dyn Ids) -> Result<MasterKey, FolderError> {
    let mut bytes = Box::new([0; MASTER_KEY_BYTES]);
    ids.fill(bytes.as_mut_slice());
    write(path, bytes.as_slice())?;
    Ok(SecretBox::new(bytes))
}

/// The bytes of a file, if it exists. Removes the permissions of others from it.
fn read(path: &Path) -> Result<Option<Vec<u8>>, FolderError> {
    let unusable = |action| move |reason| FolderError::Unusable { action, path: path.to_owned(), reason };
    match fs::read(path) {
        Ok(bytes) => {
            protect(path).map_err(unusable("protect"))?;
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable("read")(error)),
    }
}

/// Writes a file atomically, readable by its owner only.
fn write(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    let unusable = |reason| FolderError::Unusable { action: "write", path: path.to_owned(), reason };
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(&draft).map_err(unusable)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(unusable)?;
    fs::rename(&draft, path).and_then(|()| sync_folder(path)).map_err(unusable)
}

#[cfg(test)]
mod tests {
    use overseer_engine::ports::{RandomIds, SystemClock};

    use super::*;

    async fn open(path: &Path) -> Result<DataFolder, FolderError> {
        let ids: Arc<dyn Ids> = Arc::new(RandomIds);
        DataFolder::open(path, Arc::new(SystemClock), &ids).await
    }

    fn lost(opened: Result<DataFolder, FolderError>) -> PathBuf {
        match opened.map(drop) {
            Err(FolderError::LostTable(path)) => path,
            other => panic!("not refused as lost: {other:?}"),
        }
    }

    #[tokio::test]
    async fn lost_data_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).await.unwrap().write_admin_key(&"ovk_key".into()).unwrap();
        let table = folder.path().canonicalize().unwrap().join(TABLE);
        fs::remove_file(&table).unwrap();
        assert_eq!(lost(open(folder.path()).await), table);
        assert!(!table.exists());
        fs::write(&table, "").unwrap();
        assert_eq!(lost(open(folder.path()).await), table);
        assert_eq!(fs::metadata(&table).unwrap().len(), 0);
    }
}
