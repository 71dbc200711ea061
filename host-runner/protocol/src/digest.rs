//! SHA-256 digests, whole for what is verified and short for what is only compared.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

/// A whole SHA-256 digest, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest that stands before the first entry of a chain.
    pub const ZERO: Digest = Digest([0; 32]);

    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The next link of a hash chain: a digest over the previous link and an entry's bytes (H38).
    pub fn chain(self, entry: &[u8]) -> Digest {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        hasher.update(entry);
        Digest(hasher.finalize().into())
    }

    /// The digest of a value's canonical JSON. Our types have no maps with unordered keys, so it is stable.
    pub fn of_json<T: Serialize>(value: &T) -> Digest {
        let bytes = serde_json::to_vec(value).expect("protocol types serialise: string keys, no foreign Serialize");
        Digest::of(&bytes)
    }

    pub fn short(self) -> ShortDigest {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.0[..16]);
        ShortDigest(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }
}

/// The first 128 bits of a digest: enough to compare what two sides saw, and half the room in a report.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ShortDigest([u8; 16]);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest of {1} hexadecimal digits")]
pub struct DigestError(String, usize);

macro_rules! hex_text {
    ($name:ident, $len:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
        impl FromStr for $name {
            type Err = DigestError;
            fn from_str(text: &str) -> Result<Self, DigestError> {
                let mut bytes = [0; $len];
                match hex::decode_to_slice(text, &mut bytes) {
                    Ok(()) if !text.bytes().any(|b| b.is_ascii_uppercase()) => Ok($name(bytes)),
                    _ => Err(DigestError(text.chars().take(80).collect(), $len * 2)),
                }
            }
        }
        impl From<$name> for String {
            fn from(digest: $name) -> String {
                digest.to_string()
            }
        }
        impl TryFrom<String> for $name {
            type Error = DigestError;
            fn try_from(text: String) -> Result<Self, DigestError> {
                text.parse()
            }
        }
    };
}
hex_text!(Digest, 32);
hex_text!(ShortDigest, 16);
