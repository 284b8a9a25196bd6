//! The client against a registry that lies, stalls, breaks off and asks for odd proofs.
#![allow(clippy::unwrap_used, reason = "test code")]

mod auth;
mod blobs;
mod fake;
mod fetch;
mod http2;
mod lists;
mod manifests;
mod trust;
mod uploads;

use std::time::Duration;

use sampan_base::{Cancel, Secret};
use sampan_oci::Reference;
use sampan_transfer::{Client, Config, Login, Timing};

/// Short pauses; but nothing is given up for being slow, as the machine may be.
pub(crate) fn config() -> Config {
    let timing = Timing {
        connect: Duration::from_secs(60),
        stall: Duration::from_secs(60),
        attempts: 3,
        download_attempts: 3,
        pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(20),
    };
    Config { user_agent: "test/1".to_owned(), timing, ..Config::default() }
}

/// The same for those who wait for silence: as short as a busy machine allows.
pub(crate) fn impatient() -> Config {
    let mut config = config();
    config.timing.stall = Duration::from_millis(700);
    config
}

/// A client with a runtime of its own, which ends with it.
pub(crate) struct Bench {
    pub(crate) client: Client,
    pub(crate) cancel: Cancel,
    pub(crate) runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn bench() -> Bench {
    bench_with(config())
}

pub(crate) fn bench_with(config: Config) -> Bench {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = Client::new(runtime.handle().clone(), config).unwrap();
    Bench { client, cancel: Cancel::new(), runtime: Some(runtime) }
}

pub(crate) fn reference(host: &str, rest: &str) -> Reference {
    Reference::parse_normalized(&format!("{host}/{rest}")).unwrap()
}

pub(crate) fn nobody() -> Login {
    Login::default()
}

pub(crate) fn user() -> Login {
    Login { username: "u".to_owned(), password: Secret::new("p".to_owned()), ..Login::default() }
}
