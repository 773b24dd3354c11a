//! The layout of keys in a bucket.
