//! What the two applications of a connection do, as data.
//!
//! An application does one [`Step`] after the other; it reads all the while, as its [`Pace`] allows.
//! [`Work`] makes the steps of both for the usual kinds of load.

use fastvpn_proto::time::Duration;

/// One thing that an application does
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Resets the connection
    Abort,
    /// Waits until the far kernel has acknowledged all that was written
    AwaitAcked,
    /// Waits until so many bytes were read since the beginning
    AwaitBytes(u64),
    /// Waits until the far application has said that nothing more comes, and all was read
    AwaitEnd,
    /// Reads in another manner from now on
    Pace(Pace),
    /// Says that nothing more comes
    Shutdown,
    /// Waits
    Wait(Duration),
    /// Writes so many bytes; done when the own kernel has taken them all
    Write(u64),
}

/// How an application reads
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pace {
    /// All that is there, at once
    Eager,
    /// So many bytes a second
    Slow(u64),
    /// Nothing
    Stalled,
}

/// The usual kinds of load
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Work {
    /// The opener writes so many bytes
    Bulk(u64),
    /// The opener writes without end
    Endless,
    /// The opener asks, and the acceptor writes so many bytes
    Object(u64),
    /// The acceptor writes without end
    EndlessObject,
    /// So many requests and answers of so many bytes each, with a pause between them
    Talk {
        /// How many
        rounds: u32,
        /// Bytes of a request
        request: u64,
        /// Bytes of an answer
        answer: u64,
        /// Time from an answer to the next request
        pause: Duration,
    },
    /// The opener writes and ends its half, then the acceptor does the same; so many bytes each
    HalfClose(u64),
    /// Both write so many bytes at the same time
    Both(u64),
    /// The opener writes so many bytes when it was greeted with one, then resets the connection
    Reset(u64),
    /// The acceptor resets the connection after having read so many bytes of an endless flow
    Refuse(u64),
    /// The acceptor does not read for so long, then reads all of so many bytes
    Stall(Duration, u64),
    /// The acceptor reads so many bytes a second of so many bytes
    Slow(u64, u64),
    /// Both do nothing for so long
    Idle(Duration),
}

/// Bytes of the question that [`Work::Object`] begins with
pub const QUESTION: u64 = 200;

impl Work {
    /// Returns the steps of the opener and of the acceptor
    pub fn steps(self) -> [Vec<Step>; 2] {
        use Step::{Abort, AwaitBytes, AwaitEnd, Shutdown, Wait, Write};
        const ENDLESS: u64 = u64::MAX / 2;
        match self {
            Self::Bulk(bytes) => [vec![Write(bytes), Shutdown, AwaitEnd], vec![AwaitEnd, Shutdown]],
            Self::Endless => [vec![Write(ENDLESS)], vec![AwaitEnd, Shutdown]],
            Self::Object(bytes) => [
                vec![Write(QUESTION), AwaitEnd, Shutdown],
                vec![AwaitBytes(QUESTION), Write(bytes), Shutdown, AwaitEnd],
            ],
            Self::EndlessObject => [
                vec![Write(QUESTION), AwaitEnd, Shutdown],
                vec![AwaitBytes(QUESTION), Write(ENDLESS)],
            ],
            Self::Talk { rounds, request, answer, pause } => talk(rounds, request, answer, pause),
            Self::HalfClose(bytes) => {
                [vec![Write(bytes), Shutdown, AwaitEnd], vec![AwaitEnd, Write(bytes), Shutdown]]
            }
            Self::Both(bytes) => {
                let steps = vec![Write(bytes), Shutdown, AwaitEnd];
                [steps.clone(), steps]
            }
            Self::Reset(bytes) => {
                [vec![AwaitBytes(1), Write(bytes), Abort], vec![Write(1), AwaitEnd, Shutdown]]
            }
            Self::Refuse(bytes) => [vec![Write(ENDLESS)], vec![AwaitBytes(bytes), Abort]],
            Self::Stall(time, bytes) => [
                vec![Write(bytes), Shutdown, AwaitEnd],
                vec![
                    Step::Pace(Pace::Stalled),
                    Wait(time),
                    Step::Pace(Pace::Eager),
                    AwaitEnd,
                    Shutdown,
                ],
            ],
            Self::Slow(rate, bytes) => [
                vec![Write(bytes), Shutdown, AwaitEnd],
                vec![Step::Pace(Pace::Slow(rate)), AwaitEnd, Shutdown],
            ],
            Self::Idle(time) => [vec![Wait(time), Shutdown, AwaitEnd], vec![AwaitEnd, Shutdown]],
        }
    }
}

fn talk(rounds: u32, request: u64, answer: u64, pause: Duration) -> [Vec<Step>; 2] {
    let (mut opener, mut acceptor) = (Vec::new(), Vec::new());
    for round in 1..=u64::from(rounds) {
        opener.extend([Step::Write(request), Step::AwaitBytes(round * answer), Step::Wait(pause)]);
        acceptor.extend([Step::AwaitBytes(round * request), Step::Write(answer)]);
    }
    opener.extend([Step::Shutdown, Step::AwaitEnd]);
    acceptor.extend([Step::AwaitEnd, Step::Shutdown]);
    [opener, acceptor]
}
