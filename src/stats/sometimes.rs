//! A gauge that is not always there.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Stands for no value; no gauge of ours comes near it.
const NOTHING: u64 = u64::MAX;

/// A number that only some nodes have, at some times: it is rendered while it is there, so that an alert
/// on it says nothing about the other nodes. Clones share it.
#[derive(Clone, Debug)]
pub struct Sometimes(Arc<AtomicU64>);

impl Default for Sometimes {
    fn default() -> Self {
        Sometimes(Arc::new(AtomicU64::new(NOTHING)))
    }
}

impl Sometimes {
    pub fn set(&self, value: Option<u64>) {
        self.0.store(value.unwrap_or(NOTHING), Ordering::Relaxed);
    }

    fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&value| value != NOTHING)
    }
}

impl TypedMetric for Sometimes {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for Sometimes {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match self.get() {
            Some(value) => ConstGauge::new(value).encode(encoder),
            None => Ok(()),
        }
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
