//! What a migration prints.

use super::walk::Row;
use super::{History, MigrationResult};
use operate::Endpoints;

pub(super) fn print(result: &MigrationResult, endpoints: &Endpoints) {
    let MigrationResult { sessions, profiles, per_second, steps, history, seconds, .. } = result;
    println!(
        "\nMigration: {profiles} profiles, {sessions} sessions, {per_second:.1} POSTs per second, {seconds:.0} s\n"
    );
    println!(
        "               POSTs answered by                   profiles on         events        sessions     POSTs, ms"
    );
    println!(
        "               legacy  Playhead errors changed  legacy shadow async  shadowed missed compared match   p50   p99"
    );
    for row in steps {
        let Row { step, by_legacy, by_playhead, errors, changed, .. } = row;
        let Row { legacy_profiles, shadow_profiles, async_profiles, .. } = row;
        let Row { shadow_appended, shadow_missed, compared, p50_ms, p99_ms, .. } = row;
        println!(
            "  {step:<12} {by_legacy:>6} {by_playhead:>9} {errors:>6} {changed:>7}  {legacy_profiles:>6} {shadow_profiles:>6} {async_profiles:>5}  {shadow_appended:>8} {shadow_missed:>6} {compared:>8} {:>5} {p50_ms:>5.0} {p99_ms:>5.0}",
            match_rate(row)
        );
    }
    println!();
    let to_and_fro: usize = steps.iter().map(|row| row.to_and_fro).sum();
    if result.bug.is_none() {
        println!("  Shadowing added {:.0} ms to the p99 of POSTs.", result.added_p99_ms);
    }
    if to_and_fro > 0 {
        println!("  While functions picked up a new rollout, {to_and_fro} profiles alternated between the two paths.");
    }
    for (field, sessions) in &result.fields {
        println!("  DIFFERS: {} in {sessions} sessions", field.as_str());
    }
    for (what, sessions) in [("legacy system", result.missing_live), ("shadow", result.missing_shadow)] {
        if sessions > 0 {
            println!("  MISSING: {sessions} sessions in the {what}");
        }
    }
    match &result.refused {
        Some(why) => println!("  The next step was refused: {why}"),
        None => println!("  Every profile was on exactly one live path, and no one moved back."),
    }
    let History { accepted, sessions, entire, differences } = history;
    if *sessions > 0 {
        println!(
            "  Playhead accepted {accepted} events of {sessions} sessions, {entire} of them complete: {differences} differences in what members see."
        );
    }
    for fault in &result.faults {
        println!("  DOES NOT HOLD: {fault}");
    }
    println!("\nLogs of this run: {}", endpoints.run_dir.join("logs").display());
}

fn match_rate(row: &Row) -> String {
    if row.compared == 0 { "-".to_owned() } else { format!("{:.0}%", row.matched as f64 / row.compared as f64 * 100.0) }
}
