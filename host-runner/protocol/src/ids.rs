//! Identifiers. Each is parsed once, at the edge, and cannot hold anything but what AWS or Oracle allow there, so
//! no later place has to ask whether a name may be quoted, put in a path or sent back (H34, H36).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct IdError {
    pub text: String,
    pub expected: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                let check: fn(&str) -> bool = $check;
                if check(&text) {
                    Ok($name(text))
                } else {
                    Err(IdError { text: text.chars().filter(|c| !c.is_control()).take(80).collect(), expected: $expected })
                }
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                $name::new(text)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                $name::new(text)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

fn all(text: &str, min: usize, max: usize, allowed: fn(u8) -> bool) -> bool {
    (min..=max).contains(&text.len()) && text.bytes().all(allowed)
}

fn prefixed_hex(text: &str, prefix: &str, lengths: &[usize]) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| {
        lengths.contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

fn slug(text: &str, max: usize) -> bool {
    all(text, 1, max, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

id!(/// An AWS account number.
    AccountId, "an AWS account number of 12 digits", |t| all(t, 12, 12, |b| b.is_ascii_digit()));
id!(/// An AWS region name, such as `eu-central-1`.
    Region, "an AWS region name", |t| slug(t, 32) && t.contains('-'));
id!(/// An EC2 instance id.
    InstanceId, "an EC2 instance id (`i-` and 8 or 17 hexadecimal digits)", |t| prefixed_hex(t, "i-", &[8, 17]));
id!(/// A CloudHSM v2 cluster id.
    ClusterId, "a CloudHSM cluster id (`cluster-…`)", |t| t
        .strip_prefix("cluster-")
        .is_some_and(|r| all(r, 11, 16, |b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b))));
id!(/// One execution of one plan.
    CampaignId, "a campaign id (lower-case letters, digits and `-`, at most 40)", |t| slug(t, 40));
id!(/// One delivery of one segment to one host; what a second delivery is recognised by.
    OperationId, "an operation id (lower-case letters, digits and `-`, at most 40)", |t| slug(t, 40));
id!(/// One drill; the value of the tag `tde2hsm:drill` on everything it makes.
    DrillId, "a drill id (lower-case letters, digits and `-`, at most 40)", |t| slug(t, 40));
id!(/// The mark in a command's Comment by which a lost SendCommand is found again (`A§1.5`).
    OrderToken, "an order token (lower-case letters, digits and `-`, at most 40)", |t| slug(t, 40));
id!(/// An ORACLE_SID: letters, digits, `_`, `$`, `#`, first a letter, at most 30. Kept free of anything a path or a shell would read.
    Sid, "an ORACLE_SID", |t| all(t, 1, 30, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b == b'#')
        && t.as_bytes()[0].is_ascii_alphabetic());
id!(/// A container: `CDB$ROOT`, a PDB's name, or the database name of a non-CDB.
    ContainerName, "a container name", |t| all(t, 1, 128, |b| b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b == b'#'));
id!(/// A full ARN of a Secrets Manager secret (H13: never a bare name).
SecretArn, "a full Secrets Manager ARN (`arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-XXXXXX`)", |t| {
    let parts: Vec<&str> = t.splitn(7, ':').collect();
    t.len() <= 2048 && parts.len() == 7 && parts[0] == "arn" && parts[1].starts_with("aws") && parts[2] == "secretsmanager"
        && Region::new(parts[3]).is_ok() && AccountId::new(parts[4]).is_ok() && parts[5] == "secret"
        && all(parts[6], 1, 512, |b| b.is_ascii_alphanumeric() || b"/_+=.@-".contains(&b))
});
id!(/// A version of a secret; pinned, so that a rotation in the middle is seen (H13).
    SecretVersion, "a secret VersionId", |t| all(t, 8, 64, |b| b.is_ascii_alphanumeric() || b == b'-'));
id!(/// What the names of escrowed keystore files start with in Secrets Manager: `tde/escrow`.
    EscrowPrefix, "a secret name prefix (letters, digits and `/_+=.@-`, at most 128, no `/` at either end)", |t| all(t, 1, 128, |b| b
        .is_ascii_alphanumeric() || b"/_+=.@-".contains(&b)) && !t.starts_with('/') && !t.ends_with('/') && !t.contains("//"));

id!(/// An EBS volume id.
    VolumeId, "an EBS volume id (`vol-` and 8 or 17 hexadecimal digits)", |t| prefixed_hex(t, "vol-", &[8, 17]));
id!(/// An EBS snapshot id.
    SnapshotId, "an EBS snapshot id (`snap-` and 8 or 17 hexadecimal digits)", |t| prefixed_hex(t, "snap-", &[8, 17]));
id!(/// A VPC subnet id.
    SubnetId, "a subnet id (`subnet-` and 8 or 17 hexadecimal digits)", |t| prefixed_hex(t, "subnet-", &[8, 17]));
id!(/// A VPC security group id.
    SecurityGroupId, "a security group id (`sg-` and 8 or 17 hexadecimal digits)", |t| prefixed_hex(t, "sg-", &[8, 17]));
id!(/// A CloudHSM v2 HSM id.
    HsmId, "a CloudHSM HSM id (`hsm-…`)", |t| t
        .strip_prefix("hsm-")
        .is_some_and(|rest| (11..=32).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_alphanumeric())));
id!(/// A CloudHSM v2 backup id.
    BackupId, "a CloudHSM backup id (`backup-…`)", |t| t
        .strip_prefix("backup-")
        .is_some_and(|r| all(r, 11, 16, |b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b))));
id!(/// A full ARN of a KMS key (no alias: an alias can be moved to another key).
KmsKeyArn, "a full KMS key ARN (`arn:aws:kms:REGION:ACCOUNT:key/ID`)", |t| {
    let parts: Vec<&str> = t.splitn(6, ':').collect();
    parts.len() == 6 && parts[0] == "arn" && parts[1].starts_with("aws") && parts[2] == "kms"
        && Region::new(parts[3]).is_ok() && AccountId::new(parts[4]).is_ok()
        && parts[5].strip_prefix("key/").is_some_and(|id| all(id, 1, 64, |b| b.is_ascii_alphanumeric() || b == b'-'))
});

impl SecretArn {
    pub fn region(&self) -> Region {
        Region::new(self.0.split(':').nth(3).unwrap_or_default()).expect("checked by SecretArn::new")
    }
    pub fn account(&self) -> AccountId {
        AccountId::new(self.0.split(':').nth(4).unwrap_or_default()).expect("checked by SecretArn::new")
    }
}

impl KmsKeyArn {
    pub fn region(&self) -> Region {
        Region::new(self.0.split(':').nth(3).unwrap_or_default()).expect("checked by KmsKeyArn::new")
    }
}

impl ContainerName {
    pub const ROOT: &'static str = "CDB$ROOT";
}

/// One secret at one version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    pub arn: SecretArn,
    pub version: SecretVersion,
}

/// Seconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    pub fn plus(self, seconds: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(seconds))
    }
    /// Seconds from `earlier` to `self`.
    pub fn since(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Which of the controllers that ever held a campaign speaks: a host refuses what is older (H31, H32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A TDE master key's 16 bytes (MASTERKEYID, `O§3.8`), whichever store it lies in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MasterKeyId(pub [u8; 16]);

impl MasterKeyId {
    pub const NONE: MasterKeyId = MasterKeyId([0; 16]);
}
impl fmt::Display for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_upper(self.0))
    }
}
impl fmt::Debug for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKeyId({self})")
    }
}
impl FromStr for MasterKeyId {
    type Err = IdError;
    /// Takes MASTERKEYID (32 hexadecimal digits), an HSM KEY_ID (`06` and 32 digits) and a software KEY_ID (base64 of `01` and 16 bytes, padded with `A` to 52).
    fn from_str(text: &str) -> Result<Self, IdError> {
        use base64::Engine as _;
        let error =
            || IdError { text: text.chars().filter(|c| !c.is_control()).take(80).collect(), expected: "a TDE master key id" };
        let mut bytes = [0; 16];
        match text.len() {
            32 => hex::decode_to_slice(text, &mut bytes).map_err(|_| error())?,
            34 if text.starts_with("06") => hex::decode_to_slice(&text[2..], &mut bytes).map_err(|_| error())?,
            52 => {
                let raw = base64::engine::general_purpose::STANDARD.decode(text).map_err(|_| error())?;
                if raw.first() != Some(&1) || raw.len() < 17 {
                    return Err(error());
                }
                bytes.copy_from_slice(&raw[1..17]);
            }
            _ => return Err(error()),
        }
        Ok(MasterKeyId(bytes))
    }
}
impl From<MasterKeyId> for String {
    fn from(id: MasterKeyId) -> String {
        id.to_string()
    }
}
impl TryFrom<String> for MasterKeyId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}
