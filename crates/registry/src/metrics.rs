//! Figures for Prometheus: requests, bytes, what is kept.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry as Names;

/// What requests are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Labels {
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
    pub(crate) status: u16,
}

/// All figures.
#[derive(Debug)]
pub(crate) struct Metrics {
    names: Names,
    pub(crate) requests: Family<Labels, Counter>,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    pub(crate) in_flight: Gauge,
    blobs: Gauge,
    storage: Gauge<i64>,
    uploads: Gauge,
    pub(crate) collected: Counter<u64, AtomicU64>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut names = Names::with_prefix("sampan_registry");
        let (requests, received, sent, in_flight) = (Family::default(), Counter::default(), Counter::default(), Gauge::default());
        let (blobs, storage, uploads, collected) = (Gauge::default(), Gauge::default(), Gauge::default(), Counter::default());
        names.register("requests", "Requests answered", requests.clone());
        names.register("received_bytes", "Bytes of blobs and manifests received", received.clone());
        names.register("sent_bytes", "Bytes of blobs and manifests sent", sent.clone());
        names.register("requests_in_flight", "Requests under way", in_flight.clone());
        names.register("blobs", "Blobs kept", blobs.clone());
        names.register("storage_bytes", "Bytes of all blobs", storage.clone());
        names.register("uploads", "Uploads under way", uploads.clone());
        names.register("collected_bytes", "Bytes of blobs removed as unused", collected.clone());
        Self { names, requests, received, sent, in_flight, blobs, storage, uploads, collected }
    }

    /// The page, with what the store holds now.
    pub(crate) fn page(&self, blobs: u64, bytes: u64, uploads: usize) -> String {
        self.blobs.set(i64::try_from(blobs).unwrap_or(i64::MAX));
        self.storage.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.uploads.set(i64::try_from(uploads).unwrap_or(i64::MAX));
        let mut text = String::new();
        match encode(&mut text, &self.names) {
            Ok(()) => text,
            // Writing to a string does not fail.
            Err(std::fmt::Error) => String::new(),
        }
    }
}
