//! Why the host failed.

/// One line: what failed, why, and what to type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}")]
pub struct Error {
    line: String,
    is_of_mode: bool,
}

impl Error {
    /// A failure that another mode of reaching the driver need not share.
    #[must_use]
    pub const fn of_mode(line: String) -> Self {
        Self { line, is_of_mode: true }
    }

    /// Returns whether another mode of reaching the driver may succeed.
    #[must_use]
    pub const fn is_of_mode(&self) -> bool {
        self.is_of_mode
    }
}

impl From<String> for Error {
    fn from(line: String) -> Self {
        Self { line, is_of_mode: false }
    }
}

impl From<&str> for Error {
    fn from(line: &str) -> Self {
        line.to_owned().into()
    }
}
