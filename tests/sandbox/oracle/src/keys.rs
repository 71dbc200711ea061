//! Master key ids (O§3.8) and what is wrapped under a master key.

use base64::Engine as _;
use serde::{Deserialize, Serialize};

/// The two kinds of keystore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    File,
    Hsm,
}

impl Kind {
    #[must_use]
    pub fn wrl_type(self) -> &'static str {
        match self {
            Kind::File => "FILE",
            Kind::Hsm => "HSM",
        }
    }

    /// V$ENCRYPTION_KEYS.KEYSTORE_TYPE.
    #[must_use]
    pub fn keystore_type(self) -> &'static str {
        match self {
            Kind::File => "SOFTWARE KEYSTORE",
            Kind::Hsm => "HSM",
        }
    }

    #[must_use]
    pub fn other(self) -> Kind {
        match self {
            Kind::File => Kind::Hsm,
            Kind::Hsm => Kind::File,
        }
    }
}

/// The 16 bytes of a master key's id, in upper hex (MASTERKEYID), shaped like a UUID v4.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mkid(pub String);

impl Mkid {
    #[must_use]
    pub fn random() -> Mkid {
        let mut bytes: [u8; 16] = crate::crypto::random();
        bytes[6] = 0x4F;
        bytes[8] = 0xBF;
        Mkid(hex::encode_upper(bytes))
    }

    /// KEY_ID as the keystore of this kind spells it (R21).
    #[must_use]
    pub fn key_id(&self, kind: Kind) -> String {
        match kind {
            Kind::Hsm => format!("06{}", self.0),
            Kind::File => {
                let bytes = hex::decode(format!("01{}", self.0)).unwrap_or_default();
                let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes);
                format!("{text:A<52}")
            }
        }
    }

    /// The label of the key in an HSM (O§3.9).
    #[must_use]
    pub fn label(&self) -> String {
        format!("{LABEL}06{}", self.0)
    }

    /// The label of the metadata object in an HSM (O§3.9).
    #[must_use]
    pub fn data_label(&self) -> String {
        format!("{DATA_LABEL}{}", hex::encode_upper(self.key_id(Kind::Hsm).as_bytes()))
    }
}

pub const LABEL: &str = "ORACLE.TDE.HSM.MK.";
pub const DATA_LABEL: &str = "ORACLE.SECURITY.KM.ENCRYPTION.";

/// A data key under a master key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrapped {
    pub mkid: Mkid,
    pub kind: Kind,
    /// Hex of the wrapped key.
    pub bytes: String,
}

/// What a keystore knows of a key besides the key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyMeta {
    /// Julian day.
    pub created: f64,
    pub con_id: u32,
    pub container: String,
    pub pdb_guid: String,
    pub db_name: String,
    pub dbid: u32,
    #[serde(default)]
    pub tag: Option<String>,
}
