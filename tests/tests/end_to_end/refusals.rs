//! What is refused, with which status. Each refusal is a problem (RFC 9457) that a program can
//! read.

use anyhow::Result;
use playback::contract::{MAX_BODY_BYTES, MAX_EVENTS};
use playhead_tests::sample::gzip;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::cloud::{Cloud, run};
use super::member::{Answer, Member, Viewing, in_seconds, never_watched, padded, sign};

/// Every call of the API, as (method, path below `/v1`).
fn calls(profile_id: &str, viewing: &Viewing) -> Vec<(Method, String)> {
    let history = format!("/v1/profiles/{profile_id}/history");
    let hidden = format!("{history}/{}/hidden", viewing.id());
    let title = format!("/v1/profiles/{profile_id}/titles/{}", viewing.title_id);
    vec![
        (Method::POST, "/v1/events".to_owned()),
        (Method::POST, "/v1/sessions".to_owned()),
        (Method::GET, history.clone()),
        (Method::GET, format!("/v1/profiles/{profile_id}/continue-watching")),
        (Method::GET, format!("/v1/profiles/{profile_id}/titles?ids={}", viewing.title_id)),
        (Method::GET, title.clone()),
        (Method::GET, format!("{title}/bookmark")),
        (Method::PUT, format!("{title}/watched")),
        (Method::DELETE, format!("{title}/watched")),
        (Method::DELETE, title),
        (Method::DELETE, format!("{history}/{}", viewing.id())),
        (Method::PUT, hidden.clone()),
        (Method::DELETE, hidden),
        (Method::DELETE, history),
    ]
}

fn url(cloud: &Cloud, path: &str) -> String {
    format!("{}{path}", cloud.endpoints.api)
}

#[test]
fn unauthenticated_callers_are_refused_everywhere() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "unproven");
        let viewing = Viewing::begin(&member, "t1");
        let secret = &cloud.endpoints.jwt_secret;
        let claims = |exp| json!({ "profiles": ["unproven"], "exp": exp });
        let tokens = [
            (None, "no_token"),
            (Some("not.a.token".to_owned()), "invalid_token"),
            (Some(sign(&claims(in_seconds(3600)), "another secret of at least 32 bytes")), "invalid_token"),
            (Some(sign(&claims(in_seconds(-120)), secret)), "invalid_token"),
            (Some(sign(&json!({ "profiles": ["unproven"] }), secret)), "invalid_token"),
            (Some(sign(&json!({ "sub": "unproven", "exp": in_seconds(3600) }), secret)), "invalid_token"),
        ];
        for (method, path) in calls("unproven", &viewing) {
            for (token, code) in &tokens {
                let mut request = cloud.http.request(method.clone(), url(cloud, &path));
                if let Some(token) = token {
                    request = request.bearer_auth(token);
                }
                if path == "/v1/events" {
                    request = request.json(&json!({ "events": viewing.events(1) }));
                }
                let answer = Answer::of(request).await?;
                answer.assert_problem(401, code);
                assert!(answer.headers[WWW_AUTHENTICATE].to_str()?.starts_with("Bearer"), "{method} {path}");
            }
        }
        Ok(())
    })
}

#[test]
fn foreign_profiles_can_be_neither_written_nor_read() -> Result<()> {
    run(async |cloud| {
        let (owner, stranger) = (Member::new(cloud, "owner"), Member::new(cloud, "stranger"));
        let (viewing, own) = (Viewing::begin(&owner, "t1"), Viewing::begin(&stranger, "t1"));
        owner.post(&viewing.events(2)).await?;

        stranger.send(&viewing.events(5)).await?.assert_problem(403, "forbidden");
        let mixed = stranger.send(&[viewing.event(4, 9_000, 0), own.event(0, 0, 0)]).await?.expect(202)?;
        assert_eq!((&mixed["accepted"], &mixed["rejected"][0]["index"]), (&json!(1), &json!(0)));
        assert_eq!(mixed["rejected"][0]["code"], "profile_forbidden");
        for (method, path) in calls("owner", &viewing) {
            if path.starts_with("/v1/profiles") {
                Answer::of(stranger.request(method, &path)).await?.assert_problem(403, "forbidden");
            }
        }
        stranger.history_with(&[(&own, 1)]).await?;
        let history = owner.history_with(&[(&viewing, 2)]).await?;
        assert_eq!((history.len(), &history[0]["hidden"]), (1, &json!(false)));

        let service = Member::by_service(cloud, "owner");
        service.post(&viewing.events(3)).await?;
        service.history_with(&[(&viewing, 3)]).await?;
        service.call(Method::PUT, &format!("history/{}/hidden", viewing.id())).await?.expect(204)?;
        assert!(owner.history().await?.is_empty());
        Ok(())
    })
}

#[test]
fn bodies_of_a_wrong_size_or_type_are_refused() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "bodies");
        let viewing = Viewing::begin(&member, "t1");
        let good = json!({ "events": viewing.events(2) }).to_string();
        let gzip = |text: &str| gzip(text.as_bytes()).unwrap();
        let too_many = json!({ "events": vec![viewing.event(0, 0, 0); MAX_EVENTS + 1] }).to_string();
        let bomb = gzip(&format!("{{\"events\":[{}]}}", " ".repeat(64 << 20)));
        assert!(bomb.len() < MAX_BODY_BYTES, "the bomb must be refused for its size after decompression");

        let json_type = "application/json";
        type Case<'a> = (u16, &'a str, &'a str, Option<&'a str>, Vec<u8>);
        let cases: [Case<'_>; 10] = [
            (413, "body_too_large", json_type, None, padded(good.clone(), MAX_BODY_BYTES + 1).into_bytes()),
            (413, "body_too_large", json_type, Some("gzip"), bomb),
            (413, "too_many_events", json_type, Some("gzip"), gzip(&too_many)),
            (415, "unsupported_media_type", "text/plain", None, good.clone().into_bytes()),
            (415, "unsupported_media_type", json_type, Some("br"), good.clone().into_bytes()),
            (400, "body_not_gzip", json_type, Some("gzip"), gzip(&good)[..20].to_vec()),
            (400, "malformed_request", json_type, None, b"not JSON".to_vec()),
            (400, "malformed_request", json_type, None, good.as_bytes()[..good.len() - 1].to_vec()),
            (400, "malformed_request", json_type, None, b"{\"event\":[]}".to_vec()),
            (400, "malformed_request", json_type, None, Vec::new()),
        ];
        for (status, code, media_type, encoding, body) in cases {
            let mut request = member.request(Method::POST, "/v1/events").header(CONTENT_TYPE, media_type).body(body);
            if let Some(encoding) = encoding {
                request = request.header(CONTENT_ENCODING, encoding);
            }
            Answer::of(request).await?.assert_problem(status, code);
        }
        Ok(())
    })
}

#[test]
fn unknown_requests_are_refused() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "not-served");
        for (path, code) in [
            ("history?limit=0", "limit_out_of_range"),
            ("history?limit=101", "limit_out_of_range"),
            ("history?page_token=nonsense", "page_token_malformed"),
            ("history?include_hidden=perhaps", "include_hidden_malformed"),
            ("titles/~/bookmark", "id_malformed"),
            ("titles/a%2523b", "id_malformed"),
            ("titles", "ids_malformed"),
            ("titles?ids=t1,,t2", "ids_malformed"),
        ] {
            member.call(Method::GET, path).await?.assert_problem(400, code);
        }
        for (method, path) in [(Method::PUT, "history/no-session/hidden"), (Method::DELETE, "history/no-session")] {
            member.call(method, path).await?.assert_problem(400, "session_id_malformed");
        }
        let unknown = member.call(Method::GET, "titles/unknown/bookmark").await?.expect(200)?;
        assert_eq!(unknown, never_watched("unknown"));
        // The gateway has no such routes, and answers by itself without invoking a function.
        for (method, path) in [
            (Method::GET, "/"),
            (Method::GET, "/v2/events"),
            (Method::GET, "/v1/events"),
            (Method::PUT, "/v1/sessions"),
            (Method::POST, "/v1/profiles/not-served/history"),
        ] {
            let answer = Answer::of(member.request(method, path)).await?;
            assert_eq!(
                (answer.status, answer.body),
                (StatusCode::NOT_FOUND, json!({"message": "Not Found"})),
                "{path}"
            );
        }
        Ok(())
    })
}
