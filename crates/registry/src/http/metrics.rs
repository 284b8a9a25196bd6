//! Figures for Prometheus.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::error::Result;
use crate::store::{Store, Swept};

/// What requests are counted by. All texts are of this program, so there are few of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
    pub(crate) status: u16,
}

/// A method as a label.
pub(crate) fn method_label(method: &hyper::Method) -> &'static str {
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].into_iter().find(|known| method == known).unwrap_or("other")
}

/// A request that is not done.
#[derive(Debug)]
pub(crate) struct Flight(Gauge<i64, AtomicI64>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// All figures.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    sent: Counter<u64, AtomicU64>,
    received: Counter<u64, AtomicU64>,
    in_flight: Gauge<i64, AtomicI64>,
    blobs: Gauge,
    blob_bytes: Gauge,
    manifests: Gauge,
    tags: Gauge,
    collected: Counter,
    collected_bytes: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("sampan_registry"),
            requests: Family::default(),
            sent: Counter::default(),
            received: Counter::default(),
            in_flight: Gauge::default(),
            blobs: Gauge::default(),
            blob_bytes: Gauge::default(),
            manifests: Gauge::default(),
            tags: Gauge::default(),
            collected: Counter::default(),
            collected_bytes: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("requests", "Requests that were answered", metrics.requests.clone());
        registry.register("sent_bytes", "Bytes of bodies sent", metrics.sent.clone());
        registry.register("received_bytes", "Bytes of bodies received", metrics.received.clone());
        registry.register("in_flight_requests", "Requests being answered", metrics.in_flight.clone());
        registry.register("blobs", "Blobs stored", metrics.blobs.clone());
        registry.register("blob_bytes", "Bytes of blobs stored", metrics.blob_bytes.clone());
        registry.register("manifests", "Manifests stored", metrics.manifests.clone());
        registry.register("tags", "Tags", metrics.tags.clone());
        registry.register("collected_blobs", "Blobs removed because nothing referred to them", metrics.collected.clone());
        registry.register("collected_bytes", "Bytes of these blobs", metrics.collected_bytes.clone());
        metrics
    }

    /// A request came; it is in flight until the flight is dropped.
    pub(crate) fn asked(&self) -> Flight {
        self.in_flight.inc();
        Flight(self.in_flight.clone())
    }

    /// A request is done.
    pub(crate) fn answered(&self, labels: &RequestLabels, sent: u64) {
        self.requests.get_or_create(labels).inc();
        self.sent.inc_by(sent);
    }

    /// Bytes came.
    pub(crate) fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }

    /// Something was swept.
    pub(crate) fn swept(&self, swept: Swept) {
        self.collected.inc_by(swept.blobs as u64);
        self.collected_bytes.inc_by(swept.bytes);
    }

    /// The text.
    pub(crate) fn print(&self, store: &Store) -> Result<String> {
        let (blobs, bytes, manifests, tags) = store.totals()?;
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.blobs.set(signed(blobs));
        self.blob_bytes.set(signed(bytes));
        self.manifests.set(signed(manifests));
        self.tags.set(signed(tags));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).map_err(std::io::Error::other)?;
        Ok(text)
    }
}
