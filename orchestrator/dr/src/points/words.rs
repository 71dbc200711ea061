//! Causes and unknowns: each a code, a sentence, a page.

use super::{Ask, SecretRole};
use crate::facts::KmsState;
use crate::inventory::FileKind;
use serde::{Deserialize, Serialize};
use std::fmt;
use tde2hsm_protocol::{
    BackupId, Code, ContainerName, KmsKeyArn, MasterKeyId, SecretArn, SecretVersion, SnapshotId, Timestamp, VolumeId,
};

/// Why a point does not open.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "cause")]
pub enum Cause {
    /// The instance's other sets hold it, this one does not.
    VolumeMissing {
        volume: VolumeId,
        files: Vec<FileKind>,
    },
    /// A file lies on a volume that no set of the instance holds.
    FileOutside {
        volume: VolumeId,
        what: FileKind,
        path: String,
    },
    /// A file lies on something that no snapshot can hold.
    FileOnNoVolume {
        what: FileKind,
        path: String,
    },
    CopyMissing {
        source: SnapshotId,
    },
    CopyPending {
        copy: SnapshotId,
    },
    CopyFailed {
        copy: SnapshotId,
    },
    CopyArchived {
        copy: SnapshotId,
    },
    CopyKeyUnusable {
        copy: SnapshotId,
        key: KmsKeyArn,
        state: crate::facts::KmsState,
    },
    /// A secret's value cannot be read: its key is of no use.
    SecretKeyUnusable {
        role: SecretRole,
        secret: SecretArn,
        key: KmsKeyArn,
        state: crate::facts::KmsState,
    },
    /// Taken one volume after the other, says the tag itself.
    Inconsistent,
    /// There is no HSM backup in the DR region that is READY and new enough for the key, but the source region has one, or
    /// the set is newer than every copy.
    BackupNotCopied {
        key: MasterKeyId,
        newest_copied: Option<Timestamp>,
    },
    /// No HSM backup of either region is new enough for the key.
    KeyInNoBackup {
        key: MasterKeyId,
        newest: Option<Timestamp>,
    },
    /// The same, and the inventory before the set does not know the key: it was rotated between two looks.
    KeyRotatedUnseen {
        key: MasterKeyId,
        container: Option<ContainerName>,
        activated: Timestamp,
        newest_copied: Option<Timestamp>,
    },
    KeyInOldHsm {
        key: MasterKeyId,
    },
    /// Only the software keystore has the key, and its `ewallet.p12` is not part of the point.
    KeyInKeystoreOnly {
        key: MasterKeyId,
        directory: Option<String>,
    },
    /// Only the software keystore has the key, and all there is of it opens on its own host alone.
    LocalAutoLoginOnly {
        key: MasterKeyId,
        directory: Option<String>,
    },
    /// Every backup that has the keys wants a password whose version is gone: it was rotated since.
    SecretVersionGone {
        role: SecretRole,
        secret: SecretArn,
        version: SecretVersion,
    },
    SecretNotReplicated {
        role: SecretRole,
        secret: SecretArn,
    },
}

/// What is not known, so that a point is not proven.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "unknown")]
pub enum Unknown {
    NoInventoryBefore,
    NoInventoryAfter,
    /// What bears the name after the set is another database than before it.
    OtherDatabase {
        at: Timestamp,
    },
    ClockOff {
        at: Timestamp,
        seconds: i64,
    },
    Blind {
        at: Timestamp,
        container: ContainerName,
    },
    Unreadable {
        at: Timestamp,
        what: String,
    },
    /// The map names no file of this kind.
    NoFilesKnown {
        at: Timestamp,
        what: FileKind,
    },
    FilePlace {
        what: FileKind,
        path: String,
    },
    /// A volume that one of the two inventories needs is not in the set.
    VolumePerhapsMissing {
        volume: VolumeId,
    },
    Consistency,
    /// Neither a row of V$ENCRYPTION_KEYS nor the provider says where the key lies.
    KeyPlace {
        key: MasterKeyId,
    },
    /// Perhaps needed, and absent.
    KeyPerhapsNeeded {
        key: MasterKeyId,
    },
    /// Whether a backup that is READY and opens has the key.
    KeyInBackup {
        key: MasterKeyId,
        backup: Option<BackupId>,
    },
    /// It was in the HSM, and a later look found it there no more: backups made since may lack it.
    KeyNoLongerListed {
        key: MasterKeyId,
        backup: BackupId,
        /// When that look was taken.
        missed: Timestamp,
    },
    AutoLoginContent {
        key: MasterKeyId,
        directory: Option<String>,
    },
    KeystoreKind {
        key: MasterKeyId,
        directory: Option<String>,
    },
    /// Nobody said which secret the database uses.
    NoSecretNamed {
        role: SecretRole,
    },
    /// Which version was current then.
    SecretVersion {
        role: SecretRole,
        secret: SecretArn,
    },
    /// It is there without any stage and may go at any time.
    SecretUnstaged {
        role: SecretRole,
        secret: SecretArn,
        version: SecretVersion,
    },
    CopyKey {
        copy: SnapshotId,
        key: Option<KmsKeyArn>,
    },
    SecretKey {
        role: SecretRole,
        secret: SecretArn,
        key: Option<KmsKeyArn>,
    },
    CopyState {
        copy: SnapshotId,
    },
    NotAsked {
        what: Ask,
    },
}

impl Cause {
    pub fn code(&self) -> Code {
        match self {
            Cause::VolumeMissing { .. } => Code::POINT_VOLUME_MISSING,
            Cause::FileOutside { .. } | Cause::FileOnNoVolume { .. } => Code::POINT_FILE_OUTSIDE,
            Cause::CopyMissing { .. } => Code::POINT_COPY_MISSING,
            Cause::CopyPending { .. } => Code::POINT_COPY_PENDING,
            Cause::CopyFailed { .. } => Code::POINT_COPY_FAILED,
            Cause::CopyArchived { .. } => Code::POINT_COPY_ARCHIVED,
            Cause::CopyKeyUnusable { .. } | Cause::SecretKeyUnusable { .. } => Code::POINT_COPY_KEY_UNUSABLE,
            Cause::Inconsistent => Code::POINT_INCONSISTENT,
            Cause::BackupNotCopied { .. } => Code::POINT_BACKUP_NOT_COPIED,
            Cause::KeyInNoBackup { .. } => Code::POINT_KEY_IN_NO_BACKUP,
            Cause::KeyRotatedUnseen { .. } => Code::POINT_KEY_ROTATED_UNSEEN,
            Cause::KeyInOldHsm { .. } => Code::POINT_KEY_IN_OLD_HSM,
            Cause::KeyInKeystoreOnly { .. } => Code::POINT_KEY_IN_KEYSTORE_ONLY,
            Cause::LocalAutoLoginOnly { .. } => Code::POINT_LOCAL_AUTO_LOGIN,
            Cause::SecretVersionGone { role: SecretRole::CryptoUser, .. } => Code::POINT_SECRET_GONE,
            Cause::SecretVersionGone { role: SecretRole::Keystore, .. } => Code::POINT_KEYSTORE_PASSWORD_GONE,
            Cause::SecretNotReplicated { .. } => Code::POINT_SECRET_NOT_REPLICATED,
        }
    }
}

impl Unknown {
    pub fn code(&self) -> Code {
        match self {
            Unknown::NoInventoryBefore | Unknown::NoInventoryAfter | Unknown::OtherDatabase { .. } => Code::POINT_NO_INVENTORY,
            Unknown::ClockOff { .. } | Unknown::Blind { .. } | Unknown::Unreadable { .. } => Code::POINT_INVENTORY_BLIND,
            Unknown::NoFilesKnown { .. } | Unknown::FilePlace { .. } | Unknown::VolumePerhapsMissing { .. } => {
                Code::POINT_FILES_UNKNOWN
            }
            Unknown::Consistency => Code::POINT_CONSISTENCY_UNKNOWN,
            Unknown::KeyPlace { .. } | Unknown::KeyPerhapsNeeded { .. } => Code::POINT_KEY_PLACE_UNKNOWN,
            Unknown::AutoLoginContent { .. } | Unknown::KeystoreKind { .. } => Code::POINT_KEY_PLACE_UNKNOWN,
            Unknown::KeyInBackup { .. } | Unknown::KeyNoLongerListed { .. } => Code::POINT_KEY_IN_BACKUP_UNKNOWN,
            Unknown::NoSecretNamed { .. } | Unknown::SecretVersion { .. } | Unknown::SecretUnstaged { .. } => {
                Code::POINT_SECRET_UNKNOWN
            }
            Unknown::CopyKey { .. } | Unknown::SecretKey { .. } | Unknown::CopyState { .. } => Code::POINT_COPY_STATE_UNKNOWN,
            Unknown::NotAsked { .. } => Code::POINT_NOT_ASKED,
        }
    }
}

/// Of a kind of file, for a sentence.
pub(crate) fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Datafile => "data files",
        FileKind::Controlfile => "a control file",
        FileKind::RedoLog => "redo logs",
        FileKind::ArchivedLogs => "archived logs",
        FileKind::RecoveryArea => "the recovery area",
        FileKind::ParameterFile => "the parameter file",
        FileKind::PasswordFile => "the password file",
        FileKind::NetworkConfig => "the network configuration",
        FileKind::KeystoreDir => "the keystore directory",
        FileKind::OracleHome => "the Oracle home",
        FileKind::Provider => "the PKCS#11 library",
        FileKind::CloudHsmClient => "the CloudHSM client",
        FileKind::Oratab => "`oratab`",
    }
}

fn role(role: SecretRole) -> &'static str {
    match role {
        SecretRole::CryptoUser => "the crypto user's password",
        SecretRole::Keystore => "the software keystore's password",
    }
}

fn unusable(state: KmsState) -> &'static str {
    match state {
        KmsState::Disabled => "disabled",
        KmsState::PendingDeletion => "about to be deleted",
        KmsState::NotFound => "not there",
        KmsState::Enabled | KmsState::Unknown => "not usable",
    }
}

/// A moment as people write it, UTC.
pub(crate) fn moment(at: Timestamp) -> String {
    let (days, rest) = (at.0.div_euclid(86_400), at.0.rem_euclid(86_400));
    // Days since 0000-03-01, in eras of 400 years (proleptic Gregorian).
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest % 3_600 / 60, rest % 60)
}

fn newest(at: &Option<Timestamp>) -> String {
    at.map_or_else(|| String::from("there is none"), |at| format!("the newest is of {}", moment(at)))
}

/// Names come from hosts: what could move a terminal's cursor is left out (H36).
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn directory(directory: &Option<String>) -> String {
    directory.as_deref().map_or_else(|| String::from("a directory that is not known"), |d| format!("`{}`", plain(d)))
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::VolumeMissing { volume, files } => {
                let files: Vec<&str> = files.iter().map(|file| kind(*file)).collect();
                write!(f, "volume {volume} with {} is missing from the set", files.join(", "))
            }
            Cause::FileOutside { volume, what, path } => {
                write!(f, "{} (`{}`) lies on volume {volume}, which no set of the instance holds", kind(*what), plain(path))
            }
            Cause::FileOnNoVolume { what, path } => {
                write!(f, "{} (`{}`) lies on an instance store, which no snapshot holds", kind(*what), plain(path))
            }
            Cause::CopyMissing { source } => write!(f, "snapshot {source} has no copy in the DR region"),
            Cause::CopyPending { copy } => write!(f, "copy {copy} is not finished"),
            Cause::CopyFailed { copy } => write!(f, "copy {copy} failed"),
            Cause::CopyArchived { copy } => write!(f, "copy {copy} lies in the archive tier"),
            Cause::CopyKeyUnusable { copy, key, state } => {
                write!(f, "KMS key {key} of copy {copy} is {}", unusable(*state))
            }
            Cause::SecretKeyUnusable { role: r, secret, key, state } => {
                write!(f, "{} cannot be read: KMS key {key} of {secret} is {}", role(*r), unusable(*state))
            }
            Cause::Inconsistent => f.write_str("the set's own tag says that its volumes were not taken as one"),
            Cause::BackupNotCopied { key, newest_copied } => {
                write!(f, "no HSM backup in the DR region is new enough for key {key}: {}", newest(newest_copied))
            }
            Cause::KeyInNoBackup { key, newest: at } => {
                write!(f, "no HSM backup of either region is new enough for key {key}: {}", newest(at))
            }
            Cause::KeyRotatedUnseen { key, container, activated, newest_copied } => {
                let container = container.as_ref().map_or_else(String::new, |c| format!(" of {c}"));
                write!(
                    f,
                    "key {key}{container} was activated between two inventories, at {}, and no HSM backup in the DR region is new \
                     enough for it: {}",
                    moment(*activated),
                    newest(newest_copied)
                )
            }
            Cause::KeyInOldHsm { key } => write!(f, "key {key} lies in another HSM than the fleet's cluster"),
            Cause::KeyInKeystoreOnly { key, directory: d } => {
                write!(
                    f,
                    "key {key} lies in the software keystore alone, and {} with its `ewallet.p12` is not in the point",
                    directory(d)
                )
            }
            Cause::LocalAutoLoginOnly { key, directory: d } => {
                write!(
                    f,
                    "key {key} lies in the software keystore in {}, of which only the LOCAL auto-login file can be opened, and that on its own host alone",
                    directory(d)
                )
            }
            Cause::SecretVersionGone { role: r, secret, version } => {
                write!(f, "{} of that time is gone: version {version} of {secret}", role(*r))
            }
            Cause::SecretNotReplicated { role: r, secret } => {
                write!(f, "{} is not in the DR region: {secret} has no replica there", role(*r))
            }
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unknown::NoInventoryBefore => f.write_str("no inventory of the database from before the set"),
            Unknown::NoInventoryAfter => f.write_str("no inventory of the database from after the set"),
            Unknown::OtherDatabase { at } => write!(f, "at {} another database bears the name", moment(*at)),
            Unknown::ClockOff { at, seconds } => {
                write!(f, "the host's clock was off by at least {seconds} s at its inventory of {}", moment(*at))
            }
            Unknown::Blind { at, container } => {
                write!(f, "the keys of container {container} could not be read at {}", moment(*at))
            }
            Unknown::Unreadable { at, what } => write!(f, "not readable at {}: {}", moment(*at), plain(what)),
            Unknown::NoFilesKnown { at, what } => {
                write!(f, "the inventory of {} does not say where {} lie", moment(*at), kind(*what))
            }
            Unknown::FilePlace { what, path } => {
                write!(f, "{} (`{}`) could not be followed to a volume", kind(*what), plain(path))
            }
            Unknown::VolumePerhapsMissing { volume } => {
                write!(f, "volume {volume} is not in the set, and only one of the inventories around it needs it")
            }
            Unknown::Consistency => {
                f.write_str("whether the set was taken as one, or in backup mode with redo and control files last, is not known")
            }
            Unknown::KeyPlace { key } => write!(f, "in which keystore, or in which cluster's HSM, key {key} lies is not known"),
            Unknown::KeyPerhapsNeeded { key } => write!(f, "key {key}, which is not in the point, may be needed by it"),
            Unknown::KeyInBackup { key, backup } => match backup {
                Some(backup) => write!(f, "whether HSM backup {backup} has key {key} is not known"),
                None => write!(f, "whether an HSM backup has key {key} is not known"),
            },
            Unknown::KeyNoLongerListed { key, backup, missed } => write!(
                f,
                "the inventory of {} no longer finds key {key} in the HSM: whether HSM backup {backup} has it is not known, and no \
                 older one that opens has all that is needed",
                moment(*missed)
            ),
            Unknown::AutoLoginContent { key, directory: d } => {
                write!(f, "whether the auto-login file in {} has key {key} is not known", directory(d))
            }
            Unknown::KeystoreKind { key, directory: d } => {
                write!(f, "what of the software keystore in {} opens elsewhere is not known; key {key} needs it", directory(d))
            }
            Unknown::NoSecretNamed { role: r } => write!(f, "no secret is named for {}", role(*r)),
            Unknown::SecretVersion { role: r, secret } => {
                write!(f, "which version of {secret} was {} then is not known", role(*r))
            }
            Unknown::SecretUnstaged { role: r, secret, version } => {
                write!(f, "{}, version {version} of {secret}, has no stage and may be gone at any time", role(*r))
            }
            Unknown::CopyKey { copy, key } => match key {
                Some(key) => write!(f, "the state of KMS key {key} of copy {copy} is not known"),
                None => write!(f, "the KMS key of copy {copy} is not known"),
            },
            Unknown::SecretKey { role: r, secret, key } => match key {
                Some(key) => write!(f, "the state of KMS key {key} of {secret}, {}, is not known", role(*r)),
                None => write!(f, "the KMS key of {secret}, {}, is not known", role(*r)),
            },
            Unknown::CopyState { copy } => write!(f, "the state of copy {copy} is not known"),
            Unknown::NotAsked { what } => match what {
                Ask::SourceInstances => f.write_str("instances of the source region could not be listed"),
                Ask::SourceSnapshots => f.write_str("snapshots of the source region could not be listed"),
                Ask::SourceBackups => f.write_str("HSM backups of the source region could not be listed"),
                Ask::DrSnapshots => f.write_str("snapshots of the DR region could not be listed"),
                Ask::DrBackups => f.write_str("HSM backups of the DR region could not be listed"),
                Ask::DrSecret(secret) => write!(f, "{secret} could not be described in the DR region"),
                Ask::Records => f.write_str("the records could not be read"),
                Ask::Inventories => f.write_str("the inventories could not be read"),
            },
        }
    }
}
