//! Requested changes of a topic's settings.

use std::collections::BTreeMap;

/// A change of a setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigChange {
    /// Set to this value.
    Set(String),
    /// Reset to its default.
    Reset,
    /// Add these entries to a list.
    Append(String),
    /// Remove these entries from a list.
    Subtract(String),
}

/// Changes of a topic's settings.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ConfigChanges {
    /// The changes, by setting.
    pub named: BTreeMap<String, ConfigChange>,
    /// Whether all other settings are reset to their defaults.
    pub resets_others: bool,
}
