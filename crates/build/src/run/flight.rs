//! Keys under way: what one build makes, others wait for.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

use sampan_base::Cancel;

use super::error::BuildError;

/// The keys under way.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    flying: Mutex<HashSet<String>>,
    landed: Condvar,
}

/// A key that is being made; others wait for it.
pub(crate) struct Flight<'a> {
    flights: &'a Flights,
    key: String,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.flights.flying.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.flights.landed.notify_all();
    }
}

impl Flights {
    /// Waits until nobody else makes a key.
    pub(crate) fn take_off(&self, key: &str, cancel: &Cancel) -> Result<Flight<'_>, BuildError> {
        let mut flying = self.flying.lock().unwrap_or_else(PoisonError::into_inner);
        while !flying.insert(key.to_owned()) {
            cancel.check().map_err(|_| BuildError::Cancelled)?;
            let pause = std::time::Duration::from_millis(100);
            flying = self.landed.wait_timeout(flying, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(Flight { flights: self, key: key.to_owned() })
    }
}
