//! What a look-up found out.

use std::time::Duration;

use super::addresses::Looked;
use super::error::LookupError;

/// What became of a look-up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Finding {
    /// Addresses.
    Found(Looked),
    /// The DNS says that there are none, and perhaps for how long.
    Absent {
        error: LookupError,
        ttl: Option<Duration>,
    },
    /// The DNS could not be asked.
    Failed(LookupError),
}

impl Finding {
    pub(super) fn as_result(&self) -> Result<&Looked, &LookupError> {
        match self {
            Self::Found(looked) => Ok(looked),
            Self::Absent { error, .. } | Self::Failed(error) => Err(error),
        }
    }

    pub(super) fn into_result(self) -> Result<Looked, LookupError> {
        match self {
            Self::Found(looked) => Ok(looked),
            Self::Absent { error, .. } | Self::Failed(error) => Err(error),
        }
    }
}
