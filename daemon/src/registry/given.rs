//! The addresses that an earlier version had given, as it wrote them: `STATE_DIR/addresses/NAME.toml`.
//!
//! They are read once, when the database is made, and the file is kept beside under another name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use fastvpn_proto::crypto::PublicKey;
use serde::Deserialize;

use super::RegistryError;
use crate::handle::NetworkName;

/// The file's text
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    given: Vec<Entry>,
}

/// The addresses of one member
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    public_key: String,
    address: Vec<IpAddr>,
}

/// Names the file of a network
pub(super) fn file(state_dir: &Path, network: &NetworkName) -> PathBuf {
    state_dir.join("addresses").join(format!("{network}.toml"))
}

/// Names the file once it has been taken over
pub(super) fn retired(file: &Path) -> PathBuf {
    file.with_extension("toml.old")
}

/// Reads all addresses; none if there is no file
///
/// # Errors
/// If there is one that cannot be read or is damaged; it stays as it is.
pub(super) fn read(file: &Path) -> Result<BTreeMap<PublicKey, Vec<IpAddr>>, RegistryError> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(RegistryError::Read { file: file.to_owned(), source }),
    };
    decode(&bytes).map_err(|what| RegistryError::Damaged { file: file.to_owned(), what })
}

/// Puts the file aside, if it is there; to be called when what it holds is written down elsewhere
///
/// # Errors
/// If the system does not let it be renamed.
pub(super) fn retire(file: &Path) -> Result<(), RegistryError> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    match fs::rename(file, retired(file)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed
            .and_then(|()| File::open(directory)?.sync_all())
            .map_err(|source| RegistryError::Write { file: file.to_owned(), source }),
    }
}

fn decode(bytes: &[u8]) -> Result<BTreeMap<PublicKey, Vec<IpAddr>>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    if !text.trim_end().ends_with(END) {
        return Err("its end is missing".to_owned());
    }
    let text: Text = toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start).min(text.len());
        let line = text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line}: {}", error.message())
    })?;
    let mut given = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for entry in text.given {
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

/// Last line, without which the file was cut off
const END: &str = "# end";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_an_earlier_version_wrote_is_read() {
        let text = format!(
            "# Addresses that fastvpnd gave to members without one in the configuration.\n\n\
             [[given]]\npublic_key = \"{}\"\naddress = [\"10.0.0.2\", \"fd00::2\"]\n\n# end\n",
            key(1)
        );

        let given = decode(text.as_bytes()).unwrap();

        let addresses = ["10.0.0.2", "fd00::2"].map(|addr| addr.parse().unwrap());
        assert_eq!(given, BTreeMap::from([(key(1), addresses.to_vec())]));
        for len in 0..text.len() - 1 {
            assert!(decode(&text.as_bytes()[..len]).is_err(), "cut after {len}");
        }
    }

    #[test]
    fn damage_is_told_and_the_file_left_alone() {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("home.toml");
        let twice = format!(
            "[[given]]\npublic_key = \"{0}\"\naddress = []\n[[given]]\npublic_key = \"{0}\"\n\
             address = []\n# end\n",
            key(1)
        );
        for damage in ["", "?\n# end\n", "given = 7\n# end\n", &twice] {
            fs::write(&file, damage).unwrap();

            assert!(matches!(read(&file), Err(RegistryError::Damaged { .. })), "{damage}");

            assert_eq!(fs::read_to_string(&file).unwrap(), damage);
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32])
    }
}
