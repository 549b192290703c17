//! Certificates for servers and clients of a test.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// Writes a certificate authority (`ca.pem`), and a certificate and key of each side (`server.pem`, `server.key`, `client.pem`,
/// `client.key`), for `localhost` and 127.0.0.1.
///
/// # Panics
/// Where they cannot be written.
pub fn certificates(folder: &Path) {
    let key = || KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(authority, key()).expect("an authority");
    fs::write(folder.join("ca.pem"), authority.pem()).expect("written");
    for side in ["server", "client"] {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let (mut parameters, key) = (CertificateParams::new(names).expect("parameters"), key());
        parameters.distinguished_name.push(DnType::CommonName, side);
        let certificate = parameters.signed_by(&key, &authority).expect("a certificate");
        fs::write(folder.join(format!("{side}.pem")), certificate.pem()).expect("written");
        fs::write(folder.join(format!("{side}.key")), key.serialize_pem()).expect("written");
    }
}
