//! Applies requested changes to a topic's settings. They are applied to the settings at the time of their turn: if two clients add to one list at the
//! same moment, both entries are in it.

use std::collections::BTreeMap;

use super::configs::{ConfigError, Kind, TopicConfig, find};
use crate::api::{ConfigChange, ConfigChanges};

impl ConfigChanges {
    /// Applies the changes to the current settings. Returns values to set, and names to reset to their defaults.
    pub fn of(
        &self,
        before: &BTreeMap<String, String>,
    ) -> Result<Vec<(String, Option<String>)>, ConfigError> {
        let mut after = if self.resets_others { BTreeMap::new() } else { before.clone() };
        for (name, change) in &self.named {
            let value = change.value(name, before)?;
            match value {
                Some(value) => after.insert(name.clone(), value),
                None => after.remove(name),
            };
        }
        TopicConfig::resolve(&after)?;
        let gone = before.keys().filter(|name| !after.contains_key(*name)).map(|name| (name.clone(), None));
        let mut writes: Vec<_> = gone.collect();
        let new = after.into_iter().filter(|(name, value)| before.get(name) != Some(value));
        writes.extend(new.map(|(name, value)| (name, Some(value))));
        Ok(writes)
    }
}

impl ConfigChange {
    /// Returns the new value; `None` for the default.
    fn value(&self, name: &str, before: &BTreeMap<String, String>) -> Result<Option<String>, ConfigError> {
        let list = |operation: &str| {
            let config = find(name).filter(|config| matches!(config.kind, Kind::ListOf(_) | Kind::Text));
            let Some(config) = config else {
                let text = format!("Can't {operation} to key {name} because its type is not LIST.");
                return Err(ConfigError(text));
            };
            let value = before.get(name).map_or(config.default, String::as_str);
            Ok(entries(value).map(str::to_owned).collect::<Vec<_>>())
        };
        match self {
            Self::Set(value) => {
                let config = find(name).ok_or_else(|| ConfigError::unknown(name))?;
                config.parse(value).map(Some)
            }
            // A name that is not there has its default, whether Kafka knows it or not.
            Self::Reset => Ok(None),
            Self::Append(more) => {
                let mut list = list("APPEND")?;
                for entry in entries(more) {
                    if list.iter().all(|other| other != entry) {
                        list.push(entry.to_owned());
                    }
                }
                Ok(Some(list.join(",")))
            }
            Self::Subtract(less) => {
                let mut list = list("SUBTRACT")?;
                list.retain(|entry| entries(less).all(|other| other != entry));
                Ok(Some(list.join(",")))
            }
        }
    }
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "leader.replication.throttled.replicas";

    fn settings(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn changes(of: &[(&str, ConfigChange)]) -> ConfigChanges {
        let named = of.iter().map(|(name, change)| ((*name).to_owned(), change.clone())).collect();
        ConfigChanges { named, resets_others: false }
    }

    fn append(entries: &str) -> ConfigChange {
        ConfigChange::Append(entries.into())
    }

    #[test]
    fn appending_to_a_list_adds_new_entries_and_subtracting_removes_existing_ones() {
        let before = settings(&[(LIST, "0:1,0:2")]);
        let more = changes(&[(LIST, append("0:2, 0:3"))]).of(&before);
        assert_eq!(more, Ok(vec![(LIST.into(), Some("0:1,0:2,0:3".into()))]));
        let less = changes(&[(LIST, ConfigChange::Subtract("0:1,0:9".into()))]).of(&before);
        assert_eq!(less, Ok(vec![(LIST.into(), Some("0:2".into()))]));
        let to_default = changes(&[("cleanup.policy", append("compact"))]).of(&settings(&[]));
        assert_eq!(to_default, Ok(vec![("cleanup.policy".into(), Some("delete,compact".into()))]));
    }

    #[test]
    fn a_change_without_effect_writes_nothing() {
        let before = settings(&[("retention.ms", "5"), (LIST, "0:1")]);
        let same = [
            ("retention.ms", ConfigChange::Set("5".into())),
            ("segment.ms", ConfigChange::Reset),
            (LIST, append("0:1")),
        ];
        assert_eq!(changes(&same).of(&before), Ok(vec![]));
    }

    #[test]
    fn values_are_parsed_before_they_are_compared() {
        let before = settings(&[("retention.ms", "5"), ("preallocate", "true")]);
        let same = [
            ("retention.ms", ConfigChange::Set(" 5 ".into())),
            ("preallocate", ConfigChange::Set("TRUE".into())),
        ];
        assert_eq!(changes(&same).of(&before), Ok(vec![]));
    }

    #[test]
    fn an_unset_name_can_be_reset_and_all_entries_of_a_list_can_be_removed() {
        let before = settings(&[("cleanup.policy", "compact")]);
        assert_eq!(changes(&[("retenton.ms", ConfigChange::Reset)]).of(&before), Ok(vec![]));
        let less = changes(&[("cleanup.policy", ConfigChange::Subtract("compact".into()))]).of(&before);
        assert_eq!(less, Ok(vec![("cleanup.policy".into(), Some(String::new()))]));
    }

    #[test]
    fn a_replacement_resets_settings_that_it_does_not_name() {
        let before = settings(&[("retention.ms", "5"), ("segment.ms", "7")]);
        let mut whole = changes(&[("segment.ms", ConfigChange::Set("8".into()))]);
        whole.resets_others = true;
        let expected = vec![("retention.ms".to_owned(), None), ("segment.ms".into(), Some("8".into()))];
        assert_eq!(whole.of(&before), Ok(expected));
    }

    #[test]
    fn invalid_settings_are_rejected_by_name() {
        for (name, change) in [
            ("retenton.ms", ConfigChange::Set("1".into())),
            ("retention.ms", ConfigChange::Set("soon".into())),
            ("retention.ms", append("1")),
            ("retention.ms", ConfigChange::Subtract("1".into())),
            ("cleanup.policy", append("shred")),
        ] {
            let error = changes(&[(name, change)]).of(&settings(&[])).expect_err("it cannot be");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
