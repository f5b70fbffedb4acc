//! What CloudWatch shows and rings for: alarms, the dashboard and saved queries, as types.
//! [`template`] makes `infra/observability.yaml` of them, and a test holds that file to it.
//!
//! Our metrics are named by [`lambda::metrics::Metric`] only, so a name that does not exist does
//! not compile. No function depends on this crate.

pub mod alarms;
pub mod dashboard;
mod parameters;
pub mod queries;
mod series;
mod yaml;

use serde_json::{Map, Value, json};

pub use series::{Dimension, Series};

/// The first lines of the generated template.
const HEADER: &str = "\
# Generated from infra/observe by
#   PLAYHEAD_BLESS=1 cargo test -p playhead-tests --test template -- generated
# Change it there, not here.
";

/// The text of `infra/observability.yaml`.
pub fn template() -> String {
    let mut resources = Map::new();
    resources.extend(alarms::all().iter().map(|alarm| (alarm.id.to_owned(), alarm.resource())));
    resources.extend(queries::all().iter().map(|query| (format!("{}Query", query.id), query.resource())));
    resources.insert("Dashboard".to_owned(), dashboard::resource());
    let sections = [
        ("AWSTemplateFormatVersion", json!("2010-09-09")),
        (
            "Description",
            json!(
                "Playhead: alarms, dashboard and saved queries of one stack. template.yaml deploys this as its nested \
                 stack Observability."
            ),
        ),
        ("Metadata", parameters::metadata()),
        ("Parameters", parameters::parameters()),
        ("Conditions", parameters::conditions()),
        ("Resources", Value::Object(resources)),
        (
            "Outputs",
            json!({ "DashboardName": { "Description": "Name of the dashboard.", "Value": { "Ref": "Dashboard" } } }),
        ),
    ];
    yaml::document(HEADER, &sections)
}
