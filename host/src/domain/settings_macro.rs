//! How a setting is defined: once, as one entry of a `settings!` table.
//!
//! ```text
//! settings! {
//!     /// What the table is about.
//!     KeepFile {
//!         /// What the setting does, as people read it in the schema and in the example file.
//!         media: Span = Span::days(30), in Span::seconds(1)..;
//!     }
//! }
//! ```
//!
//! The entry gives the setting's name, its type, its default, its help and, after `in`, the values that are allowed.
//! `, at_most_install` forbids a group to ask for more than the install grants. `A / B { … }` makes a second type `B`
//! for group files, in which every setting may be missing; `B::over` puts its values over the install's.
//!
//! The macro writes nothing but the struct, its `Default` and derives. `config` reads everything else from the JSON
//! Schema of the types: checks, environment names, `config show` and the example file.

use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

macro_rules! settings {
    ($(#[$about:meta])* $name:ident / $partial:ident { $($entries:tt)* }) => {
        settings! { $(#[$about])* $name { $($entries)* } }
        settings! { @partial $(#[$about])* $name $partial { $($entries)* } }
    };
    ($(#[$about:meta])* $name:ident {
        $($(#[$help:meta])* $key:ident: $type:ty = $default:expr $(, in $range:expr $(, $rule:ident)?)?;)*
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        #[schemars(extend("order" = [$(stringify!($key)),*]))]
        pub struct $name {
            $($(#[$help])*
            $(#[schemars(extend("range" = $range))]
            $(#[schemars(extend("rule" = stringify!($rule)))])?)?
            pub $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }
    };
    (@partial $(#[$about:meta])* $name:ident $partial:ident {
        $($(#[$help:meta])* $key:ident: $type:ty = $default:expr $(, in $range:expr $(, $rule:ident)?)?;)*
    }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        #[schemars(extend("order" = [$(stringify!($key)),*]))]
        pub struct $partial {
            $($(#[$help])*
            $(#[schemars(extend("range" = $range))]
            $(#[schemars(extend("rule" = stringify!($rule)))])?)?
            pub $key: Option<$type>,)*
        }

        impl $partial {
            /// These values, and those of `base` where there are none.
            pub fn over(self, base: &$name) -> $name {
                $name { $($key: self.$key.unwrap_or_else(|| base.$key.clone()),)* }
            }
        }
    };
}
pub(crate) use settings;

/// A length of time: `"5m"`, `"1h 30m"`, or a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Span {
    /// The longest that a setting may be.
    pub const MOST: Self = Self::days(36_500);

    /// So many seconds.
    pub const fn seconds(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
    /// So many minutes.
    pub const fn minutes(n: u64) -> Self {
        Self::seconds(60 * n)
    }
    /// So many hours.
    pub const fn hours(n: u64) -> Self {
        Self::minutes(60 * n)
    }
    /// So many days.
    pub const fn days(n: u64) -> Self {
        Self::hours(24 * n)
    }
}

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span = humantime::parse_duration(text);
        let span = span.map_err(|e| format!("{text:?} is no length of time such as \"5m\" ({e})"))?;
        // Adding more to a point in time could overflow.
        if span > Self::MOST.0 { Err(format!("{text:?} is more than 100 years")) } else { Ok(Self(span)) }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time such as \"5m\", or a number of seconds")
            }
            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Span, E> {
                let span =
                    u64::try_from(seconds).map(Span::seconds).ok().filter(|span| span.0 <= Span::MOST.0);
                span.ok_or_else(|| E::custom("a length of time is from 0 to 100 years"))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }
        }
        d.deserialize_any(Visitor)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        // `humantime` would write 90 days as months, days, hours, minutes and seconds.
        let (days, rest) = (self.0.as_secs() / 86_400, self.0.as_secs() % 86_400);
        let rest = Duration::new(rest, self.0.subsec_nanos());
        let plural = if days == 1 { "" } else { "s" };
        match (days, rest.is_zero()) {
            (0, _) => s.collect_str(&humantime::format_duration(rest)),
            (_, true) => s.collect_str(&format_args!("{days}day{plural}")),
            _ => s.collect_str(&format_args!("{days}day{plural} {}", humantime::format_duration(rest))),
        }
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "description": "\"5m\", \"1h 30m\", or seconds" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_written_as_a_person_would() {
        let written = |span: Span| serde_json::to_string(&span).unwrap().replace('"', "");
        for (span, text) in [
            (Span::seconds(0), "0s"),
            (Span::minutes(90), "1h 30m"),
            (Span::days(1), "1day"),
            (Span::hours(49), "2days 1h"),
            (Span::days(90), "90days"),
        ] {
            assert_eq!(written(span), text);
            assert_eq!(text.parse::<Span>().unwrap(), span);
        }
    }
}
