//! Buffers that all connections share: none holds bytes between two events.

/// Bytes that are sent and received at a time.
pub(super) const PIECE: usize = 256 * 1024;

/// The buffers.
#[derive(Debug)]
pub(super) struct Scratch {
    /// As received.
    pub(super) wire: Vec<u8>,
    /// As decrypted.
    pub(super) plain: Vec<u8>,
    /// What bodies are made of.
    pub(super) body: Vec<u8>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            wire: vec![0; PIECE],
            plain: vec![0; PIECE],
            // Not zeros: nobody can compress them or leave them out.
            body: (0..=u8::MAX).cycle().take(PIECE).collect(),
        }
    }
}
