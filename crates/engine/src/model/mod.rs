//! The engine's vocabulary: what a container, a network, a volume is. Plain data, no behaviour beyond small questions.
//!
//! The names follow Docker's because users know them, but this is not Docker's JSON: crate `daemon` maps one to the other.
//! The serde form of [`ContainerSpec`] and [`State`] is what the `containers` rows of meta.db hold: fields may be added with
//! a default, never renamed.

mod config;
mod exec;
mod host;
mod network;
mod state;
mod volume;

pub use config::{Config, HealthProbe};
pub use exec::{ExecRequest, ExecView};
pub use host::{
    BindPropagation, DeviceMapping, DeviceRate, HostConfig, LogConfig, MountKind, MountRequest, PortBinding, PortMap, PortProtocol,
    PortSpec, Resources, RestartPolicy, RestartPolicyName, Ulimit, WeightDevice,
};
pub use network::{EndpointRequest, EndpointView, NetworkContainer, NetworkView};
pub use state::{ContainerSpec, ContainerView, Health, HealthStatus, MountPoint, ProbeResult, State, Status};
pub use volume::VolumeView;
