//! `overseer vault`: works on the data folder itself, so no server may have it open.

use std::sync::Arc;

use overseer_engine::ports::{Clock, Ids, RandomIds, SystemClock};
use overseer_engine::storage::vault::{EnvelopeVault, MasterKeys};
use overseer_local::folder::DataFolder;

use crate::arguments::{Arguments, Rotate};
use crate::failure::Failure;
use crate::key::print;

/// Makes new keys, and says how many.
pub async fn rotate(arguments: &Arguments, wanted: &Rotate) -> Result<(), Failure> {
    let both = !wanted.master_key && !wanted.data_keys;
    let (master_key, data_keys) = (both || wanted.master_key, both || wanted.data_keys);
    if wanted.organization.is_some() && !data_keys {
        return Err(Failure::OneMasterKey);
    }
    // Opening it would make it.
    if !DataFolder::exists(&arguments.data) {
        return Err(Failure::NoFolder(arguments.data.clone()));
    }
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn Ids>) = (Arc::new(SystemClock), Arc::new(RandomIds));
    let mut folder = DataFolder::open(&arguments.data, Arc::clone(&clock), &ids).await?;
    // Data keys first: an organization that is not there is refused before anything has changed.
    if data_keys {
        let keys = MasterKeys::new(folder.master_key(), &[])?;
        let vault = EnvelopeVault::new(folder.table(), Arc::clone(&ids), clock, keys);
        let rotated = vault.rotate_data_keys(wanted.organization.as_ref()).await?;
        if let Some(org) = wanted.organization.as_ref().filter(|_| rotated == 0) {
            return Err(Failure::NoDataKey(org.clone()));
        }
        print(&format!("organizations with a new data key: {rotated}"))?;
    }
    if master_key {
        let rewrapped = folder.rotate_master_key(&ids).await?;
        print(&format!("data keys that the new master key wraps: {}", rewrapped.data_keys))?;
        if rewrapped.left > 0 {
            print(&format!("data keys that no master key here opens, left as they are: {}", rewrapped.left))?;
        }
    }
    Ok(())
}
