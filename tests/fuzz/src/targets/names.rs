//! Ids and names from people and Kubernetes. What is taken is shown as it came, and holds nothing that could leave a
//! path, a line or a label.

use crate::reach;
use ashlar_types::{ClusterId, DiskId, NodeName, VolumeId, VolumeName, ZoneName};
use std::fmt::Display;
use std::str::FromStr;

pub(crate) fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    id::<ClusterId>(text);
    id::<DiskId>(text);
    id::<VolumeId>(text);
    name::<NodeName>(text);
    name::<ZoneName>(text);
    name::<VolumeName>(text);
}

fn id<I: FromStr<Err: Display> + Display + PartialEq + std::fmt::Debug>(text: &str) {
    match text.parse::<I>() {
        Ok(id) => {
            reach::note("taken", &"id");
            let shown = id.to_string();
            assert_eq!(shown.parse::<I>().ok(), Some(id), "an id survives its text");
            assert!(shown.len() == 36 && shown.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'));
        }
        Err(error) => assert!(error.to_string().len() < 1000, "hostile text is not repeated at length"),
    }
}

fn name<N: FromStr<Err: Display> + Display>(text: &str) {
    match text.parse::<N>() {
        Ok(name) => {
            reach::note("taken", &"name");
            assert_eq!(name.to_string(), text);
            assert!(text.len() <= 253 && !text.starts_with('.') && !text.starts_with('-'));
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b'"'));
        }
        Err(error) => assert!(error.to_string().len() < 1000, "hostile text is not repeated at length"),
    }
}
