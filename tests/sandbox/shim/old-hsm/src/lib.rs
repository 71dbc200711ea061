//! The PKCS#11 library of the old vendor, as the sandbox has it: all it adds to `sandbox-shim` is its name, and through
//! the name its own configuration and token (H47).

use cryptoki_sys::{CK_FUNCTION_LIST, CK_RV};

/// The only entry Oracle, or anyone, needs.
///
/// # Safety
/// `list` points to memory for one pointer, as PKCS#11 demands.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    // SAFETY: the caller's promise is the same.
    unsafe { sandbox_shim::forward::function_list(sandbox_shim::Vendor::OldHsm, list) }
}
