//! Files in memory that lose their unsynced data: RocksDB's memory file system under its own fault injection,
//! through the few functions of `files.cc`.
//!
//! **Nothing but the calls may enter this file**, since it contains `unsafe`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::ptr::NonNull;

use librocksdb_sys::rocksdb_env_t;
use ropewalk_raft_store::disk::rocks::Env;

use super::DiskFault;

/// Object of the C++ side.
#[repr(C)]
struct Raw {
    _opaque: [u8; 0],
}

type Tell = extern "C" fn(*mut c_void, *const c_char, usize, u64);

unsafe extern "C" {
    fn ropewalk_files_new() -> *mut Raw;
    fn ropewalk_files_free(files: *mut Raw);
    fn ropewalk_files_env(files: *const Raw) -> *mut rocksdb_env_t;
    fn ropewalk_files_unsynced(files: *const Raw) -> u64;
    fn ropewalk_files_forget_names(files: *mut Raw);
    fn ropewalk_files_image(files: *const Raw, power_lost: bool, kept: u64) -> *mut Raw;
    fn ropewalk_files_fail(files: *mut Raw, fault: c_int);
    fn ropewalk_files_list(files: *const Raw, to: *mut c_void, tell: Tell);
    fn ropewalk_files_size(files: *const Raw, name: *const c_char) -> i64;
    fn ropewalk_files_read(
        files: *const Raw,
        name: *const c_char,
        to: *mut u8,
        size: usize,
    ) -> usize;
    fn ropewalk_files_flip(files: *mut Raw, name: *const c_char, at: u64, mask: u8) -> bool;
    fn ropewalk_files_truncate(files: *mut Raw, name: *const c_char, size: u64) -> bool;
}

/// The files of one database.
pub(super) struct Files {
    raw: NonNull<Raw>,
}

// SAFETY: only this value owns the object behind the pointer, which is bound to no thread.
unsafe impl Send for Files {}
// SAFETY: the file systems behind it lock all that they share, and its own fields never change.
unsafe impl Sync for Files {}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

impl Files {
    /// An empty file system.
    pub fn new() -> Files {
        // SAFETY: the function takes nothing, and nobody else owns its result.
        Files::own(unsafe { ropewalk_files_new() })
    }

    fn own(raw: *mut Raw) -> Files {
        let raw = NonNull::new(raw).expect("operator new gives no null");
        Files { raw }
    }

    /// RocksDB environment that keeps a database in these files. It may outlive them.
    pub fn env(&self) -> Env {
        // SAFETY: the pointer is to a live object. Nobody else owns the returned environment, it keeps alive
        // what it uses, and `Env` frees it as RocksDB requires.
        unsafe { Env::from_raw(ropewalk_files_env(self.raw.as_ptr())) }
    }

    /// Bytes of write-ahead logs that are written but not synced.
    pub fn unsynced_bytes(&self) -> u64 {
        // SAFETY: the pointer is to a live object.
        unsafe { ropewalk_files_unsynced(self.raw.as_ptr()) }
    }

    /// A copy of all written data.
    pub fn after_crash(&self) -> Files {
        // SAFETY: the pointer is to a live object, and nobody else owns the result.
        Files::own(unsafe { ropewalk_files_image(self.raw.as_ptr(), false, 0) })
    }

    /// A copy of all synced data.
    pub fn synced(&self) -> Files {
        // SAFETY: the pointer is to a live object, and nobody else owns the result.
        Files::own(unsafe { ropewalk_files_image(self.raw.as_ptr(), true, 0) })
    }

    /// A copy of all synced data, and of `kept_bytes` of the bytes written to logs after it. The original
    /// files must not be used afterwards: if nothing is kept, they lose their new names, too.
    pub fn after_power_loss(&self, kept_bytes: u64) -> Files {
        if kept_bytes == 0 {
            // SAFETY: the pointer is to a live object.
            unsafe { ropewalk_files_forget_names(self.raw.as_ptr()) };
        }
        // SAFETY: the pointer is to a live object, and nobody else owns the result.
        Files::own(unsafe { ropewalk_files_image(self.raw.as_ptr(), true, kept_bytes) })
    }

    /// Sets or clears a fault of the files.
    pub fn set_fault(&self, fault: DiskFault) {
        let fault = match fault {
            DiskFault::Io => 1,
            DiskFault::Full => 2,
            DiskFault::None | DiskFault::LowSpace | DiskFault::SlowMs(_) => 0,
        };
        // SAFETY: the pointer is to a live object.
        unsafe { ropewalk_files_fail(self.raw.as_ptr(), fault) };
    }

    /// Names, in order, with their synced sizes in bytes.
    pub fn list(&self) -> Vec<(String, u64)> {
        extern "C" fn tell(to: *mut c_void, name: *const c_char, length: usize, size: u64) {
            // SAFETY: `to` is the vector below, which nobody else uses meanwhile. The name has `length` bytes
            // and lives until this returns.
            let (list, name) = unsafe {
                (
                    &mut *to.cast::<Vec<(String, u64)>>(),
                    std::slice::from_raw_parts(name.cast::<u8>(), length),
                )
            };
            list.push((String::from_utf8_lossy(name).into_owned(), size));
        }
        let mut list: Vec<(String, u64)> = Vec::new();
        // SAFETY: the pointer is to a live object. `tell` is called only before this returns, with the vector
        // it expects.
        unsafe { ropewalk_files_list(self.raw.as_ptr(), (&raw mut list).cast(), tell) };
        list
    }

    /// Synced size of a file in bytes, if the file exists.
    pub fn size(&self, name: &str) -> Option<u64> {
        let name = c_name(name);
        // SAFETY: the pointers are to a live object and a name that ends in 0.
        let size = unsafe { ropewalk_files_size(self.raw.as_ptr(), name.as_ptr()) };
        u64::try_from(size).ok()
    }

    /// Synced content of a file of `size` bytes.
    pub fn read(&self, name: &str, size: u64) -> Vec<u8> {
        let mut data = vec![0; usize::try_from(size).unwrap_or(0)];
        let name = c_name(name);
        let (to, size) = (data.as_mut_ptr(), data.len());
        // SAFETY: the pointers are to a live object, a name that ends in 0, and `size` bytes.
        let read = unsafe { ropewalk_files_read(self.raw.as_ptr(), name.as_ptr(), to, size) };
        data.truncate(read);
        data
    }

    /// Flips the bits of `mask` in one synced byte.
    pub fn flip(&self, name: &str, at: u64, mask: u8) -> bool {
        let name = c_name(name);
        // SAFETY: the pointers are to a live object and a name that ends in 0.
        unsafe { ropewalk_files_flip(self.raw.as_ptr(), name.as_ptr(), at, mask) }
    }

    /// Cuts the synced content of a file to `size` bytes.
    pub fn truncate(&self, name: &str, size: u64) -> bool {
        let name = c_name(name);
        // SAFETY: the pointers are to a live object and a name that ends in 0.
        unsafe { ropewalk_files_truncate(self.raw.as_ptr(), name.as_ptr(), size) }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // SAFETY: the pointer is to a live object, and nobody uses it after this.
        unsafe { ropewalk_files_free(self.raw.as_ptr()) }
    }
}

/// A name for the C++ side; a name that contains a 0 byte becomes empty.
fn c_name(name: &str) -> CString {
    CString::new(name).unwrap_or_else(|_| CStr::to_owned(c""))
}
