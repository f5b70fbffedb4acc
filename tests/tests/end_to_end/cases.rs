//! Cases from the field: what real players send and what real members expect, each against the
//! whole system. Their numbers are those of issue 11.
//!
//! At the end of a case its devices send everything once more, at a later time: no answer changes,
//! and nothing is written.
//!
//! Two cases are elsewhere. 6, a preflight: [`super::browsers`], for every route and origin. 21, an
//! awkward machine: in `infra/local`, `tools.rs`
//! (`hostile_settings_and_spaces_do_not_break_an_install`,
//! `librdkafka_is_configured_in_a_path_with_spaces`, `too_new_a_python_is_passed_over`,
//! `without_a_suitable_python_the_error_says_what_to_install`,
//! `mirror_proxy_and_certificate_stay_the_users`) and `emulator.rs`
//! (`children_get_their_own_home_and_no_proxy`), and in `infra/operate`
//! `aws_calls_to_the_local_cloud_ignore_the_proxy`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_lambda::primitives::Blob;
use playhead_tests::sample::gzip;
use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::{Value, json};

use super::cloud::{Cloud, Item, now_ms, run};
use super::member::{Answer, Member, Viewing, accepted, ids, in_seconds, never_watched, sign};
use super::simulated::drain;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// The title's length in the contract's example.
const TITLE_MS: u64 = 45 * MINUTE_MS;
/// A session of the year 10889.
const FAR_AHEAD: &str = "use1-7ZZZZZZZZZ0000000000000000";

/// A request for events.
#[derive(Clone)]
struct Post {
    media_type: &'static str,
    is_gzip: bool,
    /// Without the header `authorization`.
    is_beacon: bool,
    body: Vec<u8>,
}

impl Post {
    fn json(body: impl Into<Vec<u8>>) -> Self {
        Self { media_type: "application/json", is_gzip: false, is_beacon: false, body: body.into() }
    }
}

/// The devices and the member of a case.
struct Case {
    cloud: &'static Cloud,
    member: Member,
    /// What was sent so far, with the answers.
    sent: Vec<(Post, Value)>,
    titles: BTreeSet<String>,
}

impl Case {
    fn new(cloud: &'static Cloud, number: u8) -> Self {
        let member = Member::new(cloud, &format!("case-{number}"));
        Self { cloud, member, sent: Vec::new(), titles: BTreeSet::new() }
    }

    /// A session of a title that began so long ago.
    fn session(&mut self, title_id: &str, ago_ms: u64) -> Viewing {
        self.titles.insert(title_id.to_owned());
        Viewing::began(&self.member, title_id, Duration::from_millis(ago_ms))
    }

    /// The answer to a request, which must be a `202`.
    async fn post(&mut self, post: Post) -> Result<Value> {
        let answer = self.answer(&post).await?.expect(202)?;
        self.sent.push((post, answer.clone()));
        Ok(answer)
    }

    async fn answer(&self, post: &Post) -> Result<Answer> {
        let url = format!("{}/v1/events", self.cloud.endpoints.api);
        let mut request = self.cloud.http.post(url).header(CONTENT_TYPE, post.media_type).body(post.body.clone());
        if !post.is_beacon {
            request = request.bearer_auth(&self.member.token);
        }
        if post.is_gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        Answer::of(request).await
    }

    /// Sends events; what the answer says was adjusted.
    async fn send(&mut self, events: &[Value]) -> Result<Value> {
        let body = json!({ "events": events });
        let mut answer = self.post(Post::json(body.to_string())).await?;
        let adjusted = answer["adjusted"].take();
        let expected = json!({"accepted": events.len(), "rejected": [], "adjusted": null});
        ensure!(answer == expected, "answered {answer}");
        Ok(adjusted)
    }

    /// Sends events, which must be taken unchanged, and waits until they are all in the history.
    async fn watch(&mut self, viewing: &Viewing, events: &[Value]) -> Result<()> {
        let adjusted = self.send(events).await?;
        ensure!(adjusted == json!([]), "adjusted {adjusted}");
        self.member.history_with(&[(viewing, events.len() as u64)]).await.map(drop)
    }

    /// The member's only session.
    async fn only_session(&self, events: u64) -> Result<Value> {
        let is_settled = |sessions: &[Value]| sessions.len() == 1 && sessions[0]["events"] == events;
        Ok(self.member.history_once("one session", is_settled).await?.remove(0))
    }

    /// Where the bookmark and continue watching say to go on: both say the same.
    async fn resume(&self, title_id: &str) -> Result<(String, u64)> {
        let bookmark = self.member.call(Method::GET, &format!("titles/{title_id}/bookmark")).await?.expect(200)?;
        ensure!(bookmark == self.member.title(title_id).await?, "{bookmark}");
        let listed = self.member.call(Method::GET, "continue-watching").await?.expect(200)?;
        let mut listed = listed["sessions"].as_array().into_iter().flatten();
        let listed = listed.find(|session| session["title_id"] == title_id).context("it is not listed")?;
        let resume = &bookmark["resume"];
        for field in ["session_id", "position_ms", "title_duration_ms", "watched_at"] {
            ensure!(listed[field] == resume[field], "{field}: {listed} {resume}");
        }
        let session_id = resume["session_id"].as_str().context("no session")?;
        Ok((session_id.to_owned(), resume["position_ms"].as_u64().context("no position")?))
    }

    /// All that the member's API says, and all that is stored.
    async fn state(&self) -> Result<(Value, BTreeMap<String, Item>)> {
        let titles: Vec<&str> = self.titles.iter().map(String::as_str).collect();
        let mut answers = vec![
            json!(self.member.pages(7, true).await?.concat()),
            self.member.call(Method::GET, "continue-watching?limit=100").await?.expect(200)?,
            json!(self.member.titles(&titles).await?),
        ];
        for title in titles {
            answers.push(self.member.title(title).await?);
        }
        Ok((Value::from(answers), self.cloud.items(&self.member.profile_id).await?))
    }

    /// Sends every request again, twice, the last one first.
    async fn repeat(self) -> Result<()> {
        let profile = &self.member.profile_id;
        drain(self.cloud, &format!("{profile}-before")).await?;
        let before = self.state().await?;
        for (post, answer) in self.sent.iter().rev().chain(&self.sent) {
            let again = self.answer(post).await?.expect(202)?;
            ensure!(again == *answer, "answered {again} where it was {answer}");
        }
        drain(self.cloud, &format!("{profile}-after")).await?;
        let after = self.state().await?;
        ensure!(before.0 == after.0, "the answers were {}, and are {}", before.0, after.0);
        ensure!(before.1 == after.1, "the items were {:?}, and are {:?}", before.1, after.1);
        Ok(())
    }
}

/// An event of a title of [`TITLE_MS`], as it happened so long after its session began.
fn event(viewing: &Viewing, seq: u64, kind: &str, (position_ms, played_ms): (u64, u64)) -> Value {
    let mut event = viewing.event(seq, position_ms, played_ms);
    event["kind"] = json!(kind);
    event["title_duration_ms"] = json!(TITLE_MS);
    event["occurred_at"] = json!(viewing.session.started_at() + seq * 1000);
    event
}

/// Two events: all played from the beginning up to here.
fn played_to(viewing: &Viewing, position_ms: u64) -> Vec<Value> {
    vec![event(viewing, 0, "started", (0, 0)), event(viewing, 1, "stopped", (position_ms, position_ms))]
}

fn with(mut event: Value, field: &str, value: Value) -> Value {
    event[field] = value;
    event
}

/// Case 1.
#[test]
fn older_session_sent_again_does_not_move_the_bookmark() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 1);
        let (a, b) = (case.session("t1", 2 * HOUR_MS), case.session("t1", HOUR_MS));
        case.watch(&a, &played_to(&a, 10 * MINUTE_MS)).await?;
        case.watch(&b, &played_to(&b, 40 * MINUTE_MS)).await?;
        assert_eq!(case.resume("t1").await?, (b.id(), 40 * MINUTE_MS));
        case.repeat().await
    })
}

/// Case 2.
#[test]
fn position_past_the_end_finishes_the_title() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 2);
        let viewing = case.session("t1", HOUR_MS);
        let stopped = event(&viewing, 0, "stopped", (229_886, 0));
        let adjusted = case.send(&[with(stopped.clone(), "title_duration_ms", json!(229_877))]).await?;
        assert_eq!(adjusted, json!([{"index": 0, "code": "position_past_end", "field": "position_ms"}]));
        let session = case.only_session(1).await?;
        assert_eq!((&session["completed"], &session["position_ms"]), (&json!(true), &json!(229_877)));
        let watched = json!({"title_id": "t1", "resume": null, "watched": true, "watched_at": stopped["occurred_at"]});
        assert_eq!(case.member.title("t1").await?, watched);
        assert_eq!(case.member.continue_watching().await?, Vec::<Value>::new());
        case.repeat().await
    })
}

/// Case 3.
#[test]
fn opening_a_title_and_leaving_keeps_the_resume_point() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 3);
        let (a, b) = (case.session("t1", 2 * HOUR_MS), case.session("t1", HOUR_MS));
        case.watch(&a, &played_to(&a, 2_000_000)).await?;
        case.watch(&b, &played_to(&b, 0)).await?;
        assert_eq!(case.resume("t1").await?, (a.id(), 2_000_000));
        case.repeat().await
    })
}

/// Case 4.
#[test]
fn newest_stated_duration_counts() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 4);
        let viewing = case.session("t1", HOUR_MS);
        let [first, second] = [(0, 0), (1_400_000, 1_400_000)];
        let events = [
            with(event(&viewing, 0, "started", first), "title_duration_ms", json!(1_440_000)),
            with(event(&viewing, 1, "progressed", second), "title_duration_ms", json!(2_580_000)),
        ];
        case.watch(&viewing, &events).await?;
        let session = case.only_session(2).await?;
        assert_eq!((&session["completed"], &session["title_duration_ms"]), (&json!(false), &json!(2_580_000)));
        assert_eq!(case.resume("t1").await?, (viewing.id(), 1_400_000));
        case.repeat().await
    })
}

/// Case 5.
#[test]
fn each_title_of_a_session_has_its_own_position() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 5);
        let e1 = case.session("e1", HOUR_MS);
        let e2 = Viewing { session: e1.session.clone(), ..case.session("e2", HOUR_MS) };
        let of = |viewing: &Viewing, seq: u64, position_ms: u64| event(viewing, seq, "progressed", (position_ms, 0));
        let events: Vec<Value> = (0..=5)
            .map(|seq| of(&e1, seq, 100_000 * (seq + 1)))
            .chain((6..=9).map(|seq| of(&e2, seq, 10_000 * (seq - 5))))
            .collect();
        case.send(&events).await?;
        let history = case.member.history_with(&[(&e1, 6), (&e2, 4)]).await?;
        let seen: Vec<_> =
            history.iter().map(|of| (of["title_id"].as_str(), of["events"].as_u64(), of["missing"].as_u64())).collect();
        assert_eq!(seen, [(Some("e2"), Some(4), Some(0)), (Some("e1"), Some(6), Some(0))]);
        assert_eq!(case.resume("e1").await?, (e1.id(), 600_000));
        assert_eq!(case.resume("e2").await?, (e1.id(), 40_000));
        case.repeat().await
    })
}

/// Case 7.
#[test]
fn beacon_of_a_closing_page_carries_its_token_in_the_body() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 7);
        let viewing = case.session("t1", HOUR_MS);
        let body = |token: &str| json!({"token": token, "sent_at": now_ms(), "events": played_to(&viewing, 600_000)});
        let beacon = |body: Value| Post {
            media_type: "text/plain;charset=UTF-8",
            is_beacon: true,
            ..Post::json(body.to_string())
        };
        let stranger = Member::new(cloud, "case-7-stranger");
        case.answer(&beacon(body(&stranger.token))).await?.assert_problem(403, "forbidden");
        let signed_by_nobody =
            sign(&json!({"profiles": ["case-7"], "exp": in_seconds(60)}), "a secret of nobody, which is long enough");
        case.answer(&beacon(body(&signed_by_nobody))).await?.assert_problem(401, "invalid_token");

        let answer = case.post(beacon(body(&case.member.token))).await?;
        assert_eq!(answer, accepted(2));
        case.only_session(2).await?;
        assert_eq!(case.resume("t1").await?, (viewing.id(), 600_000));
        case.repeat().await
    })
}

/// Case 8.
#[test]
fn one_event_that_is_not_utf8_rejects_only_itself() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 8);
        let viewing = case.session("t1", HOUR_MS);
        let mut events: Vec<Value> =
            (0..=20).map(|seq| event(&viewing, seq, "progressed", ((seq + 1) * 10_000, 10_000))).collect();
        events[7]["app"] = json!("?");
        let mut body = json!({ "events": events }).to_string().into_bytes();
        let place = body.iter().position(|byte| *byte == b'?').context("no place")?;
        body[place] = 0xFF;
        for media_type in ["application/json", "application/vnd.playhead.events+json"] {
            let post = Post { is_gzip: true, media_type, ..Post::json(gzip(&body)?) };
            let answer = case.post(post).await?;
            assert_eq!((&answer["accepted"], &answer["adjusted"]), (&json!(20), &json!([])), "{answer}");
            let rejected = answer["rejected"].as_array().context("no list")?;
            assert_eq!(rejected.len(), 1, "{answer}");
            assert_eq!((&rejected[0]["index"], &rejected[0]["code"]), (&json!(7), &json!("not_utf8")), "{answer}");
        }
        let session = case.only_session(20).await?;
        assert_eq!((&session["position_ms"], &session["missing"]), (&json!(210_000), &json!(1)));
        case.repeat().await
    })
}

/// Case 9.
#[test]
fn whole_number_written_as_a_fraction_is_accepted() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 9);
        let viewing = case.session("t1", HOUR_MS);
        let body = json!({ "events": [event(&viewing, 0, "progressed", (10_000, 10_000))] }).to_string();
        let body = body.replace(r#""position_ms":10000"#, r#""position_ms":10000.0"#);
        ensure!(body.contains("10000.0"), "{body}");
        assert_eq!(case.post(Post::json(body)).await?, accepted(1));
        assert_eq!(case.only_session(1).await?["position_ms"], 10_000);
        case.repeat().await
    })
}

/// Case 10.
#[test]
fn live_stream_has_no_duration_and_never_ends() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 10);
        let viewing = case.session("t1", HOUR_MS);
        let mut events = played_to(&viewing, 10 * HOUR_MS);
        events[0].as_object_mut().context("no object")?.remove("title_duration_ms");
        events[1]["title_duration_ms"] = Value::Null;
        case.watch(&viewing, &events).await?;
        let session = case.only_session(2).await?;
        assert_eq!((&session["title_duration_ms"], &session["completed"]), (&Value::Null, &json!(false)));
        assert_eq!(case.resume("t1").await?, (viewing.id(), 10 * HOUR_MS));
        case.repeat().await
    })
}

/// Case 11.
#[test]
fn device_kind_of_two_words_is_normalised() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 11);
        let viewing = case.session("t1", HOUR_MS);
        let device = json!({"id": "d1", "kind": "Android TV"});
        let adjusted = case.send(&[with(event(&viewing, 0, "started", (0, 0)), "device", device)]).await?;
        assert_eq!(adjusted, json!([{"index": 0, "code": "normalised", "field": "device.kind"}]));
        assert_eq!(case.only_session(1).await?["device"], json!({"id": "d1", "kind": "Android-TV"}));
        case.repeat().await
    })
}

/// Case 12.
#[test]
fn played_time_past_the_position_is_clamped() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 12);
        let viewing = case.session("t1", HOUR_MS);
        let adjusted = case.send(&[event(&viewing, 0, "progressed", (5_000, 10_000))]).await?;
        assert_eq!(adjusted, json!([{"index": 0, "code": "clamped", "field": "played_ms"}]));
        assert_eq!(case.only_session(1).await?["played_ms"], 5_000);
        case.repeat().await
    })
}

/// Case 13.
#[test]
fn finished_title_stays_watched_while_it_is_watched_again() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 13);
        let (first, again) = (case.session("t1", DAY_MS + HOUR_MS), case.session("t1", HOUR_MS));
        let end = played_to(&first, TITLE_MS);
        case.watch(&first, &end).await?;
        case.watch(&again, &played_to(&again, 30_000)).await?;
        assert_eq!(case.resume("t1").await?, (again.id(), 30_000));
        let title = case.member.title("t1").await?;
        assert_eq!((&title["watched"], &title["watched_at"]), (&json!(true), &end[1]["occurred_at"]));
        case.repeat().await
    })
}

/// Case 14.
#[test]
fn late_upload_does_not_displace_newer_viewing() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 14);
        let (a, b) = (case.session("t1", DAY_MS), case.session("t1", HOUR_MS));
        case.watch(&b, &played_to(&b, 40 * MINUTE_MS)).await?;
        case.watch(&a, &played_to(&a, 10 * MINUTE_MS)).await?;
        assert_eq!(case.resume("t1").await?, (b.id(), 40 * MINUTE_MS));
        assert_eq!(ids(&case.member.history().await?), [b.id(), a.id()]);
        case.repeat().await
    })
}

/// Case 15.
#[test]
fn one_call_has_the_resume_points_of_a_screen_of_posters() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 15);
        let viewings: Vec<Viewing> = (1..=20).map(|n| case.session(&format!("t{n}"), n * HOUR_MS)).collect();
        let position = |n: u64| (n + 1) * MINUTE_MS;
        let events = (0..).zip(&viewings).flat_map(|(n, viewing)| played_to(viewing, position(n)));
        assert_eq!(case.send(&events.collect::<Vec<_>>()).await?, json!([]));
        let wanted: Vec<(&Viewing, u64)> = viewings.iter().map(|viewing| (viewing, 2)).collect();
        case.member.history_with(&wanted).await?;
        let titles: Vec<&str> = viewings.iter().map(|viewing| viewing.title_id.as_str()).collect();
        let answers = case.member.titles(&titles).await?;
        assert_eq!(answers.len(), 20);
        for ((n, viewing), answer) in (0..).zip(&viewings).zip(answers) {
            assert_eq!(answer["title_id"], viewing.title_id.as_str());
            let resume = &answer["resume"];
            assert_eq!((&resume["session_id"], &resume["position_ms"]), (&json!(viewing.id()), &json!(position(n))));
        }
        case.repeat().await
    })
}

/// Case 16.
#[test]
fn member_can_forget_a_title_and_mark_one_watched() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 16);
        let (forgotten, marked) = (case.session("t1", 2 * HOUR_MS), case.session("t2", HOUR_MS));
        let other = Viewing { session: forgotten.session.clone(), ..case.session("t3", 2 * HOUR_MS) };
        let mut events = played_to(&forgotten, 600_000);
        events.push(event(&other, 2, "stopped", (300_000, 0)));
        case.send(&events).await?;
        case.watch(&marked, &played_to(&marked, 600_000)).await?;
        case.member.history_with(&[(&forgotten, 2), (&other, 1)]).await?;

        case.member.call(Method::DELETE, "titles/t1").await?.expect(204)?;
        assert_eq!(case.member.title("t1").await?, never_watched("t1"));
        assert!(cloud.stored(&forgotten).await?.is_none(), "the item is still there");
        assert_eq!(case.member.continue_watching().await?, [marked.id(), other.id()]);

        let before = now_ms();
        case.member.call(Method::PUT, "titles/t2/watched").await?.expect(204)?;
        let mut title = case.member.title("t2").await?;
        assert!(title["watched_at"].take().as_u64().is_some_and(|at| at >= before));
        assert_eq!(title, json!({"title_id": "t2", "resume": null, "watched": true, "watched_at": null}));
        assert_eq!(case.member.continue_watching().await?, [other.id()]);
        case.member.call(Method::DELETE, "titles/t2/watched").await?.expect(204)?;
        let title = case.member.title("t2").await?;
        assert_eq!((&title["watched"], &title["resume"]["position_ms"]), (&json!(false), &json!(600_000)));

        case.member.call(Method::DELETE, &format!("history/{}", other.id())).await?.expect(204)?;
        assert_eq!(ids(&case.member.pages(10, true).await?.concat()), [marked.id()]);
        // Late events bring nothing back.
        case.repeat().await
    })
}

/// Case 17.
#[test]
fn register_of_the_far_future_is_refused_or_erased() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 17);
        let viewing = case.session("t1", HOUR_MS);
        case.watch(&viewing, &played_to(&viewing, 600_000)).await?;
        let before = cloud.items("case-17").await?;
        for (method, path) in [
            (Method::PUT, format!("history/{FAR_AHEAD}/hidden")),
            (Method::DELETE, format!("history/{FAR_AHEAD}/hidden")),
            (Method::DELETE, format!("history/{FAR_AHEAD}")),
        ] {
            case.member.call(method, &path).await?.assert_problem(400, "session_too_far_ahead");
        }
        assert_eq!(cloud.items("case-17").await?, before);

        // As the first release wrote it.
        let (_, ulid) = FAR_AHEAD.split_once('-').context("no session id")?;
        let put = cloud.dynamodb.put_item().table_name(&cloud.endpoints.views_table);
        put.item("pk", AttributeValue::S("case-17".to_owned()))
            .item("sk", AttributeValue::S(format!("{ulid}#~hidden")))
            .item("hidden", AttributeValue::Bool(true))
            .item("changed_at", AttributeValue::N((now_ms() - HOUR_MS).to_string()))
            .send()
            .await?;
        case.member.call(Method::DELETE, "history").await?.expect(204)?;
        assert_eq!(cloud.items("case-17").await?.into_keys().collect::<Vec<_>>(), ["~erased"]);
        case.repeat().await
    })
}

/// Case 18.
#[test]
fn session_minted_ahead_of_time_stays_erased() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 18);
        case.titles.insert("t1".to_owned());
        let ahead = Viewing::begin_at(&case.member, "t1", now_ms() + 5 * MINUTE_MS);
        case.watch(&ahead, &[event(&ahead, 0, "started", (0, 0))]).await?;
        case.member.call(Method::DELETE, "history").await?.expect(204)?;
        case.send(&[event(&ahead, 1, "progressed", (600_000, 600_000))]).await?;
        drain(cloud, "case-18-last").await?;
        assert_eq!(case.member.pages(10, true).await?, [Vec::<Value>::new()]);
        assert_eq!(case.member.title("t1").await?, never_watched("t1"));
        assert_eq!(case.member.continue_watching().await?, Vec::<Value>::new());
        assert!(cloud.stored(&ahead).await?.is_none(), "the late event is stored");
        case.repeat().await
    })
}

/// Case 19.
#[test]
fn token_with_a_scope_of_another_form_is_valid_for_its_profiles() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 19);
        let claims = json!({"profiles": ["case-19"], "scope": ["openid"], "exp": in_seconds(3600)});
        case.member.token = sign(&claims, &cloud.endpoints.jwt_secret);
        let viewing = case.session("t1", HOUR_MS);
        case.watch(&viewing, &played_to(&viewing, 600_000)).await?;
        assert_eq!(case.resume("t1").await?, (viewing.id(), 600_000));
        Answer::of(case.member.request(Method::GET, "/v1/profiles/case-20/history"))
            .await?
            .assert_problem(403, "forbidden");
        case.repeat().await
    })
}

/// Case 20. The emulator has no custom domains, so the function gets the event that API Gateway
/// would send.
#[test]
fn path_behind_a_mapping_key_finds_its_route() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 20);
        let viewing = case.session("t1", HOUR_MS);
        let event = |method: &str, route: &str, path: &str, body: Option<Value>| {
            let route_key = format!("{method} {route}");
            json!({
                "version": "2.0",
                "routeKey": route_key,
                "rawPath": format!("/playhead{path}"),
                "rawQueryString": "",
                "headers": {"authorization": format!("Bearer {}", case.member.token), "host": "api.example.com",
                    "content-type": "application/json"},
                "requestContext": {"routeKey": route_key, "stage": "$default",
                    "http": {"method": method, "path": format!("/playhead{path}")}},
                "pathParameters": {"profile_id": "case-20", "title_id": "t1"},
                "body": body.map(|body| body.to_string()),
                "isBase64Encoded": false,
            })
        };
        let invoke = async |function: &str, event: Value| -> Result<(Value, Value)> {
            let lambda = aws_sdk_lambda::Client::new(&cloud.endpoints.sdk_config());
            let invoke = lambda.invoke().function_name(function).payload(Blob::new(event.to_string()));
            let payload = invoke.send().await?.payload.context("no answer")?;
            let answer: Value = serde_json::from_slice(payload.as_ref())?;
            let body = answer["body"].as_str().with_context(|| format!("no body: {answer}"))?;
            Ok((answer["statusCode"].clone(), serde_json::from_str(body)?))
        };
        let body = json!({ "events": played_to(&viewing, 600_000) });
        let posted = event("POST", "/v1/events", "/v1/events", Some(body));
        let answer = invoke(&cloud.endpoints.ingest_function, posted.clone()).await?;
        assert_eq!(answer, (json!(202), accepted(2)));
        case.only_session(2).await?;
        let route = "/v1/profiles/{profile_id}/titles/{title_id}";
        let asked = event("GET", route, "/v1/profiles/case-20/titles/t1", None);
        let (status, title) = invoke(&cloud.endpoints.query_function, asked).await?;
        assert_eq!((status, &title), (json!(200), &case.member.title("t1").await?));
        assert_eq!(title["resume"]["position_ms"], 600_000);
        case.sent.push((Post::json(posted["body"].as_str().context("no body")?), accepted(2)));
        case.repeat().await
    })
}

/// Case 22.
#[test]
fn session_of_a_clock_that_is_fast_may_be_sent_again() -> Result<()> {
    run(async |cloud| {
        let mut case = Case::new(cloud, 22);
        case.titles.insert("t1".to_owned());
        let fast = Viewing::begin_at(&case.member, "t1", now_ms() + 15 * MINUTE_MS);
        let post = Post::json(json!({ "events": played_to(&fast, 600_000) }).to_string());
        let answer = case.post(post).await?;
        assert_eq!(answer["accepted"], 0);
        let rejected = answer["rejected"].as_array().context("no list")?;
        assert_eq!(rejected.len(), 2, "{answer}");
        for one in rejected {
            assert_eq!((&one["code"], &one["retryable"]), (&json!("session_too_far_ahead"), &json!(true)), "{one}");
        }
        // Eight minutes fast is within what a clock may be ahead: placed when it was received.
        let little = Viewing::begin_at(&case.member, "t1", now_ms() + 8 * MINUTE_MS);
        case.watch(&little, &played_to(&little, 600_000)).await?;
        let session = case.only_session(2).await?;
        assert_eq!(session["watched_at"], session["last_received_at"]);
        assert_eq!(case.resume("t1").await?, (little.id(), 600_000));
        case.repeat().await
    })
}
