//! The TUN device's queue: one IP packet, or one super-packet, for each read and write.
//!
//! [`open`] makes the device; addresses, MTU and state are the business of netlink. A device that
//! is down loses what is written and gives nothing to read; one that is gone is an error.
//!
//! With offload (IFF_VNET_HDR) the kernel hands over up to 64 KiB of one flow at once and takes as
//! much, each with a header (`vnet`), and gathers it from the pieces of memory that it lies in. What a
//! kernel or a queue lacks of that is done here: a super-packet that cannot be written as it is, is cut.

use std::io::{self, IoSlice, IoSliceMut};
use std::iter;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use fastvpn_proto::buffers::PacketBuffer;
use fastvpn_proto::ip::{Gso, PIECES_MAX, Parcel};
use rustix::io::Errno;
use thiserror::Error;
use tracing::debug;

pub use self::queues::{more_queues, open_queues};
use super::vnet;

mod queues;

/// Why a TUN device could not be made
#[derive(Debug, Error)]
pub enum TunError {
    /// Another process serves a device of this name
    #[error("interface {0} is in use by another process; is a second fastvpnd running?")]
    Busy(String),
    /// There is an interface of this name, and it is no plain TUN device
    #[error("there is an interface {0} of another kind already; choose another name")]
    Foreign(String),
    /// The kernel has no TUN driver, or the device node is missing
    #[error(
        "/dev/net/tun is missing; load the module (`modprobe tun`), or let this container use it"
    )]
    Missing,
    /// No interface can have this name
    #[error(
        "{0:?} cannot be the name of an interface: it takes 1 to 15 characters other than '/', ':', '%' and blanks"
    )]
    Name(String),
    /// The process may not make network devices
    #[error(
        "no permission to make a TUN device; it takes CAP_NET_ADMIN and access to /dev/net/tun"
    )]
    Permission,
    /// Anything else that the system said
    #[error("cannot make the TUN device {interface}")]
    System {
        /// Name of the interface
        interface: String,
        /// What the system said
        source: io::Error,
    },
}

/// Makes the TUN device `interface` and returns its queue, non-blocking, with offload where the kernel
/// has it
///
/// The device is gone when the descriptor is closed.
///
/// # Errors
/// If the device cannot be made; the error says what to do.
pub fn open(interface: &str) -> Result<OwnedFd, TunError> {
    open_on(interface, Kernel::ABLE)
}

/// What a kernel can do for a TUN, as far as is known before it is asked
///
/// The daemon expects all of it and takes what it gets; tests say what is lacking.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Kernel {
    /// It can put a header before each packet
    headers: bool,
    /// It knows what of this it may leave to us, and do for us
    offload: libc::c_uint,
}

impl Kernel {
    const ABLE: Self = Self { headers: true, offload: OFFERS[0] };
}

fn open_on(interface: &str, kernel: Kernel) -> Result<OwnedFd, TunError> {
    if !valid(interface) {
        return Err(TunError::Name(interface.to_owned()));
    }
    let device = create(interface, true, kernel).or_else(|error| match error {
        // Headers are as old as the driver is, but it costs nothing to do without.
        TunError::Foreign(_) => create(interface, false, kernel),
        error => Err(error),
    })?;
    offer(&device, kernel);
    Ok(device)
}

/// Makes a device, with headers or without
fn create(interface: &str, headers: bool, kernel: Kernel) -> Result<OwnedFd, TunError> {
    if headers && !kernel.headers {
        return Err(explain(interface, Errno::INVAL.into()));
    }
    let mut config = tun::Configuration::default();
    // Without "root privileges" the crate makes the device and leaves its settings alone.
    config.tun_name(interface).platform_config(|platform| {
        platform.ensure_root_privileges(false).vnet_hdr(headers);
    });
    let device = tun::create(&config).map_err(|error| explain(interface, error.into()))?;
    device.set_nonblock().map_err(|error| explain(interface, error))?;
    Ok(queue_of(device))
}

/// Offers the kernel all that it may leave to us, or less where it does not know that much
fn offer(fd: &OwnedFd, kernel: Kernel) {
    let knows = |offer: libc::c_uint| offer & !kernel.offload == 0;
    let Some(taken) = OFFERS.into_iter().find(|offer| knows(*offer) && offers(fd, *offer)) else {
        return debug!("the TUN has no offload");
    };
    debug!(taken, "offload of the TUN");
}

#[allow(unsafe_code)]
fn offers(fd: &OwnedFd, offer: libc::c_uint) -> bool {
    // SAFETY: the descriptor is open, and TUNSETOFFLOAD takes a number, no pointer.
    unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offer)) == 0 }
}

/// Takes over the queue of a device that an earlier process made by [`open`], or the first of several; nothing where it is not
/// a plain queue of a device with that name
pub fn adopt(fd: OwnedFd, interface: &str) -> Option<OwnedFd> {
    let (name, flags) = describe(&fd)?;
    let plain = libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).ok()?;
    let flags_fit = flags & !(HEADERS | QUEUES | DETACHED) == plain;
    if name != interface || !flags_fit {
        debug!(name, flags, "descriptor is no queue of {interface}");
        return None;
    }
    rustix::io::ioctl_fionbio(&fd, true).ok()?;
    queues::attach(&fd, true);
    if flags & HEADERS != 0 {
        offer(&fd, Kernel::ABLE);
    }
    Some(fd)
}

/// Returns name and flags of the device that a queue belongs to, if it belongs to one
#[allow(unsafe_code)]
fn describe(fd: &OwnedFd) -> Option<(String, libc::c_short)> {
    let mut request = request();
    // SAFETY: the descriptor is open, and TUNGETIFF fills in one `ifreq`.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) };
    if result < 0 {
        return None;
    }
    let name = request.ifr_name.iter().take_while(|byte| **byte != 0);
    let name: Vec<u8> = name.flat_map(|byte| byte.to_ne_bytes()).collect();
    // SAFETY: TUNGETIFF has written the flags, and any bits are a number.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Some((String::from_utf8(name).ok()?, flags))
}

/// Returns an empty request of names and numbers
#[allow(unsafe_code)]
fn request() -> libc::ifreq {
    // SAFETY: all bytes zero are a valid `ifreq`, of names and numbers only.
    unsafe { std::mem::zeroed() }
}

/// Takes the descriptor out of a device
#[allow(unsafe_code)]
fn queue_of(device: impl IntoRawFd) -> OwnedFd {
    // SAFETY: `into_raw_fd` hands the open descriptor over; nobody else closes it any more.
    unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) }
}

/// Tells whether the kernel takes `name` for an interface, as it is
fn valid(name: &str) -> bool {
    let fits = (1..=15).contains(&name.len());
    // The kernel would put a number in place of "%d".
    let fine = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | ':' | '%');
    fits && name != "." && name != ".." && name.chars().all(fine)
}

fn explain(interface: &str, error: io::Error) -> TunError {
    match Errno::from_io_error(&error) {
        Some(Errno::BUSY) => TunError::Busy(interface.to_owned()),
        Some(Errno::INVAL) => TunError::Foreign(interface.to_owned()),
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => TunError::Missing,
        Some(Errno::ACCESS | Errno::PERM) => TunError::Permission,
        _ => TunError::System { interface: interface.to_owned(), source: error },
    }
}

/// One queue of a TUN device
#[derive(Debug)]
pub(super) struct Tun {
    fd: OwnedFd,
    kernel: Kernel,
    /// Whether each packet has a header
    headers: bool,
    uncut: Uncut,
    /// What is cut here is written from
    space: Vec<u8>,
}

impl Tun {
    /// Serves a non-blocking descriptor from [`open`]
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self::on(fd, Kernel::ABLE)
    }

    fn on(fd: OwnedFd, kernel: Kernel) -> Self {
        let headers = describe(&fd).is_some_and(|(_, flags)| flags & HEADERS != 0);
        Self { fd, kernel, headers, uncut: Uncut::default(), space: Vec::new() }
    }

    /// Has the kernel hand packets to this queue, or to the others of the device alone
    ///
    /// What waits in a queue that gets no more is lost.
    pub(super) fn attach(&self, attached: bool) {
        queues::attach(&self.fd, attached);
    }

    /// Reads one packet into `buffer`; returns its length and how it is to be cut, or nothing if none
    /// waits
    ///
    /// # Errors
    /// If the device is gone.
    pub(super) fn read(
        &self,
        buffer: &mut PacketBuffer,
    ) -> io::Result<Option<(usize, Option<Gso>)>> {
        loop {
            let mut header = [0; vnet::LEN];
            let [small, large] = buffer.pieces();
            let before = if self.headers { &mut header[..] } else { &mut [] };
            let mut parts = [before, small, large].map(IoSliceMut::new);
            let read = rustix::io::readv(&self.fd, &mut parts);
            let len = match read {
                Ok(0) => return Err(Errno::NODEV.into()),
                Ok(len) if !self.headers => return Ok(Some((buffer.on_read(len).len(), None))),
                Ok(len) => len.saturating_sub(vnet::LEN),
                Err(Errno::INTR) => continue,
                Err(error) if gone(error) => return Err(error.into()),
                // Nothing waits; or the device is down or on its way out, which shows soon enough.
                Err(_) => return Ok(None),
            };
            match vnet::read(header, buffer.on_read(len)) {
                Some(gso) => return Ok(Some((len, gso))),
                None => tracing::trace!(?header, len, "a packet that nobody can cut"),
            }
        }
    }

    /// Writes one packet or super-packet; returns whether the device took it
    ///
    /// # Errors
    /// If the device is gone.
    pub(super) fn write(&mut self, packet: &Parcel) -> io::Result<bool> {
        let header = vnet::write(packet);
        let udp = vnet::cuts_udp(header);
        let whole = !packet.is_super() || self.headers && (!udp || self.uncut.asks());
        if whole {
            match self.put(&header, packet.pieces())? {
                Put::Taken => {
                    if udp {
                        self.uncut = Uncut::default();
                    }
                    return Ok(true);
                }
                Put::Refused(Errno::INVAL) if udp => {}
                Put::Refused(_) => return Ok(false),
            }
        }
        if udp && self.headers {
            self.uncut.on_refused();
        }
        self.put_cut(packet)
    }

    /// Writes the packets that a super-packet consists of
    fn put_cut(&mut self, packet: &Parcel) -> io::Result<bool> {
        let mut space = std::mem::take(&mut self.space);
        let mut result = Ok(true);
        packet.each(&mut space, |part| {
            match (&result, self.put(&[0; vnet::LEN], iter::once(part))) {
                (Err(_), _) | (Ok(_), Ok(Put::Taken)) => {}
                (Ok(_), Ok(Put::Refused(_))) => result = Ok(false),
                (Ok(_), Err(error)) => result = Err(error),
            }
        });
        self.space = space;
        result
    }

    /// Writes a packet that lies in these pieces, of which there are no more than [`PIECES_MAX`]
    fn put<'a>(
        &self,
        header: &'a [u8; vnet::LEN],
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<Put> {
        if vnet::cuts_udp(*header) && self.kernel.offload & TUN_F_USO4 == 0 {
            return Ok(Put::Refused(Errno::INVAL));
        }
        let header = self.headers.then_some(&header[..]);
        let mut parts = [IoSlice::new(&[]); 1 + PIECES_MAX];
        let mut count = 0;
        for (part, piece) in parts.iter_mut().zip(header.into_iter().chain(pieces)) {
            *part = IoSlice::new(piece);
            count += 1;
        }
        let parts = &parts[..count];
        loop {
            match rustix::io::writev(&self.fd, parts) {
                Ok(_) => return Ok(Put::Taken),
                Err(Errno::INTR) => {}
                Err(error) if gone(error) => return Err(error.into()),
                // The device is down (EIO) or full, or the packet is not one (EINVAL).
                Err(error) => {
                    let len: usize = parts.iter().map(|part| part.len()).sum();
                    tracing::trace!(%error, len, "the TUN took no packet");
                    return Ok(Put::Refused(error));
                }
            }
        }
    }
}

/// Super-packets of UDP in a row that the kernel did not cut
///
/// One may be odd, and no reason to cut all others here.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Uncut(u32);

impl Uncut {
    /// Tells whether the kernel is given the next one
    fn asks(self) -> bool {
        self.0 < UNCUT || self.0.is_multiple_of(UNCUT_RETRY)
    }

    /// Records that it did not take one, or was not asked
    fn on_refused(&mut self) {
        self.0 = self.0.wrapping_add(1);
        if self.0 == UNCUT {
            debug!("the kernel cuts no UDP; it is cut here");
        }
    }
}

/// What became of a packet
enum Put {
    Taken,
    Refused(Errno),
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Tells whether an error means that the device does not exist any more
fn gone(error: Errno) -> bool {
    matches!(error, Errno::BADFD | Errno::BADF | Errno::NODEV | Errno::PIPE)
}

/// Such super-packets after which a kernel is believed to cut none
const UNCUT: u32 = 8;
/// Of how many of them one is tried all the same
const UNCUT_RETRY: u32 = 1024;
/// Flag of a device that puts a header before each packet
const HEADERS: libc::c_short = libc::IFF_VNET_HDR as libc::c_short;
/// The device may have several queues
const QUEUES: libc::c_short = libc::IFF_MULTI_QUEUE as libc::c_short;
/// The queue gets nothing at present
const DETACHED: libc::c_short = libc::IFF_DETACH_QUEUE as libc::c_short;
/// What the kernel may leave to us, the most first: checksums, segments of TCP, of UDP (Linux 6.2)
const OFFERS: [libc::c_uint; 4] = [
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6,
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6,
    libc::TUN_F_CSUM,
    0,
];
const TUN_F_USO4: libc::c_uint = 0x20;
const TUN_F_USO6: libc::c_uint = 0x40;

#[cfg(test)]
mod tests;
