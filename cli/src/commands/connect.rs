//! The connection to the cluster, and the notice to a person while no node answers.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use ropewalk_client::{Bootstrap, Client, ClientBuilder, ErrorKind};
use tokio::time::{Instant, sleep};

use super::Context;
use crate::exit::usage;
use crate::logs;
use crate::tls;

/// Time for which every address may refuse the connection before the command gives up.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without an answer after which a terminal shows a notice.
const NOTICE_AFTER: Duration = Duration::from_secs(1);
/// Remedy if nothing listens at any address.
const HINT: &str =
    "start a cluster with `ropewalk dev`, or name a running node with --bootstrap HOST:PORT";

/// Set once the notice was shown: a command that waits for a cluster connects many times, and shows it once.
static EXPLAINED: AtomicBool = AtomicBool::new(false);

impl Context {
    /// A client of the cluster the flags name.
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        let builder = self.builder()?;
        let connected = match stderr().is_terminal() && !EXPLAINED.load(Ordering::Relaxed) {
            true => self.connect_and_explain(builder).await,
            false => builder.refused_timeout(REFUSED_TIMEOUT).connect().await,
        };
        connected.map_err(|error| match error.kind() {
            ErrorKind::InvalidArgument => usage(error.to_string()),
            _ if error.is_refused() => anyhow!("{}; {HINT}", self.refusal()),
            _ => error.into(),
        })
    }

    /// Client builder from the flags, without a limit on refused connections.
    pub(super) fn builder(&self) -> anyhow::Result<ClientBuilder> {
        let bootstrap = self.global.bootstrap.iter().cloned().map(String::from);
        let bootstrap = Bootstrap::from_iter(bootstrap);
        let builder = Client::builder(bootstrap).request_timeout(self.global.timeout);
        Ok(match tls::of_client(&self.global)? {
            Some(tls) => builder.tls(tls),
            None => builder,
        })
    }

    /// Connects; shows the reason on a delay.
    async fn connect_and_explain(&self, builder: ClientBuilder) -> ropewalk_client::Result<Client> {
        let begun = Instant::now();
        let first = builder.clone().refused_timeout(NOTICE_AFTER).connect();
        tokio::pin!(first);
        let error = tokio::select! {
            done = &mut first => match done {
                Err(error) if error.is_refused() => error,
                done => return done,
            },
            // This is longer than refusals need to become apparent.
            () = sleep(2 * NOTICE_AFTER) => {
                explain(&format!("{} does not answer yet; waiting", self.names()));
                return first.await;
            }
        };
        let left = self.global.timeout.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(error);
        }
        explain(&format!("{}; retrying. To fix it, {HINT}", self.refusal()));
        let again = builder.request_timeout(left);
        let again = again.refused_timeout(REFUSED_TIMEOUT.saturating_sub(begun.elapsed()));
        again.connect().await
    }

    fn names(&self) -> String {
        let names = self.global.bootstrap.iter().map(ToString::to_string);
        names.collect::<Vec<_>>().join(", ")
    }

    fn refusal(&self) -> String {
        match self.global.bootstrap.len() {
            1 => format!("{} is not reachable: connection refused", self.names()),
            _ => format!("{} are not reachable: connection refused", self.names()),
        }
    }
}

fn explain(what: &str) {
    EXPLAINED.store(true, Ordering::Relaxed);
    logs::say(&format!("ropewalk: {what}"));
}
