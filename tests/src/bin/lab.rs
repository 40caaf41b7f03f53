//! What the scripts of this directory do in the laboratory.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use fastvpn_tests::lab::load::{self, Transfer};
use fastvpn_tests::lab::star::number;
use fastvpn_tests::lab::{self, Node, Star, StarPlan, inner_v4, outer_v4};
use fastvpn_tests::link::{LinkConfig, mbit, ms, percent};

/// Parts of tests/demo and tests/run that need the laboratory
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
struct Args {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Say whether this machine and user can have a laboratory; status 77 if not
    Check,
    /// Say back whatever comes over TCP connections to this address, thousands at a time
    Echo {
        /// Where to listen
        at: SocketAddr,
    },
    /// Show a hub and two peers across a bad link
    Demo {
        /// Leave everything up until Ctrl-C, and say how to enter a host
        #[arg(long)]
        keep: bool,
    },
}

/// Exit status where this machine cannot
const CANNOT: i32 = 77;

fn main() -> Result<()> {
    let args = Args::parse();
    if let Task::Echo { at } = args.command {
        return lab::many::echo(at);
    }
    if let Err(reason) = lab::privileged() {
        eprintln!("this machine or user cannot do that: {reason}");
        std::process::exit(CANNOT);
    }
    match args.command {
        Task::Check | Task::Echo { .. } => Ok(()),
        Task::Demo { keep } => demo(keep),
    }
}

fn demo(keep: bool) -> Result<()> {
    title("A hub and two peers, each in a network namespace, with emulated links between them");
    println!("each link: 100 Mbit/s, 200 ms there and back, 5 % of all packets lost each way");
    let link = LinkConfig::new().rate(mbit(100)).delay(ms(100)).queue(ms(100)).loss(percent(5));
    let mut star = Star::new(StarPlan { link, ..StarPlan::default() })?;
    let start = Instant::now();
    star.start()?;
    println!("all three are up after {:.1} s", start.elapsed().as_secs_f64());

    show(&star.peers[0], &["status"])?;
    star.peers[0].reaches(inner_v4(number(1)).into(), Duration::from_secs(20))?;
    star.peers[0].reaches(inner_v4(1).into(), Duration::from_secs(20))?;
    show(&star.peers[0], &["peers"])?;
    show_ping(&star, inner_v4(number(1)).into())?;
    show(&star.peers[0], &["ping", "-c5", "peer2"])?;

    title("The same TCP transfer from peer1 to peer2, without and with fastvpn");
    let control = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
    println!("congestion control of this kernel's TCP: {}", control.unwrap_or_default().trim());
    transfer(&star, "without", outer_v4(number(1)).into())?;
    transfer(&star, "with", inner_v4(number(1)).into())?;
    println!(
        "(the kernel's TCP may or may not stand the losses; with fastvpn it does not see them)"
    );
    if keep {
        stay(&star)?;
    }
    println!("\ndone; nothing is left");
    Ok(())
}

/// Runs the control tool as if typed in the host, and shows both
fn show(node: &Node, arguments: &[&str]) -> Result<()> {
    title(&format!("{}# fastvpnctl {}", node.host.name(), arguments.join(" ")));
    let answer = node.ctl(arguments)?;
    print!("{}{}", answer.stdout, answer.stderr);
    anyhow::ensure!(answer.code == 0, "fastvpnctl {} failed", arguments.join(" "));
    Ok(())
}

fn show_ping(star: &Star, target: IpAddr) -> Result<()> {
    title(&format!("peer1# ping {target}"));
    let host = &star.peers[0].host;
    let report = load::ping(host, target, 20, Duration::from_millis(100))?;
    let mean = report.rtts.iter().sum::<f64>() / f64::from(report.received.max(1));
    println!("{} of {} answered, {mean:.1} ms on average", report.received, report.sent);
    Ok(())
}

fn transfer(star: &Star, word: &str, target: IpAddr) -> Result<()> {
    let (from, to) = (&star.peers[0].host, &star.peers[1].host);
    let target: SocketAddr = (target, 7100).into();
    print!("{word:>8} fastvpn, to {target}: ");
    std::io::stdout().flush()?;
    let transfer = Transfer::start(from, to, target, BYTES)?;
    let start = Instant::now();
    transfer.reaches(BYTES, PATIENCE);
    let (moved, elapsed) = (transfer.moved(), start.elapsed().as_secs_f64());
    let rate = moved as f64 * 8.0 / 1e6 / elapsed;
    println!("{:.1} MB in {elapsed:.1} s, {rate:.2} Mbit/s", moved as f64 / 1e6);
    Ok(())
}

fn stay(star: &Star) -> Result<()> {
    title("Everything stays up; to enter a host, as root:");
    let tool = lab::daemon::program("fastvpnctl")?;
    for node in std::iter::once(&star.hub).chain(&star.peers) {
        println!("  nsenter --net={}   # {}", node.host.path(), node.host.name());
        println!("    {} --bus {} status", tool.display(), node.bus.address());
    }
    println!("Ctrl-C ends it");
    std::io::stdout().flush()?;
    lab::wait::interrupted().context("no signals")
}

fn title(text: &str) {
    if std::io::stdout().is_terminal() {
        println!("\n\u{1b}[1m{text}\u{1b}[0m");
    } else {
        println!("\n{text}");
    }
}

/// Size of the demonstration's transfer
const BYTES: u64 = 8 << 20;
/// Longest time that each transfer gets
const PATIENCE: Duration = Duration::from_secs(15);
