//! Sealing a train here, and having another thread seal half of it: what the hand-over costs and gains.

use std::hint::black_box;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use criterion::{Criterion, Throughput};
use fastvpn_proto::crypto::{Cipher, Seal};

use crate::seal::{BODY, key};

/// Messages of a train
const TRAIN: usize = 46;

type Bodies = Vec<[u8; BODY]>;

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("train of 46");
    group.throughput(Throughput::Bytes((TRAIN * BODY) as u64));
    let seal = Seal::new(Cipher::Aes256Gcm, key());
    let mut train = vec![[7; BODY]; TRAIN];
    group.bench_function("sealed here", |bencher| bencher.iter(|| all(&seal, &mut train)));
    for (name, awake) in [("half by a thread awake", true), ("half by a thread asleep", false)] {
        let (to, from) = helper(awake);
        let mut theirs = Some(train.split_off(TRAIN / 2));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                to.send(theirs.take().expect("it came back")).expect("the helper lives");
                all(&seal, &mut train);
                theirs = Some(receive(&from, awake).expect("the helper lives"));
            });
        });
        train.extend(theirs.expect("it came back"));
    }
    group.finish();
}

fn all(seal: &Seal, bodies: &mut [[u8; BODY]]) {
    for (number, body) in bodies.iter_mut().enumerate() {
        black_box(seal.seal(number as u64, &[0; 16], black_box(body)));
    }
}

/// Begins a thread that seals whatever it is sent; it ends with its channel
#[expect(clippy::disallowed_methods, reason = "what the protocol does not do is measured here")]
fn helper(awake: bool) -> (Sender<Bodies>, Receiver<Bodies>) {
    let (to, jobs) = channel::<Bodies>();
    let (done, from) = channel();
    thread::spawn(move || {
        let seal = Seal::new(Cipher::Aes256Gcm, key());
        while let Some(mut bodies) = receive(&jobs, awake) {
            all(&seal, &mut bodies);
            if done.send(bodies).is_err() {
                return;
            }
        }
    });
    (to, from)
}

fn receive(from: &Receiver<Bodies>, awake: bool) -> Option<Bodies> {
    if !awake {
        return from.recv().ok();
    }
    loop {
        match from.try_recv() {
            Ok(bodies) => return Some(bodies),
            Err(TryRecvError::Empty) => std::hint::spin_loop(),
            Err(TryRecvError::Disconnected) => return None,
        }
    }
}
