//! AES-GCM and PBKDF2, as rows, tablespace keys and keystore files are kept. Real encryption is the point of
//! this simulator: a key that is gone takes its rows with it, whatever the product believes (H46).

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use sha2::Sha256;

/// Work factor of a keystore password; low, for a suite opens keystores thousands of times.
const ROUNDS: u32 = 2_000;

pub type Key = [u8; 32];

#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    rand::fill(&mut bytes[..]);
    bytes
}

/// Nonce and ciphertext in one; `context` must be the same to open it.
#[must_use]
pub fn seal(key: &Key, context: &[u8], plain: &[u8]) -> Vec<u8> {
    let nonce: [u8; 12] = random();
    let sealed = Aes256Gcm::new(key.into())
        .encrypt(&Nonce::from(nonce), Payload { msg: plain, aad: context })
        .expect("AES-GCM seals any message shorter than 64 GiB");
    [nonce.as_slice(), &sealed].concat()
}

/// `None` if key, context or bytes are not those of `seal`.
#[must_use]
pub fn open(key: &Key, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, body) = sealed.split_at_checked(12)?;
    let nonce: [u8; 12] = nonce.try_into().ok()?;
    Aes256Gcm::new(key.into()).decrypt(&Nonce::from(nonce), Payload { msg: body, aad: context }).ok()
}

#[must_use]
pub fn stretch(password: &str, salt: &[u8]) -> Key {
    pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password.as_bytes(), salt, ROUNDS)
}

#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex::encode(Sha256::digest(bytes))
}
