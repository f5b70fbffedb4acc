//! For tests: endpoints of a local cloud that is not running.

use crate::endpoints::Endpoints;

/// Endpoints of one region, with a secret that must not appear in any output.
#[must_use]
pub fn endpoints() -> Endpoints {
    Endpoints {
        api: "http://127.0.0.1:1/_aws/execute-api/a/$default".into(),
        aws_endpoint: "http://127.0.0.1:1".into(),
        log_bootstrap: Some("127.0.0.1:2".into()),
        standby_bootstrap: None,
        region: "us-east-1".into(),
        stack: "playhead-local".into(),
        topic: "playback-events".into(),
        events_stream: None,
        standby_stream: Some("standby".into()),
        views_table: "views".into(),
        inbound_queue_url: "inbound".into(),
        retry_queue_url: "retry".into(),
        dead_letter_queue_url: "dead-letter".into(),
        failure_bucket: "failures".into(),
        ingest_function: "ingest".into(),
        process_function: "process".into(),
        retry_function: "retry".into(),
        query_function: "query".into(),
        jwt_secret: "do-not-show-this".into(),
        run_dir: "/run".into(),
        pid: 1,
        live_page: None,
        remote_topic: None,
        remote_stream: None,
        remote_standby_stream: None,
        forward_function: None,
        routing_parameter: "/playhead-local/routing".into(),
        shadow_table: None,
        reports_bucket: None,
        compare_function: None,
        candidate_function: None,
        publish_function: None,
        view_changes_stream: None,
        legacy_endpoint: None,
        left_out: Vec::new(),
        peers: Vec::new(),
    }
}
