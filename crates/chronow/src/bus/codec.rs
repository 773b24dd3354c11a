//! Between payloads and bytes. JSON unless something else is said.

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::hot::Delivery;
use crate::{Error, Result};

/// How a consumer makes a payload of a delivery's bytes.
pub(super) type Decode<T> = Arc<dyn Fn(&Delivery) -> Result<T> + Send + Sync>;

pub(super) fn json<T: DeserializeOwned>() -> Decode<T> {
    Arc::new(|delivery| {
        chronos_db::json::from_slice(&delivery.message.payload).map_err(|error| {
            let message = format!("the payload of {} is not what is expected: {error}", delivery.lock.id);
            Error::validation(message).caused_by(error)
        })
    })
}

pub(super) fn bytes() -> Decode<Bytes> {
    Arc::new(|delivery| Ok(delivery.message.payload.clone()))
}

/// JSON bytes of a payload or value.
pub(crate) fn to_json<T: Serialize + ?Sized>(what: &str, value: &T) -> Result<Bytes> {
    let bytes = chronos_db::json::to_vec(value).map_err(|error| {
        Error::validation(format!("the {what} cannot be made JSON: {error}")).caused_by(error)
    });
    bytes.map(Bytes::from)
}

/// Refuses what is too large.
pub(crate) fn check_size(what: &str, bytes: usize, most: usize) -> Result<()> {
    if bytes > most {
        return Err(Error::validation(format!("the {what} has {bytes} bytes; {most} are allowed")));
    }
    Ok(())
}
