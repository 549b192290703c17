//! Whose builds are taken.
