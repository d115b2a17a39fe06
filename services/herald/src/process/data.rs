//! The data folder: made if need be, for one process at a time.

use anyhow::Context;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// The folder, locked until this is dropped. Files in it that are not Herald's are left alone.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if it is not there, and locks it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        make(path).with_context(|| format!("cannot make the data folder {}", path.display()))?;
        let file = path.join("herald.lock");
        let lock =
            File::create(&file).with_context(|| format!("cannot write to the data folder: {}", file.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "the data folder {} is in use by another Herald; one process at a time can have it, so stop that one, or \
                 give --data another folder",
                path.display()
            ),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", file.display())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// For the owner alone: secrets and payloads are in it.
#[cfg(unix)]
fn make(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn make(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path)
}

/// A fresh API key of 256 random bits.
pub(crate) fn random_key() -> anyhow::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("the system gave no randomness")?;
    Ok(format!("herald_{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}
