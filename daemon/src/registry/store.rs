//! Files that are whole at any time.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftover_of_a_crash_is_overwritten() {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("quota/home");
        fs::create_dir(state.path().join("quota")).unwrap();
        fs::write(state.path().join("quota/home.new"), "half a fi").unwrap();

        replace(&file, "whole").unwrap();

        assert_eq!(fs::read_to_string(&file).unwrap(), "whole");
        assert_eq!(fs::read_dir(state.path().join("quota")).unwrap().count(), 1);
    }
}
