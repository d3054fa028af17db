//! The `schema!` macro: declares a message once, and generates its type, decoder and encoder.
//!
//! ```text
//! schema! {
//!     /// Documentation.
//!     pub struct FooRequest<'a> in 0..=4, flexible 2 {   // a message: its versions, and the first flexible one
//!         name: &'a str => 0..;                          // field, type, versions that have it
//!         timeout_ms: i32 = -1 => 1..=3;                 // default, for versions that do not have it
//!         parts: Option<Vec<Part>> => 0.., null 3..;     // nullable in these versions only; in all by default
//!         rack: Option<&'a str> => 2.., tag 0;           // tagged field, omitted if it has its default
//!     }
//!     /// A nested structure.
//!     pub struct Part { .. }
//! }
//! ```
//!
//! The encoder omits the fields that a version does not have, whatever their value.

use bytes::BytesMut;

use super::wire::{Form, Reader, Wire, WireError};

/// A request or response.
pub trait Message<'a>: Wire<'a> {
    /// Name.
    const NAME: &'static str;
    /// Oldest declared version.
    const VERSION_MIN: i16;
    /// Newest declared version.
    const VERSION_MAX: i16;
    /// First flexible version: with compact lengths and tagged fields.
    const FLEXIBLE_FROM: i16;

    /// Returns the form of a version.
    fn form(version: i16) -> Form {
        Form { version, flexible: version >= Self::FLEXIBLE_FROM }
    }

    /// Decodes the message.
    fn decode(version: i16, r: &mut Reader<'a>) -> Result<Self, WireError> {
        if version < Self::VERSION_MIN || version > Self::VERSION_MAX {
            return Err(WireError::Version { message: Self::NAME, version });
        }
        Self::read(r, Self::form(version), Self::NAME)
    }

    /// Encodes the message.
    fn encode(&self, version: i16, out: &mut BytesMut) {
        assert!(
            (Self::VERSION_MIN..=Self::VERSION_MAX).contains(&version),
            "{} {version} is not declared",
            Self::NAME
        );
        self.write(out, Self::form(version));
    }
}

/// See the module's documentation.
macro_rules! schema {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident $(<$life:lifetime>)?
            $(in $min:literal ..= $max:literal $(, flexible $flexible:literal)?)?
        {
            $(
                $(#[$field_meta:meta])*
                $field:ident : $type:ty $(= $default:expr)? => $versions:expr
                    $(, null $null:expr)? $(, tag $tag:literal)? ;
            )*
        }
    )+) => { $(
        $(#[$meta])*
        #[derive(Clone, PartialEq, Debug)]
        pub struct $name $(<$life>)? {
            $(
                $(#[$field_meta])*
                #[doc = concat!("Versions `", stringify!($versions), "`.")]
                pub $field: $type,
            )*
        }

        impl $(<$life>)? Default for $name $(<$life>)? {
            fn default() -> Self {
                Self { $( $field: $crate::kafka::schema::default_of!($($default)?), )* }
            }
        }

        impl<'a> $crate::kafka::wire::Wire<'a> for $name $(<$life>)? {
            #[inline]
            fn bytes_min(form: $crate::kafka::wire::Form) -> usize {
                let mut bytes = usize::from(form.flexible);
                $(
                    if $crate::kafka::schema::is_inline!($($tag)?) && ($versions).contains(&form.version) {
                        bytes += <$type as $crate::kafka::wire::Wire<'a>>::bytes_min(form);
                    }
                )*
                bytes
            }

            fn read(
                r: &mut $crate::kafka::wire::Reader<'a>,
                form: $crate::kafka::wire::Form,
                _: &'static str,
            ) -> Result<Self, $crate::kafka::wire::WireError> {
                $(
                    #[allow(unused_mut, reason = "tagged fields are set later")]
                    let mut $field: $type = $crate::kafka::schema::read_field!(
                        r, form, concat!(stringify!($name), ".", stringify!($field)),
                        [$($default)?] [$versions] [$($null)?] [$($tag)?]
                    );
                )*
                r.tagged(form, |_tag, _r| {
                    $( $crate::kafka::schema::read_tagged_field!(
                        _r, form, _tag, $field, concat!(stringify!($name), ".", stringify!($field)),
                        [$versions] [$($tag)?]
                    ); )*
                    Ok(false)
                })?;
                Ok(Self { $($field),* })
            }

            fn write(&self, out: &mut bytes::BytesMut, form: $crate::kafka::wire::Form) {
                $( $crate::kafka::schema::write_field!(self.$field, out, form, [$versions] [$($null)?] [$($tag)?]); )*
                if form.flexible {
                    let mut _tagged: Vec<(u32, bytes::BytesMut)> = Vec::new();
                    $( $crate::kafka::schema::write_tagged_field!(
                        self.$field, _tagged, form, [$($default)?] [$versions] [$($tag)?]
                    ); )*
                    $crate::kafka::schema::put_tagged(out, &_tagged);
                }
            }
        }

        impl<'a> $crate::kafka::wire::Nullable<'a> for $name $(<$life>)? {
            fn nullable_bytes_min(_: $crate::kafka::wire::Form) -> usize {
                1
            }

            fn read_nullable(
                r: &mut $crate::kafka::wire::Reader<'a>,
                form: $crate::kafka::wire::Form,
                field: &'static str,
            ) -> Result<Option<Self>, $crate::kafka::wire::WireError> {
                use $crate::kafka::wire::Wire;
                if i8::read(r, form, field)? < 0 { Ok(None) } else { Self::read(r, form, field).map(Some) }
            }

            fn write_nullable(value: Option<&Self>, out: &mut bytes::BytesMut, form: $crate::kafka::wire::Form) {
                use $crate::kafka::wire::Wire;
                if value.is_some() { 1_i8 } else { -1 }.write(out, form);
                if let Some(value) = value {
                    value.write(out, form);
                }
            }
        }

        $crate::kafka::schema::message!([$($min $max [$($flexible)?])?] $name $(<$life>)?);

        #[cfg(any(test, feature = "samples"))]
        impl $(<$life>)? $crate::kafka::samples::Sample for $name $(<$life>)? {
            fn sample(s: &mut $crate::kafka::samples::Samples) -> Self {
                Self { $( $field: $crate::kafka::samples::Sample::sample(s), )* }
            }
        }
    )+ };
}

/// Implements [`Message`] for a struct with versions.
macro_rules! message {
    ([] $name:ident $(<$life:lifetime>)?) => {};
    ([$min:literal $max:literal [$($flexible:literal)?]] $name:ident $(<$life:lifetime>)?) => {
        impl<'a> $crate::kafka::schema::Message<'a> for $name $(<$life>)? {
            const NAME: &'static str = stringify!($name);
            const VERSION_MIN: i16 = $min;
            const VERSION_MAX: i16 = $max;
            const FLEXIBLE_FROM: i16 = $crate::kafka::schema::flexible_from!($($flexible)?);
        }
    };
}

macro_rules! default_of {
    () => {
        Default::default()
    };
    ($default:expr) => {
        $default
    };
}

macro_rules! flexible_from {
    () => {
        i16::MAX
    };
    ($from:literal) => {
        $from
    };
}

/// Whether a field is not a tagged field.
macro_rules! is_inline {
    () => {
        true
    };
    ($tag:literal) => {
        false
    };
}

macro_rules! read_field {
    ($r:ident, $form:ident, $name:expr, [$($default:expr)?] [$versions:expr] [] []) => {
        if ($versions).contains(&$form.version) {
            $crate::kafka::wire::Wire::read($r, $form, $name)?
        } else {
            $crate::kafka::schema::default_of!($($default)?)
        }
    };
    ($r:ident, $form:ident, $name:expr, [$($default:expr)?] [$versions:expr] [$null:expr] []) => {
        if ($versions).contains(&$form.version) {
            let value: Option<_> = $crate::kafka::wire::Wire::read($r, $form, $name)?;
            if value.is_none() && !($null).contains(&$form.version) {
                return Err($crate::kafka::wire::WireError::Null { field: $name });
            }
            value
        } else {
            $crate::kafka::schema::default_of!($($default)?)
        }
    };
    ($r:ident, $form:ident, $name:expr, [$($default:expr)?] [$versions:expr] [$($null:expr)?] [$tag:literal]) => {
        $crate::kafka::schema::default_of!($($default)?)
    };
}

macro_rules! read_tagged_field {
    ($r:ident, $form:ident, $tag:ident, $field:ident, $name:expr, [$versions:expr] []) => {};
    ($r:ident, $form:ident, $tag:ident, $field:ident, $name:expr, [$versions:expr] [$known:literal]) => {
        if $tag == $known && ($versions).contains(&$form.version) {
            $field = $crate::kafka::wire::Wire::read($r, $form, $name)?;
            return Ok(true);
        }
    };
}

macro_rules! write_field {
    ($self:ident.$field:ident, $out:ident, $form:ident, [$versions:expr] [] []) => {
        if ($versions).contains(&$form.version) {
            $crate::kafka::wire::Wire::write(&$self.$field, $out, $form);
        }
    };
    ($self:ident.$field:ident, $out:ident, $form:ident, [$versions:expr] [$null:expr] []) => {
        if ($versions).contains(&$form.version) {
            if $self.$field.is_some() || ($null).contains(&$form.version) {
                $crate::kafka::wire::Wire::write(&$self.$field, $out, $form);
            } else {
                // The field is not nullable in this version: send an empty value instead.
                $crate::kafka::wire::Wire::write(
                    &$crate::kafka::schema::empty($self.$field.as_ref()),
                    $out,
                    $form,
                );
            }
        }
    };
    ($self:ident.$field:ident, $out:ident, $form:ident, [$versions:expr] [$($null:expr)?] [$tag:literal]) => {};
}

macro_rules! write_tagged_field {
    ($self:ident.$field:ident, $tagged:ident, $form:ident, [$($default:expr)?] [$versions:expr] []) => {};
    ($self:ident.$field:ident, $tagged:ident, $form:ident, [$($default:expr)?] [$versions:expr] [$tag:literal]) => {
        if ($versions).contains(&$form.version)
            && $crate::kafka::schema::differs(&$self.$field, &$crate::kafka::schema::default_of!($($default)?))
        {
            let mut value = bytes::BytesMut::new();
            $crate::kafka::wire::Wire::write(&$self.$field, &mut value, $form);
            $tagged.push(($tag, value));
        }
    };
}

pub(crate) use {
    default_of, flexible_from, is_inline, message, read_field, read_tagged_field, schema, write_field,
    write_tagged_field,
};

/// Compares a value with its default. As a function, it fixes the type of the default.
pub(crate) fn differs<T: PartialEq>(value: &T, default: &T) -> bool {
    value != default
}

/// Returns the empty value of a field's type.
pub(crate) fn empty<T: Default>(_: Option<&T>) -> T {
    T::default()
}

/// Encodes the tagged fields of a struct, in order of their tags.
pub(crate) fn put_tagged(out: &mut BytesMut, tagged: &[(u32, BytesMut)]) {
    super::wire::put_uvarint(out, tagged.len() as u32);
    for (tag, value) in tagged {
        super::wire::put_uvarint(out, *tag);
        super::wire::put_uvarint(out, value.len() as u32);
        out.extend_from_slice(value);
    }
}
