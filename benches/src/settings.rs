//! How much is measured.

/// How much is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Lengths of the lists, ascending.
    pub sizes: Vec<usize>,
    /// How often each list is applied.
    pub apply_rounds: usize,
    /// In how many turns connections are opened.
    pub connect_rounds: usize,
    /// Connections of one turn to one mapping.
    pub connects: usize,
}

impl Settings {
    /// For figures: a few minutes.
    #[must_use]
    pub fn full() -> Self {
        Self {
            sizes: vec![10, 1_000, 10_000, 50_000],
            apply_rounds: 5,
            connect_rounds: 9,
            connects: 250,
        }
    }

    /// For showing that it works: a few seconds. The figures mean nothing.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            sizes: vec![10, 300],
            apply_rounds: 2,
            connect_rounds: 2,
            connects: 20,
        }
    }
}
