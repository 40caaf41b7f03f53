//! Makes a plan so, by rtnetlink.
//!
//! One connection; operations that change something follow one another, so that each sees what the
//! one before it made.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use fastvpn_proto::ip::Prefix;
use futures_util::{Stream, TryStreamExt};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage,
};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};
use rustix::io::Errno;
use thiserror::Error;
use tokio::sync::Mutex;
use tracing::{debug, warn};

use super::plan::{Extent, InterfacePlan, Observed, Step, steps};
use super::view::{self, Link, Picture};

/// Protocol number of the routes that we make, so that nobody takes them for another's
pub(super) const PROTOCOL: u8 = 0xF7;

/// Why the system could not be made as planned
#[derive(Debug, Error)]
pub enum SystemError {
    /// Another process serves our interface
    #[error("interface {0} is in use by another process; is a second fastvpnd running?")]
    Held(String),
    /// The interface is not there
    #[error("there is no interface {0}")]
    NoInterface(String),
    /// The kernel could not be asked
    #[error("netlink does not answer")]
    Netlink(#[source] io::Error),
    /// The kernel refused a change
    #[error("cannot {step} (interface {interface})")]
    Refused {
        /// Name of the interface
        interface: String,
        /// What was to be done
        step: String,
        /// What the kernel said
        source: io::Error,
    },
    /// An interface that is not ours has the name
    #[error("there is an interface {0} already that does not belong to this network")]
    Taken(String),
}

/// The way to interfaces, addresses and routes of this network namespace
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
    /// Held while a list is read: the kernel answers "busy" to a second one on the same socket
    reading: Arc<Mutex<()>>,
    applied: Arc<Mutex<BTreeMap<String, Applied>>>,
}

/// A plan that is in force
#[derive(Clone, Debug)]
struct Applied {
    plan: InterfacePlan,
    /// What was still different when all had been done; no drift, for nobody has changed it
    left: Vec<Step>,
    /// Counts how often the plan was applied
    times: u64,
}

/// What became of an interface of ours
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// It is not there any more
    Gone,
    /// It is not as it was made: what was made how often, and what to do about it
    Drifted(u64, Vec<Step>),
    /// It is as planned
    Fine,
}

impl Netlink {
    /// Opens a connection and leaves it to a task of the current tokio runtime
    ///
    /// # Errors
    /// If the system gives no netlink socket.
    // Asynchronous, because it must be called within a runtime.
    #[allow(clippy::unused_async)]
    pub async fn new() -> Result<Self, SystemError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(SystemError::Netlink)?;
        tokio::spawn(connection);
        Ok(Self { handle, reading: Arc::default(), applied: Arc::default() })
    }

    /// Makes the name of an interface free: an interface of ours is one left by a crash
    ///
    /// # Errors
    /// [`SystemError::Taken`] if an interface has the name that is not ours, [`SystemError::Held`]
    /// if it is ours, but a living process serves it.
    pub async fn claim(&self, interface: &str, alias: &str) -> Result<(), SystemError> {
        let mut applied = self.applied.lock().await;
        applied.remove(interface);
        let Some(link) = self.link(interface).await? else { return Ok(()) };
        if link.alias != alias {
            return Err(SystemError::Taken(interface.to_owned()));
        }
        if link.served {
            return Err(SystemError::Held(interface.to_owned()));
        }
        warn!(interface, "removing an interface that was left behind");
        self.delete(&link).await
    }

    /// Tells whether there is an interface of that name, and it is ours
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub async fn is_ours(&self, interface: &str, alias: &str) -> Result<bool, SystemError> {
        Ok(self.link(interface).await?.is_some_and(|link| link.alias == alias))
    }

    /// Makes the system as planned; returns the interface's index
    ///
    /// Does nothing if all is as planned. The interface must be there, and without alias or with the
    /// plan's.
    ///
    /// # Errors
    /// If the interface is not there or not ours, or the kernel refuses a change.
    pub async fn apply(&self, plan: &InterfacePlan) -> Result<u32, SystemError> {
        let mut applied = self.applied.lock().await;
        let name = &plan.interface;
        let mut left = Vec::new();
        // Removing one address may take others of its subnet away, so that a second look is needed.
        for _ in 0..ROUNDS {
            let (link, observed) = self.observe(name).await?;
            if !link.alias.is_empty() && link.alias != plan.alias {
                return Err(SystemError::Taken(name.clone()));
            }
            left = steps(plan, &observed);
            if left.is_empty() {
                break;
            }
            for step in &left {
                debug!(interface = name, %step, "changing the system");
                self.take(&link, step).await?;
            }
        }
        let (link, observed) = self.observe(name).await?;
        if !left.is_empty() {
            left = steps(plan, &observed);
        }
        for step in &left {
            let hint = if step.is_ipv6() { "; is IPv6 disabled?" } else { "" };
            warn!(interface = name, "the system does not become as planned: still to {step}{hint}");
        }
        let times = applied.get(name).map_or(0, |before| before.times) + 1;
        applied.insert(name.clone(), Applied { plan: plan.clone(), left, times });
        Ok(link.index)
    }

    /// Removes the interface if it is ours; addresses and routes go with it
    ///
    /// # Errors
    /// If the kernel refuses. That nothing is there, or something that is not ours, is no error.
    pub async fn undo(&self, interface: &str, alias: &str) -> Result<(), SystemError> {
        let mut applied = self.applied.lock().await;
        applied.remove(interface);
        match self.link(interface).await? {
            Some(link) if link.alias == alias => self.delete(&link).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Returns a sentence on what is in the way of a plan: an address or subnet that is in use
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub async fn conflict(&self, plan: &InterfacePlan) -> Result<Option<String>, SystemError> {
        Ok(self.picture().await?.conflict(plan))
    }

    /// Returns the addresses at which other machines may reach this one, not through an overlay
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub async fn local_addresses(&self) -> Result<Vec<IpAddr>, SystemError> {
        Ok(self.picture().await?.local_addresses())
    }

    /// Returns what became of each interface with a plan in force, and all that there is
    pub(super) async fn review(&self) -> Result<(BTreeMap<String, Fate>, Picture), SystemError> {
        // Whoever changes something has finished when the picture is taken.
        let applied = self.applied.lock().await;
        let picture = self.picture().await?;
        let fates = applied.iter().map(|(name, applied)| (name.clone(), applied.fate(&picture)));
        Ok((fates.collect(), picture))
    }

    pub(super) async fn observe(&self, name: &str) -> Result<(Link, Observed), SystemError> {
        let picture = self.picture().await?;
        let link = picture.link(name).ok_or_else(|| SystemError::NoInterface(name.to_owned()))?;
        Ok((link.clone(), picture.observe(link)))
    }

    async fn picture(&self) -> Result<Picture, SystemError> {
        let _alone = self.reading.lock().await;
        let links = self.handle.link().get().execute();
        let links = gather(links, |link| Some(view::link(link))).await?;
        let addresses = self.handle.address().get().execute();
        let addresses = gather(addresses, view::address).await?;
        let mut picture = Picture { links, addresses, ..Picture::default() };
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for family in [v4, v6] {
            let routes = self.handle.route().get(family).execute();
            picture.routes.extend(gather(routes, view::route).await?);
        }
        // A kernel without one family answers with the routes of the other.
        picture.routes.sort();
        picture.routes.dedup();
        Ok(picture)
    }

    async fn link(&self, name: &str) -> Result<Option<Link>, SystemError> {
        let found = self.handle.link().get().match_name(name).execute().try_next().await;
        match found.map_err(plain) {
            Ok(message) => Ok(message.as_ref().map(view::link)),
            Err(error) if is(&error, &[Errno::NODEV]) => Ok(None),
            Err(error) => Err(SystemError::Netlink(error)),
        }
    }

    async fn delete(&self, link: &Link) -> Result<(), SystemError> {
        match self.handle.link().del(link.index).execute().await.map_err(plain) {
            Err(error) if !is(&error, &[Errno::NODEV]) => {
                Err(refused(link, "remove the interface", error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn take(&self, link: &Link, step: &Step) -> Result<(), SystemError> {
        let index = link.index;
        // What is already as it should be was made so by somebody else in the meantime.
        let (result, fine): (_, &[Errno]) = match step {
            Step::AddAddress(address) => (self.add_address(index, address).await, &[Errno::EXIST]),
            Step::AddRoute(to) => (self.handle.route().add(route(index, to)).execute().await, &[]),
            Step::Alias(alias) => (self.set(change(index).alias(alias).build()).await, &[]),
            Step::Mtu(mtu) => (self.set(change(index).mtu((*mtu).into()).build()).await, &[]),
            Step::NoLinkLocal => (self.set(without_link_local(index)).await, &[]),
            Step::RemoveAddress(address) => {
                (self.remove_address(index, address).await, &[Errno::ADDRNOTAVAIL])
            }
            Step::RemoveRoute(to) => {
                (self.handle.route().del(route(index, to)).execute().await, &[Errno::SRCH])
            }
            Step::Up => (self.set(change(index).up().build()).await, &[]),
        };
        match result.map_err(plain) {
            // The rest of the plan is of use without IPv6.
            Err(error) if step.is_ipv6() && is(&error, &NO_IPV6) => Ok(()),
            Err(error) if !is(&error, fine) => Err(refused(link, &step.to_string(), error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn set(&self, message: LinkMessage) -> Result<(), rtnetlink::Error> {
        self.handle.link().set(message).execute().await
    }

    async fn add_address(&self, index: u32, address: &Prefix) -> Result<(), rtnetlink::Error> {
        let mut request = self.handle.address().add(index, address.addr(), address.len());
        let message = request.message_mut();
        // There is no broadcast in an overlay, and nobody to ask whether an address is taken.
        message.attributes.retain(|said| !matches!(said, AddressAttribute::Broadcast(_)));
        if address.addr().is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await
    }

    async fn remove_address(&self, index: u32, address: &Prefix) -> Result<(), rtnetlink::Error> {
        let found = {
            let _alone = self.reading.lock().await;
            let all = self.handle.address().get().set_link_index_filter(index).execute();
            all.try_collect::<Vec<_>>().await?
        };
        let same = |message: &AddressMessage| {
            view::address(message).is_some_and(|found| found.prefix == *address)
        };
        match found.into_iter().find(same) {
            Some(message) => self.handle.address().del(message).execute().await,
            None => Ok(()),
        }
    }
}

impl Applied {
    fn fate(&self, picture: &Picture) -> Fate {
        let link = picture.link(&self.plan.interface);
        // Without an alias it is another that got the name; ours always has one by now.
        let Some(link) = link.filter(|link| !link.alias.is_empty()) else { return Fate::Gone };
        match self.plan.extent {
            // Whoever has it from us may do with it as he likes.
            Extent::Device => return Fate::Fine,
            Extent::Whole => {}
        }
        let todo = steps(&self.plan, &picture.observe(link));
        if todo == self.left { Fate::Fine } else { Fate::Drifted(self.times, todo) }
    }
}

/// Takes all answers to a question, as values
async fn gather<M, T>(
    answers: impl Stream<Item = Result<M, rtnetlink::Error>>,
    read: impl Fn(&M) -> Option<T>,
) -> Result<Vec<T>, SystemError> {
    let mut answers = std::pin::pin!(answers);
    let mut values = Vec::new();
    while let Some(message) =
        answers.try_next().await.map_err(|error| SystemError::Netlink(plain(error)))?
    {
        values.extend(read(&message));
    }
    Ok(values)
}

fn change(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
}

fn without_link_local(index: u32) -> LinkMessage {
    let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let families = vec![AfSpecUnspec::Inet6(vec![none])];
    change(index).append_extra_attribute(LinkAttribute::AfSpecUnspec(families)).build()
}

fn route(index: u32, to: &Prefix) -> RouteMessage {
    let protocol = RouteProtocol::Other(PROTOCOL);
    match to.addr() {
        IpAddr::V4(addr) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(addr, to.len())
            .output_interface(index)
            .protocol(protocol)
            .scope(RouteScope::Link)
            .build(),
        IpAddr::V6(addr) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(addr, to.len())
            .output_interface(index)
            .protocol(protocol)
            .build(),
    }
}

fn plain(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(said) => said.to_io(),
        other => io::Error::other(other),
    }
}

fn refused(link: &Link, step: &str, source: io::Error) -> SystemError {
    SystemError::Refused { interface: link.name.clone(), step: step.to_owned(), source }
}

fn is(error: &io::Error, any: &[Errno]) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| any.contains(&errno))
}

/// What the kernel says where IPv6 is switched off
const NO_IPV6: [Errno; 3] = [Errno::ACCESS, Errno::AFNOSUPPORT, Errno::OPNOTSUPP];
/// How often a plan is gone through
const ROUNDS: usize = 3;
