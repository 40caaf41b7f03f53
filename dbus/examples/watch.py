#!/usr/bin/python3
import dbus
from dbus.mainloop.glib import DBusGMainLoop
from gi.repository import GLib

BUS_NAME, ROOT, PEER = "org.fastvpn", "/org/fastvpn", "org.fastvpn.Peer1"
MANAGER = "org.freedesktop.DBus.ObjectManager"
peers = {}

def show(path, names):
    peer = peers[path]
    print(peer["Name"] or peer["PublicKey"], *(peer[name] for name in names))

def on_added(path, interfaces):
    if PEER in interfaces:
        peers[path] = interfaces[PEER]
        show(path, ["State", "PathKind", "Endpoint"])

def on_removed(path, interfaces):
    if PEER in interfaces and peers.pop(path, None):
        print(path, "is gone")

def on_changed(interface, changed, invalidated, path):
    if interface == PEER and path in peers:
        peers[path].update(changed)
        if not changed.keys().isdisjoint(["State", "PathKind"]):
            show(path, ["State", "PathKind", "Endpoint"])

DBusGMainLoop(set_as_default=True)
bus = dbus.SystemBus()
# subscribe first, so that nothing is missed in between
follow = dict(bus_name=BUS_NAME, dbus_interface=MANAGER)
bus.add_signal_receiver(on_added, "InterfacesAdded", **follow)
bus.add_signal_receiver(on_removed, "InterfacesRemoved", **follow)
bus.add_signal_receiver(
    on_changed, "PropertiesChanged", "org.freedesktop.DBus.Properties",
    BUS_NAME, path_keyword="path")
daemon = dbus.Interface(bus.get_object(BUS_NAME, ROOT), MANAGER)
for path, interfaces in daemon.GetManagedObjects().items():
    on_added(path, interfaces)
GLib.MainLoop().run()
