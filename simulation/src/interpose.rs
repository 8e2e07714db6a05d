//! Clocks and randomness of the C library, for code that does not use the seam: hyper's `date` header, the
//! keys of `HashMap`, RocksDB. On a thread that runs a simulation they are the simulation's, so that a seed
//! repeats. On all other threads they are the machine's.
//!
//! Only the binary may contain this module. A definition in the executable replaces the C library's for
//! everything that is linked into it.

#![allow(
    unsafe_code,
    reason = "functions of the C library can be replaced in no other way"
)]

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::time::Duration;

use libc::{clockid_t, size_t, ssize_t, timespec};
use ropewalk_simulation::{cluster, virtual_time};

/// Reading of monotonic clocks when a simulation begins. It is small, so that for the kernel a wait until a
/// virtual moment is over at once. The kernel would otherwise wait that long.
const BOOTED: Duration = Duration::from_secs(1);

thread_local! {
    static RANDOM: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on, draws all randomness that this thread asks the system for from `seed`.
pub fn draw_from(seed: u64) {
    RANDOM.set(Some(seed));
}

/// Replaces the C library's function of this name.
///
/// # Safety
/// As for the C library's: `into` points to a `timespec` that may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, into: *mut timespec) -> c_int {
    let began = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => Some(cluster::EPOCH),
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_BOOTTIME => Some(BOOTED),
        // Only a profiler reads processor time.
        _ => None,
    };
    let Some((began, elapsed)) = began.zip(virtual_time::now()) else {
        // SAFETY: the caller's promise is the system call's condition.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, into) } as c_int;
    };
    let now = began + elapsed;
    // SAFETY: the caller promises a pointer that may be written.
    unsafe {
        (*into).tv_sec = now.as_secs() as libc::time_t;
        (*into).tv_nsec = now.subsec_nanos().into();
    }
    0
}

/// Replaces the C library's function of this name.
///
/// # Safety
/// As for the C library's: `length` bytes may be written from `into` on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(into: *mut c_void, length: size_t, flags: c_uint) -> ssize_t {
    let Some(mut state) = RANDOM.get() else {
        // SAFETY: the caller's promise is the system call's condition.
        return unsafe { libc::syscall(libc::SYS_getrandom, into, length, flags) } as ssize_t;
    };
    for at in 0..length {
        // SAFETY: `at` is below the length that the caller promises.
        unsafe { *into.cast::<u8>().add(at) = next_byte(&mut state) };
    }
    RANDOM.set(Some(state));
    length as ssize_t
}

/// SplitMix64; only the highest byte is used.
fn next_byte(state: &mut u64) -> u8 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((mixed ^ (mixed >> 31)) >> 56) as u8
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::hash::{BuildHasher, RandomState};
    use std::thread::ScopedJoinHandle;

    use super::*;

    fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| ScopedJoinHandle::join(scope.spawn(work))).expect("no panic")
    }

    #[test]
    fn keys_of_hash_maps_are_drawn_from_the_seed() {
        let hash = |seed| {
            on_a_thread(move || {
                draw_from(seed);
                let map: HashMap<u64, u64> = (0..100).map(|number| (number, number)).collect();
                let order: Vec<u64> = map.keys().copied().collect();
                (RandomState::new().hash_one(7), order)
            })
        };
        assert_eq!(hash(1), hash(1));
        assert_ne!(hash(1), hash(2));
    }

    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "the leak that is closed here is that a library calls them"
    )]
    fn clocks_stand_still_in_a_simulation_and_go_on_outside_of_it() {
        use std::time::{Instant, SystemTime};
        let (wall, passed) = on_a_thread(|| {
            let _running = virtual_time::begin();
            let begun = Instant::now();
            virtual_time::set(Duration::from_millis(1_500));
            (SystemTime::now(), begun.elapsed())
        });
        let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH);
        let expected = cluster::EPOCH + Duration::from_millis(1_500);
        assert_eq!(since_epoch.ok(), Some(expected));
        assert_eq!(passed, Duration::from_millis(1_500));
        assert!(SystemTime::now() > wall, "this thread runs no simulation");
    }
}
