//! Pure rules of the control plane: state and a wish in, new state or a refusal out.
#![forbid(unsafe_code)]

pub mod clone;
pub mod membership;
pub mod placement;
pub mod readers;
pub mod repair;
pub mod snapshot;
pub mod wear;
