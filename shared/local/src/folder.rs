//! The data folder: everything that a local server keeps. Only its owner may read it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::hmac;
use overseer_engine::ports::{Clock, Ids, Table};
use overseer_engine::vault::{MASTER_KEY_BYTES, MasterKey};
use secrecy::{ExposeSecret, SecretBox, SecretString};

use crate::files::{OWNER_ONLY, protect, sync_folder};
use crate::table::{OpenError, RedbTable};

const TABLE: &str = "overseer.redb";
const MASTER_KEY: &str = "master-key";
const ADMIN_KEY: &str = "admin-key";

/// Why a data folder does not do: one clear sentence.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file or the folder cannot be read or written.
    #[error("cannot {what} {}: {reason}; choose another folder with --data", .path.display())]
    Unusable {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        reason: std::io::Error,
    },
    /// The master key is not one.
    #[error("{} is damaged: it does not hold {MASTER_KEY_BYTES} bytes; put the right one back, or connect every account anew in another folder", .0.display())]
    MasterKey(PathBuf),
    /// The table's file.
    #[error(transparent)]
    Table(#[from] OpenError),
}

/// An open data folder.
pub struct DataFolder {
    path: PathBuf,
    table: Arc<RedbTable>,
    master_key: MasterKey,
}

impl DataFolder {
    /// Opens the folder, and makes it and what is missing in it.
    pub fn open(path: &Path, clock: Arc<dyn Clock>, ids: &Arc<dyn Ids>) -> Result<Self, FolderError> {
        let unusable = |what| move |reason| FolderError::Unusable { what, path: path.to_owned(), reason };
        // The mode is for a folder that is made now: one that was there before may be shared on purpose.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(unusable("make the data folder"))?;
        let path = path.canonicalize().map_err(unusable("find the data folder"))?;
        let (table_path, key_path) = (path.join(TABLE), path.join(MASTER_KEY));
        let lost_key = table_path.exists() && !key_path.exists();
        let table = Arc::new(RedbTable::open(&table_path, clock, Arc::clone(ids))?);
        if lost_key {
            tracing::warn!(
                "{} is missing and made anew; what the lost key sealed cannot be opened: stop and put it back, or connect \
                 every account again",
                key_path.display()
            );
        }
        let master_key = master_key(&key_path, ids.as_ref())?;
        Ok(Self { path, table, master_key })
    }

    /// The store.
    pub fn table(&self) -> Arc<dyn Table> {
        Arc::<RedbTable>::clone(&self.table)
    }

    /// The key of the vault.
    pub fn master_key(&self) -> &MasterKey {
        &self.master_key
    }

    /// A key of its own for `purpose`, the same as long as the master key is.
    pub fn key_for(&self, purpose: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.master_key.expose_secret());
        let mut derived = [0; 32];
        for (to, from) in derived.iter_mut().zip(hmac::sign(&key, purpose.as_bytes()).as_ref()) {
            *to = *from;
        }
        derived
    }

    /// Where the administrator's API key is.
    pub fn admin_key_path(&self) -> PathBuf {
        self.path.join(ADMIN_KEY)
    }

    /// The administrator's API key, if there is one.
    pub fn admin_key(&self) -> Result<Option<SecretString>, FolderError> {
        read_admin_key(&self.path)
    }

    /// Writes the administrator's API key, in place of an older one.
    pub fn write_admin_key(&self, key: &SecretString) -> Result<(), FolderError> {
        write(&self.admin_key_path(), format!("{}\n", key.expose_secret()).as_bytes())
    }
}

/// The administrator's API key of the data folder at `path`, if there is one; the folder need not be open.
pub fn read_admin_key(path: &Path) -> Result<Option<SecretString>, FolderError> {
    let text = read(&path.join(ADMIN_KEY))?;
    Ok(text.map(|text| SecretString::from(String::from_utf8_lossy(&text).trim().to_owned())))
}

fn master_key(path: &Path, ids: &dyn Ids) -> Result<MasterKey, FolderError> {
    if let Some(bytes) = read(path)? {
        let bytes: [u8; MASTER_KEY_BYTES] = bytes.try_into().map_err(|_| FolderError::MasterKey(path.to_owned()))?;
        return Ok(SecretBox::new(Box::new(bytes)));
    }
    let mut bytes = Box::new([0; MASTER_KEY_BYTES]);
    ids.fill(bytes.as_mut_slice());
    write(path, bytes.as_slice())?;
    Ok(SecretBox::new(bytes))
}

/// The bytes of a file, if it is there; a mode that lets others read it is put right.
fn read(path: &Path) -> Result<Option<Vec<u8>>, FolderError> {
    let unusable = |what| move |reason| FolderError::Unusable { what, path: path.to_owned(), reason };
    match fs::read(path) {
        Ok(bytes) => {
            protect(path).map_err(unusable("protect"))?;
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable("read")(error)),
    }
}

/// Writes a file whole or not at all, for its owner alone.
fn write(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    let unusable = |reason| FolderError::Unusable { what: "write", path: path.to_owned(), reason };
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(&draft).map_err(unusable)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(unusable)?;
    fs::rename(&draft, path).and_then(|()| sync_folder(path)).map_err(unusable)
}
