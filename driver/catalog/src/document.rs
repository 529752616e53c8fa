//! Values of the catalog: JSON in an envelope with a format number.
//!
//! ```json
//! {"format":1,"body":{...}}
//! ```
//! The format is one of the kind of value: it grows when that kind gets a field, and older ones are read as before it.
//! A higher format than is known is refused as newer, an unknown field or a value that does not parse as corrupt: the
//! control plane never acts on a record that it understands in part.

pub(crate) mod record;
pub(crate) mod text;

use crate::{CatalogError, CatalogErrorKind, KeyValue};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Of every kind of value that has not changed since it was made.
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct EnvelopeOut<'a, T> {
    format: u32,
    body: &'a T,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeIn<T> {
    #[serde(rename = "format")]
    _format: u32,
    body: T,
}

/// What is looked at before the body is: a newer body need not parse.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

pub(crate) fn encode<T: Serialize>(body: &T) -> Vec<u8> {
    encode_as(FORMAT, body)
}

pub(crate) fn encode_as<T: Serialize>(format: u32, body: &T) -> Vec<u8> {
    serde_json::to_vec(&EnvelopeOut { format, body }).expect("documents hold nothing that JSON cannot")
}

pub(crate) fn decode<T: DeserializeOwned>(stored: &KeyValue) -> Result<T, CatalogError> {
    decode_value(&stored.key, &stored.value)
}

/// Of a kind of value whose newest format is `newest`.
pub(crate) fn decode_as<T: DeserializeOwned>(newest: u32, stored: &KeyValue) -> Result<T, CatalogError> {
    decode_value_as(newest, &stored.key, &stored.value)
}

pub(crate) fn decode_value<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, CatalogError> {
    decode_value_as(FORMAT, key, value)
}

fn decode_value_as<T: DeserializeOwned>(newest: u32, key: &str, value: &[u8]) -> Result<T, CatalogError> {
    let Format { format } = serde_json::from_slice(value).map_err(|error| damaged(key, error))?;
    if !(FORMAT..=newest).contains(&format) {
        let text = format!("{key} has format {format}, this version knows {newest}");
        return Err(CatalogError::new(CatalogErrorKind::Newer, text));
    }
    let envelope: EnvelopeIn<T> = serde_json::from_slice(value).map_err(|error| damaged(key, error))?;
    Ok(envelope.body)
}

fn damaged(key: &str, error: serde_json::Error) -> CatalogError {
    CatalogError::because(CatalogErrorKind::Corrupt, format!("read {key}"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Body {
        n: u64,
    }

    fn kind(text: &str) -> CatalogErrorKind {
        decode_value::<Body>("k", text.as_bytes()).unwrap_err().kind()
    }

    #[test]
    fn a_value_round_trips() {
        assert_eq!(decode_value::<Body>("k", &encode(&Body { n: u64::MAX })).unwrap(), Body { n: u64::MAX });
    }

    #[test]
    fn newer_and_damaged_values_are_told_apart_and_refused() {
        assert_eq!(kind(r#"{"format":2,"body":{"m":1}}"#), CatalogErrorKind::Newer);
        for bad in ["", "{", r#"{"format":1,"body":{"n":1,"m":2}}"#, r#"{"format":1,"body":{}}"#, r#"{"body":{"n":1}}"#]
        {
            assert_eq!(kind(bad), CatalogErrorKind::Corrupt, "{bad}");
        }
    }
}
