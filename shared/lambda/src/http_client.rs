//! HTTP clients for one configured host: the token issuer, a legacy system.
//!
//! They honour `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, except for loopback: no
//! proxy can reach this machine's loopback address, so a request to it never goes through one,
//! whatever `NO_PROXY` says.

use reqwest::ClientBuilder;
use reqwest::redirect::Policy;
use url::{Host, Url};

/// A builder of a client for the host of `url`. It follows no redirects, since they may lead to
/// another host.
pub fn client_for(url: &Url) -> ClientBuilder {
    let builder = reqwest::Client::builder().redirect(Policy::none());
    if is_loopback(url) { builder.no_proxy() } else { builder }
}

/// Whether the traffic to the URL's host is safe from eavesdropping and tampering (`https`, or `http`
/// on loopback), and the URL has no user name or password, which would show wherever it is printed.
pub fn is_private(url: &Url) -> bool {
    names_nobody(url) && (url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url)))
}

/// Whether the URL has neither a user name nor a password. What one has to prove oneself with is a
/// secret, and comes by reference.
pub fn names_nobody(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::process::Command;

    /// In the environment of the process that makes the request: its URL.
    const URL: &str = "PLAYHEAD_TEST_URL";

    /// A server on loopback that answers every request with `name`; its port.
    async fn server(name: &'static str) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = axum::Router::new().fallback(move || async move { name });
        tokio::spawn(async move { axum::serve(listener, router).await });
        port
    }

    /// Makes a request to [`URL`] in a process whose environment the test chose; without it, does
    /// nothing.
    #[tokio::test]
    async fn request_from_a_child_process() {
        let Ok(url) = std::env::var(URL) else { return };
        let url: Url = url.parse().unwrap();
        let answer = client_for(&url).build().unwrap().get(url).send().await.unwrap();
        println!("answered by {}", answer.text().await.unwrap());
    }

    #[tokio::test]
    async fn loopback_bypasses_the_proxy_and_other_hosts_do_not() {
        let (port, proxy) = (server("the host").await, server("the proxy").await);
        let proxy = format!("http://127.0.0.1:{proxy}");
        for (host, answering) in [("127.0.0.1", "the host"), ("localhost", "the host"), ("issuer.example", "the proxy")]
        {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "http_client::tests::request_from_a_child_process", "--nocapture"]);
            child.env(URL, format!("http://{host}:{port}/"));
            for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
                child.env(variable, &proxy);
            }
            // A user's own exceptions must not decide the test.
            let output = child.env_remove("NO_PROXY").env_remove("no_proxy").output().await.unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            assert!(printed.contains(&format!("answered by {answering}")), "{host}: {printed}");
        }
    }

    #[test]
    fn private_is_https_or_loopback_and_names_nobody() {
        let is_private = |url: &str| is_private(&url.parse().unwrap());
        for url in ["https://issuer.example/jwks", "http://127.0.0.1:8080/jwks", "http://[::1]/", "http://localhost/"] {
            assert!(is_private(url), "{url}");
        }
        for url in [
            "http://issuer.example/jwks",
            "file:///etc/passwd",
            "http://localhost.example/",
            "https://user@issuer.example/",
            "https://:password@issuer.example/",
        ] {
            assert!(!is_private(url), "{url}");
        }
    }
}
