//! Hosts: network namespaces without names.
//!
//! A [`Host`] is a namespace kept alive by one thread that lives inside it. Everything that must
//! happen in the namespace (netlink, sockets, starting a program) is sent to that thread and runs
//! there. Nothing is bound to a name or a file, so two test processes never meet, and when the
//! thread ends, for whatever reason, the kernel takes the namespace away with all that is in it.
//!
//! # Contract
//!
//! - A socket made by [`Host::run`] stays in the namespace, wherever it is used.
//! - A program started with [`Host::spawn`] from a [`Host::command`] is killed when the host goes.
//! - Only the namespace's own settings are changed, never the machine's.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::thread::{Pid, UnshareFlags, gettid};
use tokio::runtime::Runtime;

use super::wait::until;

/// A network namespace with a thread inside
#[derive(Debug)]
pub struct Host {
    name: String,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    tid: Pid,
    namespace: OwnedFd,
}

/// What the thread inside a host has at hand
#[derive(Debug)]
pub struct Inside {
    runtime: Runtime,
    netlink: rtnetlink::Handle,
}

type Job = Box<dyn FnOnce(&Inside) + Send>;

impl Host {
    /// Makes a namespace with the loopback interface up
    ///
    /// # Errors
    /// If this process may not make namespaces.
    pub fn new(name: &str) -> Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("host {name}"))
            .spawn(move || live(&inbox, &ready))
            .context("no thread for the host")?;
        let (tid, namespace) = started.recv().context("the host's thread ended")??;
        let host =
            Self { name: name.to_owned(), jobs: Some(jobs), thread: Some(thread), tid, namespace };
        host.prepare().with_context(|| format!("host {name}"))?;
        Ok(host)
    }

    /// Runs `work` inside the namespace and returns what it returns
    ///
    /// # Panics
    /// If `work` panics.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce(&Inside) -> T + Send + 'static) -> T {
        let (result, answer) = mpsc::channel();
        let job: Job = Box::new(move |inside| {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(inside)));
            let _ = result.send(outcome);
        });
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
        match answer.recv() {
            Ok(Ok(value)) => value,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => unreachable!("the host's thread lives as long as the host"),
        }
    }

    /// Begins a command line that is killed when the host goes
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).stdin(Stdio::null());
        command
    }

    /// Starts a program inside the namespace
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&self, mut command: Command) -> io::Result<Child> {
        let child = self.run(move |_| command.spawn())?;
        // until `setpriv` has become the program, the host's end would not reach it
        let comm = format!("/proc/{}/comm", child.id());
        until(Duration::from_secs(5), || {
            fs::read_to_string(&comm).unwrap_or_default().trim_end() != "setpriv"
        });
        Ok(child)
    }

    /// Runs a program inside the namespace to its end
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn output(&self, mut command: Command) -> io::Result<Output> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.spawn(command)?.wait_with_output()
    }

    /// Runs a program that has to succeed, with `input` on its standard input
    ///
    /// # Errors
    /// If it cannot be started or fails; the error holds what it said.
    pub fn must(&self, program: &str, args: &[&str], input: &str) -> Result<String> {
        use std::io::Write;
        let mut command = self.command(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.spawn(command).with_context(|| format!("{program} does not start"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).ok();
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "{program} {} in {}: {}",
                args.join(" "),
                self.name,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Sets a sysctl below `/proc/sys/net` of this namespace; `key` is written with slashes
    ///
    /// # Errors
    /// If there is no such setting, or it is not the namespace's own.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        let value = value.to_owned();
        self.run(move |_| fs::write(&path, value).with_context(|| path.clone()))
    }

    /// Adds an interface pair: `here` in this host, `there` in `other`, both up
    ///
    /// # Errors
    /// If netlink refuses.
    pub fn veth(&self, here: &str, other: &Self, there: &str) -> Result<()> {
        let fd = other.namespace.as_raw_fd();
        let peer = LinkUnspec::new_with_name(there).setns_by_fd(fd).build();
        let pair =
            LinkVeth::new(here, there).set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
        self.netlink(async move |netlink| Ok(netlink.link().add(pair).execute().await?))?;
        self.up(here)?;
        other.up(there)
    }

    /// Sets an interface up
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn up(&self, device: &str) -> Result<()> {
        self.set(device, LinkMessageBuilder::up)
    }

    /// Sets an interface down
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn down(&self, device: &str) -> Result<()> {
        self.set(device, LinkMessageBuilder::down)
    }

    /// Sets the MTU of an interface
    ///
    /// # Errors
    /// If there is no such interface or the MTU is impossible.
    pub fn mtu(&self, device: &str, mtu: u32) -> Result<()> {
        self.set(device, move |link| link.mtu(mtu))
    }

    /// Gives an interface an address
    ///
    /// # Errors
    /// If there is no such interface or it has the address.
    pub fn add_address(&self, device: &str, address: IpAddr, length: u8) -> Result<()> {
        let device = device.to_owned();
        self.netlink(async move |netlink| {
            let index = index_of(&netlink, &device).await?;
            netlink.address().add(index, address, length).execute().await?;
            Ok(())
        })
        .with_context(|| format!("address {address}/{length}"))
    }

    /// Takes an address from an interface
    ///
    /// # Errors
    /// If the interface has no such address.
    pub fn remove_address(&self, device: &str, address: IpAddr) -> Result<()> {
        let device = device.to_owned();
        self.netlink(async move |netlink| {
            let index = index_of(&netlink, &device).await?;
            let mut found = netlink.address().get().set_link_index_filter(index).execute();
            while let Some(message) = found.try_next().await? {
                if message.attributes.contains(&AddressAttribute::Address(address)) {
                    netlink.address().del(message).execute().await?;
                    return Ok(());
                }
            }
            bail!("{device} has no address {address}")
        })
    }

    /// Returns the addresses of an interface
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn addresses(&self, device: &str) -> Result<Vec<IpAddr>> {
        let device = device.to_owned();
        self.netlink(async move |netlink| {
            let index = index_of(&netlink, &device).await?;
            let found = netlink.address().get().set_link_index_filter(index).execute();
            let messages: Vec<_> = found.try_collect().await?;
            let attributes = messages.into_iter().flat_map(|message| message.attributes);
            Ok(attributes
                .filter_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(address),
                    _ => None,
                })
                .collect())
        })
    }

    /// Routes a prefix into an interface, by way of `gateway` if there is one
    ///
    /// # Errors
    /// If netlink refuses.
    pub fn add_route(
        &self,
        prefix: (IpAddr, u8),
        device: &str,
        gateway: Option<IpAddr>,
    ) -> Result<()> {
        let device = device.to_owned();
        self.netlink(async move |netlink| {
            let index = index_of(&netlink, &device).await?;
            let route = match (prefix, gateway) {
                ((IpAddr::V4(to), length), gateway) => {
                    let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
                        .destination_prefix(to, length)
                        .output_interface(index);
                    if let Some(IpAddr::V4(gateway)) = gateway {
                        route = route.gateway(gateway);
                    }
                    route.build()
                }
                ((IpAddr::V6(to), length), gateway) => {
                    let mut route = RouteMessageBuilder::<Ipv6Addr>::new()
                        .destination_prefix(to, length)
                        .output_interface(index);
                    if let Some(IpAddr::V6(gateway)) = gateway {
                        route = route.gateway(gateway);
                    }
                    route.build()
                }
            };
            netlink.route().add(route).replace().execute().await?;
            Ok(())
        })
        .with_context(|| format!("route to {}/{}", prefix.0, prefix.1))
    }

    /// Adds an interface pair with both ends here, to occupy a name
    ///
    /// # Errors
    /// If netlink refuses.
    pub fn occupy(&self, device: &str) -> Result<()> {
        let message = LinkVeth::new(device, "occupier").build();
        self.netlink(async move |netlink| Ok(netlink.link().add(message).execute().await?))
    }

    /// Removes an interface
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn remove(&self, device: &str) -> Result<()> {
        let device = device.to_owned();
        self.netlink(async move |netlink| {
            let index = index_of(&netlink, &device).await?;
            Ok(netlink.link().del(index).execute().await?)
        })
    }

    /// Returns the names of all interfaces
    ///
    /// # Errors
    /// If netlink refuses.
    pub fn devices(&self) -> Result<Vec<String>> {
        self.netlink(async move |netlink| {
            let links: Vec<_> = netlink.link().get().execute().try_collect().await?;
            let attributes = links.into_iter().flat_map(|link| link.attributes);
            Ok(attributes
                .filter_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name),
                    _ => None,
                })
                .collect())
        })
    }

    /// Runs something over netlink inside the namespace
    ///
    /// # Errors
    /// If `work` returns one.
    pub fn netlink<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: AsyncFnOnce(rtnetlink::Handle) -> Result<T> + Send + 'static,
    {
        self.run(move |inside| inside.runtime.block_on(work(inside.netlink.clone())))
    }

    /// Returns the host's name
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the namespace's file, for `nsenter --net=`
    pub fn path(&self) -> String {
        format!("/proc/{}/task/{}/ns/net", std::process::id(), self.tid.as_raw_nonzero())
    }

    fn set(
        &self,
        device: &str,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>
        + Send
        + 'static,
    ) -> Result<()> {
        let device = device.to_owned();
        self.netlink(async move |netlink| {
            let index = index_of(&netlink, &device).await?;
            let message = change(LinkUnspec::new_with_index(index)).build();
            Ok(netlink.link().set(message).execute().await?)
        })
    }

    /// Settings that a laboratory needs, of this namespace only
    fn prepare(&self) -> Result<()> {
        self.up("lo")?;
        for key in ["ipv6/conf/default/accept_dad", "ipv6/conf/all/accept_dad"] {
            self.sysctl(key, "0").ok();
        }
        // a link of 200 ms is limited by buffers otherwise
        self.sysctl("ipv4/tcp_rmem", "4096 1048576 67108864")?;
        self.sysctl("ipv4/tcp_wmem", "4096 1048576 67108864")?;
        self.sysctl("ipv4/ping_group_range", "0 2147483647")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Life of a host's thread: enters a new namespace, then does what it is told
fn live(inbox: &mpsc::Receiver<Job>, ready: &mpsc::Sender<Result<(Pid, OwnedFd)>>) {
    let inside = match enter() {
        Ok((inside, namespace)) => {
            let _ = ready.send(Ok((gettid(), namespace)));
            inside
        }
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    while let Ok(job) = inbox.recv() {
        job(&inside);
    }
}

#[allow(unsafe_code)]
fn enter() -> Result<(Inside, OwnedFd)> {
    // before the namespace: tokio keeps sockets of its first runtime for ever, and they would keep
    // the namespace
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // SAFETY: the flags do not ask for a file descriptor table of its own, the only thing about
    // `unshare` that is not safe.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .context("this process may not make a network namespace")?;
    let namespace = fs::File::open("/proc/thread-self/ns/net").context("/proc is missing")?;
    let netlink = runtime.block_on(async {
        let (connection, netlink, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok::<_, io::Error>(netlink)
    })?;
    Ok((Inside { runtime, netlink }, namespace.into()))
}

async fn index_of(netlink: &rtnetlink::Handle, device: &str) -> Result<u32> {
    let mut links = netlink.link().get().match_name(device.to_owned()).execute();
    let link = links.try_next().await?.ok_or_else(|| anyhow!("no interface {device}"))?;
    Ok(link.header.index)
}
