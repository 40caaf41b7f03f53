//! The daemon's objects as a client sees them.
//!
//! A [`Tree`] starts from what the ObjectManager lists and then follows the signals.

use std::collections::{BTreeMap, HashMap};

use zbus::fdo::{ManagedObjects, ObjectManagerProxy};
use zbus::names::OwnedInterfaceName;
use zbus::{Connection, Message, OwnedObjectPath};

use crate::types::{NetworkFacts, NetworkFigures, PeerFacts, PeerFigures, Properties};
use crate::{BUS_NAME, NETWORK, PEER, ROOT};

/// Everything that the daemon shows
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    /// Networks by object path
    pub networks: BTreeMap<String, Network>,
    /// Peers of all networks by object path
    pub peers: BTreeMap<String, Peer>,
}

/// One network
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network {
    /// What is so
    pub facts: NetworkFacts,
    /// What is counted
    pub figures: NetworkFigures,
}

/// One peer
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peer {
    /// What is so
    pub facts: PeerFacts,
    /// What is counted and measured
    pub figures: PeerFigures,
}

/// What a signal did to a [`Tree`]
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A network came
    NetworkAdded(String),
    /// A network is different; this is what it was
    NetworkChanged(String, Box<Network>),
    /// A network is gone; this is what it was
    NetworkRemoved(Box<Network>),
    /// A peer came
    PeerAdded(String),
    /// A peer is different; this is what it was
    PeerChanged(String, Box<Peer>),
    /// A peer is gone; this is what it was
    PeerRemoved(Box<Peer>),
}

impl Network {
    fn update(&mut self, properties: &Properties) -> zbus::Result<bool> {
        let facts = self.facts.update(properties)?;
        let figures = self.figures.update(properties)?;
        Ok(facts || figures)
    }
}

impl Peer {
    fn update(&mut self, properties: &Properties) -> zbus::Result<bool> {
        let facts = self.facts.update(properties)?;
        let figures = self.figures.update(properties)?;
        Ok(facts || figures)
    }
}

impl Tree {
    /// Asks the daemon for everything
    ///
    /// # Errors
    /// If the bus or the daemon does not answer, or answers with something else.
    pub async fn load(connection: &Connection) -> zbus::Result<Self> {
        let manager = ObjectManagerProxy::new(connection, BUS_NAME, ROOT).await?;
        Self::from_objects(manager.get_managed_objects().await?)
    }

    /// Reads the answer of `GetManagedObjects`; objects of other kinds are skipped
    ///
    /// # Errors
    /// If a property is of the wrong type.
    pub fn from_objects(objects: ManagedObjects) -> zbus::Result<Self> {
        let mut tree = Self::default();
        for (path, interfaces) in objects {
            tree.on_added(path.as_str(), &interfaces)?;
        }
        Ok(tree)
    }

    /// Takes a signal of the daemon and tells what it did; foreign signals do nothing
    ///
    /// # Errors
    /// If the signal or a property in it is of the wrong type.
    pub fn on_signal(&mut self, signal: &Message) -> zbus::Result<Option<Change>> {
        let header = signal.header();
        let (Some(interface), Some(member), Some(path)) =
            (header.interface(), header.member(), header.path())
        else {
            return Ok(None);
        };
        match (interface.as_str(), member.as_str()) {
            ("org.freedesktop.DBus.ObjectManager", "InterfacesAdded") => {
                let body = signal.body();
                let (path, interfaces) = body.deserialize::<(OwnedObjectPath, Interfaces)>()?;
                self.on_added(path.as_str(), &interfaces)
            }
            ("org.freedesktop.DBus.ObjectManager", "InterfacesRemoved") => {
                let body = signal.body();
                let (path, interfaces) =
                    body.deserialize::<(OwnedObjectPath, Vec<OwnedInterfaceName>)>()?;
                Ok(self.on_removed(path.as_str(), &interfaces))
            }
            ("org.freedesktop.DBus.Properties", "PropertiesChanged") => {
                let body = signal.body();
                let (interface, changed, _) =
                    body.deserialize::<(OwnedInterfaceName, Properties, Vec<String>)>()?;
                self.on_changed(path.as_str(), interface.as_str(), &changed)
            }
            _ => Ok(None),
        }
    }

    /// Returns the name of the network that a peer belongs to
    pub fn network_of(&self, peer: &Peer) -> &str {
        self.networks.get(peer.facts.network.as_str()).map_or("", |network| &network.facts.name)
    }

    fn on_added(&mut self, path: &str, interfaces: &Interfaces) -> zbus::Result<Option<Change>> {
        for (interface, properties) in interfaces {
            match interface.as_str() {
                NETWORK => {
                    let mut network = Network::default();
                    network.update(properties)?;
                    let before = self.networks.insert(path.to_owned(), network.clone());
                    let path = path.to_owned();
                    return Ok(match before {
                        None => Some(Change::NetworkAdded(path)),
                        Some(before) if before == network => None,
                        Some(before) => Some(Change::NetworkChanged(path, Box::new(before))),
                    });
                }
                PEER => {
                    let mut peer = Peer::default();
                    peer.update(properties)?;
                    let before = self.peers.insert(path.to_owned(), peer.clone());
                    let path = path.to_owned();
                    return Ok(match before {
                        None => Some(Change::PeerAdded(path)),
                        Some(before) if before == peer => None,
                        Some(before) => Some(Change::PeerChanged(path, Box::new(before))),
                    });
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn on_removed(&mut self, path: &str, interfaces: &[OwnedInterfaceName]) -> Option<Change> {
        interfaces.iter().find_map(|interface| match interface.as_str() {
            NETWORK => self.networks.remove(path).map(Box::new).map(Change::NetworkRemoved),
            PEER => self.peers.remove(path).map(Box::new).map(Change::PeerRemoved),
            _ => None,
        })
    }

    fn on_changed(
        &mut self,
        path: &str,
        interface: &str,
        changed: &Properties,
    ) -> zbus::Result<Option<Change>> {
        match interface {
            NETWORK => {
                let Some(network) = self.networks.get_mut(path) else { return Ok(None) };
                let before = Box::new(network.clone());
                Ok(network
                    .update(changed)?
                    .then(|| Change::NetworkChanged(path.to_owned(), before)))
            }
            PEER => {
                let Some(peer) = self.peers.get_mut(path) else { return Ok(None) };
                let before = Box::new(peer.clone());
                Ok(peer.update(changed)?.then(|| Change::PeerChanged(path.to_owned(), before)))
            }
            _ => Ok(None),
        }
    }
}

type Interfaces = HashMap<OwnedInterfaceName, Properties>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network_path;
    use zbus::{OwnedVariant, Variant};

    #[test]
    fn signals_lead_a_tree_through_the_life_of_a_network() {
        let mut tree = Tree::default();
        let path = network_path("office");

        let added = tree.on_signal(&added(&path, "connecting")).unwrap();
        let changed = tree.on_signal(&changed(&path, "up")).unwrap();
        let state = tree.networks[path.as_str()].facts.state.clone();
        let removed = tree.on_signal(&removed(&path)).unwrap();

        assert_eq!(added, Some(Change::NetworkAdded(path.to_string())));
        assert!(matches!(
            changed,
            Some(Change::NetworkChanged(_, before)) if before.facts.state == "connecting"
        ));
        assert_eq!(state, "up");
        assert!(matches!(removed, Some(Change::NetworkRemoved(_))));
        assert_eq!(tree, Tree::default());
    }

    #[test]
    fn object_that_is_announced_twice_is_added_once() {
        let mut tree = Tree::default();
        let path = network_path("office");

        tree.on_signal(&added(&path, "up")).unwrap();
        let same = tree.on_signal(&added(&path, "up")).unwrap();
        let other = tree.on_signal(&added(&path, "down")).unwrap();

        assert_eq!(same, None);
        assert!(matches!(other, Some(Change::NetworkChanged(..))));
    }

    #[test]
    fn news_of_an_object_that_was_never_announced_do_nothing() {
        let mut tree = Tree::default();

        assert_eq!(tree.on_signal(&changed(&network_path("x"), "up")).unwrap(), None);
        assert_eq!(tree.on_signal(&removed(&network_path("x"))).unwrap(), None);
    }

    fn added(path: &OwnedObjectPath, state: &str) -> Message {
        let properties = Properties::from([("State".to_owned(), text(state))]);
        let interfaces = HashMap::from([(NETWORK, properties)]);
        signal(ROOT, "org.freedesktop.DBus.ObjectManager", "InterfacesAdded")
            .build(&(path, interfaces))
            .unwrap()
    }

    fn changed(path: &OwnedObjectPath, state: &str) -> Message {
        let changed = Properties::from([("State".to_owned(), text(state))]);
        signal(path.as_str(), "org.freedesktop.DBus.Properties", "PropertiesChanged")
            .build(&(NETWORK, changed, Vec::<String>::new()))
            .unwrap()
    }

    fn removed(path: &OwnedObjectPath) -> Message {
        signal(ROOT, "org.freedesktop.DBus.ObjectManager", "InterfacesRemoved")
            .build(&(path, vec![NETWORK]))
            .unwrap()
    }

    fn signal<'a>(
        path: &'a str,
        interface: &'a str,
        member: &'a str,
    ) -> zbus::message::Builder<'a> {
        Message::signal(path, interface, member)
    }

    fn text(text: &str) -> OwnedVariant {
        OwnedVariant::try_from(Variant::from(text.to_owned())).unwrap()
    }
}
