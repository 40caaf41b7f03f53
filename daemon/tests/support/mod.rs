//! What the tests of the API need: a message bus of their own, a daemon and a polkit that are not
//! there.

pub(crate) mod bus;
pub(crate) mod fake;
pub(crate) mod polkit;
pub(crate) mod schema;

use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Runs the body of a test as the daemon runs: on one thread
pub(crate) fn run(body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { within(30, "the whole test", body).await });
}

/// Waits for something that must happen within so many seconds
pub(crate) async fn within<T>(seconds: u64, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(seconds), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took more than {seconds} s"),
    }
}

/// Waits until something is so that nobody tells of
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    within(20, what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Runs a program as a user who is neither root nor the daemon's, while the daemon goes on beside
/// it; returns what it says, on standard error where it fails
pub(crate) async fn as_nobody(mut command: Command) -> Result<String, String> {
    command.uid(NOBODY).gid(NOBODY);
    let run = move || command.output().expect("the program is installed");
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The tool beside these tests
pub(crate) fn tool() -> Option<PathBuf> {
    let tests = std::env::current_exe().unwrap();
    let tool = tests.parent().unwrap().parent().unwrap().join("fastvpnctl");
    if tool.exists() {
        return Some(tool);
    }
    eprintln!("skipped: {} is not built", tool.display());
    None
}

/// A user who is neither root nor the daemon's
pub(crate) const NOBODY: u32 = 65534;
