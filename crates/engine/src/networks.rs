//! The three networks there are today: `bridge`, `host`, `none`. Networks of one's own come later.

use crate::Engine;
use crate::error::EngineError;
use crate::model::{NetworkContainer, NetworkView};

/// Names of the predefined networks with their drivers.
const PREDEFINED: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

impl Engine {
    /// All networks.
    #[must_use]
    pub fn networks(&self) -> Vec<NetworkView> {
        PREDEFINED.iter().map(|(name, driver)| self.predefined(name, driver)).collect()
    }

    /// A network by name, id or a prefix of its id.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] with Docker's text; [`EngineError::Invalid`] when the prefix fits several.
    pub fn network(&self, name: &str) -> Result<NetworkView, EngineError> {
        let all = self.networks();
        if let Some(found) = all.iter().find(|network| network.name == name || network.id == name) {
            return Ok(found.clone());
        }
        let mut fitting = all.iter().filter(|network| !name.is_empty() && network.id.starts_with(name));
        match (fitting.next(), fitting.next()) {
            (Some(network), None) => Ok(network.clone()),
            (Some(_), Some(_)) => Err(EngineError::Invalid(format!("network {name} is ambiguous ({} matches found on name)", all.len()))),
            (None, _) => Err(EngineError::NotFound(format!("network {name} not found"))),
        }
    }

    fn predefined(&self, name: &str, driver: &str) -> NetworkView {
        let mut view = NetworkView {
            id: self.network_id(name),
            name: name.to_owned(),
            created: self.started_at(),
            driver: driver.to_owned(),
            containers: self.members(name),
            ..NetworkView::default()
        };
        if name == "bridge" {
            let (subnet, gateway, bridge, mtu) = self.default_bridge();
            view.subnets = vec![(subnet, gateway)];
            view.options = [
                ("com.docker.network.bridge.default_bridge", "true".to_owned()),
                ("com.docker.network.bridge.enable_icc", "true".to_owned()),
                ("com.docker.network.bridge.enable_ip_masquerade", "true".to_owned()),
                ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0".to_owned()),
                ("com.docker.network.bridge.name", bridge),
                ("com.docker.network.driver.mtu", mtu.to_string()),
            ]
            .map(|(key, value)| (key.to_owned(), value))
            .into();
        }
        view
    }

    fn members(&self, network: &str) -> Vec<NetworkContainer> {
        let member = |container: &crate::table::Container| {
            let facts = container.facts();
            let endpoint = facts.state.endpoints.get(network).filter(|_| facts.state.status.is_running())?;
            let ipv4 = if endpoint.ip.is_empty() { String::new() } else { format!("{}/{}", endpoint.ip, endpoint.prefix_len) };
            Some(NetworkContainer {
                id: facts.spec.id.clone(),
                name: facts.spec.name.clone(),
                endpoint_id: endpoint.endpoint_id.clone(),
                mac: endpoint.mac.clone(),
                ipv4,
            })
        };
        self.table().all().iter().filter_map(|container| member(container)).collect()
    }
}
