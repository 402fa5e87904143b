//! The opt-in by which a serde enum names its own events: variant name → `event:`, content →
//! `data:`.
//!
//! Externally tagged enums only, since only they tell serde which variant is being written;
//! everything else is refused with an error that says so.

use std::{convert::Infallible, fmt};

use serde::ser::{self, Impossible, Serialize, SerializeStruct, SerializeTuple, Serializer};

use crate::{
    error::{Error, ErrorKind},
    event::{EventName, encode, id::quoted},
};

/// The default name of the gap event. It stands here because no variant may forge it.
pub(crate) const GAP: EventName = crate::event_name!("gap");

/// Whether a channel or a run gives this name to its own events, unless a builder sets another.
pub(crate) fn is_a_channel_s(name: &str) -> bool {
    [GAP.as_str(), "checkpoint", "snapshot", "end"].contains(&name)
}

/// The name that the value's variant gives its event.
pub(crate) fn name<T: Serialize + ?Sized>(value: &T) -> Result<EventName, Error> {
    let variant = match value.serialize(VariantName) {
        Ok(never) => match never {},
        Err(Stop::Variant(name)) => name,
        Err(Stop::Failed(why)) => {
            return Err(Error::new(
                ErrorKind::Serialize,
                format!("serialising to JSON: {why}"),
            ));
        }
        Err(Stop::Other(what)) => {
            return Err(Error::new(
                ErrorKind::NotAVariant,
                format!(
                    "{what} cannot name its event: only a variant of an externally tagged enum can"
                ),
            ));
        }
    };
    if variant == GAP.as_str() {
        return Err(Error::new(
            ErrorKind::InvalidName,
            format!(
                "event name {}: it is the name of the gap event",
                quoted(variant)
            ),
        ));
    }
    EventName::new(variant)
}

/// Appends the variant's content as `data` lines; on an error, `out` is as it was.
pub(crate) fn content<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), Error> {
    encode::data_written_by(out, |out| {
        value.serialize(Content(&mut serde_json::Serializer::new(out)))
    })
}

/// Stops at the first thing that it is given, which is all that the name needs: the content is
/// not looked at.
struct VariantName;

#[derive(Debug)]
enum Stop {
    Variant(&'static str),
    Other(&'static str),
    /// The value itself gave up before it got to a variant.
    Failed(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Variant(name) => name,
            Self::Other(what) => what,
            Self::Failed(why) => why,
        })
    }
}

impl std::error::Error for Stop {}

impl ser::Error for Stop {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Failed(message.to_string())
    }
}

/// The methods of a serialiser that only ever refuse.
macro_rules! refuse {
    ($refusal:expr; $($method:ident($($arg:ident: $type:ty),*) $what:literal;)*) => {$(
        fn $method(self, $($arg: $type),*) -> Result<Self::Ok, Self::Error> {
            let _ = ($($arg),*);
            Err($refusal($what))
        }
    )*};
}

macro_rules! refuse_all_but_variants {
    ($refusal:expr) => {
        type SerializeSeq = Impossible<Self::Ok, Self::Error>;
        type SerializeTuple = Impossible<Self::Ok, Self::Error>;
        type SerializeTupleStruct = Impossible<Self::Ok, Self::Error>;
        type SerializeMap = Impossible<Self::Ok, Self::Error>;
        type SerializeStruct = Impossible<Self::Ok, Self::Error>;

        refuse! { $refusal;
            serialize_bool(v: bool) "a bool";
            serialize_i8(v: i8) "a number";
            serialize_i16(v: i16) "a number";
            serialize_i32(v: i32) "a number";
            serialize_i64(v: i64) "a number";
            serialize_i128(v: i128) "a number";
            serialize_u8(v: u8) "a number";
            serialize_u16(v: u16) "a number";
            serialize_u32(v: u32) "a number";
            serialize_u64(v: u64) "a number";
            serialize_u128(v: u128) "a number";
            serialize_f32(v: f32) "a number";
            serialize_f64(v: f64) "a number";
            serialize_char(v: char) "a char";
            serialize_str(v: &str) "a string";
            serialize_bytes(v: &[u8]) "a byte string";
            serialize_none() "None";
            serialize_unit() "the unit value";
            serialize_unit_struct(name: &'static str) "a unit struct";
        }

        fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Self::Ok, Self::Error> {
            Err($refusal("an Option"))
        }

        fn serialize_newtype_struct<T: Serialize + ?Sized>(
            self,
            _: &'static str,
            _: &T,
        ) -> Result<Self::Ok, Self::Error> {
            Err($refusal("a newtype struct"))
        }

        fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Self::Error> {
            Err($refusal("a sequence"))
        }

        fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Self::Error> {
            Err($refusal("a tuple"))
        }

        fn serialize_tuple_struct(
            self,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeTupleStruct, Self::Error> {
            Err($refusal("a tuple struct"))
        }

        fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Self::Error> {
            Err($refusal("a map (or an internally tagged or untagged enum)"))
        }

        fn serialize_struct(
            self,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeStruct, Self::Error> {
            Err($refusal(
                "a struct (or an internally or adjacently tagged enum)",
            ))
        }
    };
}

impl Serializer for VariantName {
    type Ok = Infallible;
    type Error = Stop;
    type SerializeTupleVariant = Impossible<Infallible, Stop>;
    type SerializeStructVariant = Impossible<Infallible, Stop>;

    refuse_all_but_variants!(Stop::Other);

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Infallible, Stop> {
        Err(Stop::Variant(variant))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: &T,
    ) -> Result<Infallible, Stop> {
        Err(Stop::Variant(variant))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Stop> {
        Err(Stop::Variant(variant))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Stop> {
        Err(Stop::Variant(variant))
    }
}

type Json<'a, 'out> = &'a mut serde_json::Serializer<&'out mut Vec<u8>>;

/// Writes what stands in the variant, without the object that names it.
struct Content<'a, 'out>(Json<'a, 'out>);

impl<'a, 'out> Serializer for Content<'a, 'out> {
    type Ok = ();
    type Error = serde_json::Error;
    type SerializeTupleVariant = Fields<<Json<'a, 'out> as Serializer>::SerializeTuple>;
    type SerializeStructVariant = Fields<<Json<'a, 'out> as Serializer>::SerializeStruct>;

    // Only reached by a `Serialize` that wrote a variant when asked for the name.
    refuse_all_but_variants!(|what| ser::Error::custom(format_args!(
        "{what} where there was a variant before"
    )));

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<(), Self::Error> {
        self.0.serialize_unit()
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Self::Error> {
        value.serialize(self.0)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, Self::Error> {
        self.0.serialize_tuple(len).map(Fields)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, Self::Error> {
        self.0.serialize_struct(name, len).map(Fields)
    }
}

/// A variant's fields, written as those of a tuple or struct that stands alone.
struct Fields<C>(C);

impl<C: SerializeTuple> ser::SerializeTupleVariant for Fields<C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.0.serialize_element(value)
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.0.end()
    }
}

impl<C: SerializeStruct> ser::SerializeStructVariant for Fields<C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), C::Error> {
        self.0.serialize_field(key, value)
    }

    fn skip_field(&mut self, key: &'static str) -> Result<(), C::Error> {
        self.0.skip_field(key)
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.0.end()
    }
}
