//! Work that occupies a processor for a long time.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs CPU-bound work. If the runtime has several threads, other tasks continue on another one meanwhile. If
/// it has one thread, as in the simulator, they wait: nothing there depends on the time at which a thread
/// finishes.
#[allow(
    clippy::disallowed_methods,
    reason = "only where there are threads; the simulator has none, and takes the other way"
)]
pub fn cpu_bound<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn others_go_on_meanwhile_though_there_is_one_worker() {
        let (tell, told) = mpsc::channel();
        let other = tokio::spawn(async move { tell.send(7) });
        // Waits for the other task without releasing the thread.
        let heard = tokio::spawn(async move { cpu_bound(|| told.recv()) });
        assert_eq!(heard.await.unwrap(), Ok(7));
        other.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn with_one_thread_it_is_simply_done() {
        assert_eq!(cpu_bound(|| 7), 7);
    }

    #[test]
    fn without_a_runtime_it_is_simply_done() {
        assert_eq!(cpu_bound(|| 7), 7);
    }
}
