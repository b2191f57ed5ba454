//! Argument values: JSON in, [`Argument`] out. The other direction is in `encode`.
//!
//! Integers are decimal strings (a JSON number is refused: readers in JavaScript would round it),
//! floats are JSON numbers and stay floats if integral, blobs are base64 of the standard alphabet.
//! Which arguments fit which parameters is the tenant crate's.

use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{self, Deserialize, Deserializer, Error, MapAccess, Visitor};
use tenant::Argument;

use super::fields::{Fields, Items, Object, Slot, Text};
use crate::limits::ARGUMENTS_MAX;

/// JavaScript clients pad their blobs, the Rust client does not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The items of `args`.
pub(super) struct Positional;

impl<'a> Items<'a> for Positional {
    type Seed = Object<ValueFields<'a>>;
    type Output = SmallVec<[Argument<'a>; 2]>;

    fn seed<E: Error>(&mut self, index: usize) -> Result<Self::Seed, E> {
        check_argument_count(index)?;
        Ok(Object(ValueFields::default()))
    }
}

/// The items of `named_args`.
pub(super) struct Named;

impl<'a> Items<'a> for Named {
    type Seed = Object<NamedFields<'a>>;
    type Output = Vec<(Cow<'a, str>, Argument<'a>)>;

    fn seed<E: Error>(&mut self, index: usize) -> Result<Self::Seed, E> {
        check_argument_count(index)?;
        Ok(Object(NamedFields::default()))
    }
}

fn check_argument_count<E: Error>(index: usize) -> Result<(), E> {
    if index > ARGUMENTS_MAX {
        return Err(E::custom(format_args!("a statement has more than {ARGUMENTS_MAX} arguments")));
    }
    Ok(())
}

#[derive(Default)]
pub(super) struct NamedFields<'a> {
    name: Slot<Text<'a>>,
    value: Slot<Argument<'a>>,
}

impl<'a> Fields<'a> for NamedFields<'a> {
    type Output = (Cow<'a, str>, Argument<'a>);

    fn field<A: MapAccess<'a>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "name" => self.name.read("name", map),
            "value" => {
                let value = Object(ValueFields::default());
                self.value.read_by("value", map, value)
            }
            _ => Ok(false),
        }
    }

    fn finish<E: Error>(self) -> Result<Self::Output, E> {
        let name = self.name.required::<E>("name")?.0;
        Ok((name, self.value.required("value")?))
    }
}

#[derive(Default)]
pub(super) struct ValueFields<'a> {
    kind: Slot<Text<'a>>,
    value: Slot<Scalar<'a>>,
    base64: Slot<Text<'a>>,
}

impl<'a> Fields<'a> for ValueFields<'a> {
    type Output = Argument<'a>;

    fn field<A: MapAccess<'a>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "type" => self.kind.read("type", map),
            "value" => self.value.read("value", map),
            "base64" => self.base64.read("base64", map),
            _ => Ok(false),
        }
    }

    fn finish<E: Error>(self) -> Result<Argument<'a>, E> {
        let kind = self.kind.required::<E>("type")?;
        match &*kind.0 {
            "null" => Ok(Argument::Null),
            "integer" => match self.value.required::<E>("value")? {
                Scalar::Text(digits) => integer(&digits).map(Argument::Integer),
                _ => Err(E::custom("the value of an integer must be a string")),
            },
            "float" => match self.value.required::<E>("value")? {
                Scalar::Number(number) => Ok(Argument::Real(number)),
                _ => Err(E::custom("the value of a float must be a number")),
            },
            "text" => match self.value.required::<E>("value")? {
                Scalar::Text(text) => Ok(Argument::Text(text)),
                _ => Err(E::custom("the value of a text must be a string")),
            },
            "blob" => {
                let text = self.base64.required::<E>("base64")?.0;
                let bytes = BASE64.decode(text.as_bytes()).map_err(|error| {
                    E::custom(format_args!("the base64 of a blob is wrong: {error}"))
                })?;
                Ok(Argument::Blob(Cow::Owned(bytes)))
            }
            _ => Err(E::custom("unknown type of a value")),
        }
    }
}

fn integer<E: Error>(digits: &str) -> Result<i64, E> {
    // `parse` alone would take `+1`.
    match digits.parse() {
        Ok(integer) if !digits.starts_with('+') => Ok(integer),
        _ => Err(E::custom("the value of an integer must be a decimal number of 64 bits")),
    }
}

/// What may stand under `value`; which of them the value's type wants is known only later.
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar<'a>, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number or null")
    }

    fn visit_bool<E: de::Error>(self, _value: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    // Integers beyond 2^53 become the nearest float, as they do in every JavaScript client.
    #[expect(clippy::cast_precision_loss, reason = "the nearest float is meant")]
    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(value as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "the nearest float is meant")]
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(value as f64))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(value))
    }

    fn visit_borrowed_str<E: de::Error>(self, value: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(value.to_owned())))
    }
}
