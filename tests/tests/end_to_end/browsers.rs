//! What a web page needs: preflight requests, headers that let it read the answers, and a last
//! request without headers when it closes.
//!
//! The origins that may call are the cloud's parameter `AllowedOrigins`.

use anyhow::Result;
use reqwest::Method;
use reqwest::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, HeaderMap, HeaderName, ORIGIN,
};
use serde_json::{Value, json};

use super::cloud::run;
use super::member::{Answer, Member, Viewing, accepted};

/// As the cloud's parameter has them.
pub(crate) const ALLOWED: &str = "https://play.example,https://tv.example:8443";
/// The first part of an allowed one, and others.
const OTHERS: [&str; 4] = ["https://play.exampl", "https://evil.example", "http://play.example", "null"];

/// The words of a list in a header, in lower case.
fn words(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let value = headers.get(name).map_or("", |value| value.to_str().unwrap());
    value.split(',').map(|word| word.trim().to_ascii_lowercase()).filter(|word| !word.is_empty()).collect()
}

fn cors_headers(headers: &HeaderMap) -> Vec<&str> {
    headers.keys().map(HeaderName::as_str).filter(|name| name.starts_with("access-control-")).collect()
}

#[test]
fn preflight_is_answered_for_every_route_and_allowed_origin() -> Result<()> {
    run(async |cloud| {
        let session = "use1-01M3250V3TW3KG5DD5CEVSMJCC";
        for key in ingest::route_keys().chain(query::route_keys()) {
            let (method, path) = key.split_once(' ').unwrap();
            let path = path.replace("{session_id}", session).replace("{profile_id}", "p1").replace("{title_id}", "t1");
            let ask = async |origin: &str| {
                let request = cloud.http.request(Method::OPTIONS, format!("{}{path}", cloud.endpoints.api));
                let asked = request
                    .header(ORIGIN, origin)
                    .header(ACCESS_CONTROL_REQUEST_METHOD, method)
                    .header(ACCESS_CONTROL_REQUEST_HEADERS, "authorization,content-type");
                anyhow::Ok(asked.send().await?)
            };
            for origin in ALLOWED.split(',') {
                let answer = ask(origin).await?;
                let headers = answer.headers();
                assert!(answer.status().is_success(), "{key}: {answer:?}");
                assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], origin, "{key}");
                assert!(words(headers, &ACCESS_CONTROL_ALLOW_METHODS).contains(&method.to_lowercase()), "{answer:?}");
                let allowed = words(headers, &ACCESS_CONTROL_ALLOW_HEADERS);
                for header in ["authorization", "content-type", "content-encoding", "traceparent"] {
                    assert!(allowed.contains(&header.to_owned()), "{key}: {header}, {answer:?}");
                }
                assert_eq!(headers[ACCESS_CONTROL_MAX_AGE], "7200", "{key}");
            }
            for origin in OTHERS {
                let answer = ask(origin).await?;
                assert_eq!(cors_headers(answer.headers()), Vec::<&str>::new(), "{key} {origin}");
            }
        }
        Ok(())
    })
}

#[test]
fn allowed_origins_can_read_every_answer_errors_included() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "browser");
        let viewing = Viewing::begin(&member, "t1");
        let events = |member: &Member, body: &Value| member.request(Method::POST, "/v1/events").json(body);
        let good = json!({ "events": viewing.events(1) });
        let stranger = Member::new(cloud, "another");
        type Case<'a> = (u16, Box<dyn Fn() -> reqwest::RequestBuilder + 'a>);
        let cases: Vec<Case<'_>> = vec![
            (202, Box::new(|| events(&member, &good))),
            (201, Box::new(|| member.request(Method::POST, "/v1/sessions"))),
            (200, Box::new(|| member.request(Method::GET, "/v1/profiles/browser/history"))),
            (204, Box::new(|| member.request(Method::DELETE, "/v1/profiles/browser/history"))),
            (400, Box::new(|| events(&member, &json!({ "event": [] })))),
            (400, Box::new(|| member.request(Method::GET, "/v1/profiles/browser/history?limit=0"))),
            (401, Box::new(|| cloud.http.post(format!("{}/v1/events", cloud.endpoints.api)).json(&good))),
            (403, Box::new(|| events(&stranger, &good))),
            (200, Box::new(|| member.request(Method::GET, "/v1/profiles/browser/titles/unknown/bookmark"))),
            (200, Box::new(|| member.request(Method::GET, "/v1/profiles/browser/titles?ids=t1,t2"))),
            (204, Box::new(|| member.request(Method::PUT, "/v1/profiles/browser/titles/t1/watched"))),
            (403, Box::new(|| stranger.request(Method::DELETE, "/v1/profiles/browser/titles/t1"))),
            (413, Box::new(|| events(&member, &json!({ "events": vec![0; 501] })))),
            (415, Box::new(|| member.request(Method::POST, "/v1/events").header(CONTENT_TYPE, "text/xml").body("x"))),
        ];
        for (status, request) in cases {
            for origin in ALLOWED.split(',') {
                let answer = Answer::of(request().header(ORIGIN, origin)).await?;
                assert_eq!(answer.status, status, "{answer:?}");
                assert_eq!(answer.headers[ACCESS_CONTROL_ALLOW_ORIGIN], origin, "{status}");
                assert_eq!(words(&answer.headers, &ACCESS_CONTROL_EXPOSE_HEADERS), ["retry-after"], "{status}");
            }
            for origin in OTHERS {
                let answer = Answer::of(request().header(ORIGIN, origin)).await?;
                assert_eq!(answer.status, status, "{answer:?}");
                assert_eq!(cors_headers(&answer.headers), Vec::<&str>::new(), "{status} {origin}");
            }
        }
        Ok(())
    })
}

#[test]
fn closing_page_sends_its_last_events_without_a_header() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "closing-page");
        let viewing = Viewing::begin(&member, "t1");
        let beacon = |body: Value| {
            let request = cloud.http.post(format!("{}/v1/events", cloud.endpoints.api));
            let typed = request.header(CONTENT_TYPE, "text/plain;charset=UTF-8").header(ORIGIN, "https://play.example");
            typed.body(body.to_string())
        };
        let body = json!({ "token": member.token, "events": viewing.events(3) });
        let answer = Answer::of(beacon(body)).await?;
        assert_eq!(answer.expect(202)?, accepted(3));
        member.history_with(&[(&viewing, 3)]).await?;
        Answer::of(beacon(json!({ "events": viewing.events(4) }))).await?.assert_problem(401, "no_token");
        Ok(())
    })
}

/// The gateway decodes a path before it chooses the route.
#[test]
fn ids_encoded_twice_pass_the_gateway() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "urn:profile:7");
        let (urn, crid) = (Viewing::begin(&member, "urn:title:1"), Viewing::begin(&member, "crid://a.example/b+c="));
        member.post(&[urn.events(2), crid.events(2)].concat()).await?;
        member.history_with(&[(&urn, 2), (&crid, 2)]).await?;
        let resumed = async |profile: &str, title: &str| {
            let path = format!("/v1/profiles/{profile}/titles/{title}/bookmark");
            let bookmark = Answer::of(member.request(Method::GET, &path)).await?.expect(200)?;
            anyhow::Ok(bookmark["resume"]["session_id"].clone())
        };
        for colon in [":", "%3A", "%253A"] {
            let [profile, title] = ["urn:profile:7", "urn:title:1"].map(|id| id.replace(':', colon));
            assert_eq!(resumed(&profile, &title).await?, json!(urn.id()), "{profile} {title}");
        }
        let title = "crid%253A%252F%252Fa.example%252Fb%252Bc%253D";
        assert_eq!(resumed("urn%253Aprofile%253A7", title).await?, json!(crid.id()));
        Ok(())
    })
}
