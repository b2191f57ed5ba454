//! Inputs read as numbers, for targets whose inputs are lists of edits. Behind the end all are zeros.

/// What is left of an input.
#[derive(Clone, Copy, Debug)]
pub struct Program<'a> {
    bytes: &'a [u8],
}

impl<'a> Program<'a> {
    /// All of it.
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Program<'a> {
        Program { bytes }
    }

    /// Nothing is left.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.bytes.is_empty()
    }

    fn take<const COUNT: usize>(&mut self) -> [u8; COUNT] {
        let mut taken = [0; COUNT];
        let count = COUNT.min(self.bytes.len());
        taken[..count].copy_from_slice(&self.bytes[..count]);
        self.bytes = &self.bytes[count..];
        taken
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    /// Two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    /// Eight bytes.
    pub fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// A number under `bound`, of two bytes.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0);
        usize::from(self.short()) % bound
    }
}
