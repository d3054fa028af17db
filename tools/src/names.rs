//! Support for commands that take several names.

use crate::failure::{self, Failure};
use crate::output;

/// Calls `action` for each name, in order. A failure is printed on stderr and does not prevent the calls for the other names, but makes the
/// command fail in the end.
pub(crate) async fn for_each<T: AsRef<str>>(
    names: &[T],
    mut action: impl AsyncFnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut has_failed = false;
    for name in names {
        match action(name.as_ref()).await {
            Ok(()) => {}
            Err(Failure::Message { message, .. }) => {
                output::print_stderr(&message);
                has_failed = true;
            }
            // Stdout is closed: output for the other names would be lost.
            Err(quiet @ Failure::Quiet(_)) => return Err(quiet),
        }
    }
    if has_failed { Err(Failure::Quiet(failure::GENERAL)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_for_each(
        names: &[&str],
        fails: impl Fn(&str) -> Option<Failure>,
    ) -> (Vec<String>, Result<(), Failure>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut done = Vec::new();
        let result = runtime.block_on(for_each(names, async |name| {
            if let Some(failure) = fails(name) {
                return Err(failure);
            }
            done.push(name.to_owned());
            Ok(())
        }));
        (done, result)
    }

    #[test]
    fn a_failure_for_one_name_does_not_stop_the_others() {
        let (done, result) =
            run_for_each(&["a", "b", "c"], |name| (name == "b").then(|| Failure::general("there is no b")));
        assert_eq!(done, ["a", "c"]);
        assert_eq!(result, Err(Failure::Quiet(failure::GENERAL)));
    }

    #[test]
    fn a_closed_stdout_stops_the_command() {
        let (done, result) = run_for_each(&["a", "b", "c"], |name| {
            (name == "b").then_some(Failure::Quiet(failure::BROKEN_PIPE))
        });
        assert_eq!(done, ["a"]);
        assert_eq!(result, Err(Failure::Quiet(failure::BROKEN_PIPE)));
    }
}
