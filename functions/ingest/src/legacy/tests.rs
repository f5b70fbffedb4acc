//! What goes to the legacy system and what comes back, whole: from the request to the JSON that API
//! Gateway gets.

use super::*;
use crate::migrate::tests::{ingest, of, service};
use crate::tests::{bare, events, gzip, on_path, post, send_to};
use axum::extract::State;
use axum::http::Request as HttpRequest;
use axum::response::Response as HttpResponse;
use lambda::metrics::Emitter;
use lambda::runtime::ServeHttp as _;
use lambda_http::request::LambdaRequest;
use lambda_http::{Adapter, Context, LambdaEvent, Request, Service as _, service_fn};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use stream::testing::RecordingLog;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A request as the legacy system received it.
#[derive(Debug)]
struct Received {
    query: Option<String>,
    headers: HeaderMap,
    body: Vec<u8>,
}

type Inbox = Arc<Mutex<Vec<Received>>>;

/// A legacy system that answers with what `answer` makes. Its endpoint has the query `query`.
async fn answering(query: &str, answer: impl Fn() -> HttpResponse + Clone + Send + Sync + 'static) -> (Legacy, Inbox) {
    let inbox = Inbox::default();
    let handle = move |State(inbox): State<Inbox>, request: HttpRequest<axum::body::Body>| async move {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap().to_vec();
        let query = parts.uri.query().map(str::to_owned);
        inbox.lock().unwrap().push(Received { query, headers: parts.headers, body });
        answer()
    };
    let app = axum::Router::new().fallback(handle).with_state(Arc::clone(&inbox));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/old/events{query}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (Legacy::new(url, Duration::from_secs(5)).unwrap(), inbox)
}

fn ok() -> HttpResponse {
    HttpResponse::new(axum::body::Body::from("{}"))
}

/// The JSON with which the function answers API Gateway.
async fn to_gateway(legacy: Legacy) -> Value {
    let ingest = Arc::new(ingest(RecordingLog::new(), Some(legacy), ""));
    let handler = service_fn(move |request: Request| {
        let ingest = Arc::clone(&ingest);
        let metrics = Emitter::to("test", "ingest", |_| ()).start(0);
        async move { Ok::<_, Infallible>(ingest.serve(&metrics, request, 0).await) }
    });
    let event = json!({"version": "2.0", "routeKey": "POST /v1/events", "rawPath": "/v1/events", "rawQueryString": "",
        "headers": {"content-type": "application/json"}, "body": "{}", "isBase64Encoded": false,
        "requestContext": {"routeKey": "POST /v1/events", "http": {"method": "POST", "path": "/v1/events"}}});
    let event: LambdaRequest = serde_json::from_str(&event.to_string()).unwrap();
    let answer = Adapter::from(handler).call(LambdaEvent::new(event, Context::default())).await.unwrap();
    serde_json::to_value(answer).expect("the runtime can send the answer")
}

#[tokio::test]
async fn body_of_any_encoding_is_passed_on_as_it_came() {
    let bodies = [
        ("gzip", gzip(b"{}")),
        ("gzip", b"{}".to_vec()),
        ("br", vec![0x0b, 0x01, 0x80, 0x7b, 0x7d, 0x03]),
        ("zstd", vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff]),
        ("deflate", vec![0x78, 0x9c, 0xab, 0xae, 0x05, 0x00]),
        ("identity", "{\"title\":\"\u{fffd}\"}".as_bytes().to_vec()),
    ];
    let (legacy, inbox) = answering("", ok).await;
    let ingest = ingest(RecordingLog::new(), Some(legacy), "");
    for (encoding, body) in bodies {
        let request = post("/v1/events").header("content-encoding", encoding).body(Body::Binary(body.clone()));
        assert_eq!(send_to(&ingest, on_path(request.unwrap())).await.status, 200, "{encoding}");
        let received = inbox.lock().unwrap().pop().unwrap();
        assert_eq!((received.headers[CONTENT_ENCODING].to_str().unwrap(), received.body), (encoding, body));
    }
}

#[tokio::test]
async fn body_spoilt_in_transit_is_refused_not_passed_on() {
    let (legacy, inbox) = answering("", ok).await;
    let ingest = ingest(RecordingLog::new(), Some(legacy), "");
    for (encoding, body) in [("gzip", gzip(b"{}")), ("zstd", vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff])] {
        let as_text = String::from_utf8_lossy(&body).into_owned();
        let request = post("/v1/events").header("content-encoding", encoding).body(Body::Text(as_text));
        let sent = send_to(&ingest, on_path(request.unwrap())).await;
        assert_eq!((sent.status, sent.body["code"].as_str()), (400, Some("body_spoilt")), "{encoding}");
    }
    assert!(inbox.lock().unwrap().is_empty());
}

#[tokio::test]
async fn query_string_of_a_request_is_passed_on() {
    for (own, sent, expected) in [
        ("", "", None),
        ("", "?a=1&b=%C3%A4&a=2", Some("a=1&b=%C3%A4&a=2")),
        ("?k=v", "", Some("k=v")),
        ("?k=v", "?a=1", Some("k=v&a=1")),
    ] {
        let (legacy, inbox) = answering(own, ok).await;
        let ingest = ingest(RecordingLog::new(), Some(legacy), "");
        let request = post(&format!("/v1/events{sent}")).body(Body::from("{}")).unwrap();
        assert_eq!(send_to(&ingest, on_path(request)).await.status, 200);
        assert_eq!(inbox.lock().unwrap()[0].query.as_deref(), expected);
    }
}

#[tokio::test]
async fn split_request_keeps_its_other_members_and_no_encoding() {
    let rollout = r#"{"salt":"s","always":{"async":["new"]}}"#;
    let whole = json!({"app": {"version": "7.4"}, "sent_at": "soon", "events": [of("old", 1, 0), of("new", 2, 0)],
        "batch": 1e3});
    let part = json!({"app": {"version": "7.4"}, "sent_at": "soon", "events": [of("old", 1, 0)], "batch": 1e3});
    let (legacy, inbox) = answering("", ok).await;
    let ingest = ingest(RecordingLog::new(), Some(legacy), rollout);
    let body = Body::Binary(gzip(whole.to_string().as_bytes()));
    let request = service().header("content-encoding", "gzip").body(body).unwrap();
    assert_eq!(send_to(&ingest, on_path(request)).await.status, 202);
    let received = inbox.lock().unwrap().pop().unwrap();
    assert!(!received.headers.contains_key(CONTENT_ENCODING));
    assert_eq!(serde_json::from_slice::<Value>(&received.body).unwrap(), part);
    // Bytes that are not UTF-8 reject one event at most.
    let text = whole.to_string().replace("soon", "\u{1}");
    let bytes: Vec<u8> = text.bytes().map(|byte| if byte == 1 { 0xff } else { byte }).collect();
    let request = service().body(Body::Binary(bytes)).unwrap();
    assert_eq!(send_to(&ingest, on_path(request)).await.status, 202);
    let token = bare(json!({"profiles": ["old", "new"]}));
    let mut beacon = whole;
    beacon["token"] = json!(token);
    assert_eq!(send_to(&ingest, crate::tests::beacon(&beacon)).await.status, 202);
    let received = inbox.lock().unwrap().pop().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&received.body).unwrap(), part);
}

#[tokio::test]
async fn answer_keeps_every_header_that_can_be_sent() {
    let answer = || {
        let mut answer = ok();
        for (name, value) in [
            ("set-cookie", &b"a=1; Path=/"[..]),
            ("set-cookie", b"b=2"),
            ("set-cookie", b"c=\xe9"),
            ("vary", b"origin"),
            ("vary", b"accept"),
            ("x-name", "Zoë".as_bytes()),
            ("x-latin", b"Zo\xeb"),
        ] {
            answer.headers_mut().append(name, value.try_into().unwrap());
        }
        answer
    };
    let answer = to_gateway(answering("", answer).await.0).await;
    assert_eq!((&answer["statusCode"], &answer["body"]), (&json!(200), &json!("{}")));
    assert_eq!(answer["cookies"], json!(["a=1; Path=/", "b=2"]));
    let header = |name: &str| answer["headers"].get(name).cloned().unwrap_or_default();
    assert_eq!(header("vary"), json!("origin, accept"));
    assert_eq!(header("x-name"), json!("Zoë"));
    assert_eq!(header("x-latin"), Value::Null);
}

#[tokio::test]
async fn answer_keeps_its_bytes_whatever_its_charset() {
    use base64::Engine as _;
    for (media_type, body, is_text) in [
        ("application/json", "{\"é\":1}".as_bytes(), true),
        ("application/json; charset=utf-8", "é".as_bytes(), true),
        ("text/plain; charset=\"ISO-8859-1\"", b"plain", true),
        ("text/plain; charset=ISO-8859-1", b"\xe9", false),
        ("text/plain; charset=ISO-8859-1", "é".as_bytes(), false),
        ("text/plain; charset=utf-16le", b"h\0i\0", false),
        ("text/plain", b"\xef\xbb\xbfwith a mark", false),
        ("application/json", b"\xff", false),
        ("", b"\xff\xd8", false),
    ] {
        let answer = move || {
            let mut answer = HttpResponse::new(axum::body::Body::from(body));
            if !media_type.is_empty() {
                answer.headers_mut().insert("content-type", media_type.parse().unwrap());
            }
            answer
        };
        let answer = to_gateway(answering("", answer).await.0).await;
        let sent = answer["body"].as_str().unwrap();
        let bytes = if answer["isBase64Encoded"] == json!(true) {
            base64::prelude::BASE64_STANDARD.decode(sent).unwrap()
        } else {
            sent.as_bytes().to_vec()
        };
        assert_eq!(bytes, body, "{media_type}");
        assert_eq!(answer["isBase64Encoded"], json!(!is_text), "{media_type}");
        assert_eq!(answer["headers"].get("content-type").cloned().unwrap_or(json!("")), json!(media_type));
    }
}

/// A legacy system that sends only the head of an answer, and `body`.
async fn stalling(body: &'static str, time_out: Duration) -> Legacy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = [0; 4096];
            assert!(connection.read(&mut request).await.unwrap() > 0);
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{body}");
            connection.write_all(head.as_bytes()).await.unwrap();
            held.push(connection);
        }
    });
    Legacy::new(url, time_out).unwrap()
}

#[tokio::test]
async fn answer_that_stalls_counts_as_a_failure() {
    let legacy = stalling("{", Duration::from_millis(50)).await;
    let ingest = ingest(RecordingLog::new(), Some(legacy), "");
    let mut statuses = Vec::new();
    for _ in 0..=FAILURES {
        statuses.push(send_to(&ingest, events("{}")).await.status);
    }
    assert_eq!(statuses, [502, 502, 502, 502, 502, 503], "then it is left alone");
}

#[tokio::test]
async fn rest_begins_when_the_last_failure_ends() {
    let time_out = Duration::from_millis(100);
    let legacy = stalling("", time_out).await;
    let now = Instant::now();
    for _ in 0..FAILURES {
        assert_eq!(legacy.ask(Passed::default(), now).await.unwrap_err().code, "legacy_answer_broken");
    }
    let code = async |after| legacy.ask(Passed::default(), now + after).await.unwrap_err().code;
    assert_eq!(code(REST + time_out / 2).await, "legacy_unavailable");
    assert_eq!(code(2 * REST).await, "legacy_answer_broken");
}
