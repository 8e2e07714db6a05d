//! Checks of records before they enter a compacted topic.

use ropewalk_proto::batch::Records;
use ropewalk_proto::error::{ErrorCode, WireError};

/// Refuses a batch with a record that has no key, or with records that cannot be parsed.
pub(in crate::partition) fn check(records: Records) -> Result<(), WireError> {
    for (number, record) in records.enumerate() {
        let record = record.map_err(|error| WireError::new(error.code(), error.to_string()))?;
        if record.key.is_none() {
            return Err(WireError::new(
                ErrorCode::InvalidRequest,
                format!(
                    "record {number} of the batch has no key, and the topic is compacted by key; \
                     give every record a key, or set cleanup=delete"
                ),
            )
            .at_record(number));
        }
    }
    Ok(())
}
