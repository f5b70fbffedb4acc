//! The connections to the legacy system, reused only while it surely keeps them open.
//!
//! An environment may be frozen between two requests, for minutes. Meanwhile the system, or
//! something on the way to it, closes the connection without our noticing. A request that is then
//! sent on it fails, and nobody can tell whether it was processed: a connection is also reset by a
//! server that dies afterwards. So such a request must not be sent again, and such a connection must
//! not be used. Its age is measured by the wall clock, because the monotonic one may stand still
//! while the environment is frozen.

use lambda::http_client::client_for;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// How long connecting may take.
const CONNECT_TIME_OUT: Duration = Duration::from_secs(1);
/// How long a connection may have been idle. Apache httpd and Node.js close after 5 s by default,
/// an Application Load Balancer after 60 s.
const MAX_IDLE: Duration = Duration::from_secs(4);

/// A client whose connections are no older than [`MAX_IDLE`].
#[derive(Debug)]
pub(super) struct Connections {
    endpoint: Url,
    time_out: Duration,
    pool: Mutex<Pool>,
}

#[derive(Debug)]
struct Pool {
    client: reqwest::Client,
    /// When it was last used, Unix milliseconds.
    used_at: u64,
}

impl Connections {
    /// No connection yet. The system must answer within `time_out`.
    pub(super) fn new(endpoint: Url, time_out: Duration, now: u64) -> Result<Self, reqwest::Error> {
        let pool = Mutex::new(Pool { client: client(&endpoint, time_out)?, used_at: now });
        Ok(Self { endpoint, time_out, pool })
    }

    /// A client for a request at `now`, Unix milliseconds.
    pub(super) fn client(&self, now: u64) -> reqwest::Client {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back says nothing about how long they were idle.
        let is_idle = now.checked_sub(pool.used_at).is_none_or(|idle| u128::from(idle) >= MAX_IDLE.as_millis());
        if is_idle && let Ok(fresh) = client(&self.endpoint, self.time_out) {
            pool.client = fresh;
        }
        pool.used_at = now;
        pool.client.clone()
    }
}

fn client(endpoint: &Url, time_out: Duration) -> Result<reqwest::Client, reqwest::Error> {
    let builder = client_for(endpoint).timeout(time_out).connect_timeout(CONNECT_TIME_OUT);
    builder.pool_idle_timeout(MAX_IDLE).build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// A server that keeps every connection open, and the number of connections.
    async fn server() -> (Url, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while connection.read(&mut request).await.is_ok_and(|read| read > 0) {
                        connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                    }
                });
            }
        });
        (url, connections)
    }

    #[tokio::test]
    async fn connection_that_was_idle_in_a_freeze_is_not_used() {
        let (url, opened) = server().await;
        let connections = Connections::new(url.clone(), Duration::from_secs(5), 0).unwrap();
        let mut counts = Vec::new();
        // In the last case the clock was set back.
        for now in [0, 1_000, 4_900, 8_900, 9_000, 8_000] {
            connections.client(now).post(url.clone()).send().await.unwrap();
            counts.push(opened.load(Ordering::SeqCst));
        }
        assert_eq!(counts, [1, 1, 1, 2, 2, 3]);
    }
}
