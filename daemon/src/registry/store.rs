//! The file of the addresses that were given, which is whole at any time.
//!
//! Written anew beside the old one, brought to the disk, then put in its place: after a crash there
//! is the old file or the new one. A file that is damaged all the same is moved aside, never
//! overwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fastvpn_proto::crypto::PublicKey;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::handle::NetworkName;

/// Addresses by owner
pub(super) type Given = BTreeMap<PublicKey, Vec<IpAddr>>;

/// Where the addresses of one network are written down
#[derive(Debug)]
pub(super) struct Store {
    file: PathBuf,
}

/// Why given addresses cannot be read or written down
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file is not as it was written
    #[error(
        "{}: {what}; the file is kept as {}, and the next start gives addresses anew: put it back \
         mended if members must keep theirs", file.display(), kept.display()
    )]
    Damaged {
        /// The file
        file: PathBuf,
        /// Where it is now
        kept: PathBuf,
        /// What is wrong with it
        what: String,
    },
    /// The file cannot be read
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// The file
        file: PathBuf,
        /// Why
        source: io::Error,
    },
    /// The file cannot be written
    #[error("cannot write {}: {source}", file.display())]
    Write {
        /// The file
        file: PathBuf,
        /// Why
        source: io::Error,
    },
}

/// The file's text
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(default)]
    given: Vec<Entry>,
}

/// The addresses of one member
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    public_key: String,
    address: Vec<IpAddr>,
}

impl Store {
    /// Names the file of a network: `STATE_DIR/addresses/NAME.toml`
    pub(super) fn new(state_dir: &Path, network: &NetworkName) -> Self {
        Self { file: state_dir.join("addresses").join(format!("{network}.toml")) }
    }

    /// Writes all addresses, in place of those that were written before
    pub(super) fn write(&self, given: &Given) -> Result<(), StoreError> {
        encode(given)
            .map_err(io::Error::other)
            .and_then(|text| replace(&self.file, &text))
            .map_err(|source| StoreError::Write { file: self.file.clone(), source })
    }

    /// Reads all addresses; none if none were ever written
    pub(super) fn read(&self) -> Result<Given, StoreError> {
        let read = |source| StoreError::Read { file: self.file.clone(), source };
        let bytes = match fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Given::new()),
            Err(error) => return Err(read(error)),
        };
        decode(&bytes).map_err(|what| match self.put_aside() {
            Ok(kept) => StoreError::Damaged { file: self.file.clone(), kept, what },
            Err(error) => read(error),
        })
    }

    /// Returns the file's path
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Moves the file to a name that no other has
    fn put_aside(&self) -> io::Result<PathBuf> {
        let mut kept = self.file.with_extension("toml.damaged");
        let mut number = 1;
        while kept.symlink_metadata().is_ok() {
            number += 1;
            kept = self.file.with_extension(format!("toml.damaged.{number}"));
        }
        fs::rename(&self.file, &kept)?;
        File::open(self.directory())?.sync_all()?;
        Ok(kept)
    }

    fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("/"))
    }
}

/// Puts a file in the place of the one that is there: after a crash there is the one or the other
///
/// Its directory is made where there is none.
///
/// # Errors
/// If the system refuses anything of it; then the old file is as it was.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(directory)?.sync_all()
}

fn encode(given: &Given) -> Result<String, toml::ser::Error> {
    let given = given
        .iter()
        .map(|(key, address)| Entry { public_key: key.to_string(), address: address.clone() })
        .collect();
    Ok(format!("{HEAD}{}{END}", toml::to_string(&Contents { given })?))
}

fn decode(bytes: &[u8]) -> Result<Given, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    if !text.trim_end().ends_with(END.trim_end()) {
        return Err("its end is missing".to_owned());
    }
    let contents: Contents = toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line}: {}", error.message())
    })?;
    let mut given = Given::new();
    let mut taken = BTreeSet::new();
    for entry in contents.given {
        let key: PublicKey =
            entry.public_key.parse().map_err(|_| format!("{:?} is no key", entry.public_key))?;
        if let Some(addr) = entry.address.iter().find(|addr| !taken.insert(**addr)) {
            return Err(format!("{addr} is given twice"));
        }
        if given.insert(key, entry.address).is_some() {
            return Err(format!("key {key} is there twice"));
        }
    }
    Ok(given)
}

const HEAD: &str = "# Addresses that fastvpnd gave to members without one in the configuration.\n\
                    # Change it only while the network is down, and keep the last line.\n\n";
/// Last line, without which the file was cut off
const END: &str = "\n# end\n";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let state = tempfile::tempdir().unwrap();
        let store = store(state.path());
        assert_eq!(store.read().unwrap(), Given::new());

        store.write(&given()).unwrap();

        assert_eq!(store.read().unwrap(), given());
        store.write(&Given::new()).unwrap();
        assert_eq!(store.read().unwrap(), Given::new());
    }

    #[test]
    fn damaged_file_is_kept_aside_and_told() {
        let state = tempfile::tempdir().unwrap();
        let store = store(state.path());
        for (round, damage) in ["", "?\n# end\n", "given = 7\n# end\n"].into_iter().enumerate() {
            store.write(&given()).unwrap();
            fs::write(&store.file, damage).unwrap();

            let Err(StoreError::Damaged { kept, .. }) = store.read() else { panic!("{damage}") };

            assert_eq!(fs::read_to_string(kept).unwrap(), damage);
            assert_eq!(store.read().unwrap(), Given::new());
            assert_eq!(fs::read_dir(state.path().join("addresses")).unwrap().count(), round + 1);
        }
    }

    #[test]
    fn every_cut_of_the_file_is_noticed() {
        let text = encode(&given()).unwrap();
        for len in 0..text.len() - 1 {
            assert!(decode(&text.as_bytes()[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn one_address_for_two_is_damage() {
        let mut two = given();
        two.insert(PublicKey::from_bytes([9; 32]), vec!["10.0.0.2".parse().unwrap()]);

        assert!(decode(encode(&two).unwrap().as_bytes()).unwrap_err().contains("given twice"));
    }

    #[test]
    fn leftover_of_a_crash_is_overwritten() {
        let state = tempfile::tempdir().unwrap();
        let store = store(state.path());
        fs::create_dir(state.path().join("addresses")).unwrap();
        fs::write(state.path().join("addresses/home.toml.new"), "half a fi").unwrap();

        store.write(&given()).unwrap();

        assert_eq!(store.read().unwrap(), given());
        assert_eq!(fs::read_dir(state.path().join("addresses")).unwrap().count(), 1);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }

    fn store(state: &Path) -> Store {
        Store::new(state, &"home".parse().unwrap())
    }

    fn given() -> Given {
        let addresses = vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        Given::from([(PublicKey::from_bytes([1; 32]), addresses)])
    }
}
