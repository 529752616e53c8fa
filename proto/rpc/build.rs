//! Compiles the two protocols, and keeps the descriptors of CSI for the test that compares them with the published
//! wire facts.

use std::{env, path::PathBuf};

fn main() -> std::io::Result<()> {
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    tonic_prost_build::configure()
        .file_descriptor_set_path(out.join("csi.descriptors"))
        .compile_protos(&["csi.proto"], &["."])?;
    tonic_prost_build::configure().compile_protos(&["control.proto"], &["."])?;
    println!("cargo::rerun-if-changed=csi.proto");
    println!("cargo::rerun-if-changed=control.proto");
    Ok(())
}
