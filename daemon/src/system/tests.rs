//! The system's side against a real kernel, in a network namespace of each test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use fastvpn_proto::crypto::{NetworkKey, PrivateKey};
use fastvpn_proto::ip::Prefix;
use fastvpn_proto::node::{Admission, NodeConfig};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::{RouteProtocol, RouteScope};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::netlink::Fate;
use super::{Extent, InterfacePlan, Netlink, SystemChange, SystemError, monitor};
use crate::netns::in_namespace;
use crate::plane::{DeviceNumber, Plane, PlaneCommand, PlaneEvent, spent_by, tun};

#[test]
fn plan_becomes_the_system_and_is_undone() {
    in_namespace(|| async {
        let (netlink, kernel) = (Netlink::new().await.unwrap(), Kernel::new());
        let plan =
            plan(&["10.9.0.1/24", "10.9.0.2/24", "fd09::1/64"], &["10.8.0.0/16", "fd08::/48"]);
        netlink.claim(NAME, ALIAS).await.unwrap();
        let queue = tun::open(NAME).unwrap();

        let index = netlink.apply(&plan).await.unwrap();

        assert_eq!(kernel.index(NAME).await, Some(index));
        assert_eq!(
            kernel.shown(index).await,
            [
                "10.9.0.1/24",
                "10.9.0.2/24",
                "fd09::1/64",
                "route 10.8.0.0/16 by 247",
                "route 10.9.0.0/24 by 2",
                "route fd08::/48 by 247",
                "route fd09::/64 by 2",
            ]
        );
        let (link, observed) = netlink.observe(NAME).await.unwrap();
        assert_eq!((link.alias.as_str(), link.mtu, link.up), (ALIAS, 1400, true));
        assert_eq!(super::plan::steps(&plan, &observed), []);
        assert_eq!(netlink.apply(&plan).await.unwrap(), index);

        netlink.undo(NAME, ALIAS).await.unwrap();

        assert_eq!(kernel.index(NAME).await, None);
        netlink.undo(NAME, ALIAS).await.unwrap();
        drop(queue);
    });
}

#[test]
fn changed_plan_replaces_what_the_old_one_made() {
    in_namespace(|| async {
        let (netlink, kernel) = (Netlink::new().await.unwrap(), Kernel::new());
        let _queue = tun::open(NAME).unwrap();
        let old = plan(&["10.9.0.1/24", "10.9.0.2/24", "fd09::1/64"], &["10.8.0.0/16"]);
        netlink.apply(&old).await.unwrap();

        // The kernel takes the second address of a subnet away together with the first.
        let new =
            InterfacePlan { mtu: 1300, ..plan(&["10.9.0.2/24", "10.7.0.1/32"], &["fd08::/48"]) };
        let index = netlink.apply(&new).await.unwrap();

        assert_eq!(
            kernel.shown(index).await,
            ["10.7.0.1/32", "10.9.0.2/24", "route 10.9.0.0/24 by 2", "route fd08::/48 by 247"]
        );
        assert_eq!(netlink.observe(NAME).await.unwrap().0.mtu, 1300);
    });
}

#[test]
fn device_for_somebody_else_is_left_to_him() {
    in_namespace(|| async {
        let (netlink, kernel) = (Netlink::new().await.unwrap(), Kernel::new());
        let mut changes = monitor(&netlink).unwrap();
        let queue = tun::open(NAME).unwrap();
        let plan = plan(&["10.9.0.1/24"], &["10.8.0.0/16"]);
        let plan = InterfacePlan { extent: Extent::Device, ..plan };

        let index = netlink.apply(&plan).await.unwrap();
        let made = netlink.observe(NAME).await.unwrap().0;
        assert_eq!((made.alias.as_str(), made.mtu, made.up), (ALIAS, 1400, false));
        assert!(kernel.shown(index).await.is_empty());

        kernel.set(LinkUnspec::new_with_index(index).up().mtu(1300).build()).await;
        kernel.add_address(index, "10.7.0.1/24").await;
        assert_eq!(next(&mut changes).await, None);
        netlink.apply(&InterfacePlan { mtu: 1300, ..plan }).await.unwrap();
        assert_eq!(kernel.shown(index).await, ["10.7.0.1/24", "route 10.7.0.0/24 by 2"]);

        drop(queue);
        assert_eq!(next(&mut changes).await, Some(SystemChange::InterfaceGone(NAME.into())));
    });
}

#[test]
fn route_of_somebody_else_into_our_interface_is_left_alone() {
    in_namespace(|| async {
        let (netlink, kernel) = (Netlink::new().await.unwrap(), Kernel::new());
        let _queue = tun::open(NAME).unwrap();
        let plan = plan(&["10.9.0.1/24"], &[]);
        let index = netlink.apply(&plan).await.unwrap();
        kernel.add_route(index, "10.6.0.0/16").await;

        netlink.apply(&plan).await.unwrap();

        let shown = kernel.shown(index).await;
        assert!(shown.contains(&"route 10.6.0.0/16 by 4".to_owned()), "{shown:?}");
    });
}

#[test]
fn drift_is_told_and_applying_again_mends_it() {
    in_namespace(|| async {
        let (netlink, kernel) = (Netlink::new().await.unwrap(), Kernel::new());
        let mut changes = monitor(&netlink).unwrap();
        let _queue = tun::open(NAME).unwrap();
        let plan = plan(&["10.9.0.1/24", "fd09::1/64"], &["10.8.0.0/16", "fd08::/48"]);
        let index = netlink.apply(&plan).await.unwrap();
        assert_eq!(next(&mut changes).await, None, "what we do is no drift");
        let drift = Some(SystemChange::Drift(NAME.into()));
        let made = kernel.shown(index).await;

        for what in ["10.9.0.1/24", "fd09::1/64"] {
            kernel.remove_address(index, what).await;
            assert_eq!(next(&mut changes).await, drift, "{what}");
            netlink.apply(&plan).await.unwrap();
            assert_eq!(kernel.shown(index).await, made);
            assert_eq!(next(&mut changes).await, None, "{what}: mending is no drift");
        }
        for what in ["10.8.0.0/16", "fd08::/48", "10.9.0.0/24", "fd09::/64"] {
            kernel.remove_route(index, what).await;
            assert_eq!(next(&mut changes).await, drift, "{what}");
            netlink.apply(&plan).await.unwrap();
            assert_eq!(kernel.shown(index).await, made);
            assert_eq!(next(&mut changes).await, None, "{what}: mending is no drift");
        }
        kernel.set(LinkUnspec::new_with_index(index).down().build()).await;
        assert_eq!(next(&mut changes).await, drift);
        netlink.apply(&plan).await.unwrap();
        assert_eq!(kernel.shown(index).await, made);
        kernel.set(LinkUnspec::new_with_index(index).mtu(1500).build()).await;
        kernel.add_address(index, "10.5.0.1/24").await;
        assert_eq!(next(&mut changes).await, drift);
        netlink.apply(&plan).await.unwrap();
        assert_eq!(kernel.shown(index).await, made);
        assert_eq!(next(&mut changes).await, None);
    });
}

#[test]
fn interface_that_vanishes_is_told_of_and_one_that_we_undo_is_not() {
    in_namespace(|| async {
        let netlink = Netlink::new().await.unwrap();
        let mut changes = monitor(&netlink).unwrap();
        let queue = tun::open(NAME).unwrap();
        netlink.apply(&plan(&["10.9.0.1/24"], &[])).await.unwrap();
        assert_eq!(next(&mut changes).await, None);

        drop(queue);

        assert_eq!(next(&mut changes).await, Some(SystemChange::InterfaceGone(NAME.into())));
        assert_eq!(next(&mut changes).await, None);
        let _queue = tun::open(NAME).unwrap();
        netlink.apply(&plan(&["10.9.0.1/24"], &[])).await.unwrap();
        netlink.undo(NAME, ALIAS).await.unwrap();
        assert_eq!(next(&mut changes).await, None);
    });
}

#[test]
fn changes_of_the_underlay_are_told_together_and_those_of_overlays_are_not() {
    in_namespace(|| async {
        let (netlink, kernel) = (Netlink::new().await.unwrap(), Kernel::new());
        let index = kernel.add_wire("eth7").await;
        let mut changes = monitor(&netlink).unwrap();
        assert_eq!(next(&mut changes).await, None);
        let changed = Some(SystemChange::AddressesChanged);

        kernel.add_address(index, "192.0.2.1/24").await;
        kernel.add_address(index, "2001:db8::1/64").await;
        kernel.add_route(index, "0.0.0.0/0").await;
        assert_eq!(next(&mut changes).await, changed);
        assert_eq!(netlink.local_addresses().await.unwrap().len(), 2);
        kernel.remove_route(index, "0.0.0.0/0").await;
        assert_eq!(next(&mut changes).await, changed);
        kernel.add_route(index, "198.51.100.0/24").await;
        assert_eq!(next(&mut changes).await, None);

        let _queue = tun::open(NAME).unwrap();
        netlink.apply(&plan(&["10.9.0.1/24"], &[])).await.unwrap();
        assert_eq!(next(&mut changes).await, None);
        let addresses = netlink.local_addresses().await.unwrap();
        assert_eq!(addresses[0], "192.0.2.1".parse::<IpAddr>().unwrap());
        assert_eq!(addresses.len(), 2, "{addresses:?}");

        kernel.set(LinkUnspec::new_with_index(index).down().build()).await;
        assert_eq!(next(&mut changes).await, changed);
    });
}

#[test]
fn claim_removes_what_a_crash_left_and_nothing_else() {
    in_namespace(|| async {
        let (netlink, kernel) = (Netlink::new().await.unwrap(), Kernel::new());
        kernel.leave_behind(NAME);
        let index = kernel.index(NAME).await.unwrap();

        let error = netlink.claim(NAME, ALIAS).await.unwrap_err();
        assert!(matches!(error, SystemError::Taken(_)), "{error}");
        kernel.set(LinkUnspec::new_with_index(index).alias("fastvpn:other").build()).await;
        let error = netlink.claim(NAME, ALIAS).await.unwrap_err();
        assert!(matches!(error, SystemError::Taken(_)), "{error}");
        let error = netlink.apply(&plan(&[], &[])).await.unwrap_err();
        assert!(matches!(error, SystemError::Taken(_)), "{error}");
        netlink.undo(NAME, ALIAS).await.unwrap();
        assert_eq!(kernel.index(NAME).await, Some(index));

        kernel.set(LinkUnspec::new_with_index(index).alias(ALIAS).build()).await;
        netlink.claim(NAME, ALIAS).await.unwrap();
        assert_eq!(kernel.index(NAME).await, None);
    });
}

#[test]
fn interface_that_another_process_serves_is_not_taken_from_it() {
    in_namespace(|| async {
        let (netlink, other) = (Netlink::new().await.unwrap(), Netlink::new().await.unwrap());
        let _queue = tun::open(NAME).unwrap();
        other.apply(&plan(&["10.9.0.1/24"], &[])).await.unwrap();

        let error = netlink.claim(NAME, ALIAS).await.unwrap_err();

        assert!(matches!(error, SystemError::Held(_)), "{error}");
        let error = tun::open(NAME).unwrap_err();
        assert!(matches!(error, tun::TunError::Busy(_)), "{error}");
    });
}

#[test]
fn machine_without_ipv6_gets_the_rest_of_a_plan() {
    in_namespace(|| async {
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let (netlink, kernel) = (Netlink::new().await.unwrap(), Kernel::new());
        let _queue = tun::open(NAME).unwrap();
        let plan = plan(&["10.9.0.1/24", "fd09::1/64"], &["10.8.0.0/16", "fd08::/48"]);

        let index = netlink.apply(&plan).await.unwrap();

        let shown = kernel.shown(index).await;
        assert_eq!(shown, ["10.9.0.1/24", "route 10.8.0.0/16 by 247", "route 10.9.0.0/24 by 2"]);
        let (fates, _) = netlink.review().await.unwrap();
        assert_eq!(fates[NAME], Fate::Fine, "nobody has changed it");
    });
}

#[test]
fn interface_of_another_kind_is_a_conflict() {
    in_namespace(|| async {
        let (netlink, kernel) = (Netlink::new().await.unwrap(), Kernel::new());
        kernel.add_wire(NAME).await;

        let error = netlink.claim(NAME, ALIAS).await.unwrap_err();

        assert!(matches!(error, SystemError::Taken(_)), "{error}");
        let error = tun::open(NAME).unwrap_err();
        assert!(matches!(error, tun::TunError::Foreign(_)), "{error}");
    });
}

#[test]
fn conflict_is_found_on_other_interfaces_only() {
    in_namespace(|| async {
        let (netlink, kernel) = (Netlink::new().await.unwrap(), Kernel::new());
        let index = kernel.add_wire("eth7").await;
        kernel.add_address(index, "10.9.0.7/24").await;
        kernel.add_route(index, "10.8.0.0/16").await;
        let conflict = async |addresses: &[&str], routes: &[&str]| {
            netlink.conflict(&plan(addresses, routes)).await.unwrap()
        };

        assert_eq!(conflict(&["10.7.0.1/24"], &["10.6.0.0/16"]).await, None);
        let said = conflict(&["10.9.0.7/32"], &[]).await;
        assert_eq!(said.as_deref(), Some("address 10.9.0.7 is already in use on eth7"));
        let said = conflict(&["10.9.0.8/24"], &[]).await;
        assert_eq!(said.as_deref(), Some("10.9.0.0/24 is already routed to eth7"));
        let said = conflict(&["10.7.0.1/24"], &["10.8.0.0/16"]).await;
        assert_eq!(said.as_deref(), Some("10.8.0.0/16 is already routed to eth7"));

        let _queue = tun::open(NAME).unwrap();
        netlink.apply(&plan(&["10.7.0.1/24"], &["10.6.0.0/16"])).await.unwrap();
        assert_eq!(conflict(&["10.7.0.1/24"], &["10.6.0.0/16"]).await, None);
        let error = netlink.apply(&plan(&["10.7.0.1/24"], &["10.8.0.0/16"])).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot add a route to 10.8.0.0/16 (interface fvpn-t)");
    });
}

#[test]
fn missing_interface_is_named() {
    in_namespace(|| async {
        let netlink = Netlink::new().await.unwrap();

        let error = netlink.apply(&plan(&[], &[])).await.unwrap_err();

        assert_eq!(error.to_string(), "there is no interface fvpn-t");
        netlink.claim(NAME, ALIAS).await.unwrap();
    });
}

#[test]
fn device_that_goes_down_is_served_again_when_it_is_up_and_one_that_is_gone_is_told_of() {
    in_namespace(|| async {
        let (netlink, kernel) = (Netlink::new().await.unwrap(), Kernel::new());
        let queue: OwnedFd = tun::open(NAME).unwrap();
        let index = netlink.apply(&plan(&["10.9.0.1/24"], &[])).await.unwrap();
        let lo = kernel.index("lo").await.unwrap();
        kernel.set(LinkUnspec::new_with_index(lo).up().build()).await;
        let (handle, mut events, _) =
            Plane::start("t", &node(), "127.0.0.1:0".parse().unwrap(), None, 1).unwrap();
        handle.send(PlaneCommand::Carry(false));
        handle.send(PlaneCommand::Tun { device: DeviceNumber(1), queues: vec![queue], mtu: 1400 });
        let sender = UdpSocket::bind("0.0.0.0:0").unwrap();
        let mut dropped = async |least: u64| loop {
            handle.send(PlaneCommand::Stats);
            for event in events.recv().await.unwrap() {
                match event {
                    PlaneEvent::Stats { node, .. } if node.dropped >= least => return node.dropped,
                    PlaneEvent::TunLost { error, .. } => panic!("{error}"),
                    _ => {}
                }
            }
        };
        sender.send_to(b"one", "10.9.0.9:9").unwrap();
        assert_eq!(dropped(1).await, 1);

        let before = spent_by("plane-t");
        kernel.set(LinkUnspec::new_with_index(index).down().build()).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let spent = spent_by("plane-t").saturating_sub(before);
        assert!(spent < Duration::from_millis(100), "{spent:?} for a device that is down");
        netlink.apply(&plan(&["10.9.0.1/24"], &[])).await.unwrap();
        sender.send_to(b"two", "10.9.0.9:9").unwrap();
        assert_eq!(dropped(2).await, 2);

        netlink.undo(NAME, ALIAS).await.unwrap();
        let lost = loop {
            let batch = timeout(Duration::from_secs(5), events.recv()).await.unwrap().unwrap();
            let lost = batch.into_iter().find(|event| matches!(event, PlaneEvent::TunLost { .. }));
            if lost.is_some() {
                break lost;
            }
        };
        assert!(lost.is_some());
    });
}

const NAME: &str = "fvpn-t";
const ALIAS: &str = "fastvpn:t";

fn plan(addresses: &[&str], routes: &[&str]) -> InterfacePlan {
    InterfacePlan {
        interface: NAME.into(),
        alias: ALIAS.into(),
        mtu: 1400,
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        routes: routes.iter().map(|text| text.parse().unwrap()).collect(),
        dns: None,
        extent: Extent::Whole,
    }
}

/// Returns the next change, or nothing if there is none for a while
async fn next(changes: &mut Receiver<SystemChange>) -> Option<SystemChange> {
    timeout(Duration::from_millis(250), changes.recv()).await.ok().flatten()
}

/// Somebody else who changes the system, by netlink of his own
struct Kernel(Handle);

impl Kernel {
    fn new() -> Self {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        Self(handle)
    }

    /// Makes a TUN device that outlives its process
    fn leave_behind(&self, name: &str) {
        let mut config = ::tun::Configuration::default();
        config.tun_name(name).platform_config(|platform| {
            platform.ensure_root_privileges(false);
        });
        ::tun::create(&config).unwrap().persist().unwrap();
    }

    /// Makes an interface that is up and not ours
    async fn add_wire(&self, name: &str) -> u32 {
        let far = format!("{name}-far");
        self.0.link().add(LinkVeth::new(name, &far).build()).execute().await.unwrap();
        for end in [far.as_str(), name] {
            let index = self.index(end).await.unwrap();
            self.set(LinkUnspec::new_with_index(index).up().build()).await;
        }
        // Its link-local address takes a moment.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.index(name).await.unwrap()
    }

    async fn index(&self, name: &str) -> Option<u32> {
        let mut found = self.0.link().get().match_name(name).execute();
        found.try_next().await.ok().flatten().map(|link| link.header.index)
    }

    async fn set(&self, message: LinkMessage) {
        self.0.link().set(message).execute().await.unwrap();
    }

    async fn add_address(&self, index: u32, address: &str) {
        let address: Prefix = address.parse().unwrap();
        let mut request = self.0.address().add(index, address.addr(), address.len());
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.unwrap();
    }

    async fn remove_address(&self, index: u32, address: &str) {
        let prefix: Prefix = address.parse().unwrap();
        let all = self.0.address().get().set_link_index_filter(index);
        let mut found = all.set_address_filter(prefix.addr()).execute();
        let message = found.try_next().await.unwrap().unwrap();
        self.0.address().del(message).execute().await.unwrap();
    }

    async fn add_route(&self, index: u32, to: &str) {
        let to: Prefix = to.parse().unwrap();
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(to.addr(), to.len())
            .unwrap()
            .output_interface(index)
            .scope(RouteScope::Link)
            .build();
        self.0.route().add(route).execute().await.unwrap();
    }

    async fn remove_route(&self, index: u32, to: &str) {
        let to: Prefix = to.parse().unwrap();
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(to.addr(), to.len())
            .unwrap()
            .output_interface(index)
            .scope(RouteScope::NoWhere)
            .protocol(RouteProtocol::Unspec)
            .build();
        self.0.route().del(route).execute().await.unwrap();
    }

    /// Returns addresses and routes of an interface as text, with the number of each route's maker
    async fn shown(&self, index: u32) -> Vec<String> {
        let mut shown = Vec::new();
        let mut all = self.0.address().get().set_link_index_filter(index).execute();
        while let Some(message) = all.try_next().await.unwrap() {
            shown.extend(super::view::address(&message).map(|found| found.prefix.to_string()));
        }
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for family in [v4, v6] {
            let mut all = self.0.route().get(family).execute();
            while let Some(message) = all.try_next().await.unwrap() {
                let by = u8::from(message.header.protocol);
                let Some(route) = super::view::route(&message) else { continue };
                if route.through == [index] && route.table == 254 {
                    shown.push(format!("route {} by {by}", route.to));
                }
            }
        }
        shown.sort();
        shown
    }
}

fn node() -> NodeConfig {
    NodeConfig {
        private_key: PrivateKey::from_bytes([1; 32]),
        network_key: NetworkKey::default(),
        seed: [2; 32],
        aes: false,
        admission: Admission::Known,
        relay: false,
        silence: Duration::from_secs(15),
        engine: fastvpn_proto::node::Engine::default(),
    }
}
