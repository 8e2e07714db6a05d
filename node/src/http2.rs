//! HTTP/2 settings of the gRPC ports.

use std::time::Duration;

use tonic::transport::Server;

use crate::config::Limits;

/// Interval and timeout of HTTP/2 keep-alive pings to clients and peers.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// HTTP/2 flow-control windows, large enough for a batch of the largest size without a pause.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Calls of one connection that a client of the external port may cancel before the node has accepted them.
///
/// HTTP/2 no longer counts such a call as open, but the node keeps its headers. So this bounds the memory and
/// the work of a flood of calls that are cancelled at once. A client that gives up its calls to a stalled node
/// stays below. A client beyond it loses its connection, and nothing else.
const CANCELLED_CALLS_OF_CLIENT: usize = 128;

/// Server of a port that nodes call, and perhaps clients.
///
/// Votes that time out are cancelled. While a node stalls, those of all its partitions collect before it accepts
/// them. With the default of 20, HTTP/2 then ends the connection, which also carries the heartbeats of every
/// partition. Without those, more elections begin. So a peer may cancel as many calls as it may have open.
pub fn for_nodes(limits: &Limits) -> Server {
    server(limits, limits.streams_per_connection as usize)
}

/// Server of a port that only clients call.
pub fn for_clients(limits: &Limits) -> Server {
    let open = limits.streams_per_connection as usize;
    server(limits, CANCELLED_CALLS_OF_CLIENT.min(open))
}

fn server(limits: &Limits, cancelled_calls: usize) -> Server {
    Server::builder()
        .max_concurrent_streams(limits.streams_per_connection)
        .http2_max_pending_accept_reset_streams(Some(cancelled_calls))
        .http2_max_header_list_size(limits.header_bytes)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_stream::StreamExt;
    use tonic::service::Routes;

    use super::*;

    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    /// Flag of the only frame of a call's headers.
    const END_HEADERS: u8 = 4;
    const CANCEL: [u8; 4] = 8_u32.to_be_bytes();
    /// `:method POST`, `:scheme http` and `:path /`, from the table that every connection begins with.
    const POST: [u8; 3] = [0x83, 0x86, 0x84];

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
        let head = [&length[..], &[kind, flags], &stream.to_be_bytes()].concat();
        [&head[..], payload].concat()
    }

    /// Connects to a server that stalls until this many calls have been opened and cancelled. Returns true if
    /// the server then still answers a ping.
    async fn survives(mut server: Server, calls: u32) -> bool {
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        sent.extend(frame(SETTINGS, 0, 0, &[]));
        for stream in (0..calls).map(|call| 2 * call + 1) {
            sent.extend(frame(HEADERS, END_HEADERS, stream, &POST));
            sent.extend(frame(RST_STREAM, 0, stream, &CANCEL));
        }
        sent.extend(frame(PING, 0, 0, &[7; 8]));
        let (mut client, connection) = duplex(1 << 20);
        // All of it has arrived before the server runs.
        client.write_all(&sent).await.expect("room in the pipe");
        let incoming = tokio_stream::once(Ok::<_, io::Error>(connection));
        let incoming = incoming.chain(tokio_stream::pending());
        let serving = server
            .add_routes(Routes::default())
            .serve_with_incoming(incoming);
        let serving = tokio::spawn(serving);
        let answered = loop {
            let mut head = [0; 9];
            if client.read_exact(&mut head).await.is_err() {
                break false;
            }
            let [high, middle, low, kind, flags, ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
            client.read_exact(&mut payload).await.expect("the rest");
            match kind {
                GOAWAY => break false,
                // The server also sends pings of its own.
                PING if flags == 1 && payload == [7; 8] => break true,
                _ => {}
            }
        };
        serving.abort();
        answered
    }

    #[tokio::test]
    async fn a_peer_keeps_its_connection_after_many_calls_that_timed_out_on_a_stalled_node() {
        let limits = Limits::default();
        let most = limits.streams_per_connection;
        assert!(survives(for_nodes(&limits), 50).await);
        assert!(survives(for_nodes(&limits), most).await);
        assert!(!survives(for_nodes(&limits), most + 1).await);
    }

    #[tokio::test]
    async fn a_client_loses_its_connection_after_a_flood_of_cancelled_calls() {
        let most = CANCELLED_CALLS_OF_CLIENT as u32;
        assert!(survives(for_clients(&Limits::default()), most).await);
        assert!(!survives(for_clients(&Limits::default()), most + 1).await);
    }
}
