//! What a demo prints.

use super::consumers::Consumed;
use super::regions::{RegionBooks, Regions};
use super::{DemoResult, TOKEN_LIFETIME};
use anyhow::Result;
use operate::Endpoints;
use operate::token;

pub(super) fn print(result: &DemoResult, endpoints: &Endpoints) {
    let DemoResult { books, views, cost, member, .. } = result;
    println!(
        "\nThe books, in events ({} sessions of {} profiles, {} POSTs)\n",
        result.sessions, result.profiles, result.posts
    );
    println!("  sent         {:>9}", books.sent);
    println!("  rejected     {:>9}   malformed on purpose", books.rejected.values().sum::<u64>());
    for (code, n) in &books.rejected {
        println!("               {n:>9}   {code}");
    }
    println!("  accepted     {:>9}   acknowledged by the log before the device was answered", books.accepted);
    println!("    applied    {:>9}   = {} distinct events", books.applied, books.distinct);
    println!("    duplicates {:>9}", books.duplicates);
    println!("    dead       {:>9}", books.dead);
    println!("    in flight  {:>9}", books.in_flight);
    for fault in &books.faults {
        println!("  DOES NOT HOLD: {fault}");
    }
    println!("  {}\n", if books.balanced { "They balance." } else { "They do not balance." });
    println!(
        "Cost: {} conditional writes for {} events: {:.3} per event ({} records, {} views read, {} lost races)\n",
        cost.conditional_writes, books.accepted, cost.writes_per_event, cost.records, cost.views_read, cost.lost_races
    );
    if views.equal {
        let everywhere = if result.regions.is_some() { ", in every region" } else { "" };
        println!(
            "Views: all {} equal the fold of the sent events, computed without the store{everywhere}.\n",
            views.expected
        );
    } else {
        println!("Views: {} differences in {} views:", views.differences, views.expected);
        for difference in &views.first_differences {
            println!("  {difference}");
        }
        println!();
    }
    if let Some(regions) = &result.regions {
        print_regions(regions);
    }
    if let Some(feed) = &result.feed {
        let Consumed { changes, views, complete, minutes_watched, because_you_watched } = feed;
        println!("The change feed: {changes} changes, from which two consumers (examples/) know {views} views\n");
        for line in minutes_watched.lines().chain([""]).chain(because_you_watched.lines()) {
            println!("  {line}");
        }
        println!("{}", if *complete { "" } else { "  DOES NOT HOLD: the feed does not tell of all views" });
    }
    println!("The history of {} from the API, newest first\n", member.profile_id);
    println!("  {:<31} {:<8} {:>9} {:>9} {:>9}  device", "session", "title", "position", "played", "of");
    for session in &member.history {
        println!(
            "  {:<31} {:<8} {:>9} {:>9} {:>9}  {}{}",
            session.session_id,
            session.title_id,
            clock(session.position_ms),
            clock(session.played_ms),
            session.title_duration_ms.map_or_else(|| "live".to_owned(), clock),
            session.device.kind.as_deref().unwrap_or("unknown"),
            if session.completed { ", completed" } else { "" }
        );
    }
    println!();
    for left_out in &endpoints.left_out {
        println!("Left out: {left_out}");
    }
    for region in endpoints.regions() {
        println!("Logs of this run: {}", region.run_dir.join("logs").display());
    }
}

fn print_regions(regions: &Regions) {
    println!("Regions, in events\n");
    println!("  {:<16} {:>9} {:>9} {:>9} {:>9}", "", "accepted", "forwarded", "arrived", "applied");
    for region in &regions.regions {
        let RegionBooks { region, accepted, forwarded, arrived, applied } = region;
        println!("  {region:<16} {accepted:>9} {forwarded:>9} {arrived:>9} {applied:>9}");
    }
    let Regions { travelled, writers, forwarding, converged, .. } = regions;
    println!("\n  {travelled} sessions travelled: their events went through more than one region.");
    println!("  {} sessions were written only in their home region, {} elsewhere.", writers.at_home, writers.elsewhere);
    println!(
        "  Forwarding took {} SQS requests with {} bytes for {} events: {:.3} requests and {:.0} bytes per event.",
        forwarding.requests,
        forwarding.bytes,
        forwarding.events,
        forwarding.requests_per_event,
        forwarding.bytes_per_event
    );
    match converged {
        Some(seconds) => {
            println!("  All views were the same everywhere within {seconds:.1} s of the last event.")
        }
        None => println!("  The views of the regions did not become the same."),
    }
    for fault in &regions.faults {
        println!("  DOES NOT HOLD: {fault}");
    }
    println!();
}

/// Milliseconds as h:mm:ss.
fn clock(ms: i64) -> String {
    let s = ms / 1000;
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

/// Prints what to try while the demo stays up. To standard error: standard output has only the
/// result.
pub(super) fn invite(endpoints: &Endpoints, profile: Option<&str>) -> Result<()> {
    let api = &endpoints.api;
    let profile = profile.unwrap_or("p00000000");
    eprintln!("\nThe local cloud stays up until Ctrl-C.\n");
    if let Some(page) = &endpoints.live_page {
        eprintln!("  Watch it, play a film on it, and break it: {page}\n");
    }
    for Endpoints { region, api, aws_endpoint, log_bootstrap, events_stream, peers: _, .. } in endpoints.regions() {
        let log = log_bootstrap.as_ref().or(events_stream.as_ref()).map_or("", String::as_str);
        eprintln!("  {region}\n  API    {api}\n  AWS    {aws_endpoint}\n  Log    {log}\n");
    }
    eprintln!("Try:\n");
    eprintln!("  export TOKEN={}", token::of_service(&endpoints.jwt_secret, TOKEN_LIFETIME)?);
    eprintln!("  curl -s -H \"Authorization: Bearer $TOKEN\" '{api}/v1/profiles/{profile}/continue-watching'");
    eprintln!("  curl -s -H \"Authorization: Bearer $TOKEN\" -X DELETE '{api}/v1/profiles/{profile}/history'");
    Ok(())
}
