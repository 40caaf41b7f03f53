//! The files of one network that was set up here: all of them, or none.
//!
//! Keys are written first and the configuration last, each beside its place, brought to the disk, and
//! then given its name. A draft of the configuration, which no daemon reads, stays until all is there,
//! and is there again until all is gone: who finds one finds an attempt that was interrupted, and what
//! it left is removed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::handle::NetworkName;

/// Where the files of a network are
#[derive(Clone, Debug)]
pub(super) struct Files {
    /// `STATE_DIR/networks`
    networks: PathBuf,
    /// `STATE_DIR/keys`
    keys: PathBuf,
    state_dir: PathBuf,
    name: NetworkName,
}

/// What is to be in the files
pub(super) struct Contents {
    /// The configuration
    pub(super) text: String,
    /// The private key of this node
    pub(super) private_key: Zeroizing<[u8; 32]>,
    /// The network's key, where it has one
    pub(super) network_key: Option<Zeroizing<[u8; 32]>>,
    /// The secret of the invitation, where there is one
    pub(super) ticket: Option<Zeroizing<[u8; 16]>>,
}

/// Why the files cannot be made or removed
#[derive(Debug, Error)]
pub(super) enum FilesError {
    /// A file is there that belongs to somebody else
    #[error(
        "{} exists already, and nothing is ever overwritten: move it away, or choose another name",
        .0.display()
    )]
    Exists(PathBuf),
    /// The system refuses
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which file or directory
        path: PathBuf,
        /// Why
        source: io::Error,
    },
}

impl Files {
    /// Names the files of a network
    pub(super) fn new(state_dir: &Path, name: NetworkName) -> Self {
        let state_dir = state_dir.to_owned();
        Self { networks: state_dir.join("networks"), keys: state_dir.join("keys"), state_dir, name }
    }

    /// Returns the path of the configuration
    pub(super) fn config(&self) -> PathBuf {
        self.networks.join(format!("{}.toml", self.name))
    }

    /// Returns the path of the invitation's secret
    pub(super) fn ticket(&self) -> PathBuf {
        self.keys.join(format!("{}.ticket", self.name))
    }

    /// Makes all files; after an error there are none that were not there before
    pub(super) fn create(&self, contents: &Contents) -> Result<(), FilesError> {
        for directory in [&self.networks, &self.keys] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(|source| write(directory, source))?;
        }
        let config = self.config();
        if config.symlink_metadata().is_ok() {
            return Err(FilesError::Exists(config));
        }
        if self.draft().symlink_metadata().is_ok() {
            self.remove_all()?;
        }
        // Members of a hub that was here once are not to be members of another one.
        let mut others = self.key_files().into_iter().chain(self.members());
        let taken = others.find(|path| path.symlink_metadata().is_ok());
        if let Some(taken) = taken {
            return Err(FilesError::Exists(taken));
        }
        let mut made = Vec::new();
        self.fill(contents, &mut made).inspect_err(|_| {
            // The error that came first says more.
            made.iter().for_each(|path| drop(remove(path)));
        })
    }

    /// Makes a draft of the configuration again, so that no start of the daemon finds it
    pub(super) fn remove_config(&self) -> Result<(), FilesError> {
        let config = self.config();
        match fs::rename(&config, self.draft()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(write(&config, error)),
            Ok(()) | Err(_) => sync(&self.networks),
        }
    }

    /// Removes everything, what was written down while the network ran as well
    pub(super) fn remove_all(&self) -> Result<(), FilesError> {
        self.remove_config()?;
        self.key_files().iter().try_for_each(|path| remove(path))?;
        remove(&self.fresh())?;
        sync(&self.keys)?;
        let [database, given] = self.members();
        let retired = given.with_extension("toml.old");
        let quota = self.state_dir.join(format!("quota/{}", self.name));
        for path in [database, given, retired, quota] {
            remove(&path)?;
            path.parent().map_or(Ok(()), sync)?;
        }
        remove(&self.draft())
    }

    /// Where a hub of this name keeps its members, or kept them once
    fn members(&self) -> [PathBuf; 2] {
        let name = &self.name;
        [format!("members/{name}.redb"), format!("addresses/{name}.toml")]
            .map(|path| self.state_dir.join(path))
    }

    /// Makes all files; those that there are after an error are in `made`
    fn fill(&self, contents: &Contents, made: &mut Vec<PathBuf>) -> Result<(), FilesError> {
        let draft = self.draft();
        made.push(draft.clone());
        put(&draft, contents.text.as_bytes())?;
        sync(&self.networks)?;
        let [private_key, network_key, ticket] = self.key_files();
        let secrets = [
            (private_key, Some(&contents.private_key[..])),
            (network_key, contents.network_key.as_ref().map(|key| &key[..])),
            (ticket, contents.ticket.as_ref().map(|secret| &secret[..])),
        ];
        for (path, bytes) in secrets {
            let Some(bytes) = bytes else { continue };
            self.place(&path, &encoded(bytes))?;
            made.push(path);
        }
        sync(&self.keys)?;
        let config = self.config();
        name_it(&draft, &config)?;
        made.push(config);
        sync(&self.networks)
    }

    /// Writes a file that appears whole, and never in the place of another
    fn place(&self, path: &Path, text: &[u8]) -> Result<(), FilesError> {
        let fresh = self.fresh();
        put(&fresh, text)?;
        name_it(&fresh, path)
    }

    /// A key before it has its name
    fn fresh(&self) -> PathBuf {
        self.keys.join(format!(".{}.new", self.name))
    }

    /// The configuration while the rest is made; a hidden file, which no daemon reads
    fn draft(&self) -> PathBuf {
        self.networks.join(format!(".{}.new", self.name))
    }

    fn key_files(&self) -> [PathBuf; 3] {
        let key = self.keys.join(self.name.as_str());
        [key, self.keys.join(format!("{}.psk", self.name)), self.ticket()]
    }
}

/// Writes a file for its owner alone, over what an interrupted attempt left
fn put(path: &Path, bytes: &[u8]) -> Result<(), FilesError> {
    let written = || {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    written().map_err(|source| write(path, source))
}

/// Gives a file its name, which nothing else may have
fn name_it(fresh: &Path, path: &Path) -> Result<(), FilesError> {
    match fs::hard_link(fresh, path) {
        Ok(()) => remove(fresh),
        Err(error) => {
            let _ = remove(fresh);
            Err(match error.kind() {
                io::ErrorKind::AlreadyExists => FilesError::Exists(path.to_owned()),
                _ => write(path, error),
            })
        }
    }
}

fn remove(path: &Path) -> Result<(), FilesError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(write(path, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Brings the names in a directory to the disk
fn sync(directory: &Path) -> Result<(), FilesError> {
    match File::open(directory).and_then(|directory| directory.sync_all()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(write(directory, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn encoded(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(vec![b'\n'; Base64::encoded_len(bytes) + 1]);
    let room = text.len() - 1;
    // the room is what was asked for
    let _ = Base64::encode(bytes, &mut text[..room]);
    text
}

fn write(path: &Path, source: io::Error) -> FilesError {
    FilesError::Write { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_there_for_their_owner_alone_and_nothing_else_is() {
        let place = tempfile::tempdir().unwrap();
        let files = files(place.path());

        files.create(&contents()).unwrap();

        let all = listed(place.path());
        assert_eq!(all, ["keys/home", "keys/home.psk", "keys/home.ticket", "networks/home.toml"]);
        for path in all {
            let mode = fs::metadata(place.path().join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let key = fs::read_to_string(place.path().join("keys/home")).unwrap();
        assert_eq!(key, "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n");
        files.remove_all().unwrap();
        assert!(listed(place.path()).is_empty());
    }

    #[test]
    fn key_of_somebody_else_is_never_touched_and_nothing_is_left_beside_it() {
        for taken in ["keys/home", "keys/home.psk", "keys/home.ticket", "networks/home.toml"] {
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join(taken);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "old").unwrap();

            let error = files(place.path()).create(&contents()).unwrap_err();

            assert!(matches!(error, FilesError::Exists(path) if path.ends_with(taken)), "{taken}");
            assert_eq!(listed(place.path()), [taken]);
            assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        }
    }

    #[test]
    fn what_an_interrupted_attempt_left_is_in_nobodys_way() {
        let place = tempfile::tempdir().unwrap();
        let files = files(place.path());
        files.create(&contents()).unwrap();
        fs::rename(files.config(), files.draft()).unwrap();
        fs::write(place.path().join("keys/.home.new"), "half a k").unwrap();

        files.create(&contents()).unwrap();

        let all = listed(place.path());
        assert_eq!(all, ["keys/home", "keys/home.psk", "keys/home.ticket", "networks/home.toml"]);
    }

    #[test]
    fn removal_that_was_interrupted_is_in_nobodys_way_and_leaves_no_members() {
        let place = tempfile::tempdir().unwrap();
        let files = files(place.path());
        let database = place.path().join("members/home.redb");
        files.create(&contents()).unwrap();
        fs::create_dir(place.path().join("members")).unwrap();
        fs::write(&database, "").unwrap();

        files.remove_config().unwrap();
        files.create(&contents()).unwrap();

        assert!(!database.exists());
    }

    #[test]
    fn members_of_another_hub_of_that_name_are_not_taken_over() {
        let place = tempfile::tempdir().unwrap();
        let database = place.path().join("members/home.redb");
        fs::create_dir(place.path().join("members")).unwrap();
        fs::write(&database, "").unwrap();

        let error = files(place.path()).create(&contents()).unwrap_err();

        assert!(matches!(error, FilesError::Exists(path) if path == database));
        assert!(database.exists() && listed(place.path()).is_empty());
    }

    #[test]
    fn directory_that_cannot_be_written_is_named() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("keys"), "").unwrap();

        let error = files(place.path()).create(&contents()).unwrap_err();

        assert!(error.to_string().contains("/keys: "), "{error}");
    }

    fn files(place: &Path) -> Files {
        Files::new(place, "home".parse().unwrap())
    }

    fn contents() -> Contents {
        Contents {
            text: "role = \"peer\"\n".to_owned(),
            private_key: Zeroizing::new([1; 32]),
            network_key: Some(Zeroizing::new([2; 32])),
            ticket: Some(Zeroizing::new([3; 16])),
        }
    }

    fn listed(place: &Path) -> Vec<String> {
        let mut all = Vec::new();
        for sub in ["keys", "networks"] {
            for entry in fs::read_dir(place.join(sub)).into_iter().flatten() {
                all.push(format!("{sub}/{}", entry.unwrap().file_name().to_string_lossy()));
            }
        }
        all.sort();
        all
    }
}
