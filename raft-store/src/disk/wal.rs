//! Checks that the write-ahead logs are as they were written, before RocksDB reads them.
//!
//! RocksDB refuses a wrong checksum, but looks at a record's type and length first. A flipped bit can make
//! the type that of a recycled log, or make the length run past the end. RocksDB then ends the log there,
//! silently, and loses the acknowledged writes after that point. The [mark](super::watermark) would show
//! it, but after a power loss the mark may be some seconds old. So each [record](super::records) is checked
//! first. A record that a crash cut short at the very end passes.

use std::path::Path;

use super::DiskError;
use super::manifest::DatabaseFiles;
use super::records::walk;

/// Suffix of the logs' names.
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
                "write-ahead log {} {}: the rest of it is lost; the node must get its records \
                 from the other nodes",
                path.join(name).display(),
                bad.told()
            ))
        })?;
    }
    Ok(())
}
