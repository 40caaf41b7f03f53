//! The registry that the hub itself writes: a small database, `STATE_DIR/members/NAME.redb`.
//!
//! redb brings each transaction to the disk, checks every page when it opens, and keeps a second
//! process out. Keys are bytes, values short texts in TOML, so that a later version may add to them.
//! Addresses that were given by an earlier version, in `STATE_DIR/addresses/NAME.toml`, are taken
//! over once ([`given`]).
//!
//! # Contract
//!
//! - A file that is damaged is never changed, moved or emptied: it is told, and the hub does not
//!   start.
//! - All of it may block for as long as a disk does.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use redb::{
    Builder, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition, TableError,
    WriteTransaction,
};
use serde::{Deserialize, Serialize};

use super::{
    Change, Contents, Digest, Invitation, Record, Registry, RegistryError, Standing, Use, given,
};
use crate::handle::NetworkName;

/// What a hub itself keeps of one network
#[derive(Debug)]
pub struct Database {
    file: PathBuf,
    inner: redb::Database,
}

impl Database {
    /// Opens the database of a network, or makes it
    ///
    /// # Errors
    /// If it cannot be read or made, is damaged, or is in use.
    pub fn open(state_dir: &Path, network: &NetworkName) -> Result<Self, RegistryError> {
        let file = Self::file(state_dir, network);
        // What is not redb's own error is damage that it did not expect.
        let inner = guarded(&file, || open(&file))?;
        let mut database = Self { file, inner };
        let old = given::file(state_dir, network);
        guarded(&database.file.clone(), || database.begin(&old))?;
        given::retire(&old)?;
        Ok(database)
    }

    /// Returns where the database of a network is
    pub fn file(state_dir: &Path, network: &NetworkName) -> PathBuf {
        state_dir.join("members").join(format!("{network}.redb"))
    }

    /// Writes down the format, and what an earlier version had given, if this is the first time
    fn begin(&mut self, old: &Path) -> Result<(), RegistryError> {
        let transaction = self.inner.begin_write().map_err(|error| self.wrong(error))?;
        let format = transaction
            .open_table(META)
            .map_err(|error| self.wrong(error))?
            .get(FORMAT)
            .map_err(|error| self.wrong(error))?
            .map(|value| value.value());
        match format {
            Some(FORMAT_NOW) => return transaction.abort().map_err(|error| self.wrong(error)),
            Some(found) => {
                let file = self.file.clone();
                return Err(RegistryError::Newer { file, found, known: FORMAT_NOW });
            }
            None => {}
        }
        for (key, addresses) in given::read(old)? {
            self.make(&transaction, &Change::Given(key, addresses))?;
        }
        let mut meta = transaction.open_table(META).map_err(|error| self.wrong(error))?;
        meta.insert(FORMAT, FORMAT_NOW).map_err(|error| self.wrong(error))?;
        drop(meta);
        transaction.commit().map_err(|error| self.wrong(error))
    }

    fn make(&self, transaction: &WriteTransaction, change: &Change) -> Result<(), RegistryError> {
        let (table, key, value) = match change {
            Change::Given(key, address) => {
                (GIVEN, key.as_bytes(), Some(self.text(&GivenText { address: address.clone() })?))
            }
            Change::Invitation(digest, invitation) => {
                (INVITATIONS, digest.as_bytes(), Some(self.text(&InvitationText::of(invitation))?))
            }
            Change::Member(key, record) => {
                (MEMBERS, key.as_bytes(), Some(self.text(&MemberText::of(record))?))
            }
            Change::NoInvitation(digest) => (INVITATIONS, digest.as_bytes(), None),
            Change::NoMember(key) => (MEMBERS, key.as_bytes(), None),
        };
        let mut table = transaction.open_table(table).map_err(|error| self.wrong(error))?;
        match value {
            Some(text) => drop(table.insert(key, &*text).map_err(|error| self.wrong(error))?),
            None => drop(table.remove(key).map_err(|error| self.wrong(error))?),
        }
        Ok(())
    }

    fn read(&self) -> Result<Contents, RegistryError> {
        let mut contents = Contents::default();
        for (key, text) in self.rows(MEMBERS)? {
            let record = self.parsed::<MemberText>(&text)?.record();
            let record = record.map_err(|what| self.damaged(what))?;
            contents.members.insert(PublicKey::from_bytes(key), record);
        }
        for (key, text) in self.rows(INVITATIONS)? {
            let invitation = self.parsed::<InvitationText>(&text)?.invitation();
            let invitation = invitation.map_err(|what| self.damaged(what))?;
            contents.invitations.insert(Digest::from_bytes(key), invitation);
        }
        for (key, text) in self.rows(GIVEN)? {
            let addresses = self.parsed::<GivenText>(&text)?.address;
            contents.given.insert(PublicKey::from_bytes(key), addresses);
        }
        Ok(contents)
    }

    fn rows(&self, table: Table) -> Result<BTreeMap<[u8; 32], String>, RegistryError> {
        let transaction = self.inner.begin_read().map_err(|error| self.wrong(error))?;
        let table = match transaction.open_table(table) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
            Err(error) => return Err(self.wrong(error)),
        };
        let mut rows = BTreeMap::new();
        for row in table.iter().map_err(|error| self.wrong(error))? {
            let (key, value) = row.map_err(|error| self.wrong(error))?;
            rows.insert(*key.value(), value.value().to_owned());
        }
        Ok(rows)
    }

    fn parsed<'a, T: Deserialize<'a>>(&self, text: &'a str) -> Result<T, RegistryError> {
        toml::from_str(text).map_err(|error| self.damaged(error.message().to_owned()))
    }

    fn text<T: Serialize>(&self, value: &T) -> Result<String, RegistryError> {
        toml::to_string(value).map_err(|error| RegistryError::Write {
            file: self.file.clone(),
            source: io::Error::other(error),
        })
    }

    fn damaged(&self, what: String) -> RegistryError {
        RegistryError::Damaged { file: self.file.clone(), what }
    }

    fn wrong(&self, error: impl Into<redb::Error>) -> RegistryError {
        told(&self.file, error.into())
    }
}

impl Registry for Database {
    fn load(&mut self) -> Result<Contents, RegistryError> {
        guarded(&self.file, || self.read())
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), RegistryError> {
        guarded(&self.file, || {
            let transaction = self.inner.begin_write().map_err(|error| self.wrong(error))?;
            changes.iter().try_for_each(|change| self.make(&transaction, change))?;
            transaction.commit().map_err(|error| self.wrong(error))
        })
    }
}

/// Opens or makes the file; a new one is for its owner alone
fn open(file: &Path) -> Result<redb::Database, RegistryError> {
    let write = |source| RegistryError::Write { file: file.to_owned(), source };
    if let Some(directory) = file.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(write)?;
        let made = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(file);
        match made {
            Ok(_) => File::open(directory).and_then(|dir| dir.sync_all()).map_err(write)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(write(error)),
        }
    }
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder.create(file).map_err(|error| match error {
        DatabaseError::UpgradeRequired(found) => RegistryError::Damaged {
            file: file.to_owned(),
            what: format!("it has the old format {found} of redb"),
        },
        error => told(file, error.into()),
    })
}

/// Calls redb, and takes a panic in it for what it is: a file that is not as it was written
fn guarded<T>(
    file: &Path,
    call: impl FnOnce() -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        let what = "its pages do not fit together".to_owned();
        Err(RegistryError::Damaged { file: file.to_owned(), what })
    })
}

/// Says whose fault it is
fn told(file: &Path, error: redb::Error) -> RegistryError {
    let file = file.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => RegistryError::Occupied(file),
        redb::Error::Corrupted(what) => RegistryError::Damaged { file, what },
        redb::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
            RegistryError::Damaged { file, what: "it is no database".to_owned() }
        }
        redb::Error::Io(source) => RegistryError::Write { file, source },
        error @ (redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }) => {
            RegistryError::Damaged { file, what: error.to_string() }
        }
        error => RegistryError::Write { file, source: io::Error::other(error.to_string()) },
    }
}

/// A member, as text
#[derive(Deserialize, Serialize)]
struct MemberText {
    name: String,
    standing: String,
    since: u64,
    #[serde(default)]
    address: Vec<IpAddr>,
    #[serde(default)]
    subnet: Vec<String>,
}

/// An invitation, as text
#[derive(Deserialize, Serialize)]
struct InvitationText {
    name: String,
    expires: u64,
    approval: bool,
    #[serde(default)]
    address: Vec<IpAddr>,
    #[serde(default)]
    subnet: Vec<String>,
    #[serde(default)]
    withdrawn: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used_by: Option<String>,
}

/// Addresses of one member, as text
#[derive(Deserialize, Serialize)]
struct GivenText {
    address: Vec<IpAddr>,
}

impl MemberText {
    fn of(record: &Record) -> Self {
        Self {
            name: record.name.clone(),
            standing: record.standing.as_str().to_owned(),
            since: record.since,
            address: record.addresses.clone(),
            subnet: record.subnets.iter().map(Prefix::to_string).collect(),
        }
    }

    fn record(self) -> Result<Record, String> {
        let known = [Standing::Approved, Standing::Pending, Standing::Revoked];
        let standing = known.into_iter().find(|standing| standing.as_str() == self.standing);
        Ok(Record {
            standing: standing.ok_or_else(|| format!("{:?} is no standing", self.standing))?,
            name: self.name,
            since: self.since,
            addresses: self.address,
            subnets: prefixes(&self.subnet)?,
        })
    }
}

impl InvitationText {
    fn of(invitation: &Invitation) -> Self {
        Self {
            name: invitation.name.clone(),
            expires: invitation.expires,
            approval: invitation.approval,
            address: invitation.addresses.clone(),
            subnet: invitation.subnets.iter().map(Prefix::to_string).collect(),
            withdrawn: invitation.used == Use::Withdrawn,
            used_by: match invitation.used {
                Use::By(key) => Some(key.to_string()),
                Use::Open | Use::Withdrawn => None,
            },
        }
    }

    fn invitation(self) -> Result<Invitation, String> {
        let used = match (self.used_by, self.withdrawn) {
            (Some(key), _) => Use::By(key.parse().map_err(|_| format!("{key:?} is no key"))?),
            (None, true) => Use::Withdrawn,
            (None, false) => Use::Open,
        };
        Ok(Invitation {
            name: self.name,
            expires: self.expires,
            approval: self.approval,
            addresses: self.address,
            subnets: prefixes(&self.subnet)?,
            used,
        })
    }
}

fn prefixes(texts: &[String]) -> Result<Vec<Prefix>, String> {
    let parse = |text: &String| text.parse().map_err(|_| format!("{text:?} is no subnet"));
    texts.iter().map(parse).collect()
}

type Table = TableDefinition<'static, &'static [u8; 32], &'static str>;

const MEMBERS: Table = TableDefinition::new("members");
const INVITATIONS: Table = TableDefinition::new("invitations");
const GIVEN: Table = TableDefinition::new("given");
const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const FORMAT: &str = "format";
/// Format of the values
const FORMAT_NOW: u64 = 1;
/// Memory for pages of the file
const CACHE: usize = 1024 * 1024;
