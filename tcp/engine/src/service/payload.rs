//! The bytes of a body: generated or given.

use std::sync::Arc;

use super::pattern;

/// The bytes of a request, or of a body.
#[derive(Clone, Debug)]
pub enum Payload {
    /// So many bytes of [`pattern`].
    Pattern(u64),
    /// These bytes, for example of a file.
    Bytes(Arc<[u8]>),
}

impl Payload {
    /// Returns the number of bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> u64 {
        match self {
            Self::Pattern(size) => *size,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Returns whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `into` with the bytes from `at` on.
    #[inline]
    pub(crate) fn fill(&self, at: u64, into: &mut [u8]) {
        match self {
            Self::Pattern(_) => pattern::fill(at, into),
            Self::Bytes(bytes) => into.copy_from_slice(&bytes[at as usize..][..into.len()]),
        }
    }
}
