//! Ctrl-C before a command has made any progress.

use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{PATIENCE, binary};

/// Time limit of the exit, well below that of a request.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Scripts start their background commands with the signal ignored.
const AS_IN_THE_BACKGROUND: &str = r#"trap '' INT; exec "$0" "$@""#;

async fn accepted(silent: &TcpListener) -> TcpStream {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Ok((connection, _)) = silent.accept() {
            return connection;
        }
        assert!(Instant::now() < until, "no connection came");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_command_that_still_connects_ends_at_the_first_interrupt() {
    // A node that accepts the connection and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let commands: [(&[&str], i32); 6] = [
        (&["consume", "t", "--group", "g", "--follow"], 0),
        (&["consume", "t", "--follow"], 0),
        (&["produce", "t"], 1),
        (&["trace", "some-id"], 1),
        (&["bench", "produce", "--topic", "t"], 1),
        (&["topic", "list"], 1),
    ];
    for (args, code) in commands {
        let mut child = Command::new("sh")
            .args(["-c", AS_IN_THE_BACKGROUND])
            .arg(binary())
            .args(["--bootstrap", &address])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let _connection = accepted(&silent).await;
        let id = child.id().unwrap().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status().await;
        assert!(sent.unwrap().success());
        let ended = timeout(ENDS_WITHIN, child.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{args:?} goes on"));
        assert_eq!(ended.unwrap().code(), Some(code), "{args:?}");
    }
}
