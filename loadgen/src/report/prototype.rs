//! The figures of the original prototype under the `reference` scenario, for comparison.

/// What the prototype reached in one operation; latencies in milliseconds.
pub struct Prototype {
    pub operation: &'static str,
    pub rate: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// All requests together, per second.
pub const REQUESTS_PER_SECOND: f64 = 48.6;

/// By operation; of releases nothing is known.
pub const PROTOTYPE: [Prototype; 2] = [
    Prototype {
        operation: "lock.acquire",
        rate: Some(15.4),
        p50_ms: Some(49.0),
        p95_ms: Some(57.0),
        p99_ms: Some(66.0),
    },
    Prototype {
        operation: "status",
        rate: None,
        p50_ms: Some(6.0),
        p95_ms: None,
        p99_ms: None,
    },
];
