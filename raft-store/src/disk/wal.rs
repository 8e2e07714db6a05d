//! Whether the write-ahead logs are as they were written: looked at before RocksDB reads them.
//!
//! RocksDB refuses a wrong checksum, but looks at a record's type and length first. Where a flipped bit
//! makes the type one of a recycled log, or the length run past the end, the log ends there for it
//! without a word, and what was acknowledged behind it is gone. The [mark](super::watermark) would
//! tell, if it were not up to some seconds old after a power loss. So each
//! [record](super::records) is checked first. What a crash cuts short at the very end passes.

use std::path::Path;

use super::DiskError;
use super::manifest::DatabaseFiles;
use super::records::walk;

/// What the names of logs end with.
const SUFFIX: &str = ".log";

/// Refuses logs that are not whole.
pub(super) fn check(files: &dyn DatabaseFiles, path: &Path) -> Result<(), DiskError> {
    let failed =
        |name: &str, error| DiskError::Failed(format!("{}: {error}", path.join(name).display()));
    let names = files.names().map_err(|error| failed("", error))?;
    for name in names.iter().filter(|name| name.ends_with(SUFFIX)) {
        let content = files.read(name, 0).map_err(|error| failed(name, error))?;
        walk(&content, 0).map_err(|bad| {
            DiskError::Damaged(format!(
                "{} {}: what follows it is lost; the node needs its records from the others",
                path.join(name).display(),
                bad.told()
            ))
        })?;
    }
    Ok(())
}
