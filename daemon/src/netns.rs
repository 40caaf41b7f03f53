//! A network namespace for one test, so that the machine's own network is left alone.
//!
//! Test code. The namespace belongs to a thread of its own and is gone when that ends, however it
//! ends.

use std::future::Future;
use std::io::{self, Write};
use std::thread;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs `test` in a new network namespace; says that it is skipped where there can be none
///
/// Threads and sockets that the test makes are in the namespace, too.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let name = thread::current().name().unwrap_or("test").to_owned();
    let inside = thread::Builder::new().name(name.clone()).spawn(move || {
        if let Err(error) = enter() {
            // Past the harness, which shows nothing of tests that pass; in one piece.
            let line = format!("skipped: {name}: no network namespace: {error}\n");
            let _ = io::stderr().write_all(line.as_bytes());
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = inside.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

#[allow(unsafe_code)]
fn enter() -> io::Result<()> {
    std::fs::metadata("/dev/net/tun")?;
    // SAFETY: only the network namespace is unshared; descriptors stay common to all threads.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?)
}
