//! The ring room.
