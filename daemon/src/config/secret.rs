//! Keys from files and systemd credentials.
//!
//! A key is read into memory that is wiped, and out of it only as [`PrivateKey`] or [`NetworkKey`],
//! which wipe themselves and print nothing. Errors name the file, never what is in it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use fastvpn_proto::crypto::{InvitationSecret, NetworkKey, PrivateKey};
use thiserror::Error;
use zeroize::Zeroizing;

use super::TicketFile;
use super::problem::{holds_padded_key, may_be_key};

/// Who may own the files of keys, and where credentials are
#[derive(Clone, Debug)]
pub(super) struct KeyRing {
    /// User ids of owners that are trusted
    owners: Vec<u32>,
    /// The directory in which systemd put our credentials
    credentials: Option<PathBuf>,
}

/// Why there is no key
#[derive(Debug, Error)]
pub(super) enum SecretError {
    /// The name of a credential is none
    #[error("is not the name of a credential")]
    CredentialName,
    /// The contents are no key
    #[error("{0} does not hold a key: 32 bytes in base64, 44 characters")]
    Contents(PathBuf),
    /// The value is a key itself
    #[error("holds what looks like a key itself, where the path of a file is wanted")]
    KeyInPlace,
    /// Others may read or write the file
    #[error("{path} is open to others (mode {mode:04o})")]
    Mode { path: PathBuf, mode: u32 },
    /// We were not started with credentials
    #[error("wants a credential, but systemd passed none to this process")]
    NoCredentials,
    /// Somebody else owns the file, who could replace it
    #[error("{path} belongs to user {owner}")]
    Owner { path: PathBuf, owner: u32 },
    /// The path is none
    #[error("is not the path of a file")]
    Path,
    /// The file cannot be read
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    /// The path is that of a directory, a device, …
    #[error("{0} is no regular file")]
    Special(PathBuf),
    /// The contents are no secret of an invitation
    #[error("{0} does not hold an invitation's secret: 16 bytes in base64, 24 characters")]
    Ticket(PathBuf),
    /// All bytes are zero
    #[error("{0} holds a key of zeros")]
    Zero(PathBuf),
}

impl SecretError {
    /// Returns how to mend it
    pub(super) fn remedy(&self) -> String {
        match self {
            Self::CredentialName => "write the ID of a LoadCredential=, without '/'".to_owned(),
            Self::Contents(path) | Self::Zero(path) => {
                format!("move it away and make a new one: fastvpnctl keygen {}", path.display())
            }
            Self::KeyInPlace => {
                "put the key into a file of mode 0600 and write its path; make a new key if others \
                 may have seen this one"
                    .to_owned()
            }
            Self::Mode { path, .. } => format!("run: chmod 0600 {}", path.display()),
            Self::NoCredentials => {
                "add LoadCredential=ID:PATH to fastvpnd.service, or write the path of a file with \
                 private_key_file or network_key_file"
                    .to_owned()
            }
            Self::Owner { path, .. } => format!("run: chown fastvpn {}", path.display()),
            Self::Read { path, source } => match source.kind() {
                io::ErrorKind::NotFound => {
                    format!("make one: fastvpnctl keygen {}", path.display())
                }
                io::ErrorKind::PermissionDenied => {
                    format!("run: chown fastvpn {}", path.display())
                }
                _ => "see whether the disk is sound".to_owned(),
            },
            Self::Ticket(path) => {
                format!("remove {}, and join anew with an invitation", path.display())
            }
            Self::Path | Self::Special(_) => {
                "write the path of a file that holds the key".to_owned()
            }
        }
    }
}

impl KeyRing {
    /// Trusts root, our own user, and the owner of the state directory
    ///
    /// The third matters to root who checks what the daemon's user will read.
    pub(super) fn new(state_dir: &Path, credentials: Option<PathBuf>) -> Self {
        let mut owners = vec![0, rustix::process::geteuid().as_raw()];
        owners.extend(std::fs::metadata(state_dir).map(|state| state.uid()).ok());
        Self { owners, credentials }
    }

    /// Reads a private key from a file; a relative path begins at `base`
    pub(super) fn private_key(&self, base: &Path, path: &str) -> Result<PrivateKey, SecretError> {
        Ok(PrivateKey::from_bytes(*self.file(base, path)?))
    }

    /// Reads the network's key from a file; a relative path begins at `base`
    pub(super) fn network_key(&self, base: &Path, path: &str) -> Result<NetworkKey, SecretError> {
        Ok(NetworkKey::from_bytes(*self.file(base, path)?))
    }

    /// Reads a private key that systemd passed to us
    pub(super) fn private_key_credential(&self, id: &str) -> Result<PrivateKey, SecretError> {
        Ok(PrivateKey::from_bytes(*self.credential(id)?))
    }

    /// Reads the network's key that systemd passed to us
    pub(super) fn network_key_credential(&self, id: &str) -> Result<NetworkKey, SecretError> {
        Ok(NetworkKey::from_bytes(*self.credential(id)?))
    }

    fn credential(&self, id: &str) -> Result<Zeroizing<[u8; 32]>, SecretError> {
        if may_be_key(id) {
            return Err(SecretError::KeyInPlace);
        }
        if id.is_empty() || id.len() > 255 || id.contains(['/', '\0']) || id == "." || id == ".." {
            return Err(SecretError::CredentialName);
        }
        let directory = self.credentials.as_ref().ok_or(SecretError::NoCredentials)?;
        let path = directory.join(id);
        // systemd made file and directory, and guards them by access lists that look like group bits
        let (file, _) = open(&path)?;
        key(file, &path)
    }

    /// Reads the secret of an invitation from a file; nothing if there is no such file
    pub(super) fn ticket(
        &self,
        base: &Path,
        path: &str,
    ) -> Result<Option<TicketFile>, SecretError> {
        match self.open(base, path) {
            Ok((file, path)) => {
                let secret = contents(file, &path)?;
                let secret = secret.ok_or_else(|| SecretError::Ticket(path.clone()))?;
                Ok(Some(TicketFile { file: path, secret: InvitationSecret::from_bytes(*secret) }))
            }
            Err(SecretError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn file(&self, base: &Path, text: &str) -> Result<Zeroizing<[u8; 32]>, SecretError> {
        let (file, path) = self.open(base, text)?;
        key(file, &path)
    }

    /// Opens a file that only its owner, whom we trust, may read
    fn open(&self, base: &Path, text: &str) -> Result<(File, PathBuf), SecretError> {
        if holds_padded_key(text) || !text.starts_with('/') && may_be_key(text) {
            return Err(SecretError::KeyInPlace);
        }
        if text.is_empty() || text.contains('\0') {
            return Err(SecretError::Path);
        }
        let path = base.join(text);
        let (file, metadata) = open(&path)?;
        if metadata.mode() & 0o077 != 0 {
            let mode = metadata.mode() & 0o7777;
            return Err(SecretError::Mode { path, mode });
        }
        if !self.owners.contains(&metadata.uid()) {
            return Err(SecretError::Owner { path, owner: metadata.uid() });
        }
        Ok((file, path))
    }
}

/// Opens what must be a regular file, without waiting for what is none
fn open(path: &Path) -> Result<(File, std::fs::Metadata), SecretError> {
    let read = |source| SecretError::Read { path: path.to_owned(), source };
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    if !metadata.is_file() {
        return Err(SecretError::Special(path.to_owned()));
    }
    Ok((file, metadata))
}

fn key(file: File, path: &Path) -> Result<Zeroizing<[u8; 32]>, SecretError> {
    let key = contents(file, path)?.ok_or_else(|| SecretError::Contents(path.to_owned()))?;
    if key.iter().all(|byte| *byte == 0) {
        return Err(SecretError::Zero(path.to_owned()));
    }
    Ok(key)
}

/// Reads so many bytes in base64; nothing if the file holds anything else
fn contents<const N: usize>(
    mut file: File,
    path: &Path,
) -> Result<Option<Zeroizing<[u8; N]>>, SecretError> {
    let mut text = Zeroizing::new([0; CONTENTS_MAX]);
    let mut len = 0;
    loop {
        match file.read(&mut text[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(SecretError::Read { path: path.to_owned(), source }),
        }
    }
    let digits = text[..len].trim_ascii();
    let mut bytes = Zeroizing::new([0; N]);
    if digits.len() != N.div_ceil(3) * 4 || len == CONTENTS_MAX {
        return Ok(None);
    }
    let whole = Base64::decode(digits, &mut *bytes).is_ok_and(|bytes| bytes.len() == N);
    Ok(whole.then_some(bytes))
}

/// Bytes of a file that are read: a key, and more than enough white space
const CONTENTS_MAX: usize = 128;
