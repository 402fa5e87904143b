//! What [`Sse`](crate::Sse) and [`Channel`](crate::Channel) accept: serde values and [`Event`]s,
//! but no `Result`.

use serde::Serialize;

use crate::{
    error::Error,
    event::{
        Event, EventName,
        encode::{self, IdOffset},
        variant,
    },
};

/// A type that becomes one event: any [`Serialize`] type, with its JSON as the data, or [`Event`].
///
/// This trait is sealed and implemented for all supported types.
///
/// ```
/// use axum_sse::{Event, Payload};
///
/// fn check<T: Payload + ?Sized>() {}
/// check::<str>();
/// check::<Vec<u64>>();
/// check::<Event>();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent as an event",
    label = "neither an `Event` nor a value that implements `serde::Serialize`",
    note = "for a stream of `Result`s, use `Sse::try_new`"
)]
pub trait Payload: sealed::Encode {}

// For a `Result`, the compiler would otherwise suggest making its error type serializable.
#[diagnostic::do_not_recommend]
impl<T: sealed::Encode + ?Sized> Payload for T {}

/// Satisfied by every type except `Result`.
///
/// serde can serialize a `Result`, so without this bound [`Sse::new`](crate::Sse::new) would accept
/// a stream of results and send `{"Err":…}` to browsers. `Result` has two implementations of this
/// trait, so the compiler cannot infer `Kind` and reports an error; the name of one of them
/// suggests the fix.
///
/// ```
/// let _ = axum_sse::Sse::new(tokio_stream::iter([1, 2]));
/// ```
///
/// A stream of `Result`s does not compile, whether or not its error implements `Serialize`:
///
/// ```compile_fail,E0283
/// let numbers = axum_sse::Sse::new(tokio_stream::iter([Ok::<_, String>(1)]));
/// ```
///
/// ```compile_fail,E0277
/// let lines = axum_sse::Sse::new(tokio_stream::iter([Ok::<_, std::io::Error>(1)]));
/// ```
pub trait NotAResult<Kind> {}

impl<T: ?Sized> NotAResult<sealed::Value> for T {}

impl<T, E> NotAResult<sealed::for_a_stream_of_results_call_try_new_instead_of_new>
    for Result<T, E>
{
}

/// Appends a whole event, or nothing.
pub(crate) type Encode<T> = fn(&T, &mut Vec<u8>) -> Result<Encoded, Error>;

/// What a channel needs to know about an event that it has encoded.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) id_offset: IdOffset,
    /// The event's name, if the value has named it.
    pub(crate) name: Option<EventName>,
}

pub(crate) mod sealed {
    use super::Error;

    #[derive(Debug)]
    pub enum Value {}

    #[allow(non_camel_case_types)] // The compiler's message shows this name.
    #[derive(Debug)]
    pub enum for_a_stream_of_results_call_try_new_instead_of_new {}

    pub trait Encode {
        #[doc(hidden)]
        fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error>;
    }
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> sealed::Encode for T {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        encode_json(self, out)?;
        Ok(())
    }
}

impl sealed::Encode for Event {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        Event::encode(self, out);
        Ok(())
    }
}

/// Encodes a value as an event without a name.
pub(crate) fn encode_json<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<Encoded, Error> {
    let id_offset = out.len();
    encode::json(out, value)?;
    encode::end(out);
    Ok(Encoded {
        id_offset,
        name: None,
    })
}

/// Encodes a value that names its own event.
pub(crate) fn encode_named<T: Serialize + ?Sized>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<Encoded, Error> {
    let name = variant::name(value)?;
    let start = out.len();
    encode::name(out, name.as_str());
    let id_offset = out.len();
    if let Err(error) = variant::content(out, value) {
        out.truncate(start);
        return Err(error);
    }
    encode::end(out);
    Ok(Encoded {
        id_offset,
        name: Some(name),
    })
}
