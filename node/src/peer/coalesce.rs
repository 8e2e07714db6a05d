//! Coalescing of many small messages into one.

use std::time::Duration;

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// The items of `queue`, in order, in groups: each group has all items that are queued, up to `most`. Groups
/// are at least `pause` apart; after a longer silence the first item goes at once.
pub(super) fn gather<T: Send>(
    queue: mpsc::Receiver<T>,
    most: usize,
    pause: Duration,
) -> impl Stream<Item = Vec<T>> + Send {
    let start = (queue, Instant::now());
    futures_util::stream::unfold(start, move |(mut queue, not_before)| async move {
        let mut items = vec![queue.recv().await?];
        sleep_until(not_before).await;
        while items.len() < most {
            match queue.try_recv() {
                Ok(item) => items.push(item),
                Err(_) => break,
            }
        }
        Some((items, (queue, Instant::now() + pause)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    #[tokio::test(start_paused = true)]
    async fn the_first_goes_at_once_and_those_that_queue_go_together_up_to_the_bound() {
        let (sender, receiver) = mpsc::channel(16);
        let pause = Duration::from_millis(5);
        let mut groups = Box::pin(gather(receiver, 3, pause));
        let start = Instant::now();
        sender.send(0).await.unwrap();
        assert_eq!(groups.next().await, Some(vec![0]));
        assert_eq!(start.elapsed(), Duration::ZERO);
        for item in 1..=4 {
            sender.send(item).await.unwrap();
        }
        drop(sender);
        assert_eq!(groups.next().await, Some(vec![1, 2, 3]));
        assert_eq!(start.elapsed(), pause);
        assert_eq!(groups.next().await, Some(vec![4]));
        assert_eq!(groups.next().await, None);
    }
}
