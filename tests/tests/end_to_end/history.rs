//! What a member does and sees: hide, unhide, erase, titles, continue watching, pages.

use std::time::Duration;

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};
use store::{Erase, EraseMessage};

use super::cloud::{eventually, now_ms, run};
use super::member::{Member, TITLE_DURATION_MS, Viewing, ids, never_watched, with_events};
use super::simulated::drain;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_hidden_session_is_gone_until_it_is_shown_again() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "hides");
        let (older, newer) = (Viewing::began(&member, "t1", HOUR), Viewing::begin(&member, "t2"));
        member.post(&[older.events(2), newer.events(2)].concat()).await?;
        let both = [newer.id(), older.id()];
        assert_eq!(ids(&member.history_with(&[(&older, 2), (&newer, 2)]).await?), both);

        let hidden = format!("history/{}/hidden", newer.id());
        for _ in 0..2 {
            member.call(Method::PUT, &hidden).await?.expect(204)?;
            assert_eq!(ids(&member.history().await?), [older.id()]);
            assert_eq!(member.continue_watching().await?, [older.id()]);
        }
        let all = member.pages(10, true).await?.concat();
        assert_eq!(ids(&all), both);
        assert_eq!((&all[0]["hidden"], &all[1]["hidden"]), (&json!(true), &json!(false)));

        // Watching more of it does not bring it back; the member does.
        member.post(&newer.events(4)).await?;
        eventually("the hidden session's new events", async || {
            let all = member.pages(10, true).await?.concat();
            Ok((all[0]["events"] == 4).then_some(()))
        })
        .await?;
        assert_eq!(ids(&member.history().await?), [older.id()]);
        member.call(Method::DELETE, &hidden).await?.expect(204)?;
        assert_eq!(ids(&member.history().await?), both);
        assert_eq!(member.continue_watching().await?, both);
        Ok(())
    })
}

#[test]
fn an_erased_history_stays_empty_and_a_new_one_begins() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "erases");
        let (old, offline) = (Viewing::begin(&member, "t1"), Viewing::began(&member, "t2", HOUR));
        member.post(&old.events(3)).await?;
        member.history_with(&[(&old, 3)]).await?;

        member.call(Method::DELETE, "history").await?.expect(204)?;
        assert_eq!(member.pages(10, true).await?, [Vec::<Value>::new()]);
        assert_eq!(member.continue_watching().await?, Vec::<Value>::new());
        assert_eq!(member.title("t1").await?, never_watched("t1"));
        let marks: Vec<String> = cloud.items("erases").await?.into_keys().collect();
        assert_eq!(marks, ["~erased"], "only the mark is left");

        // Late events of sessions that began before are not even stored.
        let new = Viewing::begin_at(&member, "t1", now_ms() + 1); // in a later millisecond than the erasure
        member.post(&[old.events(6), offline.events(2), new.events(2)].concat()).await?;
        drain(cloud, "erases-last").await?;
        for late in [&old, &offline] {
            assert!(cloud.stored(late).await?.is_none(), "{} is stored", late.title_id);
        }
        assert_eq!(ids(&member.history_with(&[(&new, 2)]).await?), [new.id()]);
        assert_eq!(ids(&member.pages(10, true).await?.concat()), [new.id()]);
        assert_eq!(member.continue_watching().await?, [new.id()]);
        let bookmark = member.call(Method::GET, "titles/t1/bookmark").await?.expect(200)?;
        assert_eq!(bookmark["resume"]["session_id"], new.id());
        assert_eq!(member.title("t2").await?, never_watched("t2"));
        Ok(())
    })
}

/// An item that a `process` wrote which had not seen the mark yet.
#[test]
fn erasure_on_the_queue_deletes_what_was_left() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "erased-later");
        let (old, new) = (Viewing::began(&member, "t1", HOUR), Viewing::begin_at(&member, "t1", now_ms() + 60_000));
        member.post(&[old.events(2), new.events(2)].concat()).await?;
        member.history_with(&[(&old, 2), (&new, 2)]).await?;
        let at = old.session.started_at() + 1;
        let erase = Erase { profile_id: member.profile_id.clone(), at, title_id: None, session_id: None };
        let body = serde_json::to_string(&EraseMessage { erase })?;
        cloud.sqs.send_message().queue_url(&cloud.endpoints.retry_queue_url).message_body(body).send().await?;
        let deleted = async || Ok(cloud.stored(&old).await?.is_none().then_some(()));
        eventually("the deletion of the item", deleted).await?;
        assert_eq!(ids(&member.history().await?), [new.id()]);
        Ok(())
    })
}

#[test]
fn bookmark_follows_the_session_watched_last() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "bookmarks");
        let (first, second) = (Viewing::began(&member, "t1", HOUR), Viewing::begin(&member, "t1"));
        let other_title = Viewing::begin(&member, "t2");
        let bookmark = async || member.call(Method::GET, "titles/t1/bookmark").await?.expect(200);

        member.post(&first.events(5)).await?;
        member.history_with(&[(&first, 5)]).await?;
        let mut found = bookmark().await?;
        assert!(found["resume"]["watched_at"].take().is_u64());
        let resume = json!({"session_id": first.id(), "position_ms": 4_000, "title_duration_ms": TITLE_DURATION_MS,
            "watched_at": null});
        assert_eq!(found, json!({"title_id": "t1", "resume": resume, "watched": false, "watched_at": null}));

        member.post(&[second.events(7), other_title.events(9)].concat()).await?;
        member.history_with(&[(&second, 7), (&other_title, 9)]).await?;
        let resumed = |found: &Value| (found["resume"]["session_id"].clone(), found["resume"]["position_ms"].clone());
        assert_eq!(resumed(&bookmark().await?), (json!(second.id()), json!(6_000)));

        // On the first device again, and then to the end.
        member.post(&[first.event(5, 9_000, 5_000)]).await?;
        member.history_with(&[(&first, 6)]).await?;
        assert_eq!(resumed(&bookmark().await?), (json!(first.id()), json!(9_000)));
        let end = first.event(6, 99_000, 1_000);
        member.post(std::slice::from_ref(&end)).await?;
        member.history_with(&[(&first, 7)]).await?;
        let finished = json!({"title_id": "t1", "resume": null, "watched": true, "watched_at": end["occurred_at"]});
        assert_eq!((bookmark().await?, member.title("t1").await?), (finished.clone(), finished));
        Ok(())
    })
}

#[test]
fn continue_watching_has_the_newest_session_per_title() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "continues");
        let began = |title, hours| Viewing::began(&member, title, HOUR * hours);
        let (twice_old, twice) = (began("twice", 5), began("twice", 1));
        let (finished_old, finished) = (began("finished", 6), began("finished", 2));
        let once = began("once", 3);
        let mut events = [&twice_old, &twice, &finished_old, &finished, &once].map(|one| one.events_then(2)).concat();
        let mut end = finished.event(2, 95_000, 94_000);
        end["occurred_at"] = json!(finished.session.started_at() + 95_000);
        events.push(end);
        member.post(&events).await?;
        let two = [&twice_old, &twice, &finished_old, &once].map(|one| (one, 2));
        member.history_with(&[two.as_slice(), &[(&finished, 3)]].concat()).await?;
        assert_eq!(member.continue_watching().await?, [twice.id(), once.id()]);
        Ok(())
    })
}

#[test]
fn pages_cover_the_history_newest_first() -> Result<()> {
    run(async |cloud| {
        let member = Member::new(cloud, "pages");
        let viewings: Vec<Viewing> = (1..=7).map(|hours| Viewing::began(&member, "t1", HOUR * hours)).collect();
        let events: Vec<Value> = viewings.iter().rev().flat_map(|viewing| viewing.events(2)).collect();
        member.post(&events).await?;
        member.history_with(&with_events(&viewings, 2)).await?;
        let newest_first: Vec<String> = viewings.iter().map(Viewing::id).collect();

        let pages = member.pages(2, false).await?;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2, 1]);
        assert_eq!(ids(&pages.concat()), newest_first);

        member.call(Method::PUT, &format!("history/{}/hidden", viewings[1].id())).await?.expect(204)?;
        let shown: Vec<String> = newest_first.iter().filter(|id| **id != viewings[1].id()).cloned().collect();
        for limit in [1, 3, 6] {
            assert_eq!(ids(&member.pages(limit, false).await?.concat()), shown, "pages of {limit}");
            assert_eq!(
                ids(&member.pages(limit, true).await?.concat()),
                newest_first,
                "pages of {limit}, hidden ones too"
            );
        }
        Ok(())
    })
}
