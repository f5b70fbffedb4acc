//! Reads histories as members see them: every page, through the API.

use super::expect::SessionView;
use super::http::Http;
use anyhow::{Context as _, Result};
use futures::stream::{self, StreamExt as _};
use serde::Deserialize;
use std::collections::BTreeMap;

/// How many histories are read at once.
const READERS: usize = 8;
const PAGE: usize = 50;

#[derive(Deserialize)]
struct Page {
    sessions: Vec<SessionView>,
    next_page_token: Option<String>,
}

/// The sessions of each profile, newest first, from the API at `api` with this bearer token. Hidden
/// sessions are left out.
///
/// # Errors
/// If a page cannot be read.
pub async fn read(
    api: &str,
    token: &str,
    profiles: impl IntoIterator<Item = &String>,
) -> Result<BTreeMap<String, Vec<SessionView>>> {
    read_pages(api, token, profiles, "").await
}

/// As [`read`], including hidden sessions.
///
/// # Errors
/// As [`read`].
pub async fn read_with_hidden(
    api: &str,
    token: &str,
    profiles: impl IntoIterator<Item = &String>,
) -> Result<BTreeMap<String, Vec<SessionView>>> {
    read_pages(api, token, profiles, "&include_hidden=true").await
}

async fn read_pages(
    api: &str,
    token: &str,
    profiles: impl IntoIterator<Item = &String>,
    options: &str,
) -> Result<BTreeMap<String, Vec<SessionView>>> {
    let http = Http::new(|builder| builder)?;
    let client = http.client(api);
    let read = profiles.into_iter().map(|profile| {
        let (client, url) = (client.clone(), format!("{api}/v1/profiles/{profile}/history"));
        async move {
            let mut sessions = Vec::new();
            let mut page_token = String::new();
            loop {
                let page = format!("{url}?limit={PAGE}&page_token={page_token}{options}");
                let answer = client.get(&page).bearer_auth(token).send().await?.error_for_status()?;
                let page: Page = answer.json().await?;
                sessions.extend(page.sessions);
                match page.next_page_token {
                    Some(next) => page_token = next,
                    None => return anyhow::Ok((profile.clone(), sessions)),
                }
            }
        }
    });
    let read: Vec<_> = read.collect();
    let mut reading = stream::iter(read).buffer_unordered(READERS);
    let mut histories = BTreeMap::new();
    while let Some(history) = reading.next().await {
        let (profile, sessions) = history.context("reading a history")?;
        histories.insert(profile, sessions);
    }
    Ok(histories)
}
