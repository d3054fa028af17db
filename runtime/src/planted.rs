//! Bugs that tests plant in a crate, so that its proofs can be seen to find them.

/// Defines `plant` and `is_planted` for an enum of bugs. The crate that uses this needs a feature `mutants`: without it no bug can be
/// planted, and `is_planted` is `false` at compile time.
#[macro_export]
macro_rules! planted_bugs {
    ($mutant:ty) => {
        #[cfg(feature = "mutants")]
        thread_local! {
            static PLANTED: ::std::cell::Cell<Option<$mutant>> = const { ::std::cell::Cell::new(None) };
        }

        /// Plants a bug in everything that this thread does from now on; `None`: no bug.
        #[cfg(feature = "mutants")]
        pub fn plant(mutant: Option<$mutant>) {
            PLANTED.set(mutant);
        }

        /// Whether this bug is planted.
        #[cfg(feature = "mutants")]
        pub(crate) fn is_planted(mutant: $mutant) -> bool {
            PLANTED.get() == Some(mutant)
        }

        /// Whether this bug is planted: never.
        #[cfg(not(feature = "mutants"))]
        pub(crate) const fn is_planted(_mutant: $mutant) -> bool {
            false
        }
    };
}
