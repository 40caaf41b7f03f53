"""A mock of fastvpnd, for tests of programs that use its D-Bus API: a template of python-dbusmock.

    python3 -m dbusmock --template dbus/org_fastvpn_mock.py

It takes org.fastvpn on the system bus (of the tests, by DBUS_SYSTEM_BUS_ADDRESS) and shows what the
interfaces' XML says, each property with an empty value unless something else is said. The methods of
Manager1 behave as those of a daemon whose networks are all well, those of a hub as ones of a hub with
these members; Join takes any word for an invitation to the network "joined". A test adds what it needs by methods of
org.freedesktop.DBus.Mock on /org/fastvpn:

    AddNetwork(s name, a{sv} properties) -> o network
    AddPeer(s network_name, s name, a{sv} properties) -> o peer
    AddMember(s network_name, s name, s standing)    of a hub
    ChangeNetwork(s name, a{sv} properties), ChangePeer(s network_name, s name, a{sv} properties)
    RemoveNetwork(s name), RemovePeer(s network_name, s name)
    FailNext(s method, s error)    the next call of the method is answered by org.fastvpn.Error.ERROR

Signals are sent as the daemon sends them. Parameters of the template: "version", and "interfaces",
the directory of the XML (otherwise beside this file, or /usr/share/dbus-1/interfaces).
"""

import base64
import hashlib
import os
import time
import xml.etree.ElementTree as ElementTree

import dbus
from dbusmock import MOCK_IFACE, mockobject

BUS_NAME = "org.fastvpn"
MAIN_OBJ = "/org/fastvpn"
MAIN_IFACE = "org.fastvpn.Manager1"
SYSTEM_BUS = True
IS_OBJECT_MANAGER = True

NETWORK = "org.fastvpn.Network1"
PEER = "org.fastvpn.Peer1"


def load(mock, parameters):
    """Makes the main object; dbusmock calls this"""
    mock.contract_dir = parameters.get("interfaces")
    mock.failures = {}
    mock.AddMethods(MAIN_IFACE, methods(mock, MAIN_IFACE))
    version = dbus.String(parameters.get("version", "0.0.0"), variant_level=1)
    mock.AddProperties(MAIN_IFACE, properties(mock, MAIN_IFACE, {"Version": version}))


@dbus.service.method(MOCK_IFACE, in_signature="sa{sv}", out_signature="o")
def AddNetwork(self, name, values):
    """Adds a network, which is down unless its properties say something else"""
    path = network_path(name)
    given = {"Name": name, "Role": "peer", "State": "down", "PublicKey": key(name)[0], **values}
    self.AddObject(path, NETWORK, properties(self, NETWORK, given), methods(self, NETWORK))
    self.object_manager_emit_added(path)
    return dbus.ObjectPath(path)


@dbus.service.method(MOCK_IFACE, in_signature="ssa{sv}", out_signature="o")
def AddPeer(self, network_name, name, values):
    """Adds a peer to a network; its key follows from its name"""
    network(network_name)
    path = peer_path(network_name, name)
    given = {
        "Name": name,
        "Network": dbus.ObjectPath(network_path(network_name)),
        "PublicKey": key(name)[0],
        "State": "idle",
        **values,
    }
    self.AddObject(path, PEER, properties(self, PEER, given), methods(self, PEER))
    self.object_manager_emit_added(path)
    return dbus.ObjectPath(path)


@dbus.service.method(MOCK_IFACE, in_signature="sss", out_signature="")
def AddMember(_self, network_name, name, standing):
    """Adds a member to a hub: approved, pending or revoked"""
    members_of(network(network_name))[str(name)] = (str(standing), key(name)[0])


@dbus.service.method(MOCK_IFACE, in_signature="sa{sv}", out_signature="")
def ChangeNetwork(_self, name, values):
    """Changes properties of a network"""
    change(network(name), NETWORK, values)


@dbus.service.method(MOCK_IFACE, in_signature="ssa{sv}", out_signature="")
def ChangePeer(_self, network_name, name, values):
    """Changes properties of a peer"""
    change(there(peer_path(network_name, name)), PEER, values)


@dbus.service.method(MOCK_IFACE, in_signature="s", out_signature="")
def RemoveNetwork(self, name):
    """Removes a network with its peers"""
    network(name)
    own = network_path(name)
    for path in [path for path in mockobject.get_objects() if path.startswith(own + "/")] + [own]:
        remove(self, path)


@dbus.service.method(MOCK_IFACE, in_signature="ss", out_signature="")
def RemovePeer(self, network_name, name):
    """Removes a peer"""
    remove(self, peer_path(network_name, name))


@dbus.service.method(MOCK_IFACE, in_signature="ss", out_signature="")
def FailNext(self, method, name):
    """Lets the next call of a method fail, on whichever object"""
    main().failures[str(method)] = str(name)


def connect(_self, name, options):
    known(options, ["apply"])
    change(network(name), NETWORK, {"State": "up", "Apply": options.get("apply", "self")})
    return dbus.ObjectPath(network_path(name))


def disconnect(_self, name):
    change(network(name), NETWORK, {"State": "down", "Apply": "self"})


def create_hub(_self, name, options):
    known(options, ["address", "autoconnect", "endpoint", "listen", "subnet"])
    if network_path(name) in mockobject.get_objects():
        raise error("Conflict", f"there is a network {name} already")
    addresses = options.get("address", options.get("subnet", []))
    addresses = dbus.Array(addresses, signature="s")
    return AddNetwork(main(), name, {"Role": "hub", "State": "up", "Addresses": addresses})


def join(_self, invitation, options):
    known(options, ["apply", "name"])
    if not invitation:
        raise error("InvalidArgument", "the invitation is cut off")
    name = options.get("name", "joined")
    if network_path(name) in mockobject.get_objects():
        raise error("Conflict", f"there is a network {name} already")
    return AddNetwork(main(), name, {"Role": "peer", "State": "up", "HubAlive": True})


def leave(_self, name):
    RemoveNetwork(main(), name)


def ping(_self, network_name, peer, _timeout_ms):
    if network(network_name).props[NETWORK]["State"] not in ("up", "hub-lost"):
        raise error("NotUp", f"network {network_name} is not up")
    for path in mockobject.get_objects():
        found = mockobject.get_object(path).props.get(PEER)
        if found and path.startswith(network_path(network_name) + "/"):
            if peer in (found["Name"], found["PublicKey"], *found["Addresses"]):
                answered = found["State"] != "unresponsive"
                rtt = dbus.UInt64(31200 if answered else 0)
                way = (found["PathKind"], found["Endpoint"])
                return (answered, rtt, found["PublicKey"], *way)
    raise error("NoPeer", f'no peer "{peer}" in network {network_name}')


def of_hub(does):
    """Makes a method one of hubs only"""

    def code(self, *arguments):
        if self.props[NETWORK]["Role"] != "hub":
            raise error("NotHub", f"{self.props[NETWORK]['Name']} is not run by a hub here")
        return does(self, *arguments)

    return code


def invite(self, member, options):
    known(options, ["address", "approval", "endpoint", "subnets", "ttl"])
    expires = dbus.UInt64(int(time.time()) + int(options.get("ttl", 3600)))
    approval = dbus.Boolean(options.get("approval", False))
    invitations_of(self)[str(member)] = (dbus.String(member), expires, approval)
    endpoints = options.get("endpoint", ["hub.example.net:8796"])
    return (f"fastvpn:{member}", expires, dbus.Array(endpoints, signature="s"))


def invitations(self):
    return dbus.Array(invitations_of(self).values(), signature="(stb)")


def cancel_invitation(self, member):
    if invitations_of(self).pop(str(member), None) is None:
        raise error("NoInvitation", f"there is no invitation of {member}")


def members(self):
    none = dbus.Array([], signature="s")
    rows = [
        (name, public, none, none, standing, "store", dbus.Boolean(False), dbus.UInt64(0))
        for name, (standing, public) in members_of(self).items()
    ]
    return dbus.Array(rows, signature="(ssasasssbt)")


def approve_member(self, who):
    stand(self, who, "approved")


def revoke_member(self, who):
    stand(self, who, "revoked")


def rename_member(self, who, name):
    known_as = member(self, who)
    members_of(self)[str(name)] = members_of(self).pop(known_as)


def stand(self, who, standing):
    name = member(self, who)
    members_of(self)[name] = (standing, members_of(self)[name][1])


def member(self, who):
    """The name of a member that is called so, or has that key"""
    for name, (_standing, public) in members_of(self).items():
        if who in (name, public):
            return name
    raise error("NoMember", f"there is no member {who}")


def members_of(found):
    return found.__dict__.setdefault("fastvpn_members", {})


def invitations_of(found):
    return found.__dict__.setdefault("fastvpn_invitations", {})


BEHAVIOUR = {
    MAIN_IFACE: {
        "Connect": connect,
        "CreateHub": create_hub,
        "Disconnect": disconnect,
        "Join": join,
        "Leave": leave,
        "Ping": ping,
    },
    NETWORK: {
        "ApproveMember": of_hub(approve_member),
        "CancelInvitation": of_hub(cancel_invitation),
        "Invitations": of_hub(invitations),
        "Invite": of_hub(invite),
        "Members": of_hub(members),
        "RenameMember": of_hub(rename_member),
        "RevokeMember": of_hub(revoke_member),
    },
    PEER: {},
}


def methods(mock, interface):
    """The methods of an interface as AddMethods wants them"""
    made = []
    for method in contract(mock, interface).iter("method"):
        arguments = {"in": "", "out": ""}
        for argument in method.iter("arg"):
            arguments[argument.get("direction", "in")] += argument.get("type")
        name = method.get("name")
        does = BEHAVIOUR[interface].get(name, nothing(arguments["out"]))
        made.append((name, arguments["in"], arguments["out"], failing(name, does)))
    return made


def failing(name, does):
    """Makes a method fail where a test has asked for that"""

    def code(self, *arguments):
        failure = main().failures.pop(name, None)
        if failure:
            raise error(failure, f"{name} fails, as the test wants it")
        return does(self, *arguments)

    return code


def nothing(signature):
    """A method that answers with empty values"""
    values = tuple(empty(one) for one in dbus.Signature(signature))

    def code(_self, *_arguments):
        return values[0] if len(values) == 1 else values or None

    return code


def properties(mock, interface, given):
    """All properties of an interface: those that are given, and empty ones"""
    made = {}
    for one in contract(mock, interface).iter("property"):
        made[one.get("name")] = empty(one.get("type"))
    if "Plan" in made:
        made["Plan"] = plan()
    for name, value in given.items():
        made[name] = typed(made, name, value)
    return made


def plan():
    """What the interface is to be like while there is none: each value is there, and empty"""
    none = dbus.Array([], signature="s", variant_level=1)
    text = dbus.String("", variant_level=1)
    values = dict.fromkeys(("addresses", "dns", "domains", "routes"), none)
    values |= dict.fromkeys(("gateway", "interface"), text)
    values["mtu"] = dbus.UInt32(0, variant_level=1)
    return dbus.Dictionary(values, signature="sv")


def typed(values, name, value):
    """A value of the type that the property has"""
    if name not in values:
        raise error("InvalidArgument", f"there is no property {name}")
    kind = type(values[name])
    if kind in CONTAINERS:
        return kind(value, signature=values[name].signature)
    return kind(value)


def change(found, interface, values):
    """Changes properties of an object, and tells of it"""
    own = found.props[interface]
    changed = {name: typed(own, name, value) for name, value in values.items()}
    own.update(changed)
    found.EmitSignal(
        "org.freedesktop.DBus.Properties",
        "PropertiesChanged",
        "sa{sv}as",
        [interface, dbus.Dictionary(changed, signature="sv"), dbus.Array([], signature="s")],
    )


def empty(signature):
    """The empty value of a type"""
    signature = str(signature)
    if signature.startswith("a{"):
        return dbus.Dictionary({}, signature=signature[2:-1])
    if signature.startswith("a"):
        return dbus.Array([], signature=signature[1:])
    return {
        "b": dbus.Boolean(False),
        "d": dbus.Double(0),
        "o": dbus.ObjectPath("/"),
        "s": dbus.String(""),
        "t": dbus.UInt64(0),
        "u": dbus.UInt32(0),
    }[signature]


CONTAINERS = (dbus.Array, dbus.Dictionary)


def contract(mock, interface):
    """The introspection XML of an interface"""
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "interfaces")
    for place in (getattr(mock, "contract_dir", None), beside, "/usr/share/dbus-1/interfaces"):
        file = os.path.join(place or "", interface + ".xml")
        if place and os.path.exists(file):
            return ElementTree.parse(file).getroot().find("interface")
    raise FileNotFoundError(f"{interface}.xml: name its directory in the parameter interfaces")


def known(options, names):
    for name in options:
        if name not in names:
            raise error("InvalidArgument", f'unknown option "{name}"')


def network(name):
    """The object of a network"""
    try:
        return mockobject.get_object(network_path(name))
    except KeyError:
        raise error("UnknownNetwork", f"no network {name} is configured") from None


def there(path):
    """The object of a peer"""
    try:
        return mockobject.get_object(path)
    except KeyError:
        raise error("NoPeer", f"there is no {path}") from None


def remove(self, path):
    interfaces = list(there(path).props)
    self.RemoveObject(path)
    main().EmitSignal(
        "org.freedesktop.DBus.ObjectManager",
        "InterfacesRemoved",
        "oas",
        [dbus.ObjectPath(path), dbus.Array(interfaces, signature="s")],
    )


def main():
    return mockobject.get_object(MAIN_OBJ)


def error(name, text):
    return dbus.exceptions.DBusException(text, name="org.fastvpn.Error." + name)


def key(name):
    """A public key that follows from a name: in base64 and in hexadecimal digits"""
    made = hashlib.sha256(str(name).encode()).digest()
    return base64.b64encode(made).decode(), made.hex()


def escaped(name):
    return "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):02x}" for c in str(name)) or "_"


def network_path(name):
    return f"{MAIN_OBJ}/network/{escaped(name)}"


def peer_path(network_name, name):
    return f"{network_path(network_name)}/peer/{key(name)[1]}"
