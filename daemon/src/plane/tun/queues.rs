//! Devices with several queues, one for each thread.
//!
//! The `tun` crate makes devices with one queue only, so that the request for each is made here.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use tracing::trace;

use super::{Kernel, QUEUES, TunError, describe, explain, offer, open, request, valid};

/// Makes the TUN device `interface` with so many queues and returns them as [`open`] does
///
/// The kernel hands out packets by flow, and those of a flow to the queue to which its answers were written.
/// The device is gone when all descriptors are closed.
///
/// # Errors
/// If the device cannot be made; the error says what to do.
pub fn open_queues(interface: &str, count: usize) -> Result<Vec<OwnedFd>, TunError> {
    if count < 2 {
        return Ok(vec![open(interface)?]);
    }
    if !valid(interface) {
        return Err(TunError::Name(interface.to_owned()));
    }
    let first = match make(interface, NEW | FLAGS) {
        // There is one already. If it has one queue for whoever comes, that is it.
        Err(TunError::Busy(_)) => return one_of(interface).map(|queue| vec![queue]),
        first => first?,
    };
    offer(&first, Kernel::ABLE);
    let mut queues = vec![first];
    queues.extend(more_queues(&queues[0], interface, count - 1)?);
    Ok(queues)
}

/// Makes so many queues more for the device of a queue; none where the device can have one only
///
/// # Errors
/// If they cannot be made; the error says what to do.
pub fn more_queues(
    queue: &OwnedFd,
    interface: &str,
    count: usize,
) -> Result<Vec<OwnedFd>, TunError> {
    match describe(queue) {
        Some((_, flags)) if flags & QUEUES != 0 => {
            (0..count).map(|_| make(interface, flags & FLAGS)).collect()
        }
        _ => Ok(Vec::new()),
    }
}

/// Opens a device that is there already
fn one_of(interface: &str) -> Result<OwnedFd, TunError> {
    match open(interface) {
        // Who may have one more queue of it has none of his own.
        Err(TunError::Foreign(_)) if make(interface, FLAGS).is_ok() => {
            Err(TunError::Busy(interface.to_owned()))
        }
        opened => opened,
    }
}

/// Makes one more queue of a device, or the device with its first one
#[allow(unsafe_code)]
fn make(interface: &str, flags: libc::c_short) -> Result<OwnedFd, TunError> {
    let mode = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let queue = rustix::fs::open("/dev/net/tun", mode, Mode::empty())
        .map_err(|error| explain(interface, error.into()))?;
    let mut request = request();
    for (place, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and fills in one `ifreq`; its name ends with a zero, as
    // those that are `valid` are shorter than the field.
    let result = unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 {
        return Err(explain(interface, io::Error::last_os_error()));
    }
    Ok(queue)
}

/// Has the kernel hand packets to a queue, or to the others of its device alone; does nothing where it does so already,
/// or there can be no others
///
/// What waits in a queue that gets no more is lost.
#[allow(unsafe_code)]
pub(super) fn attach(queue: impl AsFd, attached: bool) {
    let mut request = request();
    let flag = if attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
    request.ifr_ifru.ifru_flags = flag.try_into().unwrap_or_default();
    let fd = queue.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and TUNSETQUEUE reads one `ifreq`.
    let result = unsafe { libc::ioctl(fd, libc::TUNSETQUEUE, &raw mut request) };
    if result < 0 {
        let error = io::Error::last_os_error();
        trace!(%error, attached, "queue stays as it is");
    }
}

/// A device that may have several queues, with headers
const FLAGS: libc::c_short =
    (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short | QUEUES;
/// There must be no such device yet
const NEW: libc::c_short = libc::IFF_TUN_EXCL as libc::c_short;
