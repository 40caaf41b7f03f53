//! The link emulator alone, for use by hand: some hosts and the links between them.

use std::io::Write;
use std::net::IpAddr;

use anyhow::{Context, Result};
use clap::Parser;
use fastvpn_tests::lab::{self, Lab};
use fastvpn_tests::link::rate::Rate;
use fastvpn_tests::link::{LinkConfig, ms, percent};

/// Network namespaces with emulated links between them, until this program ends
///
/// Hosts are numbered from 1; host N has the addresses 198.51.100.N and 2001:db8::N.
#[derive(Debug, Parser)]
#[command(name = "emu", version)]
struct Args {
    /// Number of hosts
    #[arg(long, default_value_t = 2)]
    hosts: u8,
    /// Rate of each direction, in Mbit/s; unlimited if not given
    #[arg(long, value_name = "MBIT")]
    rate: Option<f64>,
    /// Longest time in the queue before the bottleneck, in ms
    #[arg(long, value_name = "MS", default_value_t = 100)]
    queue: u64,
    /// Delay of each direction, in ms
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay: u64,
    /// Jitter of the delay, in ms; packets keep their order
    #[arg(long, value_name = "MS", default_value_t = 0)]
    jitter: u64,
    /// Packets lost, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    loss: f64,
    /// Mean length of a burst of losses, in packets
    #[arg(long, value_name = "PACKETS")]
    burst: Option<f64>,
    /// Largest packet, in bytes
    #[arg(long, value_name = "BYTES")]
    mtu: Option<usize>,
}

impl Args {
    fn link(&self) -> LinkConfig {
        let mut link = LinkConfig::new().delay(ms(self.delay)).jitter(ms(self.jitter));
        link.mtu = self.mtu;
        if let Some(rate) = self.rate {
            link = link.rate(Rate::from_bits((rate * 1e6) as u64)).queue(ms(self.queue));
        }
        match self.burst {
            Some(length) => link.bursts(percent(self.loss), length),
            None => link.loss(percent(self.loss)),
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Err(reason) = lab::privileged() {
        eprintln!("emu: {reason}");
        std::process::exit(77);
    }
    let lab = Lab::new()?;
    let mut hosts = Vec::new();
    for number in 1..=args.hosts {
        let addresses: [IpAddr; 2] = [lab::outer_v4(number).into(), lab::outer_v6(number).into()];
        hosts.push(lab.host(&format!("host{number}"), &addresses)?);
    }
    lab.wire.all(&args.link());
    println!("{} hosts; to enter one:", hosts.len());
    for ((host, _), number) in hosts.iter().zip(1..) {
        let ip = lab::outer_v4(number);
        println!("  nsenter --net={}   # {}, {ip}", host.path(), host.name());
    }
    println!("Ctrl-C ends it");
    std::io::stdout().flush()?;
    lab::wait::interrupted().context("no signals")?;
    for (from, (_, port)) in hosts.iter().enumerate() {
        for (to, (_, other)) in hosts.iter().enumerate().filter(|(to, _)| *to != from) {
            let counters = lab.wire.counters(*port, *other);
            println!(
                "{} to {}: {} packets in, {} out, {} lost, {} dropped by the queue",
                from + 1,
                to + 1,
                counters.pushed.items,
                counters.delivered.items,
                counters.lost.items,
                counters.queue_full.items
            );
        }
    }
    Ok(())
}
