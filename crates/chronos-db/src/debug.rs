//! `Debug` of what holds documents, keys or secrets.

/// `Debug` of a type by some of its fields. The others hold what must not stand in a log: documents,
/// payloads, keys, filters.
#[doc(hidden)]
#[macro_export]
macro_rules! debug_some {
    ($type:ident { $($field:ident),* }) => {
        impl ::std::fmt::Debug for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_struct(stringify!($type))$(.field(stringify!($field), &self.$field))*.finish_non_exhaustive()
            }
        }
    };
}
