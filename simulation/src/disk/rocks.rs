//! A host's storage as RocksDB itself, in memory.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use ropewalk_raft_store::disk::rocks::{
    DatabaseFiles, Inline, MarkFile, ReclaimOptions, RocksDisk, RocksOptions,
};
use ropewalk_raft_store::{Disk, DiskError};

use super::files::Files;
use super::seam::{Fault, Seam, repeatable};
use super::{DiskFault, Setbacks, SimDisk};

/// Directory of the files, in their own file system.
const DIRECTORY: &str = "/db";
/// File that RocksDB keeps in each of its directories from their creation on.
const DATABASE_FILE: &str = "CURRENT";

/// Size of a sector: a mark is written in sectors, each of them whole or not at all.
const SECTOR_BYTES: usize = 512;

/// More than is ever written to a disk that is opened only to look at it.
const NEVER_FLUSH_BYTES: usize = 1 << 30;

/// Small, so that a run of a minute sees flushes, compactions and blob files.
const OPTIONS: RocksOptions = RocksOptions {
    database_bytes: 64 << 20,
    reclaim: ReclaimOptions {
        every: Duration::ZERO,
        garbage_bytes: 64 << 10,
    },
};

/// The storage of one host, as a RocksDB database.
#[derive(Debug)]
pub struct RocksMachine {
    stored: Mutex<Stored>,
    fault: Fault,
    random: Mutex<SmallRng>,
    setbacks: Mutex<Setbacks>,
}

/// The storage that the present process writes to, or the next one opens.
#[derive(Debug, Default)]
struct Stored {
    files: Arc<Files>,
    mark: Arc<Mutex<Mark>>,
    opened: bool,
    /// The database that the present process has open.
    database: Weak<RocksDisk>,
}

/// The file in which the database's mark is kept.
#[derive(Debug, Clone, Default)]
struct Mark {
    written: Vec<u8>,
    synced: Vec<u8>,
    /// True if the content written last is still there.
    is_exact: bool,
}

impl RocksMachine {
    /// An empty disk. The moments of its flushes are drawn from `seed`.
    pub fn new(seed: u64) -> RocksMachine {
        RocksMachine {
            stored: Mutex::default(),
            fault: Fault::default(),
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
            setbacks: Mutex::default(),
        }
    }
}

impl Default for Files {
    fn default() -> Files {
        Files::new()
    }
}

impl Stored {
    /// Storage as the end of a process leaves it.
    fn after_crash(&self) -> Stored {
        Stored {
            files: Arc::new(self.files.after_crash()),
            mark: Arc::new(Mutex::new(self.mark.lock().clone())),
            opened: false,
            database: Weak::new(),
        }
    }

    fn open(&self, flush_after_bytes: usize) -> Result<RocksDisk, DiskError> {
        let inline = self.inline(flush_after_bytes);
        RocksDisk::open_inline(Path::new(DIRECTORY), OPTIONS, inline).map_err(repeatable)
    }

    /// Opens it only for reading, which is much cheaper.
    fn open_to_look(&self) -> Result<RocksDisk, DiskError> {
        let inline = self.inline(NEVER_FLUSH_BYTES);
        match inline.is_new {
            // A disk that is only looked at must exist.
            true => RocksDisk::open_inline(Path::new(DIRECTORY), OPTIONS, inline),
            false => RocksDisk::open_to_look(Path::new(DIRECTORY), OPTIONS, inline),
        }
    }

    fn inline(&self, flush_after_bytes: usize) -> Inline {
        let files = self.files.list();
        Inline {
            env: self.files.env(),
            files: Box::new(SharedFiles(self.files.clone())),
            mark: Box::new(SharedMark(self.mark.clone())),
            is_new: !files.iter().any(|(name, _)| name == DATABASE_FILE),
            flush_after_bytes,
        }
    }

    /// Storage after a power loss that takes all it can.
    fn survivor(&self) -> Stored {
        let synced = self.mark.lock().synced.clone();
        let mark = Mark {
            written: synced.clone(),
            synced,
            is_exact: false,
        };
        Stored {
            files: Arc::new(self.files.synced()),
            mark: Arc::new(Mutex::new(mark)),
            opened: false,
            database: Weak::new(),
        }
    }

    fn after_power_loss(&self, random: &mut SmallRng) -> Stored {
        let unsynced = self.files.unsynced_bytes();
        // Often none or all of the data has reached the disk.
        let kept = match random.random_range(0..4) {
            0 => 0,
            1 => unsynced,
            _ => random.random_range(0..=unsynced),
        };
        Stored {
            files: Arc::new(self.files.after_power_loss(kept)),
            mark: Arc::new(Mutex::new(self.mark.lock().after_power_loss(random))),
            opened: false,
            database: Weak::new(),
        }
    }
}

impl SimDisk for RocksMachine {
    fn open(&self) -> Result<Arc<dyn Disk>, DiskError> {
        let mut stored = self.stored.lock();
        if stored.opened {
            *stored = stored.after_crash();
        }
        stored.files.set_fault(*self.fault.lock());
        stored.opened = true;
        let flush_after_bytes = 1 << self.random.lock().random_range(14..22);
        let disk = Arc::new(stored.open(flush_after_bytes)?);
        stored.database = Arc::downgrade(&disk);
        Ok(Arc::new(Seam {
            disk,
            fault: self.fault.clone(),
        }))
    }

    fn power_loss(&self, random: &mut SmallRng) {
        self.setbacks.lock().power_losses += 1;
        let mut stored = self.stored.lock();
        // Later writes of the process must not reach the disk.
        stored.files.set_fault(DiskFault::Io);
        *stored = stored.after_power_loss(random);
    }

    fn crash(&self) {
        let mut stored = self.stored.lock();
        stored.files.set_fault(DiskFault::Io);
        *stored = stored.after_crash();
    }

    fn wipe(&self) {
        self.setbacks.lock().lose(false);
        *self.stored.lock() = Stored::default();
    }

    fn copy(&self, seed: u64) -> Arc<dyn SimDisk> {
        let copied = self.stored.lock().after_crash();
        Arc::new(RocksMachine {
            stored: Mutex::new(copied),
            ..RocksMachine::new(seed)
        })
    }

    fn set_fault(&self, fault: DiskFault) {
        *self.fault.lock() = fault;
        self.stored.lock().files.set_fault(fault);
    }

    fn fault(&self) -> DiskFault {
        *self.fault.lock()
    }

    fn live(&self) -> Option<Arc<dyn Disk>> {
        let database = self.stored.lock().database.upgrade()?;
        Some(database)
    }

    fn survivor(&self) -> Option<Arc<dyn Disk>> {
        let survivor = self.stored.lock().survivor();
        let disk = survivor.open_to_look().ok()?;
        Some(Arc::new(disk))
    }

    /// Files are only ever appended to, except those that are damaged.
    fn version(&self) -> Option<u64> {
        let stored = self.stored.lock();
        let live = stored.database.upgrade();
        let live = live.map(|database| (Arc::as_ptr(&database) as usize, database.sequence()));
        let mut version = DefaultHasher::new();
        (live, stored.files.list()).hash(&mut version);
        stored.mark.lock().synced.hash(&mut version);
        (self.setbacks(), *self.fault.lock()).hash(&mut version);
        Some(version.finish())
    }

    fn survivor_is_cheap(&self) -> bool {
        false
    }

    fn setbacks(&self) -> Setbacks {
        *self.setbacks.lock()
    }

    fn damage(&self, random: &mut SmallRng) -> Option<String> {
        self.setbacks.lock().lose(true);
        let stored = self.stored.lock();
        let knows_its_end = stored.mark.lock().is_exact;
        let files = stored.files.list();
        let mut kinds: Vec<Vec<&(String, u64)>> = vec![Vec::new(); FILE_KINDS.len()];
        for file in files.iter().filter(|(_, size)| *size > 0) {
            let kind = FILE_KINDS.iter().position(|kind| kind.holds(&file.0));
            if let Some(kind) = kind
                && (knows_its_end || !FILE_KINDS[kind].ends_silently)
            {
                kinds[kind].push(file);
            }
        }
        kinds.retain(|files| !files.is_empty());
        let (name, size) = kinds.choose(random)?.choose(random)?;
        let at = random.random_range(0..*size);
        let silently = FILE_KINDS
            .iter()
            .any(|kind| kind.ends_silently && kind.holds(name));
        // A process that still writes to a file cut under it would continue at another place.
        if random.random_ratio(1, 8) && !(silently && stored.opened) {
            // The mark reaches the disk by itself now and then. If it never did, a power loss would remove
            // all evidence of the cut.
            stored.mark.lock().write_back();
            let done = stored.files.truncate(name, at);
            return done.then(|| format!("{name}: cut from {size} to {at} bytes"));
        }
        let bit = random.random_range(0..8);
        let done = stored.files.flip(name, at, 1 << bit);
        done.then(|| format!("{name}: bit {bit} of byte {at} of {size} flipped"))
    }

    fn image(&self) -> Vec<(Bytes, Bytes)> {
        let stored = self.stored.lock();
        let files = stored.files.list().into_iter();
        let files = files.filter(|(name, _)| !name.starts_with("LOG"));
        files
            .map(|(name, size)| {
                let content = match holds_ids(&name) {
                    true => size.to_string().into(),
                    false => stored.files.read(&name, size).into(),
                };
                (name.into(), content)
            })
            .collect()
    }
}

/// True if RocksDB writes ids into a file of this name that it draws at random for each of its lives. The
/// content of tables shows in their size, and in the logs they came from.
fn holds_ids(name: &str) -> bool {
    name.ends_with(".sst") || name.starts_with("MANIFEST") || name == "IDENTITY"
}

/// Files that may be damaged.
struct FileKind {
    begins: &'static str,
    ends: &'static str,
    /// True if the file looks whole without its end. The mark then reveals the cut, unless it was lost.
    ends_silently: bool,
}

const FILE_KINDS: [FileKind; 4] = [
    FileKind {
        begins: "",
        ends: ".log",
        ends_silently: true,
    },
    FileKind {
        begins: "MANIFEST",
        ends: "",
        ends_silently: true,
    },
    FileKind {
        begins: "",
        ends: ".sst",
        ends_silently: false,
    },
    FileKind {
        begins: "",
        ends: ".blob",
        ends_silently: false,
    },
];

impl FileKind {
    fn holds(&self, name: &str) -> bool {
        name.starts_with(self.begins) && name.ends_with(self.ends)
    }
}

impl Mark {
    fn write_back(&mut self) {
        self.synced = self.written.clone();
    }

    /// Each sector of the unsynced data may have reached the disk or not.
    fn after_power_loss(&self, random: &mut SmallRng) -> Mark {
        let mut synced = self.synced.clone();
        synced.resize(self.written.len(), 0);
        let sectors = synced.chunks_mut(SECTOR_BYTES);
        for (old, new) in sectors.zip(self.written.chunks(SECTOR_BYTES)) {
            if random.random() {
                old.copy_from_slice(new);
            }
        }
        Mark {
            is_exact: self.is_exact && synced == self.written,
            written: synced.clone(),
            synced,
        }
    }
}

struct SharedFiles(Arc<Files>);

impl DatabaseFiles for SharedFiles {
    fn read(&self, name: &str, from: u64) -> io::Result<Vec<u8>> {
        let size = self.0.size(name).ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(from).map_err(io::Error::other)?;
        let content = self.0.read(name, size);
        Ok(content.get(from..).unwrap_or_default().to_vec())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let files = self.0.list().into_iter();
        Ok(files.map(|(name, _)| name).collect())
    }

    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.0.size(name))
    }

    fn sync(&self, _: &str) -> io::Result<()> {
        // All that can be read here is synced.
        Ok(())
    }
}

struct SharedMark(Arc<Mutex<Mark>>);

impl MarkFile for SharedMark {
    fn read(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.0.lock().written.clone())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let at = usize::try_from(at).map_err(io::Error::other)?;
        let mut mark = self.0.lock();
        mark.is_exact = true;
        let written = &mut mark.written;
        let end = at + bytes.len();
        written.resize(written.len().max(end), 0);
        written[at..end].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.lock().write_back();
        Ok(())
    }
}
