//! Certificates for clients that speak TLS through rustls.

use crate::catalog::Tls;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// A client's side of TLS 1.2 and 1.3: whom it trusts, and who it is.
///
/// # Errors
/// A file that cannot be read or used, and what to do.
pub fn client_config(tls: &Tls) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(path) => {
            for certificate in certificates(path)? {
                let added = roots.add(certificate);
                added.map_err(|error| format!("{}: not a certificate to trust: {error}", path.display()))?;
            }
        }
        None => {
            // Some of a system's certificates may be unfit; the others count.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    match &tls.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((cert, key)) => {
            let shown = key.display();
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| format!("{shown}: no private key: {error}"))?;
            let made = builder.with_client_auth_cert(certificates(cert)?, key);
            made.map_err(|error| format!("{} and {shown} do not go together: {error}", cert.display()))
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| format!("{shown}: cannot read certificates: {error}"))?;
    if found.is_empty() { Err(format!("{shown}: holds no certificate in PEM form")) } else { Ok(found) }
}
