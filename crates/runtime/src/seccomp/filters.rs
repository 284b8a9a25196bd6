//! Compiled default filters, kept: compiling one takes longer than the rest of a plan.
//!
//! A filter is a pure function of the container's capabilities (and of the machine, which does not change), so what is kept is
//! never wrong. Profiles that users give are not kept: they are rare and may be many.

use std::sync::{Mutex, PoisonError};

/// How many sets of capabilities are remembered. Nearly all containers share one.
const KEPT: usize = 16;

/// The filters of one machine, by capabilities.
#[derive(Debug, Default)]
pub struct Filters {
    known: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl Filters {
    /// The filter for these capabilities; `compile` makes it if it is not known.
    pub fn get(&self, capabilities: u64, compile: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, filter)) = known.iter().find(|(key, _)| *key == capabilities) {
            return filter.clone();
        }
        let filter = compile();
        if known.len() >= KEPT {
            known.remove(0);
        }
        known.push((capabilities, filter.clone()));
        filter
    }
}

/// What is kept changes nothing, so it is not copied.
impl Clone for Filters {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// What is kept makes no difference.
impl PartialEq for Filters {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Filters {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_compiled_once_and_few_are_kept() {
        let filters = Filters::default();
        let compiled = std::cell::Cell::new(0);
        let get = |capabilities: u64| {
            filters.get(capabilities, || {
                compiled.set(compiled.get() + 1);
                capabilities.to_ne_bytes().to_vec()
            })
        };
        for _ in 0..3 {
            assert_eq!((get(1), get(2)), (1_u64.to_ne_bytes().to_vec(), 2_u64.to_ne_bytes().to_vec()));
        }
        assert_eq!(compiled.get(), 2);
        for capabilities in 0..100 {
            get(capabilities);
        }
        assert_eq!(filters.known.lock().unwrap().len(), KEPT);
    }
}
