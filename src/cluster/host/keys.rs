//! Keys and certificates: who is who between nodes.
//!
//! A node has one ed25519 key. It signs votes and commands, and it proves who speaks on a link: the certificate that
//! the cluster's authority has signed for it holds the same key. One key for both is sound because nothing signed
//! for one can be taken for the other: TLS 1.3 signs 64 spaces and a label first, votes and commands begin with a
//! label of their own.
//!
//!   operator.key    signs membership and policy        the operator's, kept off the nodes
//!   authority.key   signs certificates                 the operator's, kept off the nodes
//!   key.pem         signs votes, commands, handshakes  a node's own, never leaves it
//!   cert.pem        key, name, end of validity         shown to every node
//!
//! The authority is a convenience and a first gate: what a peer is believed to be hangs on the SHA-256 of its
//! certificate, which the cluster has agreed on. An authority key that is stolen makes certificates nobody accepts.
//!
//! Key files are readable by their owner alone, and one that others can read is refused: whoever reads it votes.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SignatureAlgorithm, SigningKey, date_time_ymd,
};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::base::id::NodeId;
use crate::cluster::command::{Author, Command, Signed};
use crate::cluster::genesis::NetworkId;

/// An ed25519 key.
pub struct Key {
    pair: KeyPair,
}

/// Signs certificates.
pub struct Authority {
    key: Key,
    nonce: String,
}

/// What is wrong with a key or a certificate.
#[derive(Debug)]
pub enum KeyError {
    /// The file cannot be read or written.
    File(PathBuf, io::Error),
    /// The file is no such thing.
    Malformed(PathBuf, String),
    /// Others can read it.
    Open(PathBuf, u32),
    /// It could not be made.
    Made(String),
}

impl Key {
    /// A new one.
    pub fn generate() -> Result<Key, KeyError> {
        KeyPair::generate_for(&PKCS_ED25519).map(|pair| Key { pair }).map_err(|error| KeyError::Made(error.to_string()))
    }

    /// Reads one from a PEM file that nobody else may read.
    pub fn read(path: &Path) -> Result<Key, KeyError> {
        let failed = |error| KeyError::File(path.to_path_buf(), error);
        let mut file = fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Open(path.to_path_buf(), mode));
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;
        let malformed = |text: String| KeyError::Malformed(path.to_path_buf(), text);
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|error| malformed(error.to_string()))?;
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519);
        let key = Key { pair: pair.map_err(|error| malformed(error.to_string()))? };
        if !key.pair.serialized_der().starts_with(&PKCS8_HEAD[..1]) || key.secret_at().is_none() {
            return Err(malformed("not an ed25519 key in PKCS#8".into()));
        }
        Ok(key)
    }

    /// Writes it to a file that must not exist yet.
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        write_private(path, self.pair.serialize_pem().as_bytes())
            .map_err(|error| KeyError::File(path.to_path_buf(), error))
    }

    /// The public key, hexadecimal.
    pub fn public(&self) -> String {
        hex(self.pair.public_key_raw())
    }

    /// The 32 secret bytes.
    pub fn secret(&self) -> [u8; 32] {
        self.secret_at().expect("checked when it was made or read")
    }

    /// Signs bytes.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.pair.sign(bytes).expect("ed25519 signs whatever it is given")
    }

    /// Signs a command.
    pub fn command(&self, network: NetworkId, author: Author, number: u64, command: Command) -> Signed {
        let signature = self.sign(&Signed::bytes(network, author, number, &command));
        Signed { author, number, command, signature }
    }

    /// As TLS takes it.
    pub fn to_tls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.pair.serialized_der().to_vec().into())
    }

    /// PKCS#8 of ed25519 has one shape up to the secret, in both of its versions but for the lengths and the version
    /// itself: `.. 06 03 2b 65 70 04 22 04 20` and then the 32 bytes.
    fn secret_at(&self) -> Option<[u8; 32]> {
        let der = self.pair.serialized_der();
        let (head, rest) = der.split_at_checked(PKCS8_HEAD.len())?;
        (head[7..] == PKCS8_HEAD[7..]).then_some(())?;
        rest.get(..32)?.try_into().ok()
    }
}

/// The first bytes of an ed25519 key in PKCS#8, version 1.
const PKCS8_HEAD: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

impl Authority {
    /// A new one for the cluster with that nonce.
    pub fn new(key: Key, nonce: &str) -> Authority {
        Authority { key, nonce: nonce.to_string() }
    }

    /// Its key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Its own certificate (PEM), as the genesis holds it.
    pub fn certificate(&self) -> Result<String, KeyError> {
        let certificate = self.params().self_signed(&self.key.pair);
        certificate.map(|certificate| certificate.pem()).map_err(|error| KeyError::Made(error.to_string()))
    }

    /// A certificate (PEM) for a node's public key, valid from an hour ago, for clocks that are behind, and `valid`
    /// from now on.
    pub fn issue(&self, node: NodeId, public: &str, valid: Duration) -> Result<String, KeyError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.issue_until(node, public, now + valid)
    }

    /// The same, valid until a moment since 1970.
    pub fn issue_until(&self, node: NodeId, public: &str, until: Duration) -> Result<String, KeyError> {
        let made = |error: rcgen::Error| KeyError::Made(error.to_string());
        let public = unhex(public).filter(|bytes| bytes.len() == 32);
        let public = Public(public.ok_or_else(|| KeyError::Made("a public key has 64 hexadecimal digits".into()))?);
        let mut params = CertificateParams::new(vec![server_name(node)]).map_err(made)?;
        params.distinguished_name = named(&server_name(node));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let epoch = date_time_ymd(1970, 1, 1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        params.not_before = epoch + now.min(until).saturating_sub(CLOCK_BEHIND);
        params.not_after = epoch + until;
        let issuer = Issuer::new(self.params(), &self.key.pair);
        params.signed_by(&public, &issuer).map(|certificate| certificate.pem()).map_err(made)
    }

    /// The same every time, so that a certificate issued years later chains up to the one in the genesis.
    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&format!("spinetail cluster {}", self.nonce));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }
}

/// How far a node's clock may be behind the operator's when its certificate is new.
const CLOCK_BEHIND: Duration = Duration::from_secs(3_600);

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// A public key alone, for a certificate.
struct Public(Vec<u8>);

impl PublicKeyData for Public {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// The name in a node's certificate: who dials a node asks for it, and takes no other.
pub fn server_name(node: NodeId) -> String {
    format!("node-{node}.spinetail")
}

/// The certificates in a PEM text.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err("there is no certificate in it".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// SHA-256 of a certificate, as members are pinned by.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex(&Sha256::digest(certificate))
}

/// Writes a file that only its owner may read and that must not exist yet, onto the disk.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Random bytes of the system.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub use crate::cluster::keys::hexadecimal as hex;

/// Hexadecimal to bytes.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| (byte as char).to_digit(16);
    digits.chunks(2).map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)).collect()
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::File(path, error) if error.kind() == io::ErrorKind::AlreadyExists => {
                write!(f, "{} is there already: nothing is overwritten; choose another folder", path.display())
            }
            KeyError::File(path, error) => write!(f, "{}: {error}", path.display()),
            KeyError::Malformed(path, reason) => write!(f, "{}: {reason}", path.display()),
            KeyError::Open(path, mode) => {
                let path = path.display();
                write!(f, "{path} can be read by others (mode {mode:o}): run 'chmod 600 {path}'")
            }
            KeyError::Made(reason) => f.write_str(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_comes_back_from_its_file_and_one_that_others_can_read_is_refused() {
        let folder = std::env::temp_dir().join(format!("spinetail-keys-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("key.pem");
        let key = Key::generate().unwrap();
        key.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let again = Key::read(&path).unwrap();
        assert_eq!((again.public(), again.secret()), (key.public(), key.secret()));
        assert!(key.write(&path).unwrap_err().to_string().contains("nothing is overwritten"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = Key::read(&path).err().unwrap().to_string();
        assert!(refused.contains("chmod 600"), "{refused}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "rubbish").unwrap();
        assert!(matches!(Key::read(&path), Err(KeyError::Malformed(..))));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_a_key_signs_the_orderings_library_verifies() {
        let key = Key::generate().unwrap();
        let theirs = arc_malachitebft_signing_ed25519::PrivateKey::from(key.secret());
        assert_eq!(hex(theirs.public_key().as_bytes()), key.public());
        let signature: [u8; 64] = key.sign(b"words").try_into().unwrap();
        let signature = arc_malachitebft_signing_ed25519::Signature::from_bytes(signature);
        theirs.public_key().verify(b"words", &signature).unwrap();
        assert!(theirs.public_key().verify(b"other", &signature).is_err());
    }

    #[test]
    fn hexadecimal_goes_both_ways() {
        assert_eq!(unhex(&hex(&[0, 255, 16])), Some(vec![0, 255, 16]));
        assert_eq!((unhex("0"), unhex("zz")), (None, None));
    }
}
