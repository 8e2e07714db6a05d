//! tokio as openraft's runtime, with the randomness of elections drawn from a seed.
//!
//! openraft's own runtime draws from the operating system, so no run could be repeated. Nothing
//! else differs, and nothing else may come in.

use std::cell::Cell;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft_rt::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::TokioRuntime;
use rand_openraft::SeedableRng;
use rand_openraft::rngs::SmallRng;

/// Source of seeds for threads that were not seeded themselves.
static PROCESS_STATE: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static THREAD_STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Increment of SplitMix64: even neighbouring states give distant outputs.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Seeds openraft's randomness, on this thread and on every thread that has not drawn yet. Call it before
/// the first Raft group starts. A simulator that runs everything on one thread repeats exactly with the
/// same seed.
pub fn seed_randomness(seed: u64) {
    PROCESS_STATE.store(mix(seed), Ordering::Relaxed);
    THREAD_STATE.set(Some(seed));
}

fn next_seed() -> u64 {
    let state = THREAD_STATE
        .get()
        .unwrap_or_else(|| mix(PROCESS_STATE.fetch_add(STEP, Ordering::Relaxed)))
        .wrapping_add(STEP);
    THREAD_STATE.set(Some(state));
    mix(state)
}

fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// [`TokioRuntime`] with seeded randomness.
#[derive(Debug)]
pub struct SeededRuntime(TokioRuntime);

impl AsyncRuntime for SeededRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = SmallRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn thread_rng() -> SmallRng {
        SmallRng::seed_from_u64(next_seed())
    }

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(error)
    }

    fn new(threads: usize) -> Self {
        SeededRuntime(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use rand_openraft::Rng;

    use super::*;

    fn draws() -> Vec<u64> {
        (0..8)
            .map(|_| SeededRuntime::thread_rng().next_u64())
            .collect()
    }

    #[test]
    fn the_same_seed_draws_the_same_and_another_draws_otherwise() {
        seed_randomness(1);
        let first = draws();
        seed_randomness(1);
        assert_eq!(draws(), first);
        seed_randomness(2);
        assert_ne!(draws(), first);
    }

    #[test]
    fn it_is_a_runtime_by_openrafts_own_suite() {
        openraft_rt::testing::Suite::<SeededRuntime>::test_all();
    }
}
