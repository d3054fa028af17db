//! Callbacks that a test application ignores.

macro_rules! ignore {
    ($($name:ident($($arg:ty),*);)*) => {
        $(fn $name(&mut self, _: &mut dyn Plane<Self::Message>, $(_: $arg),*) {})*
    };
}
