//! What every [`crate::documents::Documents`] must do.
