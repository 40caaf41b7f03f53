//! When those who read datagrams are to be let run.
//!
//! On a busy machine whoever reads datagrams runs only when the data thread does not, and the usual
//! receive buffer of a socket holds some 90 of them. TCP has a window for that; nobody paces anything
//! else. [`Unread`] counts what the kernel was given of it, and says when that is enough for now.

use fastvpn_proto::ip::{Parcel, numbers};

/// What was written that waits to be read, as far as the data thread knows
#[derive(Debug, Default)]
pub(super) struct Unread {
    bytes: usize,
}

impl Unread {
    /// Records that the kernel took a packet; returns whether its readers are to be let run now
    pub(super) fn on_written(&mut self, packet: &Parcel) -> bool {
        let paced = packet.view().is_ok_and(|view| view.protocol() == numbers::TCP);
        self.bytes += if paced { 0 } else { packet.len() };
        let enough = self.bytes >= UNREAD;
        if enough {
            self.bytes = 0;
        }
        enough
    }
}

/// Bytes after which they are let run: a third of the usual receive buffer
const UNREAD: usize = 48 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a packet of so many bytes in all
    fn packet(protocol: u8, len: usize) -> Parcel {
        let mut bytes = vec![0; len];
        bytes[0] = 0x45;
        bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        bytes[9] = protocol;
        bytes.into()
    }

    #[test]
    fn readers_of_datagrams_are_let_run_while_their_buffer_has_room() {
        let (mut unread, datagram) = (Unread::default(), packet(numbers::UDP, 1228));

        for _ in 0..3 {
            let waiting = (1..).find(|_| unread.on_written(&datagram)).unwrap();

            // The usual buffer holds some 90, and running more often would cost those who send.
            assert!((30..60).contains(&waiting), "{waiting}");
        }
    }

    #[test]
    fn long_train_is_followed_by_its_readers_at_once() {
        let mut unread = Unread::default();

        assert!(unread.on_written(&packet(numbers::UDP, 60_000)));
        assert!(!unread.on_written(&packet(numbers::UDP, 1228)), "they have run");
    }

    #[test]
    fn nobody_is_let_run_for_tcp_which_paces_itself() {
        let mut unread = Unread::default();

        assert!((0..100).all(|_| !unread.on_written(&packet(numbers::TCP, 60_000))));
    }
}
