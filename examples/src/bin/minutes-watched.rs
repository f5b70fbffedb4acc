//! How many minutes of each title were watched, from the change feed.

use examples::minutes_watched::MinutesWatched;

fn main() -> anyhow::Result<()> {
    examples::run::<MinutesWatched>()
}
