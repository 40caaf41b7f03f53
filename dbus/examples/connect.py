#!/usr/bin/python3
import sys
import dbus

BUS_NAME, ROOT = "org.fastvpn", "/org/fastvpn"
manager = dbus.Interface(
    dbus.SystemBus().get_object(BUS_NAME, ROOT), "org.fastvpn.Manager1")
for name in sys.argv[1:]:
    try:
        manager.Connect(name, {}, signature="sa{sv}", timeout=30)
    except dbus.DBusException as error:
        if error.get_dbus_name() == "org.fastvpn.Error.NotAuthorized":
            sys.exit("run this as root")
        sys.exit(error.get_dbus_message())
