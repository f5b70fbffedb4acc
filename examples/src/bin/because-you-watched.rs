//! Titles that were watched by the same members, from the change feed.

use examples::because_you_watched::BecauseYouWatched;

fn main() -> anyhow::Result<()> {
    examples::run::<BecauseYouWatched>()
}
