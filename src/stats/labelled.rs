//! One metric per value of a label, where the values are known when the node starts.

use std::fmt;
use std::ops::Index;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Metrics by the index of a label's value; clones share their numbers. Values that nobody counted
/// yet are rendered too, so that a rate over them starts at zero.
#[derive(Debug)]
pub struct Labelled<M> {
    label: &'static str,
    values: &'static [&'static str],
    metrics: Arc<[M]>,
}

impl<M> Labelled<M> {
    /// One metric made by `metric` for each of `values`.
    pub fn new(
        label: &'static str,
        values: &'static [&'static str],
        metric: impl Fn() -> M,
    ) -> Self {
        Labelled {
            label,
            values,
            metrics: values.iter().map(|_| metric()).collect(),
        }
    }
}

impl<M> Clone for Labelled<M> {
    fn clone(&self) -> Self {
        Labelled {
            metrics: self.metrics.clone(),
            ..*self
        }
    }
}

impl<M> Index<usize> for Labelled<M> {
    type Output = M;

    /// # Panics
    /// When there are not so many values: the caller's enumeration and the labels differ.
    fn index(&self, value: usize) -> &M {
        &self.metrics[value]
    }
}

impl<M: EncodeMetric + TypedMetric> EncodeMetric for Labelled<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (value, metric) in self.values.iter().zip(self.metrics.iter()) {
            let labels = [(self.label, *value)];
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}
