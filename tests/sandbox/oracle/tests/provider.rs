//! The two libraries by themselves, as a probe of the product loads them. One test: the environment is the process'.

mod common;

use common::*;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use sandbox_shim::Vendor;

#[test]
fn h47_each_library_is_bound_to_its_own_token_and_counts_logins() {
    let world = World::new();
    world.add_library(Vendor::CloudHsm);
    // SAFETY: the only test of this process; no other thread touches the environment.
    unsafe { std::env::set_var(sandbox_shim::ROOT_ENV, world.root()) };
    let load = |vendor: Vendor, dir: &str| {
        let p11 = Pkcs11::new(world.extapi().join(dir).join(vendor.library_name())).unwrap();
        p11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).map(|()| p11)
    };
    let login = |p11: &Pkcs11, pin: &str| {
        let slot = p11.get_slots_with_token().unwrap()[0];
        let session = p11.open_rw_session(slot).unwrap();
        session.login(UserType::User, Some(&AuthPin::new(pin.into()))).map_err(|e| format!("{e:?}"))
    };
    let cloud = load(Vendor::CloudHsm, "cloudhsm/5.0.0").unwrap();
    let slots = cloud.get_slots_with_token().unwrap();
    assert_eq!(slots.len(), 1, "the first slot is the token's");
    assert_eq!(cloud.get_token_info(slots[0]).unwrap().manufacturer_id(), "Marvell Semiconductors, Inc.");
    has(&format!("{:?}", cloud.open_ro_session(slots[0]).map(|_| ())), "FunctionFailed");
    has(&login(&cloud, OLD_PIN).unwrap_err(), "PinIncorrect");
    has(&login(&cloud, "tdecu:wrong_pass").unwrap_err(), "PinIncorrect");
    login(&cloud, NEW_PIN).unwrap();
    let state = world.cloud.state().unwrap();
    assert_eq!((state.logins.ok, state.logins.failed, state.users["tdecu"].failed), (1, 2, 0));
    world.cloud.modify(|s| s.reachable = false).unwrap();
    has(&format!("{:?}", cloud.get_slots_with_token()), "GeneralError");
    world.cloud.modify(|s| s.reachable = true).unwrap();
    cloud.finalize().unwrap();

    for failed in 1..=5 {
        let old = load(Vendor::OldHsm, "oldhsm/7.4.0").unwrap();
        assert!(old.open_ro_session(old.get_slots_with_token().unwrap()[0]).is_ok());
        has(&login(&old, "tdeold:wrong_pass").unwrap_err(), "PinIncorrect");
        assert_eq!(world.old.state().unwrap().users["tdeold"].failed, failed);
        old.finalize().unwrap();
    }
    let old = load(Vendor::OldHsm, "oldhsm/7.4.0").unwrap();
    has(&login(&old, OLD_PIN).unwrap_err(), "PinLocked");
    old.finalize().unwrap();
    // Not configured, or without its trust anchor, the client does not start.
    let config = world.path("/opt/cloudhsm/etc/cloudhsm-pkcs11.cfg");
    std::fs::write(&config, r#"{"hsm_dir":"/run/hsm/cloudhsm","servers":[]}"#).unwrap();
    assert!(load(Vendor::CloudHsm, "cloudhsm/5.0.0").is_err());
    std::fs::write(&config, r#"{"hsm_dir":"/run/hsm/cloudhsm","servers":["10.0.1.10"]}"#).unwrap();
    std::fs::remove_file(world.path("/opt/cloudhsm/etc/customerCA.crt")).unwrap();
    assert!(load(Vendor::CloudHsm, "cloudhsm/5.0.0").is_err());
}
