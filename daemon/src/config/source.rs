//! The files of the configuration, as texts.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::problem::{Problem, quoted};
use crate::handle::NetworkName;

/// One file that describes a network
pub(super) struct Source {
    pub(super) name: NetworkName,
    pub(super) path: PathBuf,
    /// Wiped, since somebody may have put a secret into it
    pub(super) text: Zeroizing<String>,
}

/// Reads all files, the administrator's first; what cannot be read goes to `problems`
pub(super) fn all(config_dir: &Path, state_dir: &Path, problems: &mut Vec<Problem>) -> Vec<Source> {
    let mut seen: BTreeMap<NetworkName, PathBuf> = BTreeMap::new();
    let mut sources = Vec::new();
    for directory in [config_dir.to_owned(), state_dir.join("networks")] {
        for path in listed(&directory, problems) {
            let Some(name) = name_of(&path, problems) else { continue };
            if let Some(other) = seen.get(&name) {
                let what = format!("network {name} is configured in {} as well", other.display());
                problems.push(Problem::of_file(&path, what, "remove one of the two files"));
                continue;
            }
            seen.insert(name.clone(), path.clone());
            match text_of(&path) {
                Ok(text) => sources.push(Source { name, path, text }),
                Err(problem) => problems.push(*problem),
            }
        }
    }
    sources
}

/// Reads the node's file, if there is one; its name is no network's, since it does not end in `.toml`
pub(super) fn node(
    config_dir: &Path,
    problems: &mut Vec<Problem>,
) -> Option<(PathBuf, Zeroizing<String>)> {
    let path = config_dir.join(NODE_FILE);
    // a link that leads nowhere is a mistake, and no missing file
    if fs::symlink_metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return None;
    }
    match text_of(&path) {
        Ok(text) => Some((path, text)),
        Err(problem) => {
            problems.push(*problem);
            None
        }
    }
}

/// Returns the paths that end in `.toml`, sorted; hidden ones are an editor's business
fn listed(directory: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let read = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    let mut paths = match read {
        Ok(paths) => paths,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            let what = format!("cannot be read: {error}");
            let remedy = "let the user fastvpn read this directory";
            problems.push(Problem::of_file(directory, what, remedy));
            Vec::new()
        }
    };
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        name.ends_with(b".toml") && !name.starts_with(b".")
    });
    paths.sort();
    paths
}

fn name_of(path: &Path, problems: &mut Vec<Problem>) -> Option<NetworkName> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    match stem.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            let what = format!("{} cannot be the name of a network: {error}", quoted(&stem));
            problems.push(Problem::of_file(path, what, "rename the file"));
            None
        }
    }
}

fn text_of(path: &Path) -> Result<Zeroizing<String>, Box<Problem>> {
    let problem = |what: String, remedy: &str| Box::new(Problem::of_file(path, what, remedy));
    let unread = |error: io::Error| {
        problem(
            format!("cannot be read: {error}"),
            "let the user fastvpn read it (root:fastvpn 0640)",
        )
    };
    let file =
        fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unread)?;
    let metadata = file.metadata().map_err(unread)?;
    if !metadata.is_file() {
        return Err(problem("is no regular file".to_owned(), "move it away"));
    }
    // room for all from the start, so that no copy is left behind
    let room = usize::try_from(metadata.len().min(FILE_MAX)).unwrap_or_default() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(problem(format!("is larger than {FILE_MAX} bytes"), "is this the right file?"));
    }
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            let offset = error.utf8_error().valid_up_to();
            let bytes = Zeroizing::new(error.into_bytes());
            let line = bytes[..offset].iter().filter(|byte| **byte == b'\n').count() + 1;
            let mut problem = problem("is not UTF-8".to_owned(), "save it as UTF-8");
            problem.line = Some(line);
            Err(problem)
        }
    }
}

/// Name of the node's file
const NODE_FILE: &str = "fastvpnd.conf";
/// Bytes of a file that are read: room for some ten thousand members
const FILE_MAX: u64 = 4 * 1024 * 1024;
