//! gRPC: the Container Storage Interface and Ashlar's control API, generated from `csi.proto` and `control.proto`,
//! and the conversions between the control API's messages and the types of `ashlar-types`.

pub mod convert;

/// Volumes that one node may have attached: what its datapath takes, its CSI service says and the control plane keeps.
pub const NODE_VOLUMES_MAX: usize = 256;

/// The Container Storage Interface, v1.
#[allow(clippy::all, unreachable_pub)]
pub mod csi {
    tonic::include_proto!("csi.v1");

    /// The compiled descriptors, for tests of the wire format.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/csi.descriptors"));
}

/// Ashlar's control API, v1.
#[allow(clippy::all, unreachable_pub)]
pub mod control {
    tonic::include_proto!("ashlar.control.v1");
}
