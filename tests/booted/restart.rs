//! Restarts by the real systemd: what it keeps, what goes on, and keys that it hands over.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use fastvpn_tests::cases;
use fastvpn_tests::lab::booted::System;
use fastvpn_tests::lab::load::Transfer;
use fastvpn_tests::lab::{inner_v4, until};
use fastvpn_tests::link::{LinkConfig, mbit, ms};
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::{NETWORK, NUMBERS, SOON, Trio, alone, hub_config, write_config};

cases![
    keys_come_as_credentials,
    killed_service_goes_on_with_its_interface,
    restart_disturbs_neither_a_transfer_nor_an_idle_connection,
];

/// The number of the interface, which another one of the same name would not have
fn ifindex(system: &System) -> String {
    system.sh("cat /sys/class/net/fvpn-home/ifindex").unwrap()
}

fn kept(system: &System) -> String {
    let shown = system.sh("systemctl show --property=NFileDescriptorStore --value fastvpnd");
    shown.unwrap().trim().to_owned()
}

fn restart_disturbs_neither_a_transfer_nor_an_idle_connection() {
    let trio = Trio::up();
    let [from, to] = [&trio.peers[0], &trio.peers[1]];
    // However fast the machine is, the transfer must outlast the last restart.
    trio.lab.wire.all(&LinkConfig::new().rate(mbit(100)).queue(ms(100)));
    let at = |port| SocketAddr::from((inner_v4(NUMBERS[2]), port));
    let (idle, target) = (at(7600), at(7601));
    let listener = to.host.run(move |_| TcpListener::bind(idle)).unwrap();
    let socket =
        from.host.run(|_| Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))).unwrap();
    socket.connect_timeout(&idle.into(), SOON).unwrap();
    let mut near = std::net::TcpStream::from(socket);
    let (mut far, _) = listener.accept().unwrap();
    near.write_all(b"before").unwrap();
    far.read_exact(&mut [0; 6]).unwrap();
    let transfer = Transfer::start(&from.host, &to.host, target, 64 << 20).unwrap();

    for system in [from, to, &trio.hub] {
        let (index, before) = (ifindex(system), transfer.moved());
        assert!(transfer.reaches(before + (4 << 20), SOON), "it stands at {before}");
        assert_eq!(kept(system), "1");
        system.sh("systemctl restart fastvpnd").unwrap();
        system.await_state(NETWORK, "up", SOON).unwrap();
        assert_eq!((ifindex(system), kept(system)), (index, "1".to_owned()));
    }

    let report = transfer.finish(Duration::from_secs(60)).unwrap();
    println!("{:.1} Mbit/s through three restarts", report.mbits());
    far.write_all(b"and after").unwrap();
    near.set_read_timeout(Some(SOON)).unwrap();
    near.read_exact(&mut [0; 9]).unwrap();
}

fn killed_service_goes_on_with_its_interface() {
    let (_lab, system) = alone();
    let index = ifindex(&system);

    system.sh("systemctl kill --signal=KILL fastvpnd").unwrap();
    assert_eq!(ifindex(&system), index, "while nobody serves it");
    system.await_sh("systemctl is-active fastvpnd", SOON).unwrap();
    system.await_state(NETWORK, "up", SOON).unwrap();
    assert_eq!((ifindex(&system), kept(&system).as_str()), (index, "1"));

    // down for good, nothing is kept; stopped for good neither
    system.sh("fastvpnctl disconnect home").unwrap();
    assert!(until(SOON, || kept(&system) == "0"));
    system.sh("fastvpnctl connect home && systemctl stop fastvpnd").unwrap();
    assert!(until(SOON, || !system.has("/sys/class/net/fvpn-home")));
}

fn keys_come_as_credentials() {
    let (_lab, system) = alone();
    let script = "install -d -m 0700 /etc/fastvpn-keys && cd /etc/fastvpn-keys && umask 077 && \
                  mv /var/lib/fastvpn/keys/home own && chown root: own && \
                  head -c 32 /dev/urandom | base64 > psk";
    system.sh(script).unwrap();
    let keys = "private_key_credential = \"home\"\nnetwork_key_credential = \"home.psk\"\n";
    let file = "private_key_file = \"/var/lib/fastvpn/keys/home\"\n";
    write_config(&system, &hub_config(&[]).replace(file, keys));
    let unit = "[Service]\nLoadCredential=home:/etc/fastvpn-keys/own\n\
                LoadCredential=home.psk:/etc/fastvpn-keys/psk\n";
    system.sh("mkdir -p /etc/systemd/system/fastvpnd.service.d").unwrap();
    system.write("/etc/systemd/system/fastvpnd.service.d/keys.conf", 0o644, unit).unwrap();

    system.sh("systemctl daemon-reload && systemctl restart fastvpnd").unwrap();

    // it would not even start without them
    system.await_state(NETWORK, "up", SOON).unwrap();
}
