//! `C_GetFunctionList` of a vendor's library: SoftHSM's functions, with those replaced that a network HSM
//! answers differently.
//!
//! Every replaced function first passes `gate`, which plays the network; so a cut or a slow line shows at the
//! next use and not only at the next login. The statics are per library: each cdylib has its own copy.

use nix::fcntl::{Flock, FlockArg};
use std::ffi::c_void;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BBOOL, CK_BYTE, CK_FLAGS, CK_FUNCTION_LIST, CK_INFO, CK_MECHANISM, CK_NOTIFY, CK_OBJECT_HANDLE, CK_RV,
    CK_SESSION_HANDLE, CK_SLOT_ID, CK_TOKEN_INFO, CK_ULONG, CK_USER_TYPE, CK_UTF8CHAR, CKA_LABEL, CKA_TOKEN, CKF_RW_SESSION,
    CKF_TOKEN_INITIALIZED, CKR_ARGUMENTS_BAD, CKR_BUFFER_TOO_SMALL, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_FUNCTION_FAILED,
    CKR_GENERAL_ERROR, CKR_KEY_HANDLE_INVALID, CKR_OK, CKR_PIN_INCORRECT, CKR_PIN_LOCKED, CKU_USER,
};

use crate::config::{ClientConfig, Vendor};
use crate::state::{self, HsmState};

struct Shim {
    vendor: Vendor,
    real: &'static CK_FUNCTION_LIST,
    list: CK_FUNCTION_LIST,
}

// SAFETY: the lists hold function pointers of a library that is never unloaded, and are never written again.
unsafe impl Send for Shim {}
// SAFETY: as above; the PKCS#11 functions behind them do their own locking (CKF_OS_LOCKING_OK).
unsafe impl Sync for Shim {}

static SHIM: OnceLock<Result<Shim, CK_RV>> = OnceLock::new();
static CLIENT: Mutex<Option<Client>> = Mutex::new(None);

/// A client between C_Initialize and C_Finalize.
#[derive(Clone)]
struct Client {
    dir: PathBuf,
    config: ClientConfig,
}

/// What a cdylib's `C_GetFunctionList` calls.
///
/// # Safety
/// `out` is NULL or points to memory for one pointer, as PKCS#11 demands of the caller.
pub unsafe fn function_list(vendor: Vendor, out: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    if out.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    match SHIM.get_or_init(|| load(vendor)) {
        Ok(shim) => {
            // SAFETY: `out` is not NULL; the list lives as long as the process.
            unsafe { *out = std::ptr::from_ref(&shim.list).cast_mut() };
            CKR_OK
        }
        Err(rv) => *rv,
    }
}

fn load(vendor: Vendor) -> Result<Shim, CK_RV> {
    type GetList = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;
    // SAFETY: SoftHSM's constructors have no precondition; the handle is leaked, so symbols stay valid.
    let real = unsafe {
        let library = libloading::Library::new(crate::SOFTHSM).map_err(|_| CKR_GENERAL_ERROR)?;
        let library: &'static libloading::Library = Box::leak(Box::new(library));
        let get: libloading::Symbol<'_, GetList> = library.get(b"C_GetFunctionList\0").map_err(|_| CKR_GENERAL_ERROR)?;
        let mut list = std::ptr::null_mut();
        let rv = get(&raw mut list);
        if rv != CKR_OK || list.is_null() {
            return Err(CKR_GENERAL_ERROR);
        }
        &*list
    };
    let list = CK_FUNCTION_LIST {
        C_Initialize: Some(initialize),
        C_Finalize: Some(finalize),
        C_GetInfo: Some(get_info),
        C_GetSlotList: Some(get_slot_list),
        C_GetTokenInfo: Some(get_token_info),
        C_OpenSession: Some(open_session),
        C_Login: Some(login),
        C_CreateObject: Some(create_object),
        C_FindObjectsInit: Some(find_objects_init),
        C_EncryptInit: Some(encrypt_init),
        C_Encrypt: Some(encrypt),
        C_DecryptInit: Some(decrypt_init),
        C_Decrypt: Some(decrypt),
        C_GenerateKey: Some(generate_key),
        ..*real
    };
    Ok(Shim { vendor, real, list })
}

fn shim() -> Option<&'static Shim> {
    SHIM.get().and_then(|s| s.as_ref().ok())
}

/// Calls a function of SoftHSM's list.
macro_rules! real {
    ($shim:expr, $name:ident ( $($arg:expr),* )) => {
        match $shim.real.$name {
            Some(f) => {
                let _alone = alone();
                // SAFETY: arguments are the caller's own, under the caller's promise to PKCS#11.
                unsafe { f($($arg),*) }
            }
            None => CKR_GENERAL_ERROR,
        }
    };
}

/// Whoever calls into SoftHSM is alone at the token. SoftHSM locks each file itself, but at a login it empties
/// `token.object`, gives its lock up and only then writes the file again: another process that looks in between finds
/// no token (CKR_GENERAL_ERROR). Taken after `state.lock`, never before it.
fn alone() -> Option<Flock<std::fs::File>> {
    let dir = TOKEN.get()?;
    let path = dir.join("softhsm.lock");
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path).ok()?;
    let _ = file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    Flock::lock(file, FlockArg::LockExclusive).ok()
}

/// The directory of the token, known from the first C_Initialize on.
static TOKEN: OnceLock<std::path::PathBuf> = OnceLock::new();

fn client() -> Option<Client> {
    CLIENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
}

/// The way over the network: the state as the HSM has it, or the code a client reports for a dead line.
fn gate() -> Result<(&'static Shim, Client, HsmState), CK_RV> {
    let shim = shim().ok_or(CKR_GENERAL_ERROR)?;
    let client = client().ok_or(CKR_CRYPTOKI_NOT_INITIALIZED)?;
    let state = reach(shim.vendor, &client)?;
    Ok((shim, client, state))
}

fn reach(vendor: Vendor, client: &Client) -> Result<HsmState, CK_RV> {
    let cut = std::env::var(crate::CUT_OFF_ENV).unwrap_or_default();
    if cut.split(',').any(|name| name.trim() == vendor.name()) {
        return Err(CKR_GENERAL_ERROR);
    }
    let state = state::read(&client.dir).map_err(|_| CKR_GENERAL_ERROR)?;
    if state.latency_ms > 0 {
        std::thread::sleep(std::time::Duration::from_millis(state.latency_ms));
    }
    if !state.reachable || state.cut_off || state.active_hsms().is_empty() {
        return Err(CKR_GENERAL_ERROR);
    }
    Ok(state)
}

unsafe extern "C" fn initialize(args: *mut c_void) -> CK_RV {
    let Some(shim) = shim() else {
        return CKR_GENERAL_ERROR;
    };
    let Ok(config) = ClientConfig::load(shim.vendor) else {
        return CKR_GENERAL_ERROR;
    };
    let Ok(dir) = config.token_dir(shim.vendor) else {
        return CKR_GENERAL_ERROR;
    };
    let client = Client { dir, config };
    if let Err(rv) = reach(shim.vendor, &client) {
        return rv;
    }
    // SoftHSM finds its token through a file named by the environment, and the path of the token differs
    // between hosts: an anonymous file says it, and no process started later inherits it.
    let Ok(conf) = anonymous(&crate::admin::softhsm_conf(&client.dir.join("tokens"))) else {
        return CKR_GENERAL_ERROR;
    };
    // SAFETY: PKCS#11 leaves it to the caller not to race C_Initialize with other calls.
    unsafe { std::env::set_var("SOFTHSM2_CONF", format!("/proc/self/fd/{}", conf.as_raw_fd())) };
    let _ = TOKEN.set(client.dir.clone());
    let rv = real!(shim, C_Initialize(args));
    if rv == CKR_OK {
        *CLIENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(client);
    }
    rv
}

fn anonymous(text: &str) -> std::io::Result<std::fs::File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let mut file: std::fs::File = memfd_create("softhsm2.conf", MFdFlags::MFD_CLOEXEC)?.into();
    file.write_all(text.as_bytes())?;
    Ok(file)
}

unsafe extern "C" fn finalize(reserved: *mut c_void) -> CK_RV {
    let Some(shim) = shim() else {
        return CKR_GENERAL_ERROR;
    };
    *CLIENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    real!(shim, C_Finalize(reserved))
}

unsafe extern "C" fn get_info(info: *mut CK_INFO) -> CK_RV {
    let Some(shim) = shim() else {
        return CKR_GENERAL_ERROR;
    };
    let rv = real!(shim, C_GetInfo(info));
    if rv == CKR_OK && !info.is_null() {
        // SAFETY: SoftHSM has just filled it.
        unsafe {
            pad(&mut (*info).manufacturerID, shim.vendor.manufacturer());
            pad(&mut (*info).libraryDescription, "PKCS#11 Library");
        }
    }
    rv
}

fn pad(field: &mut [CK_UTF8CHAR], text: &str) {
    field.fill(b' ');
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from;
    }
}

/// Only initialised tokens: SoftHSM always offers one more, empty slot, and Oracle takes the first (O§3.9).
unsafe extern "C" fn get_slot_list(present: CK_BBOOL, slots: *mut CK_SLOT_ID, count: *mut CK_ULONG) -> CK_RV {
    let (shim, ..) = match gate() {
        Ok(found) => found,
        Err(rv) => return rv,
    };
    let mut all = [0 as CK_SLOT_ID; 64];
    let mut n: CK_ULONG = 64;
    let rv = real!(shim, C_GetSlotList(present, all.as_mut_ptr(), &raw mut n));
    if rv != CKR_OK {
        return rv;
    }
    let found: Vec<CK_SLOT_ID> = all
        .iter()
        .take(usize::try_from(n).unwrap_or(0))
        .copied()
        .filter(|slot| {
            let mut info: CK_TOKEN_INFO = CK_TOKEN_INFO::default();
            real!(shim, C_GetTokenInfo(*slot, &raw mut info)) == CKR_OK && info.flags & CKF_TOKEN_INITIALIZED != 0
        })
        .collect();
    if count.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    let wanted = found.len() as CK_ULONG;
    // SAFETY: `count` is not NULL, and `slots`, unless NULL, has room for `*count` ids.
    unsafe {
        let room = *count;
        *count = wanted;
        if !slots.is_null() {
            if room < wanted {
                return CKR_BUFFER_TOO_SMALL;
            }
            std::ptr::copy_nonoverlapping(found.as_ptr(), slots, found.len());
        }
    }
    CKR_OK
}

unsafe extern "C" fn get_token_info(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    let (shim, ..) = match gate() {
        Ok(found) => found,
        Err(rv) => return rv,
    };
    let rv = real!(shim, C_GetTokenInfo(slot, info));
    if rv == CKR_OK && !info.is_null() {
        // SAFETY: SoftHSM has just filled it.
        unsafe { pad(&mut (*info).manufacturerID, shim.vendor.manufacturer()) };
    }
    rv
}

unsafe extern "C" fn open_session(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: *mut c_void,
    notify: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    let (shim, ..) = match gate() {
        Ok(found) => found,
        Err(rv) => return rv,
    };
    // CloudHSM knows no read-only sessions (O§6.2).
    if shim.vendor == Vendor::CloudHsm && flags & CKF_RW_SESSION == 0 {
        return CKR_FUNCTION_FAILED;
    }
    real!(shim, C_OpenSession(slot, flags, application, notify, session))
}

/// A login is judged by the HSM under the state's lock: two hosts cannot share one attempt.
unsafe extern "C" fn login(session: CK_SESSION_HANDLE, who: CK_USER_TYPE, pin: *mut CK_UTF8CHAR, len: CK_ULONG) -> CK_RV {
    let (shim, client, state) = match gate() {
        Ok(found) => found,
        Err(rv) => return rv,
    };
    if who != CKU_USER || pin.is_null() {
        return real!(shim, C_Login(session, who, pin, len));
    }
    // SAFETY: the caller passes `len` bytes at `pin`.
    let text = unsafe { std::slice::from_raw_parts(pin, usize::try_from(len).unwrap_or(0)) };
    let text = String::from_utf8_lossy(text);
    let user = text.split_once(':').map(|(user, _)| user.to_owned());
    if std::env::var_os(crate::OBSERVER_ENV).is_some() {
        return match user.and_then(|name| state.users.get(&name).cloned()) {
            Some(user) if user.locked => CKR_PIN_LOCKED,
            Some(_) => real!(shim, C_Login(session, who, pin, len)),
            None => CKR_PIN_INCORRECT,
        };
    }
    let mut answer = CKR_PIN_INCORRECT;
    let changed = state::modify(&client.dir, |state| {
        let known = user.as_ref().and_then(|name| state.users.get(name).cloned());
        let rv = match &known {
            Some(user) if user.locked => CKR_PIN_LOCKED,
            Some(_) => real!(shim, C_Login(session, who, pin, len)),
            None => CKR_PIN_INCORRECT,
        };
        answer = rv;
        let max = state.max_failed;
        let entry = user.as_ref().and_then(|name| state.users.get_mut(name));
        match rv {
            CKR_OK => {
                state.logins.ok += 1;
                if let Some(user) = entry {
                    user.failed = 0;
                }
            }
            CKR_PIN_INCORRECT | CKR_PIN_LOCKED => {
                state.logins.failed += 1;
                if let Some(user) = entry {
                    user.failed += 1;
                    user.locked |= user.failed >= max;
                }
            }
            _ => {}
        }
    });
    if changed.is_err() { CKR_GENERAL_ERROR } else { answer }
}

unsafe extern "C" fn find_objects_init(session: CK_SESSION_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG) -> CK_RV {
    match gate() {
        Ok((shim, ..)) => real!(shim, C_FindObjectsInit(session, template, count)),
        Err(rv) => rv,
    }
}

unsafe extern "C" fn create_object(
    session: CK_SESSION_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    object: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    let (shim, client, state) = match gate() {
        Ok(found) => found,
        Err(rv) => return rv,
    };
    if state.limited_write && is_token_object(template, count) {
        return CKR_FUNCTION_FAILED;
    }
    let rv = real!(shim, C_CreateObject(session, template, count, object));
    let _ = crate::admin::open_tree(&client.dir.join("tokens"));
    rv
}

unsafe extern "C" fn generate_key(
    session: CK_SESSION_HANDLE,
    mechanism: *mut CK_MECHANISM,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    key: *mut CK_OBJECT_HANDLE,
) -> CK_RV {
    let (shim, client, state) = match gate() {
        Ok(found) => found,
        Err(rv) => return rv,
    };
    let token = is_token_object(template, count);
    if state.limited_write && token {
        return CKR_FUNCTION_FAILED;
    }
    let rv = real!(shim, C_GenerateKey(session, mechanism, template, count, key));
    if rv != CKR_OK || !token {
        return rv;
    }
    // Other users of other hosts must be able to read the object's file.
    let _ = crate::admin::open_tree(&client.dir.join("tokens"));
    let label =
        attribute(template, count, CKA_LABEL).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let noted = state::modify(&client.dir, |state| {
        let mut copies = state.active_hsms();
        if !state.replicate {
            copies.truncate(1);
        }
        state.keys.entry(label).or_default().copies = copies;
    });
    if noted.is_err() { CKR_GENERAL_ERROR } else { CKR_OK }
}

unsafe extern "C" fn encrypt_init(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) -> CK_RV {
    match usable(session, key) {
        Ok(shim) => real!(shim, C_EncryptInit(session, mechanism, key)),
        Err(rv) => rv,
    }
}

unsafe extern "C" fn decrypt_init(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) -> CK_RV {
    match usable(session, key) {
        Ok(shim) => real!(shim, C_DecryptInit(session, mechanism, key)),
        Err(rv) => rv,
    }
}

unsafe extern "C" fn encrypt(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    len: CK_ULONG,
    out: *mut CK_BYTE,
    out_len: *mut CK_ULONG,
) -> CK_RV {
    match gate() {
        Ok((shim, ..)) => real!(shim, C_Encrypt(session, data, len, out, out_len)),
        Err(rv) => rv,
    }
}

unsafe extern "C" fn decrypt(
    session: CK_SESSION_HANDLE,
    data: *mut CK_BYTE,
    len: CK_ULONG,
    out: *mut CK_BYTE,
    out_len: *mut CK_ULONG,
) -> CK_RV {
    match gate() {
        Ok((shim, ..)) => real!(shim, C_Decrypt(session, data, len, out, out_len)),
        Err(rv) => rv,
    }
}

/// The key must lie on an active HSM, and on two of them where the check is on (R20).
fn usable(session: CK_SESSION_HANDLE, key: CK_OBJECT_HANDLE) -> Result<&'static Shim, CK_RV> {
    let (shim, client, state) = gate()?;
    let mut label = [0u8; 256];
    let mut wanted = CK_ATTRIBUTE { type_: CKA_LABEL, pValue: label.as_mut_ptr().cast(), ulValueLen: label.len() as CK_ULONG };
    let rv = real!(shim, C_GetAttributeValue(session, key, &raw mut wanted, 1));
    if rv != CKR_OK {
        return Err(rv);
    }
    let len = usize::try_from(wanted.ulValueLen).unwrap_or(0).min(label.len());
    let label = String::from_utf8_lossy(&label[..len]).into_owned();
    if let Some(key) = state.keys.get(&label) {
        let active = state.active_hsms();
        let present = key.copies.iter().filter(|id| active.contains(id)).count();
        let checked = shim.vendor == Vendor::CloudHsm && client.config.key_availability_check;
        if checked && present < 2 {
            return Err(CKR_FUNCTION_FAILED);
        }
        if present == 0 {
            return Err(CKR_KEY_HANDLE_INVALID);
        }
    }
    Ok(shim)
}

fn attribute(template: *mut CK_ATTRIBUTE, count: CK_ULONG, wanted: CK_ULONG) -> Option<Vec<u8>> {
    if template.is_null() {
        return None;
    }
    (0..usize::try_from(count).ok()?).find_map(|i| {
        // SAFETY: the caller passes `count` attributes; Oracle packs them (O§3.9), hence unaligned reads.
        unsafe {
            let a = template.add(i).read_unaligned();
            (a.type_ == wanted && !a.pValue.is_null()).then(|| {
                let len = usize::try_from(a.ulValueLen).unwrap_or(0);
                std::slice::from_raw_parts(a.pValue.cast::<u8>(), len).to_vec()
            })
        }
    })
}

fn is_token_object(template: *mut CK_ATTRIBUTE, count: CK_ULONG) -> bool {
    attribute(template, count, CKA_TOKEN).is_some_and(|v| v.first().is_some_and(|b| *b != 0))
}
