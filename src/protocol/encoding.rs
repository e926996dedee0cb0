//! JSON and MessagePack: telling them apart, and writing and reading what is not a request's body.
//!
//! Requests are decoded strictly, in [`fields`](super::fields). Replies are read leniently: fields
//! that later versions add are passed over.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::error::{Code, ErrorReply};
use crate::protocol::{Encoding, Refusal};

/// The header that overrides what the first byte says.
pub const CONTENT_TYPE: &str = "Content-Type";

impl Encoding {
    /// How a request is encoded: by its `Content-Type` header, of which case and parameters do not
    /// matter, else by its first byte.
    ///
    /// # Errors
    /// `bad_request` for any other content type or first byte; such a request is answered in JSON.
    pub fn of_request(content_type: Option<&str>, body: &[u8]) -> Result<Self, Refusal> {
        let media_type = content_type.map(|header| {
            let (media_type, _) = header.split_once(';').unwrap_or((header, ""));
            media_type.trim().to_ascii_lowercase()
        });
        match (media_type.as_deref(), body.first()) {
            (Some("application/json"), _) => Ok(Encoding::Json),
            (Some("application/msgpack"), _) => Ok(Encoding::MessagePack),
            (Some(_), _) => Err(ErrorReply::bad_field(
                CONTENT_TYPE,
                "the Content-Type header must be application/json or application/msgpack",
            )
            .into()),
            (None, None | Some(b'{' | b' ' | b'\t' | b'\n' | b'\r')) => Ok(Encoding::Json),
            (None, Some(0x80..=0x8f | 0xde | 0xdf)) => Ok(Encoding::MessagePack),
            (None, Some(byte)) => Err(Box::new(ErrorReply::new(
                Code::BadRequest,
                format!(
                    "the body must be one map in JSON or MessagePack; no such map starts with \
                     the byte 0x{byte:02x}"
                ),
            ))),
        }
    }

    /// Writes a value: JSON on one line, or MessagePack with names of fields.
    ///
    /// # Panics
    /// When the value has no such form, which no type of this module is.
    pub fn encode<T: Serialize>(self, value: &T) -> Bytes {
        const FORM: &str = "every wire type has a form in both encodings";
        match self {
            Encoding::Json => serde_json::to_vec(value).expect(FORM).into(),
            Encoding::MessagePack => rmp_serde::to_vec_named(value).expect(FORM).into(),
        }
    }

    /// Reads a value, passing over fields that it does not have.
    ///
    /// # Errors
    /// What is wrong with the bytes, in words.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, String> {
        match self {
            Encoding::Json => serde_json::from_slice(bytes).map_err(|e| e.to_string()),
            Encoding::MessagePack => rmp_serde::from_slice(bytes).map_err(|e| e.to_string()),
        }
    }
}
