//! Space put aside, so that a full disk does not stop what frees space.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Bytes put aside.
const BYTES: usize = 8 << 20;

/// A file of [`BYTES`] in the data directory; shared by all journals.
pub struct Reserve {
    path: PathBuf,
    held: Mutex<bool>,
}

impl Reserve {
    /// Puts the space aside if there is any; a full disk is no reason not to start.
    pub fn new(data_dir: &Path) -> Self {
        let reserve = Self { path: data_dir.join("reserve"), held: Mutex::new(false) };
        reserve.restore();
        reserve
    }

    /// Gives the space to whoever must write. Whether there was any.
    pub fn release(&self) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *held) && std::fs::remove_file(&self.path).is_ok()
    }

    /// Puts the space aside again. Whether it is there.
    pub fn restore(&self) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !*held {
            *held = self.fill().is_ok();
            if !*held {
                // Half a reserve would only make the disk fuller.
                std::fs::remove_file(&self.path).unwrap_or_default();
            }
        }
        *held
    }

    fn fill(&self) -> io::Result<()> {
        if std::fs::metadata(&self.path).is_ok_and(|found| found.len() == BYTES as u64) {
            return Ok(());
        }
        let mut file = File::create(&self.path)?;
        let zeros = [0; 64 << 10];
        for _ in 0..BYTES / zeros.len() {
            file.write_all(&zeros)?;
        }
        file.sync_all()
    }
}
