//! The one cryptography provider of this process.

/// Why there is none.
#[derive(Debug, thiserror::Error)]
#[error("another TLS provider is installed in this process")]
pub struct TlsError;

/// Installs it, once: the libraries below would each choose one, and panic where they find two.
///
/// # Errors
/// Where another was installed before.
pub fn install() -> Result<(), TlsError> {
    rustls::crypto::ring::default_provider().install_default().map_err(|_| TlsError)
}
