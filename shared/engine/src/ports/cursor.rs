//! Cursors for implementations of [`Table`](super::Table): the position at which a page ended, as text that a caller sends
//! back. A cursor contains a fingerprint of its query, and another query refuses it. It is not secret, and a forged cursor
//! reaches nothing outside the query's range.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::table::{Cursor, TableError};

/// The error for a cursor that does not belong to the query.
pub const FOREIGN: TableError = TableError::Request("a cursor does not belong to its query");

/// A cursor that continues after `position` in `query`.
pub fn seal(query: &impl Serialize, position: &impl Serialize) -> Result<Cursor, TableError> {
    let text = serde_json::to_vec(&(fingerprint(query)?, position)).map_err(TableError::store)?;
    Ok(Cursor(URL_SAFE_NO_PAD.encode(text)))
}

/// The position in a cursor of `query`.
pub fn open<P: DeserializeOwned>(query: &impl Serialize, cursor: &Cursor) -> Result<P, TableError> {
    let text = URL_SAFE_NO_PAD.decode(&cursor.0).map_err(|_| FOREIGN)?;
    let (of, position): (String, P) = serde_json::from_slice(&text).map_err(|_| FOREIGN)?;
    if of == fingerprint(query)? { Ok(position) } else { Err(FOREIGN) }
}

fn fingerprint(query: &impl Serialize) -> Result<String, TableError> {
    let text = serde_json::to_vec(query).map_err(TableError::store)?;
    let hash = digest(&SHA256, &text);
    Ok(URL_SAFE_NO_PAD.encode(hash.as_ref().first_chunk::<12>().unwrap_or(&[0; 12])))
}
