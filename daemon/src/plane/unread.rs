//! When those who read datagrams are to be let run.
//!
//! On a busy machine whoever reads datagrams runs only when the data thread does not, and the usual
//! receive buffer of a socket holds some 90 of them. TCP has a window for that; nobody paces anything
//! else. [`Unread`] counts what the kernel was given of it, and lets them run when that is enough for now.

use fastvpn_proto::ip::{Parcel, numbers};

/// What was written that waits to be read, as far as the data thread knows
#[derive(Debug)]
pub(super) struct Unread {
    bytes: usize,
    /// Lets others run
    yields: fn(),
}

impl Unread {
    /// Begins with nothing written; `yields` lets others run
    pub(super) fn new(yields: fn()) -> Self {
        Self { bytes: 0, yields }
    }

    /// Records that the kernel took a packet, and lets its readers run if they have enough
    pub(super) fn on_written(&mut self, packet: &Parcel) {
        let paced = packet.view().is_ok_and(|view| view.protocol() == numbers::TCP);
        self.bytes += if paced { 0 } else { packet.len() };
        if self.bytes >= UNREAD {
            self.bytes = 0;
            (self.yields)();
        }
    }
}

/// Bytes after which they are let run: a third of the usual receive buffer
const UNREAD: usize = 48 * 1024;

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// How often others were let run
        static RUNS: Cell<usize> = const { Cell::new(0) };
    }

    /// Makes one that counts how often it would let others run, for [`runs`]
    pub(in crate::plane) fn counting() -> Unread {
        RUNS.set(0);
        Unread::new(|| RUNS.set(RUNS.get() + 1))
    }

    /// Returns how often others were let run in this test
    pub(in crate::plane) fn runs() -> usize {
        RUNS.get()
    }

    /// Makes a packet of so many bytes in all
    pub(in crate::plane) fn packet(protocol: u8, len: usize) -> Parcel {
        let mut bytes = vec![0; len];
        bytes[0] = 0x45;
        bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        bytes[9] = protocol;
        bytes.into()
    }

    #[test]
    fn readers_of_datagrams_are_let_run_while_their_buffer_has_room() {
        let (mut unread, datagram) = (counting(), packet(numbers::UDP, 1228));

        for run in 1..=3 {
            let written = |_: &usize| {
                unread.on_written(&datagram);
                runs() == run
            };
            let waiting = (1..).find(written).unwrap();

            // The usual buffer holds some 90, and running more often would cost those who send.
            assert!((30..60).contains(&waiting), "{waiting}");
        }
    }

    #[test]
    fn long_train_is_followed_by_its_readers_at_once() {
        let mut unread = counting();

        unread.on_written(&packet(numbers::UDP, 60_000));
        assert_eq!(runs(), 1);
        unread.on_written(&packet(numbers::UDP, 1228));
        assert_eq!(runs(), 1, "they have run");
    }

    #[test]
    fn nobody_is_let_run_for_tcp_which_paces_itself() {
        let mut unread = counting();

        (0..100).for_each(|_| unread.on_written(&packet(numbers::TCP, 60_000)));

        assert_eq!(runs(), 0);
    }
}
