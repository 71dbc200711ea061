//! The external keystore: the one library below extapi, loaded once per process and never again (R2, R19).

use std::path::{Path, PathBuf};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as CkError, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use sandbox_shim::Vendor;

use crate::env::host_path;
use crate::error::{Ora, Result};
use crate::keys::{DATA_LABEL, KeyMeta, Kind, Mkid};

/// Below here Oracle looks for the provider (O§4.1).
pub const EXTAPI: &str = "/opt/oracle/extapi/64/hsm";

/// What to do with more than one library (R2; unknown in the field, hence a switch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TwoLibraries {
    Error,
    First,
}

/// The provider of a process: not looked for yet, loaded, or failed for good.
#[derive(Default)]
pub enum Provider {
    #[default]
    Untried,
    Loaded(Loaded),
    /// A failed load is remembered until the process ends (O§4.2).
    Failed(Ora),
}

pub struct Loaded {
    pub path: PathBuf,
    p11: Pkcs11,
    initialized: bool,
    session: Option<Session>,
    pub pin: Option<String>,
    pub vendor: Option<Vendor>,
}

/// Every library of the tree, sorted.
#[must_use]
pub fn libraries() -> Vec<PathBuf> {
    fn walk(dir: &Path, depth: u32, found: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() && depth > 0 {
                walk(&path, depth - 1, found);
            } else if let Some(name) = path.file_name().and_then(|n| n.to_str())
                && name.starts_with("lib")
                && (name.ends_with(".so") || name.contains(".so."))
            {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&host_path(EXTAPI), 4, &mut found);
    found.sort();
    found
}

impl Provider {
    /// Loads the library at the first use.
    pub fn load(&mut self, policy: TwoLibraries) -> Result<&mut Loaded> {
        if matches!(self, Provider::Untried) {
            *self = match Loaded::new(policy) {
                Ok(loaded) => Provider::Loaded(loaded),
                Err(error) => Provider::Failed(error),
            };
        }
        match self {
            Provider::Loaded(loaded) => Ok(loaded),
            Provider::Failed(error) => Err(error.clone()),
            Provider::Untried => Err(Ora::new(28376)),
        }
    }

    #[must_use]
    pub fn vendor(&self) -> Option<Vendor> {
        match self {
            Provider::Loaded(loaded) => loaded.vendor,
            _ => None,
        }
    }
}

impl Loaded {
    fn new(policy: TwoLibraries) -> Result<Loaded> {
        let found = libraries();
        let path = match (found.as_slice(), policy) {
            ([one], _) | ([one, _, ..], TwoLibraries::First) => one.clone(),
            _ => return Err(Ora::new(28376)),
        };
        let p11 = Pkcs11::new(&path).map_err(|_| Ora::new(28376))?;
        Ok(Loaded { path, p11, initialized: false, session: None, pin: None, vendor: None })
    }

    fn connect(&mut self) -> std::result::Result<&Session, CkError> {
        if self.session.is_none() {
            if !self.initialized {
                self.p11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
                self.initialized = true;
            }
            let info = self.p11.get_library_info()?;
            self.vendor = Vendor::from_manufacturer(info.manufacturer_id());
            let slots = self.p11.get_slots_with_token()?;
            let slot = *slots.first().ok_or(CkError::InvalidValue)?;
            self.session = Some(self.p11.open_rw_session(slot)?);
        }
        self.session.as_ref().ok_or(CkError::InvalidValue)
    }

    /// Proves a PIN and stays logged in. A PIN that fits the one in use costs no login; another one is put
    /// to the token, and when it fails the former login is restored.
    pub fn login(&mut self, pin: &str) -> Result<()> {
        if self.pin.as_deref() == Some(pin) {
            return self.connect().map(|_| ()).map_err(|e| failed(&e));
        }
        let former = self.pin.take();
        let session = self.connect().map_err(|e| failed(&e))?;
        if former.is_some() {
            let _ = session.logout();
        }
        match session.login(UserType::User, Some(&AuthPin::new(pin.into()))) {
            Ok(()) | Err(CkError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                self.pin = Some(pin.to_owned());
                Ok(())
            }
            Err(e) => {
                if let Some(former) = former
                    && session.login(UserType::User, Some(&AuthPin::new(former.as_str().into()))).is_ok()
                {
                    self.pin = Some(former);
                }
                Err(match e {
                    CkError::Pkcs11(
                        RvError::PinIncorrect | RvError::PinLocked | RvError::PinLenRange | RvError::PinInvalid,
                        _,
                    ) => Ora::new(28353),
                    e => failed(&e),
                })
            }
        }
    }

    pub fn logout(&mut self) {
        if self.pin.take().is_some()
            && let Some(session) = &self.session
        {
            let _ = session.logout();
        }
    }

    fn logged_in(&mut self) -> Result<&Session> {
        if self.pin.is_none() {
            return Err(Ora::new(28365));
        }
        self.connect().map_err(|e| failed(&e))
    }

    fn find(&mut self, id: &Mkid) -> Result<Option<(&Session, ObjectHandle)>> {
        let session = self.logged_in()?;
        let found = session
            .find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Label(id.label().into_bytes())])
            .map_err(|e| failed(&e))?;
        Ok(found.first().map(|handle| (session, *handle)))
    }

    pub fn has(&mut self, id: &Mkid) -> Result<bool> {
        Ok(self.find(id)?.is_some())
    }

    /// Makes a master key and its metadata object (O§3.9).
    pub fn generate(&mut self, id: &Mkid, meta: &KeyMeta) -> Result<()> {
        let session = self.logged_in()?;
        let label = id.label().into_bytes();
        session
            .generate_key(
                &Mechanism::AesKeyGen,
                &[
                    Attribute::Class(ObjectClass::SECRET_KEY),
                    Attribute::Token(true),
                    Attribute::Private(true),
                    Attribute::Sensitive(true),
                    Attribute::Extractable(false),
                    Attribute::Encrypt(true),
                    Attribute::Decrypt(true),
                    Attribute::Wrap(true),
                    Attribute::Unwrap(true),
                    Attribute::ValueLen(32.into()),
                    Attribute::Label(label.clone()),
                    Attribute::Id(label),
                ],
            )
            .map_err(|e| failed(&e))?;
        let value = serde_json::to_vec(meta).unwrap_or_default();
        session
            .create_object(&[
                Attribute::Class(ObjectClass::DATA),
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Label(id.data_label().into_bytes()),
                Attribute::Value(value),
            ])
            .map_err(|e| failed(&e))?;
        Ok(())
    }

    /// Wraps 32 bytes under a key that never leaves the token.
    pub fn wrap(&mut self, id: &Mkid, plain: &[u8; 32]) -> Result<Vec<u8>> {
        let Some((session, key)) = self.find(id)? else { return Err(Ora::new(28374)) };
        let iv: [u8; 16] = crate::crypto::random();
        let sealed = session.encrypt(&Mechanism::AesCbcPad(iv), key, plain).map_err(|e| failed(&e))?;
        Ok([iv.as_slice(), &sealed].concat())
    }

    pub fn unwrap(&mut self, id: &Mkid, sealed: &[u8]) -> Result<[u8; 32]> {
        let Some((session, key)) = self.find(id)? else { return Err(Ora::new(28374)) };
        let (iv, body) = sealed.split_at_checked(16).ok_or_else(|| Ora::new(28304))?;
        let iv: [u8; 16] = iv.try_into().map_err(|_| Ora::new(28304))?;
        let plain = session.decrypt(&Mechanism::AesCbcPad(iv), key, body).map_err(|e| failed(&e))?;
        plain.try_into().map_err(|_| Ora::new(28304))
    }

    /// Every master key the user sees, with its metadata; those of other databases, too.
    pub fn list(&mut self) -> Result<Vec<(Mkid, Option<KeyMeta>)>> {
        let session = self.logged_in()?;
        let mut metas = std::collections::BTreeMap::new();
        let data = session.find_objects(&[Attribute::Class(ObjectClass::DATA)]).map_err(|e| failed(&e))?;
        for handle in data {
            let (label, value) = label_and_value(session, handle)?;
            if let Some(id) = label.strip_prefix(DATA_LABEL)
                && let Ok(meta) = serde_json::from_slice::<KeyMeta>(&value)
            {
                metas.insert(id.to_owned(), meta);
            }
        }
        let keys =
            session.find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY), Attribute::Token(true)]).map_err(|e| failed(&e))?;
        let mut found = Vec::new();
        for handle in keys {
            let attributes = session.get_attributes(handle, &[AttributeType::Label]).map_err(|e| failed(&e))?;
            let label = attributes.iter().find_map(|a| match a {
                Attribute::Label(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
                _ => None,
            });
            if let Some(id) = label.and_then(|l| l.strip_prefix(crate::keys::LABEL).map(str::to_owned))
                && let Some(id) = id.strip_prefix("06")
            {
                let id = Mkid(id.to_owned());
                let key = hex::encode_upper(id.key_id(Kind::Hsm).as_bytes());
                found.push((id, metas.get(&key).cloned()));
            }
        }
        Ok(found)
    }
}

fn label_and_value(session: &Session, handle: ObjectHandle) -> Result<(String, Vec<u8>)> {
    let attributes = session.get_attributes(handle, &[AttributeType::Label, AttributeType::Value]).map_err(|e| failed(&e))?;
    let mut label = String::new();
    let mut bytes = Vec::new();
    for attribute in attributes {
        match attribute {
            Attribute::Label(l) => label = String::from_utf8_lossy(&l).into_owned(),
            Attribute::Value(v) => bytes = v,
            _ => {}
        }
    }
    Ok((label, bytes))
}

/// A failure of the token as Oracle words it (O§5.1).
fn failed(error: &CkError) -> Ora {
    let (name, number) = match error {
        CkError::Pkcs11(rv, _) => match rv {
            RvError::FunctionFailed => ("CKR_FUNCTION_FAILED", 6),
            RvError::DeviceError => ("CKR_DEVICE_ERROR", 48),
            RvError::DeviceRemoved => ("CKR_DEVICE_REMOVED", 50),
            RvError::KeyHandleInvalid => ("CKR_KEY_HANDLE_INVALID", 96),
            RvError::EncryptedDataInvalid => ("CKR_ENCRYPTED_DATA_INVALID", 64),
            RvError::SessionHandleInvalid => ("CKR_SESSION_HANDLE_INVALID", 179),
            RvError::UserNotLoggedIn => ("CKR_USER_NOT_LOGGED_IN", 257),
            _ => ("CKR_GENERAL_ERROR", 5),
        },
        _ => ("CKR_GENERAL_ERROR", 5),
    };
    Ora::with(28407, format!("Hardware Security Module failed with PKCS#11 error {name}({number})"))
}
