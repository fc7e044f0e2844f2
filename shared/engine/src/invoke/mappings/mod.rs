//! Names that people use for what services identify by ids. A name is mapped by hand, for an agent, a user or the whole
//! organization, or it is looked up at the service and cached. An intent may use names in the parameters that the plugin
//! marks with `x-mapping`.

mod list;
mod lookup;
mod names;
mod record;
mod service_list;
mod stored;
mod update;

pub use list::WhichMappings;
pub(crate) use lookup::{LookupContext, LookupError};
pub(crate) use names::Naming;
pub use names::{NAMES_MAX, NameResolution, NameResolvedBy};
pub use record::{MappingView, Provenance, ScopeName};
pub(crate) use service_list::LookupState;
pub use stored::{LookedUp, NameToLookUp};
pub use update::{BULK_MAX, METADATA_MAX_BYTES, NewMapping, NewMappings, WhichMapping};
