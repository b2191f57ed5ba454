//! JSON objects read field by field, with a say in everything serde's derive leaves open.
//!
//! An object is read by a [`Fields`]: known names once each (a second one is an error, because two
//! readers may pick different ones), `null` the same as absent, unknown names skipped. Decoders
//! hold a context (what the version allows, how many items are left), which derive cannot pass.

use std::borrow::Cow;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

/// A field that is read at most once: unseen, null or a value.
pub(super) struct Slot<T>(Option<Option<T>>);

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        Slot(None)
    }
}

impl<T> Slot<T> {
    /// Read the field's value, or null.
    pub fn read<'de, A: MapAccess<'de>>(
        &mut self,
        name: &'static str,
        map: &mut A,
    ) -> Result<bool, A::Error>
    where
        T: Deserialize<'de>,
    {
        self.check_unseen(name)?;
        self.0 = Some(map.next_value()?);
        Ok(true)
    }

    /// Read the field's value by `seed`, or null.
    pub fn read_by<'de, A: MapAccess<'de>, S: DeserializeSeed<'de, Value = T>>(
        &mut self,
        name: &'static str,
        map: &mut A,
        seed: S,
    ) -> Result<bool, A::Error> {
        self.check_unseen(name)?;
        self.0 = Some(map.next_value_seed(Nullable(seed))?);
        Ok(true)
    }

    /// Read the array that is the field's value into its place, or null: nothing large is moved.
    pub fn read_list<'de, A: MapAccess<'de>, S: Items<'de, Output = T>>(
        &mut self,
        name: &'static str,
        map: &mut A,
        items: S,
    ) -> Result<bool, A::Error>
    where
        T: Default,
    {
        self.check_unseen(name)?;
        let list = self.0.insert(Some(T::default())).as_mut().expect("inserted just now");
        if map.next_value_seed(Nullable(List(items, list)))?.is_none() {
            self.0 = Some(None);
        }
        Ok(true)
    }

    fn check_unseen<E: Error>(&self, name: &'static str) -> Result<(), E> {
        match self.0 {
            None => Ok(()),
            Some(_) => Err(E::duplicate_field(name)),
        }
    }

    /// The value, if there is one.
    pub fn into_option(self) -> Option<T> {
        self.0.flatten()
    }

    /// The value, which must be there.
    pub fn required<E: Error>(self, name: &'static str) -> Result<T, E> {
        self.into_option().ok_or_else(|| E::missing_field(name))
    }
}

/// One kind of object.
pub(super) trait Fields<'de>: Sized {
    /// What it becomes.
    type Output;
    /// Read the value of field `name`; false (and nothing read) if the name is unknown.
    fn field<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error>;
    /// All fields were read.
    fn finish<E: Error>(self) -> Result<Self::Output, E>;
}

/// Reads an object.
pub(super) struct Object<F>(pub F);

impl<'de, F: Fields<'de>> DeserializeSeed<'de> for Object<F> {
    type Value = F::Output;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<F::Output, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: Fields<'de>> Visitor<'de> for Object<F> {
    type Value = F::Output;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<F::Output, A::Error> {
        while let Some(name) = map.next_key::<Text<'de>>()? {
            if !self.0.field(&name.0, &mut map)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        self.0.finish()
    }
}

/// Reads an array into its place; `seed` makes the reader of the item at an index, or refuses it.
struct List<'l, S, O>(S, &'l mut O);

/// Makes the readers of an array's items.
pub(super) trait Items<'de>: Sized {
    /// Reads one item.
    type Seed: DeserializeSeed<'de>;
    /// What the items are kept in.
    type Output: Default + Extend<ItemOf<'de, Self>>;
    /// The reader of item `index`.
    fn seed<E: Error>(&mut self, index: usize) -> Result<Self::Seed, E>;
}

type ItemOf<'de, S> = <<S as Items<'de>>::Seed as DeserializeSeed<'de>>::Value;

impl<'de, S: Items<'de>> DeserializeSeed<'de> for List<'_, S, S::Output> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, S: Items<'de>> Visitor<'de> for List<'_, S, S::Output> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let mut count = 0;
        // The seed is made before it is known whether there is an item; making one too many is
        // no loss, for the seeds that refuse do so only past their limit.
        while let Some(item) = seq.next_element_seed(self.0.seed(count)?)? {
            self.1.extend([item]);
            count += 1;
        }
        Ok(())
    }
}

/// Reads null, or what its seed reads.
struct Nullable<S>(S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Nullable<S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Nullable<S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or null")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

/// Text, borrowed from the body unless it holds escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);
