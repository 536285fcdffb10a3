//! Keys and signatures: ed25519, as the consensus engine's own signing crate has it.
//!
//! Keys travel as hexadecimal in files that people read (`cluster.toml`) and as 32 bytes elsewhere. A key that does
//! not decode is no key: whoever holds one simply cannot be verified, which refuses instead of panicking.

use arc_malachitebft_signing_ed25519 as ed25519;

pub use ed25519::{PrivateKey as SecretKey, PublicKey, Signature};

/// A public key as it stands in files, if it is one.
pub fn public_key(hexadecimal: &str) -> Option<PublicKey> {
    PublicKey::from_bytes(bytes32(hexadecimal)?).ok()
}

/// Whether `signature`, 64 bytes, is that of `key` over `bytes`.
pub fn verifies(key: &PublicKey, bytes: &[u8], signature: &[u8]) -> bool {
    Signature::try_from(signature).is_ok_and(|signature| key.verify(bytes, &signature).is_ok())
}

/// 32 bytes from 64 lower- or upper-case hexadecimal digits.
pub fn bytes32(hexadecimal: &str) -> Option<[u8; 32]> {
    let digits = hexadecimal.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(bytes)
}

/// Bytes as hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_hexadecimal_and_nonsense_is_no_key() {
        let key = SecretKey::from([7; 32]).public_key();
        assert_eq!(public_key(&hexadecimal(key.as_bytes())), Some(key));
        assert_eq!(public_key("ab"), None);
        assert_eq!(public_key(&"zz".repeat(32)), None);
        // 64 characters of two bytes each: the length counts bytes, and nothing is sliced through a character.
        assert_eq!(public_key(&"é".repeat(32)), None);
    }

    #[test]
    fn a_signature_holds_for_its_bytes_and_key_only() {
        let key = SecretKey::from([7; 32]);
        let signature = key.sign(b"yes").to_bytes();
        assert!(verifies(&key.public_key(), b"yes", &signature));
        assert!(!verifies(&key.public_key(), b"no", &signature));
        assert!(!verifies(&SecretKey::from([8; 32]).public_key(), b"yes", &signature));
        assert!(!verifies(&key.public_key(), b"yes", &signature[..63]));
    }
}
