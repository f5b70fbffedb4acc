//! The fault suite of several regions: checks whether the promises hold when the connection between
//! two regions fails, and when one is drained in the middle of playback. Two local clouds run side
//! by side from the real template. Simulated members travel between them and send at a steady rate,
//! and members hide and erase in both. Then the suite compares the books of both regions, every
//! item's writer and every member's view in each region with what the devices were told, which the
//! simulator computes independently of the code under test.
//!
//! The replication and the link between the regions are simulations: see the crate `local`.
//!
//! It takes about six minutes on two cores, so it runs only on request:
//! `PLAYHEAD_TEST_REGIONS=1 cargo test --test region_faults`, with
//! `-- [SCENARIO …] [--slice K/N] [--seed N] [--rate N]` for a part of it. The table is printed and
//! written to `target/playhead/region-faults/` as Markdown and JSON. The exit status is 0 only if
//! every scenario kept every promise. What it shares with the suite of faults is in
//! `playhead_tests::suite`.

mod members;
mod play;
mod promises;
mod scenario;
mod settle;
mod table;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use playhead_tests::suite::{self, About, Load, Row, Suite};

use self::scenario::Scenario;
use self::table::Figures;
use self::world::World;

impl Suite for World {
    type Scenario = Scenario;
    type Figures = Figures;
    const ABOUT: About = About {
        name: "region-faults",
        of: "faults between regions",
        switch: "PLAYHEAD_TEST_REGIONS",
        minutes: 6,
        // What two cores can carry with two emulators on them.
        rate: 22.0,
    };

    fn longest(_: Scenario) -> Duration {
        Duration::from_secs(240)
    }

    async fn start() -> Result<Self> {
        Self::start().await
    }

    async fn play(&mut self, scenario: Scenario, load: Load) -> Result<Row<Figures>> {
        play::play(scenario, self, load).await
    }

    async fn repair(&mut self) -> Result<()> {
        Self::repair(self).await?;
        self.is_whole()
    }

    async fn stop(self) -> Result<()> {
        self.regions.stop().await
    }
}

fn main() -> ExitCode {
    suite::main::<World>()
}
