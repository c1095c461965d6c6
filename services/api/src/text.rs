//! Types that travel as one JSON string.

/// Serializes a type by its `Display` and reads it by its `FromStr`, without
/// copying the string where the format lends it.
macro_rules! impl_serde_as_text {
    ($name:ty, $expected:expr) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expected)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(|_| E::custom(concat!("not a ", stringify!($name))))
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

pub(crate) use impl_serde_as_text;
