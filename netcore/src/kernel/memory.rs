//! A kernel in memory.

/// A kernel in memory.
pub struct Memory;
