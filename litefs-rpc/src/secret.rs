//! The shared secret of a cluster.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The secret that the nodes of a cluster share. `Debug` prints a placeholder, and only proofs of
/// the secret are sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// The shortest secret accepted, in bytes.
pub const MIN_SECRET_BYTES: usize = 16;

/// The secret is too short to protect anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the shared secret has {0} bytes; use at least {MIN_SECRET_BYTES} random ones")]
pub struct SecretTooShort(
    /// How many bytes it has.
    pub usize,
);

impl Secret {
    /// Takes the secret's bytes.
    ///
    /// # Errors
    /// [`SecretTooShort`] below [`MIN_SECRET_BYTES`] bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, SecretTooShort> {
        let bytes = bytes.into();
        if bytes.len() < MIN_SECRET_BYTES {
            return Err(SecretTooShort(bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// HMAC-SHA-256 (RFC 2104) over length-prefixed parts, so that no two lists of parts have the
    /// same encoding.
    fn hmac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }

    pub(crate) fn prove(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.hmac(parts).finalize().into_bytes().into()
    }

    /// Compares in constant time.
    pub(crate) fn verify(&self, parts: &[&[u8]], proof: &[u8; 32]) -> bool {
        self.hmac(parts).verify_slice(proof).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s8_a_secret_is_not_shown_by_debug() {
        let secret = Secret::new("correct horse battery").unwrap();
        assert!(!format!("{secret:?}").contains("horse"));
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert_eq!(Secret::new("short"), Err(SecretTooShort(5)));
    }

    #[test]
    fn proofs_depend_on_every_part_and_on_where_it_ends() {
        let secret = Secret::new("0123456789abcdef").unwrap();
        let proof = secret.prove(&[b"ab", b"c"]);
        assert!(secret.verify(&[b"ab", b"c"], &proof));
        assert!(!secret.verify(&[b"a", b"bc"], &proof));
        assert!(!Secret::new("0123456789abcdeF").unwrap().verify(&[b"ab", b"c"], &proof));
    }
}
