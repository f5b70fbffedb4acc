//! Configuration of `forward`.

use lambda::config::{Common, Env};
use playback::routing::Regions;
use std::collections::BTreeSet;

/// Configuration of `forward`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Configuration that every function has.
    pub common: Common,
    /// The regions of the deployment, separated by commas (`REGIONS`).
    pub regions: Regions,
    /// The SSM parameter that holds the routing document (`ROUTING_PARAMETER`).
    pub routing_parameter: String,
    /// The name of the queue `inbound` in each region, to which other regions send
    /// (`INBOUND_QUEUE_NAME`).
    pub inbound_queue_name: String,
    /// The queue `dead-letter` (`DEAD_LETTER_QUEUE_URL`).
    pub dead_letter_queue_url: String,
}

impl Config {
    /// Reads the configuration; `None` if there is a problem.
    pub fn read(env: &mut Env) -> Option<Self> {
        let common = Common::read(env);
        let list = env.required::<String>("REGIONS");
        let routing_parameter = env.required("ROUTING_PARAMETER");
        let inbound_queue_name = env.required("INBOUND_QUEUE_NAME");
        let dead_letter_queue_url = env.required("DEAD_LETTER_QUEUE_URL");
        let common = common?;
        let regions = Regions::parse(&common.region, &list?);
        let regions = regions.map_err(|error| env.problem("REGIONS", error.to_string())).ok();
        Some(Self {
            common,
            regions: regions?,
            routing_parameter: routing_parameter?,
            inbound_queue_name: inbound_queue_name?,
            dead_letter_queue_url: dead_letter_queue_url?,
        })
    }

    /// The variables that the template must set.
    pub fn variables() -> BTreeSet<&'static str> {
        lambda::config::variables_of(Self::read)
    }
}
