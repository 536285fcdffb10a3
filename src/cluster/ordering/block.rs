//! What a decided height leaves behind.
//!
//!   block     = value (header and batch) + certificate
//!   snapshot  = value's header + the state after it + certificate
//!
//! Both prove themselves: the certificate holds a quorum's signatures over the value's id, the id covers the header,
//! and the header covers the batch and the digest of the state afterwards. Who needs what it says trusts the quorum
//! and not the sender. A snapshot stands in for every block up to its height and may be kept and sent in the place of
//! one.

use arc_malachitebft_core_types::CommitCertificate;
use serde::{Deserialize, Serialize};

use crate::cluster::genesis::NetworkId;
use crate::cluster::ordering::Block;
use crate::cluster::ordering::codec::{self, CertificateBody, ValueBody};
use crate::cluster::ordering::context::{Header, Protocol, Value};
use crate::cluster::state::State;

/// What is in a block: unchecked.
pub enum Content {
    /// A value and its certificate.
    Value(Value, CommitCertificate<Protocol>),
    /// The header of a value, the state after it, and its certificate.
    Snapshot(Header, Box<State>, CommitCertificate<Protocol>),
}

/// The state after a height with the proof that it is the one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The height.
    pub height: u64,
    /// Header, state and certificate, encoded.
    pub bytes: Vec<u8>,
}

/// The header and the certificate of a decided height: all that a snapshot needs beside the state.
#[derive(Clone, Debug)]
pub struct Seal {
    /// The value's header.
    pub header: Header,
    /// Who committed to it.
    pub certificate: CommitCertificate<Protocol>,
}

#[derive(Serialize, Deserialize)]
enum Body {
    Value(ValueBody, CertificateBody),
    Snapshot(Header, Box<State>, CertificateBody),
}

impl Content {
    /// What a block's bytes say, if they are those of one; the certificate is for the value, and yet to be checked.
    pub fn decode(network: NetworkId, bytes: &[u8]) -> Option<Content> {
        match codec::decode::<Body>(bytes)? {
            Body::Value(value, certificate) => {
                let (value, certificate) = (value.into_value(network), certificate.into_commit()?);
                is_for(&certificate, &value.header, network).then_some(Content::Value(value, certificate))
            }
            Body::Snapshot(header, state, certificate) => {
                let certificate = certificate.into_commit()?;
                let is_whole = is_for(&certificate, &header, network)
                    && state.network == network
                    && state.height == header.height
                    && state.digest() == header.after;
                is_whole.then_some(Content::Snapshot(header, state, certificate))
            }
        }
    }
}

impl Block {
    /// The block of a value.
    pub fn of_value(value: &Value, certificate: &CommitCertificate<Protocol>) -> Block {
        let body = Body::Value(ValueBody::of(value), CertificateBody::of_commit(certificate));
        Block { height: value.header.height, bytes: codec::encode(&body) }
    }
}

impl Snapshot {
    /// The snapshot of a state that the sealed height has led to.
    pub fn of(seal: &Seal, state: &State) -> Snapshot {
        let body = Body::Snapshot(seal.header, Box::new(state.clone()), CertificateBody::of_commit(&seal.certificate));
        Snapshot { height: state.height, bytes: codec::encode(&body) }
    }
}

fn is_for(certificate: &CommitCertificate<Protocol>, header: &Header, network: NetworkId) -> bool {
    certificate.height.0 == header.height && certificate.value_id == header.id(network)
}
