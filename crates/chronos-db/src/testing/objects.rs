//! What every [`crate::objects::Objects`] must do.
