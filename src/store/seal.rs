//! Secrets on the disk: sealed with a key that lies in a file of its own, which only its owner reads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// What a sealed record begins with; no JSON does.
const MARK: u8 = 0;

/// Seals and opens.
pub struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
}

impl Seal {
    /// Takes a key that the configuration has: 32 bytes in base64.
    ///
    /// # Errors
    /// It is none.
    pub fn of(text: &str) -> Result<Self, String> {
        let bytes = STANDARD.decode(text.trim()).unwrap_or_default();
        let key =
            UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| "the key is not 32 bytes in base64".to_owned())?;
        Ok(Self { key: LessSafeKey::new(key), random: SystemRandom::new() })
    }

    /// Takes the key of a file, made when it is missing and may be.
    ///
    /// # Errors
    /// It cannot be used: why.
    pub fn open(path: &Path, may_make: bool) -> Result<Self, String> {
        let shown = path.display();
        let random = SystemRandom::new();
        let bytes = match std::fs::File::open(path) {
            Ok(mut file) => {
                let mode = file.metadata().map_err(|error| format!("{shown}: {error}"))?.permissions().mode();
                if mode & 0o077 != 0 {
                    return Err(format!("others than its owner can read {shown}; set its mode to 0600"));
                }
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).map_err(|error| format!("{shown}: {error}"))?;
                bytes
            }
            Err(error) if error.kind() == ErrorKind::NotFound && may_make => make(path, &random)?,
            Err(error) => return Err(format!("the key of its secrets, {shown}, cannot be read: {error}")),
        };
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes)
            .map_err(|_| format!("{shown} has {} bytes and is no key; put a copy of it back", bytes.len()))?;
        Ok(Self { key: LessSafeKey::new(key), random })
    }

    /// Seals a record; what it is about is bound to it.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn seal(&self, about: &[u8], mut record: Vec<u8>) -> Result<Vec<u8>, String> {
        let failed = |_| "a record cannot be sealed".to_owned();
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(failed)?;
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(unique, Aad::from(about), &mut record).map_err(failed)?;
        Ok([&[MARK], &nonce[..], &record].concat())
    }

    /// Opens what was sealed; anything else comes back as it is.
    ///
    /// # Errors
    /// It was sealed with another key, or has changed.
    pub fn unseal(&self, about: &[u8], stored: &[u8]) -> Result<Vec<u8>, String> {
        let Some(sealed) = stored.strip_prefix(&[MARK]) else { return Ok(stored.to_vec()) };
        let failed = || "a secret was sealed with another key, or has been changed".to_owned();
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or_else(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let mut record = sealed.to_vec();
        let opened = self.key.open_in_place(nonce, Aad::from(about), &mut record).map_err(|_| failed())?;
        Ok(opened.to_vec())
    }
}

/// Whether a record is sealed.
pub fn is_sealed(stored: &[u8]) -> bool {
    stored.first() == Some(&MARK)
}

fn make(path: &Path, random: &SystemRandom) -> Result<Vec<u8>, String> {
    let mut key = vec![0; CHACHA20_POLY1305.key_len()];
    random.fill(&mut key).map_err(|_| "the system gives no random numbers".to_owned())?;
    // Whole or not at all, and there before anything is sealed with it.
    let new = path.with_extension("key.new");
    let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = made
        .and_then(|mut file| file.write_all(&key).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&new, path))
        .and_then(|()| std::fs::File::open(folder)?.sync_all());
    written.map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    Ok(key)
}
