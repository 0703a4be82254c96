//! Other text and other error codes in a response, for tests of what a client makes of them.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Field, Kind, Shape};
use crate::{
    error::Result,
    wire::{
        ApiKey,
        read::Reader,
        write::{put_length, put_string, put_unsigned},
    },
};

/// What a response is changed to, field by field.
pub(crate) trait Rewrite {
    fn text(&self, field: &'static str, was: Option<String>) -> Option<String>;

    fn bytes(&self, field: &'static str, was: Bytes) -> Bytes;

    fn code(&self, was: i16) -> i16;
}

/// The changed body; `None` for a response without a shape.
pub(crate) fn rewrite(key: ApiKey, version: i16, body: &[u8], change: &dyn Rewrite) -> Option<Result<Bytes>> {
    let shape = Shape::of(key)?;
    let writer = Writer { version, flexible: version >= shape.flexible, change };
    let mut out = BytesMut::new();
    Some(writer.fields(shape.fields, &mut Reader::new(body), &mut out).map(|()| out.freeze()))
}

/// The names of the strings in a response, of all versions.
pub(crate) fn strings(key: ApiKey) -> Vec<&'static str> {
    fn of(fields: &'static [Field], names: &mut Vec<&'static str>) {
        for field in fields {
            within(field.name, &field.kind, names);
        }
    }
    fn within(name: &'static str, kind: &'static Kind, names: &mut Vec<&'static str>) {
        match kind {
            Kind::String if !names.contains(&name) => names.push(name),
            Kind::Array(kind) => within(name, kind, names),
            Kind::Struct(fields) | Kind::Optional(fields) => of(fields, names),
            _ => {}
        }
    }
    let mut names = Vec::new();
    if let Some(shape) = Shape::of(key) {
        of(shape.fields, &mut names);
    }
    names
}

struct Writer<'a> {
    version: i16,
    flexible: bool,
    change: &'a dyn Rewrite,
}

impl Writer<'_> {
    fn fields(&self, fields: &'static [Field], reader: &mut Reader<'_>, out: &mut BytesMut) -> Result<()> {
        for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(self.version)) {
            self.value(field.name, &field.kind, reader, out)?;
        }
        if !self.flexible {
            return Ok(());
        }
        let mut parts = Vec::new();
        reader.tagged(true, |tag, part| {
            let mut changed = BytesMut::new();
            match fields.iter().find(|field| field.tag == Some(tag) && field.is_in(self.version)) {
                Some(field) => self.value(field.name, &field.kind, part, &mut changed)?,
                None => panic!("tag {tag} has no shape"),
            }
            parts.push((tag, changed));
            Ok(())
        })?;
        put_unsigned(out, parts.len() as u32);
        for (tag, changed) in parts {
            put_unsigned(out, tag);
            put_unsigned(out, changed.len() as u32);
            out.put_slice(&changed);
        }
        Ok(())
    }

    fn value(
        &self,
        name: &'static str,
        kind: &'static Kind,
        reader: &mut Reader<'_>,
        out: &mut BytesMut,
    ) -> Result<()> {
        match kind {
            Kind::Fixed(2) if name == "error_code" => out.put_i16(self.change.code(reader.i16()?)),
            Kind::Fixed(size) => out.put_slice(reader.take(*size)?),
            Kind::String => {
                let was = reader.string(self.flexible)?.map(str::to_owned);
                put_string(out, self.change.text(name, was).as_deref(), self.flexible)?;
            }
            Kind::Bytes => {
                let length = reader.count(self.flexible)?;
                let changed = self.change.bytes(name, Bytes::copy_from_slice(reader.take(length)?));
                put_length(out, changed.len(), self.flexible)?;
                out.put_slice(&changed);
            }
            Kind::Array(of) => {
                let count = reader.count(self.flexible)?;
                put_length(out, count, self.flexible)?;
                for _ in 0..count {
                    self.value(name, of, reader, out)?;
                }
            }
            Kind::Struct(fields) => self.fields(fields, reader, out)?,
            Kind::Optional(fields) => {
                let there = reader.i8()?;
                out.put_i8(there);
                if there == 1 {
                    self.fields(fields, reader, out)?;
                }
            }
        }
        Ok(())
    }
}
