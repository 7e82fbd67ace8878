//! Enums whose variants have names.

/// Defines an enum, the list of its variants, and their names.
macro_rules! named {
    (
        $(#[$attribute:meta])*
        $visibility:vis enum $enum:ident { $($(#[doc = $doc:literal])+ $variant:ident = $name:expr,)+ }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $visibility enum $enum {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $enum {
            /// All variants, in the order of their declaration.
            $visibility const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// Returns the variant's name.
            #[must_use]
            $visibility const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}
pub(crate) use named;
