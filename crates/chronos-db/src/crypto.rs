//! The one piece of process-wide state: the TLS provider.

/// Makes ring the process' TLS provider, unless the program chose one. Every client that may speak TLS calls
/// it before it is built.
///
/// ```
/// chronos_db::install_crypto_provider();
/// ```
pub fn install_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Losing a race to another installer is fine: a provider is there then, and nothing here
        // depends on which.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}
