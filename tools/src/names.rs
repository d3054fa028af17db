//! Commands that take several names.

use crate::failure::{self, Failure};
use crate::output;

/// Does something for each of the names, in order. A name for which it fails is said on stderr and the others are done all the same; in
/// the end the command fails.
pub(crate) async fn for_each<T: AsRef<str>>(
    names: &[T],
    mut job: impl AsyncFnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut has_failed = false;
    for name in names {
        match job(name.as_ref()).await {
            Ok(()) => {}
            Err(Failure::Said { message, .. }) => {
                output::complain(&message);
                has_failed = true;
            }
            // Nobody reads what would be printed for the others.
            Err(quiet @ Failure::Quiet(_)) => return Err(quiet),
        }
    }
    if has_failed { Err(Failure::Quiet(failure::GENERAL)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done_of(
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
    fn a_name_that_fails_does_not_keep_the_others_from_being_done() {
        let (done, result) =
            done_of(&["a", "b", "c"], |name| (name == "b").then(|| Failure::general("there is no b")));
        assert_eq!(done, ["a", "c"]);
        assert_eq!(result, Err(Failure::Quiet(failure::GENERAL)));
    }

    #[test]
    fn a_reader_that_has_gone_ends_it() {
        let gone = Failure::Quiet(failure::BROKEN_PIPE);
        let (done, result) =
            done_of(&["a", "b", "c"], |name| (name == "b").then_some(Failure::Quiet(failure::BROKEN_PIPE)));
        assert_eq!(done, ["a"]);
        assert_eq!(result, Err(gone));
    }
}
