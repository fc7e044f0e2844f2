//! Time zones, and the instants of their local times.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase, TimeZoneName};

use crate::core::suggest::nearest;

/// The time zone of that name, from the database that is linked in: the same on every machine.
pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    let zones = TimeZoneDatabase::bundled();
    match zones.get(name) {
        Ok(zone) if !zone.is_unknown() => Ok(zone),
        _ => {
            let names: Vec<_> = zones.available().collect();
            let near = nearest(name, names.iter().map(TimeZoneName::as_str)).join(" or ");
            let remedy =
                if near.is_empty() { "use one such as Europe/Berlin".into() } else { format!("perhaps {near}") };
            Err(format!("is not an IANA time zone; {remedy}"))
        }
    }
}

/// The instant of a local time. `None` for a time that a clock change skips; the first instant of a time that occurs twice.
pub(super) fn instant(zone: &TimeZone, local: DateTime) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(local);
    if matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. }) { None } else { ambiguous.earlier().ok() }
}
