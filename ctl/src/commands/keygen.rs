//! `fastvpnctl keygen`: private keys and their public ones. Needs no daemon.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::json::KeyDocument;
use crate::output::{Form, Output};

/// Writes a new private key and shows its public key
pub(super) fn make(output: &Output, file: &Path) -> Result<(), Failure> {
    let secret = random()?;
    write(file, &secret)?;
    tell(output, file, &secret)
}

/// Shows the public key of a private key
pub(super) fn show(output: &Output, file: &Path) -> Result<(), Failure> {
    tell(output, file, &read(file)?)
}

fn tell(output: &Output, file: &Path, secret: &Secret) -> Result<(), Failure> {
    let public_key = public(secret);
    match output.form {
        Form::Json => {
            let file = &file.to_string_lossy();
            output.json(&KeyDocument { file, public_key: &public_key })
        }
        Form::Text => output.line(&public_key),
    }
}

type Secret = Zeroizing<[u8; 32]>;

fn random() -> Result<Secret, Failure> {
    let mut secret = Zeroizing::new([0; 32]);
    let mut filled = 0;
    while filled < secret.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut secret[filled..], flags) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::failed(format!("no random numbers: {error}"))),
        }
    }
    Ok(secret)
}

fn public(secret: &Secret) -> String {
    Base64::encode_string(PublicKey::from(&StaticSecret::from(**secret)).as_bytes())
}

/// Writes the key to a file that is new, complete, and its owner's alone, or to none
fn write(file: &Path, secret: &Secret) -> Result<(), Failure> {
    let problem = |what: &str, error: Errno| {
        Failure::failed(format!("cannot {what} {}: {error}", file.display()))
    };
    let name = file
        .file_name()
        .ok_or_else(|| Failure::failed(format!("{} does not name a file", file.display())))?;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    // Held open, the directory cannot be exchanged for another between the steps.
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::openat(CWD, parent, directory, Mode::empty())
        .map_err(|error| problem("open the directory of", error))?;
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&parent, name, new, OWNER_ONLY);
    let opened = opened.map_err(|error| match error {
        Errno::EXIST => Failure::failed(format!(
            "{} exists already, and a key is never overwritten; fastvpnctl keygen --public {0} \
             shows its public key",
            file.display()
        )),
        error => problem("create", error),
    })?;
    let written = fill(File::from(opened), &parent, secret);
    written.map_err(|error| {
        // Half a key is worse than none.
        let _ = rustix::fs::unlinkat(&parent, name, AtFlags::empty());
        Failure::failed(format!("cannot write {}: {error}", file.display()))
    })
}

fn fill(mut file: File, parent: &impl AsFd, secret: &Secret) -> std::io::Result<()> {
    rustix::fs::fchmod(&file, OWNER_ONLY)?;
    let mut text = Zeroizing::new([b'\n'; TEXT_LEN + 1]);
    Base64::encode(secret.as_slice(), &mut text[..TEXT_LEN]).map_err(std::io::Error::other)?;
    file.write_all(text.as_slice())?;
    if rustix::process::geteuid().is_root()
        && belongs_to_the_daemon(&place(parent)?)
        && let Some((user, group)) = user(&std::fs::read_to_string("/etc/passwd")?, USER)
    {
        rustix::fs::fchown(&file, Some(user), Some(group))?;
    }
    file.sync_all()
}

/// Where an open directory really is, whatever links led there
fn place(directory: &impl AsFd) -> std::io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()))
}

fn belongs_to_the_daemon(directory: &Path) -> bool {
    directory.starts_with(STATE_DIRECTORY)
}

/// Finds a user and its group in the text of `/etc/passwd`
fn user(passwd: &str, name: &str) -> Option<(Uid, Gid)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let user = fields.nth(1)?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        Some((Uid::from_raw(user), Gid::from_raw(group)))
    })
}

fn read(file: &Path) -> Result<Secret, Failure> {
    let problem = |error| Failure::failed(format!("cannot read {}: {error}", file.display()));
    let no_key = || {
        let file = file.display();
        Failure::failed(format!("{file} is no private key: 32 bytes in base64, on one line"))
    };
    let file = File::open(file).map_err(problem)?;
    // Large enough from the start: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(LONGEST_FILE));
    let limit = u64::try_from(LONGEST_FILE).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut text).map_err(problem)?;
    let text = std::str::from_utf8(&text).map_err(|_| no_key())?.trim();
    let mut secret = Zeroizing::new([0; 32]);
    match Base64::decode(text, secret.as_mut_slice()) {
        Ok(bytes) if bytes.len() == 32 => Ok(secret),
        Ok(_) | Err(_) => Err(no_key()),
    }
}

/// 32 bytes in base64
const TEXT_LEN: usize = 44;
/// No file of a key is longer, even with white space around it
const LONGEST_FILE: usize = 256;
/// Mode of a private key
const OWNER_ONLY: Mode = Mode::from_raw_mode(0o600);
/// Where keys are the daemon's
const STATE_DIRECTORY: &str = "/var/lib/fastvpn";
/// Whom the daemon runs as
const USER: &str = "fastvpn";

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn new_key_is_its_owners_alone_and_can_be_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("home");
        let secret = random().unwrap();

        write(&file, &secret).unwrap();

        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read(&file).unwrap().len(), 45);
        assert_eq!(*read(&file).unwrap(), *secret);
    }

    #[test]
    fn two_keys_differ() {
        assert_ne!(*random().unwrap(), *random().unwrap());
    }

    #[test]
    fn existing_file_is_never_touched_nor_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("old"), directory.path().join("link"));
        std::fs::write(&file, "old").unwrap();
        symlink(directory.path().join("nowhere"), &link).unwrap();
        let secret = random().unwrap();

        for taken in [&file, &link] {
            let failure = write(taken, &secret).unwrap_err();
            let message = failure.document().unwrap().error.message.to_owned();
            assert!(message.contains("never overwritten"), "{message}");
        }

        assert_eq!(std::fs::read(&file).unwrap(), b"old");
        assert!(!directory.path().join("nowhere").exists());
    }

    #[test]
    fn missing_directory_is_named() {
        let failure = write(Path::new("/nonexistent/key"), &random().unwrap()).unwrap_err();

        let message = failure.document().unwrap().error.message.to_owned();
        assert!(message.contains("the directory of /nonexistent/key"), "{message}");
    }

    #[test]
    fn public_key_is_the_one_of_the_standard() {
        // RFC 7748, section 6.1.
        let alice = Zeroizing::new([
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2,
            0x66, 0x45, 0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5,
            0x1d, 0xb9, 0x2c, 0x2a,
        ]);

        assert_eq!(public(&alice), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    }

    #[test]
    fn file_that_is_no_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");

        for text in ["", "hello", "aGVsbG8=", &"A".repeat(100_000)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(read(&file).unwrap_err().exit_code(), 1, "{text:.20}");
        }
        assert_eq!(read(Path::new("/nonexistent")).unwrap_err().exit_code(), 1);
    }

    #[test]
    fn daemons_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nfastvpn2:x:5:5::/:\nfastvpn:x:990:985:::\n";

        let found = user(passwd, "fastvpn").map(|(user, group)| (user.as_raw(), group.as_raw()));

        assert_eq!(found, Some((990, 985)));
        assert_eq!(user("", "fastvpn"), None);
        assert_eq!(user("fastvpn:x:no:number", "fastvpn"), None);
    }

    #[test]
    fn only_the_state_directory_is_the_daemons() {
        assert!(belongs_to_the_daemon(Path::new("/var/lib/fastvpn/keys")));
        assert!(!belongs_to_the_daemon(Path::new("/var/lib/fastvpn2")));
        assert!(!belongs_to_the_daemon(Path::new("/etc")));
    }

    #[test]
    fn link_into_another_directory_does_not_hide_where_it_leads() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();

        let opened = File::open(&link).unwrap();

        assert_eq!(place(&opened).unwrap(), real.canonicalize().unwrap());
    }
}
