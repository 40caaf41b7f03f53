//! One connection, over a pipe in memory and with a clock that is turned by hand.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep};

use super::super::door::Door;
use super::super::exchange::{Outbox, Train};
use super::*;

/// A connection that is served, and its other end
struct Bench {
    exchange: Arc<Exchange>,
    outbox: Option<Outbox>,
    far: DuplexStream,
    task: JoinHandle<Ended>,
}

impl Bench {
    /// A stranger's connection over a pipe that holds `pipe` bytes
    fn accepted(pipe: usize) -> Self {
        let door = Arc::new(Door::new());
        let pass = door.admit([192, 0, 2, 1].into());
        Self::serve(pipe, pass, 0, || true)
    }

    fn called(pipe: usize, delivered: bool) -> Self {
        Self::serve(pipe, None, 0, move || delivered)
    }

    fn serve(
        pipe: usize,
        pass: Option<Pass>,
        skip: usize,
        delivered: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        let exchange = Arc::new(Exchange::new().unwrap());
        let (outbox, orders) = Outbox::new();
        let (near, far) = duplex(pipe);
        let connection = Connection { id: Id(7), orders, pass, skip };
        let task = tokio::spawn({
            let exchange = Arc::clone(&exchange);
            async move { serve(near, connection, &exchange, delivered).await }
        });
        Self { exchange, outbox: Some(outbox), far, task }
    }

    fn give(&self, bytes: Vec<u8>, segment: usize) {
        assert!(self.outbox.as_ref().unwrap().give(Train { bytes, segment }));
    }

    fn credit(&self, proven: Credential) {
        self.outbox.as_ref().unwrap().credit(proven);
    }

    /// Returns the messages that came so far, and how many bytes were told of as written
    fn taken(&self) -> (Vec<Vec<u8>>, usize) {
        let mut news = VecDeque::new();
        self.exchange.take(&mut news);
        let (mut messages, mut written) = (Vec::new(), 0);
        for item in news {
            match item {
                News::Messages(Id(7), mut bytes) => {
                    let mut rest = &mut bytes[..];
                    while let Some(message) = frame::take(&mut rest) {
                        messages.push(message.to_vec());
                    }
                    assert!(rest.is_empty(), "only whole messages are brought");
                }
                News::Written(Id(7), bytes) => written += bytes,
                other => panic!("{other:?}"),
            }
        }
        (messages, written)
    }

    async fn ended(self) -> Ended {
        timeout(Duration::from_secs(1000), self.task).await.unwrap().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn messages_arrive_whole_however_they_are_cut() {
    let mut bench = Bench::accepted(1 << 16);
    let bytes = frame::framed(&[3; 100], 40);
    let (head, tail) = bytes.split_at(55);

    bench.far.write_all(head).await.unwrap();
    settle().await;
    assert_eq!(bench.taken().0, [vec![3; 40]]);

    bench.far.write_all(tail).await.unwrap();
    bench.far.write_all(&frame::framed(&[4; 40], 40)).await.unwrap();
    settle().await;
    // The last one of the train is too short to be a message, and so the end of it.
    assert!(matches!(bench.ended().await, Ended::Length(_)));
}

#[tokio::test(start_paused = true)]
async fn train_is_written_as_framed_messages_and_told_of_as_it_leaves() {
    let mut bench = Bench::called(100, true);
    bench.give(vec![5; 1000], 300);
    settle().await;
    let (_, first) = bench.taken();
    assert!((90..=100).contains(&first), "{first} bytes fit into the pipe");

    let mut got = vec![0; 1008];
    bench.far.read_exact(&mut got).await.unwrap();
    settle().await;

    assert_eq!(got, frame::framed(&[5; 1000], 300));
    assert_eq!(first + bench.taken().1, 1000);
    assert!(!bench.outbox.as_ref().unwrap().is_busy());
}

#[tokio::test(start_paused = true)]
async fn what_was_given_last_still_leaves_when_the_plane_is_gone() {
    let mut bench = Bench::called(1 << 16, true);
    bench.give(vec![6; 400], 400);
    bench.outbox = None;

    let mut got = Vec::new();
    bench.far.read_to_end(&mut got).await.unwrap();

    assert_eq!(got.len(), 402);
    drop(bench.far);
    assert!(matches!(bench.task.await.unwrap(), Ended::Dismissed));
}

#[tokio::test(start_paused = true)]
async fn stranger_who_says_nothing_is_closed_after_some_seconds() {
    let start = Instant::now();

    let ended = Bench::accepted(100).ended().await;

    assert!(matches!(ended, Ended::Unproven), "{ended}");
    assert!(start.elapsed() <= KEY_WITHIN + TICK, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn stranger_who_talks_without_proof_is_closed_at_once() {
    let mut bench = Bench::accepted(1 << 20);
    let start = Instant::now();

    for _ in 0..10 {
        bench.far.write_all(&frame::framed(&[1; 1024], 1024)).await.unwrap();
    }

    let ended = bench.ended().await;
    assert!(matches!(ended, Ended::Unproven), "{ended}");
    assert!(start.elapsed() < TICK);
}

#[tokio::test(start_paused = true)]
async fn stranger_who_promises_a_large_message_is_not_waited_for() {
    let mut bench = Bench::accepted(1 << 20);

    bench.far.write_all(&8000u16.to_be_bytes()).await.unwrap();
    bench.far.write_all(&[0; 5000]).await.unwrap();

    assert!(matches!(bench.ended().await, Ended::Unproven));
}

#[tokio::test(start_paused = true)]
async fn who_knows_the_key_has_longer_but_not_for_ever() {
    let start = Instant::now();
    let bench = Bench::accepted(100);
    bench.credit(Credential::Key);

    let ended = bench.ended().await;

    assert!(matches!(ended, Ended::Unproven), "{ended}");
    assert!(start.elapsed() >= IDENTITY_WITHIN && start.elapsed() <= IDENTITY_WITHIN + TICK);
}

#[tokio::test(start_paused = true)]
async fn proven_connection_stays_until_nobody_uses_it() {
    let start = Instant::now();
    let mut bench = Bench::accepted(1 << 20);
    bench.credit(Credential::Identity);
    for _ in 0..40 {
        bench.far.write_all(&frame::framed(&[1; 8000], 8000)).await.unwrap();
        sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(bench.taken().0.len(), 40);

    let ended = bench.ended().await;

    assert!(matches!(ended, Ended::Idle), "{ended}");
    assert!(start.elapsed() >= Duration::from_secs(440), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_never_arrives_ends_the_connection() {
    let start = Instant::now();
    let bench = Bench::called(1 << 20, false);
    bench.give(vec![1; 1000], 1000);

    let ended = bench.ended().await;

    assert!(matches!(ended, Ended::Stalled), "{ended}");
    assert!(start.elapsed() <= STALLED + TICK);
}

#[tokio::test(start_paused = true)]
async fn what_has_arrived_needs_no_answer_for_longer() {
    let start = Instant::now();
    let bench = Bench::called(1 << 20, true);
    bench.give(vec![1; 1000], 1000);

    let ended = bench.ended().await;

    assert!(matches!(ended, Ended::Stalled), "{ended}");
    assert!(start.elapsed() >= DEAF && start.elapsed() <= DEAF + TICK);
}

#[tokio::test(start_paused = true)]
async fn end_of_the_stream_is_the_end_of_the_connection() {
    let Bench { far, task, outbox: _outbox, exchange: _exchange } = Bench::accepted(100);

    drop(far);

    assert!(matches!(task.await.unwrap(), Ended::Closed));
}

#[tokio::test(start_paused = true)]
async fn message_that_the_plane_has_already_is_skipped_once() {
    let door = Arc::new(Door::new());
    let mut bench = Bench::serve(1 << 16, door.admit([192, 0, 2, 1].into()), 1, || true);

    bench.far.write_all(&frame::framed(&[1; 40], 40)).await.unwrap();
    bench.far.write_all(&frame::framed(&[2; 40], 40)).await.unwrap();
    settle().await;

    assert_eq!(bench.taken().0, [vec![2; 40]]);
}

#[tokio::test(start_paused = true)]
async fn reader_waits_while_the_plane_is_busy() {
    let mut bench = Bench::accepted(1 << 16);
    bench.credit(Credential::Identity);
    let message = frame::framed(&[1; 8000], 8000);

    let mut written = 0;
    while timeout(Duration::from_secs(1), bench.far.write_all(&message)).await.is_ok() {
        written += message.len();
        assert!(written < 3 << 20, "everything is read");
    }

    assert!(written >= 1 << 20, "{written}");
    assert!(bench.taken().0.len() > 100);
    timeout(Duration::from_secs(1), bench.far.write_all(&message)).await.unwrap().unwrap();
}

/// Lets the task do what it can
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    advance(Duration::from_millis(1)).await;
}
