//! Whom TLS lets in: a node's key, its certificate, and the authority that must have signed the other side's.
//!
//! TLS 1.3 alone, no resumption (a ticket would outlive a certificate), and the network's name as the application
//! protocol, so that a node of another cluster is told apart before certificates are looked at. Which member a
//! certificate stands for, and whether it is still the agreed one, is decided behind this (`tls`).

use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::ServerCertVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, RootCertStore, ServerConfig, client};

use crate::base::id::NodeId;
use crate::cluster::genesis::NetworkId;
use crate::cluster::host::keys::{Key, certificates, fingerprint, server_name};

/// What a node proves itself with, and what others must prove themselves with.
pub struct Trust {
    key: PrivateKeyDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

/// How long a certificate is still good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Past its end, or not yet begun.
    Expired,
    /// It ends within the time asked about.
    EndsSoon,
    /// Neither.
    Good,
}

impl Trust {
    /// Of a node's key, certificate (PEM) and its cluster's authority (PEM).
    pub fn new(key: &Key, certificate: &str, authority: &str) -> Result<Trust, String> {
        let chain = certificates(certificate).map_err(|reason| format!("this node's certificate: {reason}"))?;
        let mut roots = RootCertStore::empty();
        for root in certificates(authority).map_err(|reason| format!("the authority's certificate: {reason}"))? {
            roots.add(root).map_err(|error| format!("the authority's certificate: {error}"))?;
        }
        Ok(Trust { key: key.to_tls(), chain, roots: Arc::new(roots), provider: Arc::new(ring::default_provider()) })
    }

    /// SHA-256 of the node's own certificate.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.chain[0])
    }

    /// Whether the node's own certificate is good for so long, and signed by the authority for that node.
    pub fn validity(&self, node: NodeId, at_least: Duration) -> Result<Validity, String> {
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), self.provider.clone()).build();
        let verifier = verifier.map_err(|error| error.to_string())?;
        let name = ServerName::try_from(server_name(node)).map_err(|error| error.to_string())?;
        let check = |at: UnixTime| match verifier.verify_server_cert(&self.chain[0], &[], &name, &[], at) {
            Ok(_) => Ok(true),
            Err(Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            )) => Ok(false),
            Err(error) => Err(error.to_string()),
        };
        let now = UnixTime::now();
        if !check(now)? {
            return Ok(Validity::Expired);
        }
        let later = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + at_least);
        Ok(if check(later)? { Validity::Good } else { Validity::EndsSoon })
    }

    /// As TLS takes it, for both sides of a connection.
    pub fn configure(&self, network: NetworkId) -> Result<(ClientConfig, ServerConfig), String> {
        let told = |error: Error| error.to_string();
        let mut client = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(told)?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(told)?;
        client.resumption = client::Resumption::disabled();
        client.alpn_protocols = vec![protocol(network)];
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone());
        let verifier = verifier.build().map_err(|error| error.to_string())?;
        let mut server = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(told)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(told)?;
        server.send_tls13_tickets = 0;
        server.alpn_protocols = vec![protocol(network)];
        Ok((client, server))
    }
}

/// The network as TLS names it.
fn protocol(network: NetworkId) -> Vec<u8> {
    format!("spinetail/{network}").into_bytes()
}
