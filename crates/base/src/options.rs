//! [`section!`](crate::section) declares a section of the configuration once: struct, defaults and what users read about it.

/// One option: its key and the lines of its doc comment.
#[derive(Clone, Copy, Debug)]
pub struct OptionDoc {
    /// Name of the struct's field; the key in TOML has `-` for `_`.
    pub field: &'static str,
    pub lines: &'static [&'static str],
}

impl OptionDoc {
    /// The key as users write it.
    pub fn key(&self) -> String {
        self.field.replace('_', "-")
    }
}

/// A section of the configuration file as documented.
#[derive(Clone, Copy, Debug)]
pub struct SectionDoc {
    pub name: &'static str,
    pub lines: &'static [&'static str],
    pub options: &'static [OptionDoc],
}

/// Declares a section: `section! { "raft", /// doc… pub struct Config { /// doc… pub field: Type = default, } }`.
/// Keys are kebab-case, unknown ones are refused, and `DOC` holds the comments for the reference page and the example file.
/// The calling crate needs `serde`.
#[macro_export]
macro_rules! section {
    ($section:literal, $(#[doc = $doc:literal])* pub struct $name:ident {
        $($(#[doc = $line:literal])* pub $field:ident: $type:ty = $default:expr,)*
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
        pub struct $name {
            $($(#[doc = $line])* #[doc = concat!("\n\nDefault: `", stringify!($default), "`.")] pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: $default,)* }
            }
        }

        impl $name {
            /// The section as documented, options in the order of declaration.
            pub const DOC: $crate::options::SectionDoc = $crate::options::SectionDoc {
                name: $section,
                lines: &[$($doc),*],
                options: &[$($crate::options::OptionDoc { field: stringify!($field), lines: &[$($line),*] }),*],
            };
        }
    };
}
