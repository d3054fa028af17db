//! Warnings about environment variables that look like settings but are not.

use std::collections::BTreeSet;

use clap::Command;

/// Prefix of this program's variables.
const PREFIX: &str = "HIGHWATER_";

/// Maximum edit distance of a name that is suggested as a correction.
const SUGGESTION_DISTANCE_MAX: usize = 3;

/// Returns a warning for each variable that has the prefix but is not a setting of any command.
pub(crate) fn warnings(command: &Command, variables: impl Iterator<Item = String>) -> Vec<String> {
    let mut known = BTreeSet::new();
    collect(command, &mut known);
    let unknown = variables
        .filter(|name| name.starts_with(PREFIX) && !known.contains(name) && !is_set_by_kubernetes(name));
    unknown
        .map(|name| {
            let nearest = known.iter().map(|known| (edit_distance(&name, known), known)).min();
            let suggestion = nearest.filter(|(distance, _)| *distance <= SUGGESTION_DISTANCE_MAX);
            let hint = suggestion.map_or_else(String::new, |(_, known)| format!("; did you mean {known}?"));
            format!("the environment variable {name} is not a setting and has no effect{hint}")
        })
        .collect()
}

fn collect(command: &Command, known: &mut BTreeSet<String>) {
    let names = command.get_arguments().filter_map(clap::Arg::get_env);
    known.extend(names.map(|name| name.to_string_lossy().into_owned()));
    for command in command.get_subcommands() {
        collect(command, known);
    }
}

/// Returns whether Kubernetes sets the variable, which it does in all pods when there is a service with a name that begins with `highwater`.
fn is_set_by_kubernetes(name: &str) -> bool {
    name.contains("_SERVICE_") || name.ends_with("_PORT") || name.contains("_PORT_")
}

/// Returns the Levenshtein distance of two names.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings_for(names: &[&str]) -> Vec<String> {
        warnings(&crate::cli::command(), names.iter().map(ToString::to_string))
    }

    #[test]
    fn settings_and_variables_of_other_programs_cause_no_warnings() {
        let known = ["HIGHWATER_SERVER", "HIGHWATER_DATA_DIR", "HIGHWATER_LOG_LEVEL", "HIGHWATER", "HOME"];
        assert_eq!(warnings_for(&known), [""; 0]);
        let kubernetes = [
            "HIGHWATER_SERVICE_HOST",
            "HIGHWATER_BROKER_SERVICE_PORT_NATIVE",
            "HIGHWATER_PORT",
            "HIGHWATER_PORT_9191_TCP_ADDR",
        ];
        assert_eq!(warnings_for(&kubernetes), [""; 0]);
    }

    #[test]
    fn the_warning_about_a_misspelt_setting_suggests_the_correct_name() {
        let warnings = warnings_for(&["HIGHWATER_DATADIR", "HIGHWATER_COLOUR_OF_THE_SEA"]);
        let [misspelt, unknown] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(
            misspelt.contains("HIGHWATER_DATADIR ") && misspelt.contains("HIGHWATER_DATA_DIR?"),
            "{misspelt}"
        );
        assert!(unknown.contains("HIGHWATER_COLOUR_OF_THE_SEA") && !unknown.contains("mean"), "{unknown}");
    }

    #[test]
    fn the_edit_distance_counts_insertions_deletions_and_replacements() {
        for (a, b, count) in [("", "", 0), ("abc", "abc", 0), ("", "abc", 3), ("kitten", "sitting", 3)] {
            assert_eq!((edit_distance(a, b), edit_distance(b, a)), (count, count), "{a} {b}");
        }
    }
}
