//! Converts the bytes of a record to a value, by a trait that is optional to use.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::ConsumerRecord;
use crate::error::{BoxError, Error, ErrorKind, Result};

/// The field of a record that is to be deserialized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldContext<'r> {
    /// The topic of the record.
    pub topic: &'r str,
    /// True for the record's key, false for its value.
    pub is_key: bool,
}

/// Turns the bytes of a key or a value into a `T`, which may borrow from them.
///
/// [`ConsumerRecord::value_as`], [`RecordRef::value_as`](crate::consumer::RecordRef::value_as) and
/// `key_as` take a deserializer; the records themselves stay bytes. Every `Fn(&[u8]) -> Result<T,
/// E>` is a deserializer, and [`KafkaFormats`] implements the formats of Kafka's own serializers.
/// It is not called for a null key or value.
///
/// ```
/// use ottla::{
///     BoxError,
///     record::{Deserializer, FieldContext},
/// };
///
/// struct Order {
///     id: u32,
/// }
///
/// /// Orders as the shop writes them: `id=<number>`.
/// struct Orders;
///
/// impl Deserializer<'_, Order> for Orders {
///     fn deserialize(
///         &self,
///         field: FieldContext<'_>,
///         bytes: &[u8],
///     ) -> Result<Order, BoxError> {
///         let id = std::str::from_utf8(bytes)?
///             .strip_prefix("id=")
///             .ok_or_else(|| format!("{}: no id", field.topic))?;
///         Ok(Order { id: id.parse()? })
///     }
/// }
///
/// # fn show(record: &ottla::ConsumerRecord) -> ottla::Result<()> {
/// let order: Option<Order> = record.value_as(&Orders)?;
/// # let _ = order.map(|order| order.id); Ok(()) }
/// ```
pub trait Deserializer<'a, T> {
    /// Returns the value of these bytes.
    ///
    /// # Errors
    /// An error of any type if the bytes are not a `T`. It becomes the source of an error of kind
    /// [`Deserialization`](ErrorKind::Deserialization) that names the record.
    fn deserialize(&self, field: FieldContext<'_>, bytes: &'a [u8]) -> Result<T, BoxError>;
}

impl<'a, T, E, F> Deserializer<'a, T> for F
where
    F: Fn(&'a [u8]) -> Result<T, E>,
    E: Into<BoxError>,
{
    fn deserialize(&self, _field: FieldContext<'_>, bytes: &'a [u8]) -> Result<T, BoxError> {
        self(bytes).map_err(Into::into)
    }
}

/// The formats of Kafka's own serializers, by the requested type: `&str` and `String` (UTF-8),
/// `&[u8]` and `Vec<u8>`, `i16`, `i32`, `i64`, `f32`, `f64` (big endian, of exactly that size),
/// `bool` (one byte, 0 or 1), `Uuid` (its text).
///
/// ```
/// use ottla::record::KafkaFormats;
/// # fn show(record: &ottla::ConsumerRecord) -> ottla::Result<()> {
/// let customer: Option<&str> = record.key_as(&KafkaFormats)?; // borrowed from the record
/// let cents: Option<i64> = record.value_as(&KafkaFormats)?;
/// # let _ = (customer, cents); Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KafkaFormats;

impl<'a> Deserializer<'a, &'a str> for KafkaFormats {
    fn deserialize(&self, _field: FieldContext<'_>, bytes: &'a [u8]) -> Result<&'a str, BoxError> {
        Ok(std::str::from_utf8(bytes)?)
    }
}

impl Deserializer<'_, String> for KafkaFormats {
    fn deserialize(&self, _field: FieldContext<'_>, bytes: &[u8]) -> Result<String, BoxError> {
        Ok(std::str::from_utf8(bytes)?.to_owned())
    }
}

impl<'a> Deserializer<'a, &'a [u8]> for KafkaFormats {
    fn deserialize(&self, _field: FieldContext<'_>, bytes: &'a [u8]) -> Result<&'a [u8], BoxError> {
        Ok(bytes)
    }
}

impl Deserializer<'_, Vec<u8>> for KafkaFormats {
    fn deserialize(&self, _field: FieldContext<'_>, bytes: &[u8]) -> Result<Vec<u8>, BoxError> {
        Ok(bytes.to_vec())
    }
}

macro_rules! numbers {
    ($($number:ty),*) => { $(
        impl Deserializer<'_, $number> for KafkaFormats {
            fn deserialize(&self, _field: FieldContext<'_>, bytes: &[u8]) -> Result<$number, BoxError> {
                let wrong = || format!("an {} has {} bytes, not {}", stringify!($number), size_of::<$number>(), bytes.len());
                Ok(<$number>::from_be_bytes(bytes.try_into().map_err(|_| wrong())?))
            }
        }
    )* };
}

numbers!(i16, i32, i64, f32, f64);

impl Deserializer<'_, bool> for KafkaFormats {
    fn deserialize(&self, _field: FieldContext<'_>, bytes: &[u8]) -> Result<bool, BoxError> {
        match bytes {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err("a bool is one byte, 0 or 1".into()),
        }
    }
}

impl Deserializer<'_, Uuid> for KafkaFormats {
    fn deserialize(&self, _field: FieldContext<'_>, bytes: &[u8]) -> Result<Uuid, BoxError> {
        Ok(Uuid::try_parse_ascii(bytes)?)
    }
}

/// Returns the value of a field, or an error that names the record.
pub(crate) fn field_as<'a, T>(
    deserializer: &(impl Deserializer<'a, T> + ?Sized),
    (topic, partition): (&Arc<str>, i32),
    offset: i64,
    is_key: bool,
    bytes: Option<&'a [u8]>,
) -> Result<Option<T>> {
    let Some(bytes) = bytes else { return Ok(None) };
    let field = FieldContext { topic, is_key };
    deserializer.deserialize(field, bytes).map(Some).map_err(|error| {
        let what = if is_key { "key" } else { "value" };
        let message = format!("{what} of {topic}[{partition}], offset {offset}: {error}");
        Error::new(ErrorKind::Deserialization, message).with_source(error).at(topic.clone(), partition, offset)
    })
}

fn slice(bytes: Option<&Bytes>) -> Option<&[u8]> {
    bytes.map(|bytes| &**bytes)
}

impl ConsumerRecord {
    /// Returns the key as a `T`, or `None` if the record has no key.
    ///
    /// # Errors
    /// Kind `Deserialization`, with the record's topic, partition and offset. The record still
    /// counts as read, and reading continues with the next one.
    pub fn key_as<'a, T>(&'a self, deserializer: &(impl Deserializer<'a, T> + ?Sized)) -> Result<Option<T>> {
        field_as(deserializer, (&self.topic, self.partition), self.offset, true, slice(self.key.as_ref()))
    }

    /// Returns the value as a `T`, or `None` for a tombstone.
    ///
    /// # Errors
    /// Like [`key_as`](Self::key_as).
    pub fn value_as<'a, T>(&'a self, deserializer: &(impl Deserializer<'a, T> + ?Sized)) -> Result<Option<T>> {
        field_as(deserializer, (&self.topic, self.partition), self.offset, false, slice(self.value.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::record::TimestampType;

    fn record(key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> ConsumerRecord {
        ConsumerRecord {
            topic: "t".into(),
            partition: 3,
            offset: 7,
            leader_epoch: None,
            timestamp_millis: -1,
            timestamp_type: TimestampType::CreateTime,
            key: key.map(Bytes::from_static),
            value: value.map(Bytes::from_static),
            headers: Vec::new(),
        }
    }

    fn value<T>(bytes: &'static [u8]) -> Option<T>
    where
        KafkaFormats: for<'a> Deserializer<'a, T>,
    {
        record(None, Some(bytes)).value_as(&KafkaFormats).ok().flatten()
    }

    /// The bytes are those that Kafka's serializers of these types write.
    #[test]
    fn reads_formats_of_kafka_serializers() {
        assert_eq!(value::<i16>(&[0xff, 0xfe]), Some(-2));
        assert_eq!(value::<i32>(&[0, 0, 1, 0]), Some(256));
        assert_eq!(value::<i64>(&[0x80, 0, 0, 0, 0, 0, 0, 0]), Some(i64::MIN));
        assert_eq!(value::<f32>(&[0x3f, 0x80, 0, 0]), Some(1.0));
        assert_eq!(value::<f64>(&[0xc0, 0, 0, 0, 0, 0, 0, 0]), Some(-2.0));
        assert_eq!((value::<bool>(&[1]), value::<bool>(&[0]), value::<bool>(&[2])), (Some(true), Some(false), None));
        assert_eq!(value::<String>("Žluťoučký".as_bytes()), Some("Žluťoučký".to_owned()));
        assert_eq!(value::<Vec<u8>>(&[]), Some(Vec::new()));
        let id = value::<Uuid>(b"936da01f-9abd-4d9d-80c7-02af85c822a8");
        assert_eq!(id.map(|id| id.as_u128()), Some(0x936d_a01f_9abd_4d9d_80c7_02af_85c8_22a8));
        let whole = record(Some(b"k"), None);
        assert_eq!(whole.key_as::<&str>(&KafkaFormats).unwrap(), Some("k"));
        assert_eq!(whole.key_as::<&[u8]>(&KafkaFormats).unwrap(), Some(&b"k"[..]));
        assert_eq!(whole.value_as::<i64>(&KafkaFormats).unwrap(), None, "a tombstone has no value");
    }

    #[test]
    fn error_names_partition_offset_and_field() {
        let bad = record(Some(b"\xff"), Some(b"123"));
        let error = bad.value_as::<i32>(&KafkaFormats).unwrap_err();
        assert_eq!(
            (error.kind(), error.location().map(|at| (&*at.topic, at.partition, at.offset))),
            (ErrorKind::Deserialization, Some(("t", 3, 7)))
        );
        assert_eq!(error.to_string(), "value of t[3], offset 7: an i32 has 4 bytes, not 3");
        let error = bad.key_as::<&str>(&KafkaFormats).unwrap_err();
        assert!(error.to_string().starts_with("key of t[3], offset 7: ") && error.source().is_some(), "{error}");
        assert!(bad.key_as::<Uuid>(&KafkaFormats).is_err() && bad.key_as::<bool>(&KafkaFormats).is_err());
    }

    #[test]
    fn accepts_functions_and_trait_objects() {
        let parse = |bytes: &[u8]| std::str::from_utf8(bytes)?.parse::<u64>().map_err(BoxError::from);
        let record = record(Some(b"x"), Some(b"123"));
        assert_eq!(record.value_as(&parse).unwrap(), Some(123));
        assert!(record.key_as(&parse).is_err());
        let by_name: &dyn for<'a> Deserializer<'a, String> = &KafkaFormats;
        assert_eq!(record.value_as(by_name).unwrap().as_deref(), Some("123"));
        assert_eq!(record.value_as(&std::str::from_utf8).unwrap(), Some("123"));
    }
}
