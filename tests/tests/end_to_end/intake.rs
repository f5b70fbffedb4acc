//! From a POST to the member's history.

use anyhow::Result;
use playback::contract::{MAX_BODY_BYTES, MAX_EVENTS};
use playback::session::SessionId;
use playhead_tests::sample::gzip;
use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::{Value, json};

use super::cloud::{now_ms, run};
use super::member::{Answer, Member, Viewing, ids, padded};

#[test]
fn a_post_is_in_the_history_with_every_field() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "every-field");
        let minted = Answer::of(member.request(Method::POST, "/v1/sessions")).await?.expect(201)?;
        let session: SessionId = minted["session_id"].as_str().unwrap().parse()?;
        assert_eq!((session.home.as_str(), json!(session.started_at())), ("use1", minted["started_at"].clone()));

        let viewing = Viewing { session, ..Viewing::begin(&member, "t1") };
        let mut events = [viewing.event(0, 0, 0), viewing.event(1, 10_000, 10_000), viewing.event(3, 96_000, 6_000)];
        events[2]["device"] = json!({"id": "d2", "kind": "phone", "model": "a field of the future"});
        events[2]["title_duration_ms"] = json!(200_000);
        events[2]["country"] = json!("DE");
        let before = now_ms();
        member.post(&events).await?;
        let after = now_ms();

        let mut history = member.history_with(&[(&viewing, 3)]).await?;
        let received_at = history[0]["last_received_at"].take();
        assert!((before..=after).contains(&received_at.as_u64().unwrap()), "{before} {received_at} {after}");
        let all = json!([{
            "session_id": viewing.id(), "title_id": "t1", "started_at": events[0]["occurred_at"],
            "watched_at": events[2]["occurred_at"], "last_received_at": null,
            "position_ms": 96_000, "played_ms": 16_000, "title_duration_ms": 200_000, "completed": false,
            "device": {"id": "d2", "kind": "phone"}, "country": "US", "events": 3, "missing": 1, "hidden": false,
        }]);
        assert_eq!(Value::from(history), all);
        Ok(())
    })
}

#[test]
fn several_posts_out_of_order_make_one_session() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "several-posts");
        let viewing = Viewing::begin(&member, "t1");
        let events = viewing.events(9);
        for part in [&events[6..], &events[0..3], &events[2..7], &events[6..]] {
            member.post(part).await?;
        }
        let history = member.history_with(&[(&viewing, 9)]).await?;
        assert_eq!(ids(&history), [viewing.id()]);
        let seen = ["position_ms", "played_ms", "missing"].map(|name| history[0][name].as_u64());
        assert_eq!(seen, [Some(8_000), Some(8_000), Some(0)]);
        Ok(())
    })
}

#[test]
fn a_malformed_event_rejects_only_itself() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "one-malformed");
        let viewing = Viewing::begin(&member, "t1");
        let mut unknown_kind = viewing.event(7, 1_000, 0);
        unknown_kind["kind"] = json!("rewound");
        let mut before_the_beginning = viewing.event(1, 0, 0);
        before_the_beginning["position_ms"] = json!(-1);
        let events = [
            viewing.event(0, 0, 0),
            before_the_beginning,
            viewing.event(2, 2_000, 2_000),
            json!("not an object"),
            unknown_kind,
            viewing.event(3, 3_000, 1_000),
        ];
        let body = member.send(&events).await?.expect(202)?;
        assert_eq!(body["accepted"], 3);
        let rejected: Vec<_> = body["rejected"].as_array().unwrap().iter().collect();
        let codes = rejected.iter().map(|one| (one["index"].as_u64(), one["code"].as_str())).collect::<Vec<_>>();
        let expected = [(1, "position_out_of_range"), (3, "not_an_object"), (4, "kind_unknown")];
        assert_eq!(codes, expected.map(|(index, code)| (Some(index), Some(code))));
        assert!(rejected[0]["message"].as_str().unwrap().contains("position_ms"), "{body}");

        let history = member.history_with(&[(&viewing, 3)]).await?;
        assert_eq!((&history[0]["position_ms"], &history[0]["missing"]), (&json!(3_000), &json!(1)));
        Ok(())
    })
}

#[test]
fn gzip_and_the_largest_request_are_accepted() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "largest");
        let mut wanted = Vec::new();
        for media_type in ["application/json", "application/vnd.playhead.events+json"] {
            let viewing = Viewing::begin(&member, "t1");
            let events: Vec<Value> = (0..MAX_EVENTS as u64).map(|seq| viewing.event(seq, seq, 1.min(seq))).collect();
            let compressed = member
                .request(Method::POST, "/v1/events")
                .header(CONTENT_TYPE, media_type)
                .header(CONTENT_ENCODING, "gzip")
                .body(gzip(json!({ "events": events }).to_string().as_bytes())?);
            assert_eq!(Answer::of(compressed).await?.expect(202)?["accepted"], MAX_EVENTS, "{media_type}");
            wanted.push((viewing, MAX_EVENTS as u64));
        }

        // The largest body, to the byte.
        let other = Viewing::begin(&member, "t2");
        let body = json!({ "events": other.events(2) }).to_string();
        let full = member
            .request(Method::POST, "/v1/events")
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .body(padded(body, MAX_BODY_BYTES));
        assert_eq!(Answer::of(full).await?.expect(202)?["accepted"], 2);

        wanted.push((other, 2));
        let wanted: Vec<(&Viewing, u64)> = wanted.iter().map(|(viewing, events)| (viewing, *events)).collect();
        assert_eq!(member.history_with(&wanted).await?.len(), 3);
        Ok(())
    })
}
