//! Presigned URLs of Azure Blob (service SAS).
//!
//! `object_store` signs the percent-encoded name and the service checks the plain one, so its URLs fail for
//! names that need encoding.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use object_store::signer::Url;
use secrecy::{ExposeSecret as _, SecretSlice};
use sha2::{Digest as _, Sha256};

use super::failure::Failure;

/// The version whose rules the signature follows.
const VERSION: &str = "2022-11-02";

/// Signs URLs of one container.
pub(super) struct Sas {
    pub(super) container: Url,
    pub(super) account: String,
    pub(super) name: String,
    pub(super) key: SecretSlice<u8>,
}

impl Sas {
    /// A URL that reads `key` until `ttl` after now by the storage's clock, which is `ahead` seconds ahead of
    /// ours.
    pub(super) fn sign(&self, key: &str, ttl: Duration, ahead: i64) -> Result<Url, Failure> {
        let end = jiff::Timestamp::now()
            .as_second()
            .saturating_add(ahead)
            .saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
        // The second that has begun counts, so that no URL lives shorter than was asked.
        let end = jiff::Timestamp::from_second(end.saturating_add(1)).map_err(Failure::unusable)?;
        self.sign_until(key, &end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    }

    fn sign_until(&self, key: &str, end: &str) -> Result<Url, Failure> {
        let resource = format!("/blob/{}/{}/{key}", self.account, self.name);
        // In this order: permissions, start, expiry, resource, identifier, addresses, protocol, version, kind
        // of resource, snapshot, encryption scope and five headers of the answer. Without a start, a client's
        // clock that is behind does no harm.
        let signed =
            ["r", "", end, &resource, "", "", "", VERSION, "b", "", "", "", "", "", "", ""].join("\n");
        let signature = STANDARD.encode(hmac_sha256(self.key.expose_secret(), signed.as_bytes()));
        let mut url = self.container.clone();
        url.path_segments_mut()
            .map_err(|()| Failure::unusable("the endpoint has no path"))?
            .pop_if_empty()
            .extend(key.split('/'));
        url.query_pairs_mut().clear().extend_pairs([
            ("sv", VERSION),
            ("sr", "b"),
            ("sp", "r"),
            ("se", end),
            ("sig", &signature),
        ]);
        Ok(url)
    }
}

/// RFC 2104.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let mut padded = [0; BLOCK];
    if key.len() > BLOCK {
        padded[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        padded[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(padded.map(|b| b ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded.map(|b| b ^ 0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hmac_is_that_of_rfc_4231() {
        let hex = |bytes: [u8; 32]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(hmac_sha256(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(hmac_sha256(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First")),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }
}
