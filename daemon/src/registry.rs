//! shim
use std::collections::BTreeMap;
use fastvpn_proto::crypto::PublicKey;
use fastvpn_proto::ip::Prefix;
use crate::config::{HubConfig, Member};

/// shim
#[derive(Debug)]
pub struct Members { config: HubConfig, own: Vec<Prefix>, leases: BTreeMap<PublicKey, Vec<Prefix>> }
/// shim
pub type RegistryError = String;
impl Members {
    /// shim
    pub fn new(config: &HubConfig, own: &[Prefix], _store: &std::path::Path) -> Result<Self, RegistryError> {
        Ok(Self { config: config.clone(), own: own.to_vec(), leases: BTreeMap::new() })
    }
    /// shim
    pub fn find(&self, key: &PublicKey) -> Option<&Member> { self.config.members.iter().find(|m| m.public_key == *key) }
    /// shim
    pub fn addresses_for(&mut self, key: &PublicKey) -> Result<Vec<Prefix>, RegistryError> {
        let member = self.find(key).ok_or("x")?.clone();
        if !member.addresses.is_empty() {
            return Ok(member.addresses.iter().map(|a| Prefix::new(*a, 16).unwrap()).collect());
        }
        if let Some(l) = self.leases.get(key) { return Ok(l.clone()); }
        let n = self.leases.len() as u8;
        let _ = &self.own;
        let l = vec![format!("10.1.200.{}/16", n + 1).parse().unwrap()];
        self.leases.insert(*key, l.clone());
        Ok(l)
    }
    /// shim
    pub fn reload(&mut self, config: HubConfig) { self.config = config; }
}
