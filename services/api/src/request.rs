//! What a request body may look like, said once. `request!` makes of one
//! declaration the type, its strict reader, its OpenAPI schema and its
//! [`Shape`], which [`mod@crate::parse`] walks to explain every fault of a body.
//!
//! Refused by every reader: unknown members, members given twice, null, arrays
//! in place of objects, and values that break the rule of their member.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::digest::{Algorithm, Hash32};
use crate::ids::EvidenceId;
use crate::lang::Text;
use crate::limits::BODY_BYTES_MAX;
use crate::problem::{Fault, FieldError, ProblemCode};

/// The form of one JSON value.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Text(fn(&str) -> Result<(), Fault>),
    /// A whole number from 0 to `max`.
    Integer {
        max: u64,
    },
    Boolean,
    Array(&'static ArrayShape),
    Object(&'static ObjectShape),
}

#[derive(Debug)]
pub struct ArrayShape {
    pub item: Shape,
    pub items_max: usize,
    pub empty: ProblemCode,
    pub over: ProblemCode,
}

#[derive(Debug)]
pub struct ObjectShape {
    pub members: &'static [MemberShape],
    pub names: &'static [&'static str],
    /// The code of a member that is not listed.
    pub unknown: ProblemCode,
    /// The code for when no member is there at all, where one has to be.
    pub needs_one: Option<ProblemCode>,
}

#[derive(Debug)]
pub struct MemberShape {
    pub name: &'static str,
    pub shape: Shape,
    /// The code for when the member is missing, where it has to be there.
    pub missing: Option<ProblemCode>,
}

impl Shape {
    /// The form in words.
    #[must_use]
    pub fn words(self) -> Text {
        match self {
            Shape::Text(_) => Text::new("a string", "字符串"),
            Shape::Integer { .. } => Text::new("a whole number in plain digits", "直接用数字书写的整数"),
            Shape::Boolean => Text::new("true or false", "true 或 false"),
            Shape::Array(_) => Text::new("a list", "列表"),
            Shape::Object(_) => Text::new("an object", "对象"),
        }
    }
}

impl ObjectShape {
    pub(crate) fn member(&self, name: &str) -> Option<&'static MemberShape> {
        self.members.iter().find(|member| member.name == name)
    }
}

/// A value that reads itself strictly. The text of its errors is never shown:
/// whoever gets one walks the shape to explain it.
pub trait Strict: Sized {
    fn read<'de, D: Deserializer<'de>>(from: D, shape: &Shape) -> Result<Self, D::Error>;
}

/// A request body.
pub trait Request: Strict + Serialize {
    const SHAPE: Shape;
    const BODY_BYTES_MAX: usize = BODY_BYTES_MAX;

    /// Every fault of a value that was not read from a body but built; empty
    /// for one that [`crate::parse::parse`] gave.
    fn validate(&self) -> Vec<FieldError> {
        crate::parse::faults_of_value(self)
    }
}

/// Reads a member or an item under its shape.
pub(crate) struct Under<T>(pub(crate) Shape, pub(crate) PhantomData<T>);

impl<'de, T: Strict> DeserializeSeed<'de> for Under<T> {
    type Value = T;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<T, D::Error> {
        T::read(from, &self.0)
    }
}

impl Strict for String {
    fn read<'de, D: Deserializer<'de>>(from: D, shape: &Shape) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match shape {
            Shape::Text(rule) => match rule(&text) {
                Ok(()) => Ok(text),
                Err(fault) => Err(D::Error::custom(fault.code.as_str())),
            },
            _ => Err(D::Error::custom("not a string here")),
        }
    }
}

impl Strict for u64 {
    fn read<'de, D: Deserializer<'de>>(from: D, shape: &Shape) -> Result<Self, D::Error> {
        let number = u64::deserialize(from)?;
        match shape {
            Shape::Integer { max } if number <= *max => Ok(number),
            _ => Err(D::Error::custom("out of range")),
        }
    }
}

impl<T: Strict> Strict for Box<T> {
    fn read<'de, D: Deserializer<'de>>(from: D, shape: &Shape) -> Result<Self, D::Error> {
        T::read(from, shape).map(Box::new)
    }
}

impl<T: Strict> Strict for Vec<T> {
    fn read<'de, D: Deserializer<'de>>(from: D, shape: &Shape) -> Result<Self, D::Error> {
        struct Items<T>(&'static ArrayShape, PhantomData<T>);
        impl<'de, T: Strict> Visitor<'de> for Items<T> {
            type Value = Vec<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = from.next_element_seed(Under(self.0.item, PhantomData))? {
                    if items.len() == self.0.items_max {
                        return Err(A::Error::custom("too many items"));
                    }
                    items.push(item);
                }
                if items.is_empty() { Err(A::Error::custom("no items")) } else { Ok(items) }
            }
        }
        match shape {
            Shape::Array(shape) => from.deserialize_seq(Items(shape, PhantomData)),
            _ => Err(D::Error::custom("not a list here")),
        }
    }
}

/// For types whose own reader is strict already.
macro_rules! strict_by_itself {
    ($($type:ty)*) => { $(
        impl Strict for $type {
            fn read<'de, D: Deserializer<'de>>(from: D, _: &Shape) -> Result<Self, D::Error> {
                <$type>::deserialize(from)
            }
        }
    )* };
}

strict_by_itself! { bool Hash32 Algorithm EvidenceId }

/// Declares a request body or a part of one. A member is written
/// `"name" field: Type = shape;`, a required one with the code for when it is
/// missing: `"name" field: Type = shape, else Code;`.
macro_rules! request {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(unknown $unknown:ident;)?
            $(needs_one $needs_one:ident;)?
            $(body_bytes_max $body_bytes_max:ident;)?
            required { $(
                $(#[$r_meta:meta])*
                $r_name:literal $r_field:ident: $r_type:ident $(<$r_item:ident>)? = $r_shape:expr, else $r_missing:ident;
            )* }
            optional { $(
                $(#[$o_meta:meta])*
                $o_name:literal $o_field:ident: $o_type:ident $(<$o_item:ident>)? = $o_shape:expr;
            )* }
        }
    ) => {
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
        $(#[$meta])*
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[$r_meta])*
                #[serde(rename = $r_name)]
                #[schema(rename = $r_name)]
                pub $r_field: $r_type $(<$r_item>)?,
            )*
            $(
                $(#[$o_meta])*
                #[serde(rename = $o_name, skip_serializing_if = "Option::is_none")]
                #[schema(rename = $o_name, nullable = false)]
                pub $o_field: Option<$o_type $(<$o_item>)?>,
            )*
        }

        const _: () = {
            use $crate::problem::ProblemCode;
            use $crate::request::{self, MemberShape, ObjectShape, Strict, Under};
            use serde::de::{Deserializer, Error, MapAccess, Visitor};
            use std::marker::PhantomData;

            static OBJECT: ObjectShape = ObjectShape {
                members: &[
                    $( MemberShape {
                        name: $r_name,
                        shape: $r_shape,
                        missing: Some(ProblemCode::$r_missing),
                    }, )*
                    $( MemberShape { name: $o_name, shape: $o_shape, missing: None }, )*
                ],
                names: &[$( $r_name, )* $( $o_name, )*],
                unknown: request!(@or UnknownField $($unknown)?),
                needs_one: request!(@option $($needs_one)?),
            };

            #[allow(non_camel_case_types, reason = "variants are named after the fields")]
            enum Member { $( $r_field, )* $( $o_field, )* }

            struct Names;
            impl Visitor<'_> for Names {
                type Value = Member;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a member's name")
                }
                fn visit_str<E: Error>(self, name: &str) -> Result<Member, E> {
                    match name {
                        $( $r_name => Ok(Member::$r_field), )*
                        $( $o_name => Ok(Member::$o_field), )*
                        _ => Err(E::custom("unknown member")),
                    }
                }
            }
            impl<'de> serde::de::DeserializeSeed<'de> for Names {
                type Value = Member;
                fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Member, D::Error> {
                    from.deserialize_identifier(self)
                }
            }

            struct Members;
            impl<'de> Visitor<'de> for Members {
                type Value = $name;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<$name, A::Error> {
                    $( let mut $r_field: Option<$r_type $(<$r_item>)?> = None; )*
                    $( let mut $o_field: Option<$o_type $(<$o_item>)?> = None; )*
                    let mut some = false;
                    while let Some(member) = from.next_key_seed(Names)? {
                        some = true;
                        match member {
                            $( Member::$r_field if $r_field.is_none() => {
                                $r_field = Some(from.next_value_seed(Under($r_shape, PhantomData))?);
                            } )*
                            $( Member::$o_field if $o_field.is_none() => {
                                $o_field = Some(from.next_value_seed(Under($o_shape, PhantomData))?);
                            } )*
                            _ => return Err(A::Error::custom("member given twice")),
                        }
                    }
                    if OBJECT.needs_one.is_some() && !some {
                        return Err(A::Error::custom("no member"));
                    }
                    Ok($name {
                        $( $r_field: $r_field.ok_or_else(|| A::Error::missing_field($r_name))?, )*
                        $( $o_field, )*
                    })
                }
            }

            impl Strict for $name {
                fn read<'de, D: Deserializer<'de>>(from: D, _: &request::Shape) -> Result<Self, D::Error> {
                    from.deserialize_map(Members)
                }
            }

            impl request::Request for $name {
                const SHAPE: request::Shape = request::Shape::Object(&OBJECT);
                $( const BODY_BYTES_MAX: usize = $body_bytes_max; )?
            }

            impl<'de> serde::Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                    Self::read(from, &<Self as request::Request>::SHAPE)
                }
            }
        };
    };
    (@or $default:ident) => { ProblemCode::$default };
    (@or $default:ident $given:ident) => { ProblemCode::$given };
    (@option) => { None };
    (@option $given:ident) => { Some(ProblemCode::$given) };
}

pub(crate) use request;
