//! item.json as it is stored: as it is, or as a gzip stream.
//!
//! JSON never begins with the two bytes that every gzip stream begins with, so a reader tells them apart by
//! what is there. Sizes and checksums of the index are those of the JSON.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::payload::MAX_DOCUMENT_BYTES;
use crate::records::model::Payload;
use crate::{Error, Result};

/// The name of the encoding, as HTTP has it.
pub(crate) const GZIP: &str = "gzip";

const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// `_system` comes on top of the document.
const MAX_BYTES: u64 = MAX_DOCUMENT_BYTES as u64 * 2;

/// The gzip stream of a payload, if it is smaller.
pub(crate) fn compressed(json: &Bytes) -> Result<Option<Bytes>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(json.len() / 4), Compression::default());
    let packed = encoder
        .write_all(json)
        .and_then(|()| encoder.finish())
        .map_err(|error| Error::storage("the payload cannot be compressed").caused_by(error))?;
    Ok((packed.len() < json.len()).then(|| Bytes::from(packed)))
}

/// Whether stored bytes are a gzip stream.
pub(crate) fn is_compressed(stored: &[u8]) -> bool {
    stored.starts_with(&MAGIC)
}

/// The JSON of a gzip stream. What is longer than the index says is damaged, and is not read to its end.
pub(crate) fn decompressed(stored: &[u8], payload: &Payload) -> Result<Bytes> {
    let size = u64::try_from(payload.size).ok().filter(|size| *size > 0);
    let most = size.unwrap_or(MAX_BYTES).min(MAX_BYTES);
    // What the index says may be damage.
    let likely = most.min(stored.len() as u64 * 8);
    let mut json = Vec::with_capacity(usize::try_from(likely).unwrap_or_default());
    let read = GzDecoder::new(stored).take(most.saturating_add(1)).read_to_end(&mut json);
    let damaged = |why: &str| {
        Error::storage(format!("item.json is damaged: the gzip stream of version {} {why}", payload.ov))
    };
    match read {
        Err(error) => Err(damaged("cannot be read").caused_by(error)),
        Ok(read) if read as u64 > most => Err(damaged(&format!("is longer than its {most} bytes"))),
        Ok(_) => Ok(json.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_size(size: usize) -> Payload {
        Payload { size: size as i64, ..Payload::default() }
    }

    #[test]
    fn what_is_compressed_comes_back() {
        let json = Bytes::from(format!("{{\"text\":\"{}\"}}", "much of the same, ".repeat(1_000)));
        let packed = compressed(&json).unwrap().unwrap();
        assert!(packed.len() * 10 < json.len() && is_compressed(&packed) && !is_compressed(&json));
        assert_eq!(decompressed(&packed, &of_size(json.len())).unwrap(), json);
        assert_eq!(decompressed(&packed, &of_size(0)).unwrap(), json, "of an unknown size");
    }

    #[test]
    fn what_would_grow_stays_as_it_is() {
        assert_eq!(compressed(&Bytes::from_static(b"{}")).unwrap(), None);
    }

    #[test]
    fn a_stream_that_is_longer_than_the_index_says_is_damaged_and_not_read_to_its_end() {
        let packed = compressed(&Bytes::from(vec![b' '; 1_000_000])).unwrap().unwrap();
        let error = decompressed(&packed, &of_size(1_000)).unwrap_err();
        assert_eq!(error.code(), "STORAGE_ERROR");
        assert!(error.message().contains("longer than its 1000 bytes"), "{error}");
    }

    #[test]
    fn a_size_that_makes_no_sense_takes_no_memory() {
        let json = Bytes::from(vec![b' '; 10_000]);
        let packed = compressed(&json).unwrap().unwrap();
        let payload = Payload { size: i64::MAX, ..Payload::default() };
        assert_eq!(decompressed(&packed, &payload).unwrap(), json);
    }

    #[test]
    fn a_stream_that_was_cut_is_damaged() {
        let packed = compressed(&Bytes::from(vec![b' '; 10_000])).unwrap().unwrap();
        for length in 2..packed.len() {
            assert!(decompressed(&packed[..length], &of_size(10_000)).is_err(), "{length} bytes");
        }
    }
}
