//! Environment variables that look like settings and are none.

use std::collections::BTreeSet;

use clap::Command;

/// What the variables of this program begin with.
const PREFIX: &str = "HIGHWATER_";

/// Edits that make one name of another, at most, for it to be what was meant.
const EDITS_MAX: usize = 3;

/// A line for each variable that begins as a setting does and is the setting of no command.
pub(crate) fn complaints(command: &Command, variables: impl Iterator<Item = String>) -> Vec<String> {
    let mut known = BTreeSet::new();
    collect(command, &mut known);
    let unknown =
        variables.filter(|name| name.starts_with(PREFIX) && !known.contains(name) && !is_of_kubernetes(name));
    unknown
        .map(|name| {
            let nearest = known.iter().map(|known| (edits(&name, known), known)).min();
            let meant = nearest.filter(|(edits, _)| *edits <= EDITS_MAX);
            let meant = meant.map_or_else(String::new, |(_, known)| format!("; did you mean {known}?"));
            format!("the environment variable {name} is no setting and has no effect{meant}")
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

/// Kubernetes sets these in every container beside a service whose name begins with `highwater`.
fn is_of_kubernetes(name: &str) -> bool {
    name.contains("_SERVICE_") || name.ends_with("_PORT") || name.contains("_PORT_")
}

/// How many letters have to be added, removed or replaced to make one of the other (Levenshtein's distance).
fn edits(a: &str, b: &str) -> usize {
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

    fn of(names: &[&str]) -> Vec<String> {
        complaints(&crate::cli::command(), names.iter().map(ToString::to_string))
    }

    #[test]
    fn settings_and_the_variables_of_other_programs_are_nothing_to_complain_about() {
        let fine = ["HIGHWATER_SERVER", "HIGHWATER_DATA_DIR", "HIGHWATER_LOG_LEVEL", "HIGHWATER", "HOME"];
        assert_eq!(of(&fine), [""; 0]);
        let of_kubernetes = [
            "HIGHWATER_SERVICE_HOST",
            "HIGHWATER_BROKER_SERVICE_PORT_NATIVE",
            "HIGHWATER_PORT",
            "HIGHWATER_PORT_9191_TCP_ADDR",
        ];
        assert_eq!(of(&of_kubernetes), [""; 0]);
    }

    #[test]
    fn a_mistyped_setting_is_named_with_what_it_was_to_be() {
        let said = of(&["HIGHWATER_DATADIR", "HIGHWATER_COLOUR_OF_THE_SEA"]);
        assert!(
            said[0].contains("HIGHWATER_DATADIR ") && said[0].contains("HIGHWATER_DATA_DIR?"),
            "{said:?}"
        );
        assert!(said[1].contains("HIGHWATER_COLOUR_OF_THE_SEA") && !said[1].contains("mean"), "{said:?}");
    }

    #[test]
    fn edits_are_counted() {
        for (a, b, count) in [("", "", 0), ("abc", "abc", 0), ("", "abc", 3), ("kitten", "sitting", 3)] {
            assert_eq!((edits(a, b), edits(b, a)), (count, count), "{a} {b}");
        }
    }
}
