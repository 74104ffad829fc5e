//! Why files were not compiled.

use std::path::{Path, PathBuf};
use std::{fmt, io};

/// Why files were not compiled.
///
/// `Debug` is the same text as `Display`, for that is what cargo shows of a build script that returns it.
#[derive(thiserror::Error)]
#[error(transparent)]
pub struct Error(Kind);

#[derive(Debug, thiserror::Error)]
enum Kind {
    /// Its `Debug` is for people, and has file, line and column, which `Display` has not.
    #[error("{0:?}")]
    Proto(#[source] protox::Error),
    #[error("{}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    #[error("the code was not made or not written: {0}")]
    Generate(io::Error),
}

impl Error {
    /// The `.proto` file with the mistake, by its name below the directory that was given.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        match &self.0 {
            Kind::Proto(error) => error.file(),
            Kind::Write { .. } | Kind::Generate(_) => None,
        }
    }

    pub(crate) fn write(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        Self(Kind::Write { path, error })
    }

    pub(crate) fn generate(error: io::Error) -> Self {
        Self(Kind::Generate(error))
    }
}

impl From<protox::Error> for Error {
    fn from(error: protox::Error) -> Self {
        Self(Kind::Proto(error))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
