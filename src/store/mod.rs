//! Desired state on the disk: what callers of the API made, in one file of the data directory.
//!
//! In: changes of records. Out: all records at start. Promises: what [`Store::append`] has returned from is there after
//! a crash, whole or not at all. Leaves to others: what records mean (`resources`).

mod seal;

pub use crate::resources::{Change, Key, Record, Resources};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use seal::Seal;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Keys and records, as JSON.
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// The format of the file, by number.
const FORMAT: TableDefinition<'_, &str, u32> = TableDefinition::new("format");
const VERSION: u32 = 1;
/// Memory for pages that were read or will be written.
const CACHE_BYTES: usize = 4 << 20;

/// The file, held open.
pub struct Store {
    /// Opened by the first write where there was no file, and closed by a failed one: it would take no more.
    database: Mutex<Option<Database>>,
    path: PathBuf,
    /// Opened when there is a secret.
    seal: OnceLock<Seal>,
}

impl Store {
    /// Opens the file in `data_dir` and reads all of it; the first change makes it. Secrets are sealed with `key`, 32 bytes
    /// in base64, or else with one in a file of its own.
    ///
    /// # Errors
    /// It cannot be used: which file, why, and the way back.
    pub fn open(data_dir: &Path, key: Option<&str>) -> Result<(Self, Resources), String> {
        let path = data_dir.join("catalog.redb");
        let bad = |why: &dyn std::fmt::Display| {
            let shown = path.display();
            format!(
                "cannot use {shown}, which keeps what was made through the API: {why}; put a copy of it back, or move it \
                 away to begin with nothing made"
            )
        };
        let seal = key.map(Seal::of).transpose()?.map_or_else(OnceLock::new, OnceLock::from);
        let store = Self { database: Mutex::default(), path: path.clone(), seal };
        // Where nothing was ever made, there is no file, and none of its memory is needed.
        if !path.exists() {
            return Ok((store, Resources::default()));
        }
        // What reads a file that is damaged may stumble over it.
        let found = catch_unwind(AssertUnwindSafe(|| {
            let database = sound(&path)?;
            let resources = store.read(&database)?;
            Ok::<_, String>((database, resources))
        }));
        let found = found.unwrap_or_else(|_| Err("it is damaged".to_owned()));
        let (database, resources) = found.map_err(|why| bad(&why))?;
        *store.database.lock().unwrap_or_else(PoisonError::into_inner) = Some(database);
        Ok((store, resources))
    }

    fn read(&self, database: &Database) -> Result<Resources, String> {
        let mut resources = Resources::default();
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let reading = database.begin_read().map_err(|error| told(&error))?;
        let table = reading.open_table(RECORDS).map_err(|error| told(&error))?;
        for entry in table.iter().map_err(|error| told(&error))? {
            let (about, stored) = entry.map_err(|error| told(&error))?;
            let key: Key = serde_json::from_slice(about.value()).map_err(|error| told(&error))?;
            let text = match seal::is_sealed(stored.value()) {
                true => self.seal(false)?.unseal(about.value(), stored.value())?,
                false => stored.value().to_vec(),
            };
            let record: Record = serde_json::from_slice(&text).map_err(|error| format!("{key:?}: {error}"))?;
            resources.set(key, Some(record))?;
        }
        Ok(resources)
    }

    /// What seals secrets; its key is made when it is missing and may be.
    fn seal(&self, may_make: bool) -> Result<&Seal, String> {
        if self.seal.get().is_none() {
            let made = Seal::open(&self.path.with_extension("key"), may_make)?;
            return Ok(self.seal.get_or_init(|| made));
        }
        self.seal.get().ok_or_else(|| "no key".to_owned())
    }

    /// A record as it is stored.
    fn stored(&self, about: &[u8], record: &Record) -> Result<Vec<u8>, String> {
        let text = serde_json::to_vec(record).map_err(|error| error.to_string())?;
        if record.has_secrets() { self.seal(true)?.seal(about, text) } else { Ok(text) }
    }

    /// Writes changes, all or none, and syncs them.
    ///
    /// # Errors
    /// Nothing was written: why.
    pub fn append<'c>(&self, changes: impl Iterator<Item = &'c Change>) -> Result<(), String> {
        let mut kept = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match kept.take() {
            Some(open) => open,
            None => database(&self.path).map_err(|why| format!("{} cannot be opened: {why}", self.path.display()))?,
        };
        self.write(&open, changes)?;
        *kept = Some(open);
        Ok(())
    }

    fn write<'c>(&self, database: &Database, changes: impl Iterator<Item = &'c Change>) -> Result<(), String> {
        let shown = self.path.display();
        let told = |error: &dyn std::fmt::Display| format!("{shown} cannot be written: {error}");
        let writing = database.begin_write().map_err(|error| told(&error))?;
        {
            let mut table = writing.open_table(RECORDS).map_err(|error| told(&error))?;
            for (key, record) in changes {
                let key = serde_json::to_vec(key).map_err(|error| told(&error))?;
                match record {
                    Some(record) => {
                        let stored = self.stored(&key, record).map_err(|error| told(&error))?;
                        drop(table.insert(&*key, &*stored).map_err(|error| told(&error))?);
                    }
                    None => drop(table.remove(&*key).map_err(|error| told(&error))?),
                }
            }
        }
        writing.commit().map_err(|error| told(&error))
    }
}

/// Makes the tables when they are missing.
fn check_format(database: &Database) -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let writing = database.begin_write().map_err(|error| told(&error))?;
    {
        let mut format = writing.open_table(FORMAT).map_err(|error| told(&error))?;
        let found = format.get("format").map_err(|error| told(&error))?.map(|version| version.value());
        match found {
            None => drop(format.insert("format", VERSION).map_err(|error| told(&error))?),
            Some(VERSION) => {}
            Some(other) => return Err(format!("it has format {other}, and this version writes {VERSION}")),
        }
        writing.open_table(RECORDS).map_err(|error| told(&error))?;
    }
    writing.commit().map_err(|error| told(&error))
}

/// Opens the file and compares all of it with its checksums.
fn sound(path: &Path) -> Result<Database, String> {
    let mut database = database(path)?;
    match database.check_integrity() {
        Ok(true) => Ok(database),
        Ok(false) => Err("it is damaged, and what could be saved is not all".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Opens the file; only its owner reads it.
fn database(path: &Path) -> Result<Database, String> {
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|error| error.to_string())?;
    let owner = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, owner).map_err(|error| error.to_string())?;
    check_format(&database)?;
    Ok(database)
}
