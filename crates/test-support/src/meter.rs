use std::sync::atomic::{AtomicU64, Ordering};

/// Counts what goes through a seam: calls, and documents or objects with their bytes in either direction. One
/// meter may be in many places; put there by [`documents::metered`](crate::documents::metered) and
/// [`objects::metered`](crate::objects::metered).
#[derive(Debug, Default)]
pub struct Meter {
    calls: AtomicU64,
    read: AtomicU64,
    read_bytes: AtomicU64,
    written: AtomicU64,
    written_bytes: AtomicU64,
}

/// What a [`Meter`] counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Calls of the seam, whatever they asked for.
    pub calls: u64,
    /// Documents or objects that came.
    pub read: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Documents or objects that were sent.
    pub written: u64,
    /// Their bytes.
    pub written_bytes: u64,
}

impl Meter {
    pub(crate) fn called(&self) {
        self.calls.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn read(&self, bytes: usize) {
        self.read.fetch_add(1, Ordering::SeqCst);
        self.read_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(1, Ordering::SeqCst);
        self.written_bytes.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    /// What moved since the last time this was asked, or the beginning.
    pub fn take(&self) -> Moved {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::SeqCst);
        Moved {
            calls: take(&self.calls),
            read: take(&self.read),
            read_bytes: take(&self.read_bytes),
            written: take(&self.written),
            written_bytes: take(&self.written_bytes),
        }
    }
}
