//! What the tests of the API need: a message bus of their own, and a daemon that is not there.

pub(crate) mod bus;
pub(crate) mod fake;

use std::future::Future;
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
