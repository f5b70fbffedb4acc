//! HTTP clients for the API. A server on this machine is called directly. Other hosts are called
//! through the user's proxy (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`), if there is one: a proxy
//! cannot reach our loopback.

use anyhow::{Context as _, Result};
use reqwest::{Client, ClientBuilder, Url};
use std::net::IpAddr;

/// Two clients: one that knows the user's proxy, and one that does not.
#[derive(Debug, Clone)]
pub struct Http {
    direct: Client,
    proxied: Client,
}

impl Http {
    /// Both clients with these settings.
    ///
    /// # Errors
    /// When the TLS library cannot be set up, or a proxy variable is invalid.
    pub fn new(settings: impl Fn(ClientBuilder) -> ClientBuilder) -> Result<Self> {
        let build = |builder: ClientBuilder| settings(builder).build().context("making an HTTP client");
        Ok(Self { direct: build(Client::builder().no_proxy())?, proxied: build(Client::builder())? })
    }

    /// The client for this URL.
    #[must_use]
    pub fn client(&self, url: &str) -> &Client {
        if is_loopback(url) { &self.direct } else { &self.proxied }
    }
}

fn is_loopback(url: &str) -> bool {
    let Ok(url) = url.parse::<Url>() else { return false };
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || host.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use axum::Router;
    use std::process::Command;
    use tokio::net::TcpListener;

    #[test]
    fn loopback_hosts_are_recognised() {
        for url in [
            "http://127.0.0.1:8080/a",
            "http://127.8.9.1",
            "http://[::1]:1/",
            "https://LOCALHOST/a",
            "http://a.localhost",
        ] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["http://128.0.0.1", "http://[::2]/", "https://localhost.example/127.0.0.1", "localhost", ""] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    /// Starts a server that answers every request with this text. Gives its URL.
    async fn serve(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(async move || answer)).await.unwrap() });
        url
    }

    const IN_CHILD: &str = "PLAYHEAD_TEST_UNDER_A_PROXY";

    /// The variables are set for a child that runs this test again: a process must not change its
    /// own.
    #[tokio::test]
    async fn only_other_hosts_are_called_through_the_proxy() {
        if std::env::var_os(IN_CHILD).is_some() {
            let (http, here) = (Http::new(|builder| builder).unwrap(), serve("direct").await);
            let get = async |url: &str| http.client(url).get(url).send().await.unwrap().text().await.unwrap();
            assert_eq!(get(&here).await, "direct");
            assert_eq!(get(&here.replace("127.0.0.1", "localhost")).await, "direct");
            assert_eq!(get("http://api.example/v1").await, "proxied");
            return;
        }
        let proxy = serve("proxied").await;
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "http::tests::only_other_hosts_are_called_through_the_proxy"]).env(IN_CHILD, "1");
        child.env_remove("NO_PROXY").env_remove("no_proxy");
        child.envs(["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"].map(|name| (name, &proxy)));
        let ended = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(
            ended.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
}
