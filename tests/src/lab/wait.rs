//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Waits until `condition` holds, at most for `patience`; tells whether it came to hold
///
/// The condition is asked often at first and every 20 ms later on.
pub fn until(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() >= patience {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
