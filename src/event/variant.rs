//! Events named after enum variants: the variant's name becomes `event:`, its content `data:`.
//!
//! Only externally tagged enums reveal the variant to a serializer. All other values are rejected.

use std::{convert::Infallible, fmt};

use serde::ser::{self, Impossible, Serialize, SerializeStruct, SerializeTuple, Serializer};

use crate::{
    error::{Error, ErrorKind},
    event::{EventName, encode, id::quoted},
};

/// The default name of the gap event. No variant can have this name.
pub(crate) const GAP: EventName = crate::event_name!("gap");

/// Whether channels or runs use this name by default for events that they send themselves.
pub(crate) fn is_reserved(name: &str) -> bool {
    [GAP.as_str(), "checkpoint", "snapshot", "end"].contains(&name)
}

/// The name of the value's variant, as an event name.
pub(crate) fn name<T: Serialize + ?Sized>(value: &T) -> Result<EventName, Error> {
    let variant = match value.serialize(VariantName) {
        Ok(never) => match never {},
        Err(Stop::Variant(name)) => name,
        Err(Stop::Failed(why)) => {
            return Err(Error::new(
                ErrorKind::Serialize,
                format!("serializing to JSON: {why}"),
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
            format!("event name {} is reserved for the channel", quoted(variant)),
        ));
    }
    EventName::new(variant)
}

/// Appends the variant's content as `data` lines. Leaves `out` unchanged on an error.
pub(crate) fn content<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), Error> {
    encode::data_written_by(out, |out| {
        value.serialize(Content(&mut serde_json::Serializer::new(out)))
    })
}

/// Stops at the first call, which reveals the variant, so the content is never visited.
struct VariantName;

#[derive(Debug)]
enum Stop {
    Variant(&'static str),
    Other(&'static str),
    /// The value's `Serialize` failed before it reached a variant.
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

/// Serializer methods that always fail.
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

/// Writes the content of a variant, without the object that names the variant.
struct Content<'a, 'out>(Json<'a, 'out>);

impl<'a, 'out> Serializer for Content<'a, 'out> {
    type Ok = ();
    type Error = serde_json::Error;
    type SerializeTupleVariant = Fields<<Json<'a, 'out> as Serializer>::SerializeTuple>;
    type SerializeStructVariant = Fields<<Json<'a, 'out> as Serializer>::SerializeStruct>;

    // Only for a `Serialize` that produced a variant in the first pass, for the name, and something
    // else in the second.
    refuse_all_but_variants!(|what| ser::Error::custom(format_args!(
        "a variant the first time and {what} the second time"
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

/// Writes a variant's fields like those of a plain tuple or struct.
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
