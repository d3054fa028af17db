//! Reports what the seeds answer, each answer once.

use std::collections::BTreeMap;

use highwater_replication::join::{Joiner, SeedState};

/// What was reported last about each address.
#[derive(Debug, Default)]
pub(super) struct Progress {
    reported: BTreeMap<String, String>,
}

impl Progress {
    /// Reports what has changed since the last call.
    pub(super) fn report(&mut self, joiner: &Joiner) {
        if joiner.outcome().is_some() {
            // The caller reports it.
            return;
        }
        for (address, state) in joiner.asked() {
            if let Some(text) = self.change(address, state) {
                if matches!(state, SeedState::WithoutCluster(_)) {
                    tracing::info!("{text}");
                } else {
                    tracing::warn!("{text}");
                }
            }
        }
    }

    /// Returns what to report about an address, if that is new.
    fn change(&mut self, address: &str, state: &SeedState) -> Option<String> {
        if *state == SeedState::Unasked {
            return None;
        }
        let text = format!("joining a cluster: {address}: {state}");
        let is_new = self.reported.get(address) != Some(&text);
        is_new.then(|| {
            self.reported.insert(address.to_owned(), text.clone());
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_address_answers_is_reported_once_until_it_changes() {
        let mut progress = Progress::default();
        let down = SeedState::Unreachable("connection refused".into());
        let other = SeedState::OtherSeeds;
        assert_eq!(progress.change("a:1", &SeedState::Unasked), None);
        assert_eq!(
            progress.change("a:1", &down).as_deref(),
            Some("joining a cluster: a:1: connection refused")
        );
        assert!(progress.change("a:1", &down).is_none() && progress.change("b:1", &down).is_some());
        assert!(progress.change("a:1", &other).is_some_and(|text| text.contains("same list")));
        assert!(progress.change("a:1", &down).is_some());
    }
}
