//! `overseer vault`: works on the data folder itself, so the server must be stopped.

use std::sync::Arc;

use overseer_engine::ports::{Clock, Ids, RandomIds, SystemClock};
use overseer_engine::storage::vault::{EnvelopeVault, MasterKeys};
use overseer_local::folder::DataFolder;

use crate::arguments::{Arguments, Rotate};
use crate::failure::Failure;
use crate::key::print;

/// Makes new keys, and prints how many.
pub async fn rotate(arguments: &Arguments, rotate: &Rotate) -> Result<(), Failure> {
    let both = !rotate.master_key && !rotate.data_keys;
    let (master_key, data_keys) = (both || rotate.master_key, both || rotate.data_keys);
    if rotate.organization.is_some() && !data_keys {
        return Err(Failure::OneMasterKey);
    }
    // Opening a folder that does not exist would make it.
    if !DataFolder::exists(&arguments.data) {
        return Err(Failure::NoFolder(arguments.data.clone()));
    }
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn Ids>) = (Arc::new(SystemClock), Arc::new(RandomIds));
    let mut folder = DataFolder::open(&arguments.data, Arc::clone(&clock), &ids).await?;
    // Data keys first: an unknown organization is refused before anything has changed.
    if data_keys {
        let keys = MasterKeys::new(folder.master_key(), &[])?;
        let vault = EnvelopeVault::new(folder.table(), Arc::clone(&ids), clock, keys);
        let rotated = vault.rotate_data_keys(rotate.organization.as_ref()).await?;
        if let Some(org) = rotate.organization.as_ref().filter(|_| rotated == 0) {
            return Err(Failure::NoDataKey(org.clone()));
        }
        print(&format!("organizations with a new data key: {rotated}"))?;
    }
    if master_key {
        let rewrapped = folder.rotate_master_key(&ids).await?;
        print(&format!("data keys that the new master key wraps: {}", rewrapped.data_keys))?;
        if rewrapped.left > 0 {
            print(&format!("data keys that no master key here opens, left unchanged: {}", rewrapped.left))?;
        }
    }
    Ok(())
}
