//! Files that only their owner may read, and that survive a power cut.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The mode that lets the owner read and write, and denies everything to others.
pub(crate) const OWNER_ONLY: u32 = 0o600;

/// Removes the permissions of others from a file.
pub(crate) fn protect(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.permissions().mode() & 0o777 == OWNER_ONLY {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY))
}

/// Makes the directory entry of a new file durable: without this a power cut could lose it.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
