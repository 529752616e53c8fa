//! StorageClass parameters, as one typed struct. Unknown keys are refused, and everything that is wrong is reported at
//! once.
//!
//! | parameter | values | default | meaning |
//! | --- | --- | --- | --- |
//! | `replicas` | 1..=3 | 3 | copies of each chunk, on as many nodes |
//! | `minReplicas` | 1..=replicas | 2, or `replicas` if less | below this many in-sync copies writes wait |
//! | `csi.storage.k8s.io/…` | any | | what Kubernetes' provisioner adds; not looked at |

use std::collections::BTreeMap;

const REPLICAS_MAX: u8 = 3;
const REPLICAS_DEFAULT: u8 = 3;
const MIN_REPLICAS_DEFAULT: u8 = 2;
const KUBERNETES_PREFIX: &str = "csi.storage.k8s.io/";
const KNOWN: &str = "replicas, minReplicas";
/// Longest part of a user's text that is repeated in a message.
const SHOWN_CHARS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    pub replicas: u8,
    pub min_replicas: u8,
}

/// Parameters, or everything that is wrong with them.
pub fn parse<'a>(given: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<Params, Vec<String>> {
    let mut faults = Vec::new();
    let (mut replicas, mut min_replicas) = (None, None);
    // Sorted, so that the same request is answered with the same words.
    for (key, value) in given.into_iter().collect::<BTreeMap<_, _>>() {
        let known = match key.as_str() {
            "replicas" => &mut replicas,
            "minReplicas" => &mut min_replicas,
            other if other.starts_with(KUBERNETES_PREFIX) => continue,
            other => {
                faults.push(format!("parameter {:?} is not known, known are {KNOWN}", shown(other)));
                continue;
            }
        };
        match value.parse::<u8>() {
            Ok(number) if (1..=REPLICAS_MAX).contains(&number) => *known = Some(number),
            _ => faults.push(format!("parameter {key} is {:?}, allowed is 1 to {REPLICAS_MAX}", shown(value))),
        }
    }
    let replicas = replicas.unwrap_or(REPLICAS_DEFAULT);
    let min_replicas = min_replicas.unwrap_or(MIN_REPLICAS_DEFAULT.min(replicas));
    if min_replicas > replicas {
        faults.push(format!("parameter minReplicas is {min_replicas}, at most replicas ({replicas}) is possible"));
    }
    if faults.is_empty() { Ok(Params { replicas, min_replicas }) } else { Err(faults) }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(given: &[(&str, &str)]) -> Result<Params, Vec<String>> {
        let map: BTreeMap<String, String> = given.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        parse(&map)
    }

    #[test]
    fn defaults_and_given_values() {
        assert_eq!(parsed(&[]), Ok(Params { replicas: 3, min_replicas: 2 }));
        assert_eq!(parsed(&[("replicas", "1")]), Ok(Params { replicas: 1, min_replicas: 1 }));
        assert_eq!(parsed(&[("replicas", "2"), ("minReplicas", "1")]), Ok(Params { replicas: 2, min_replicas: 1 }));
    }

    #[test]
    fn keys_of_the_provisioner_are_allowed() {
        assert!(parsed(&[("csi.storage.k8s.io/pvc/name", "x"), ("csi.storage.k8s.io/pv/name", "y")]).is_ok());
    }

    #[test]
    fn everything_that_is_wrong_is_reported_at_once() {
        let faults =
            parsed(&[("replicas", "9"), ("minReplicas", "-1"), ("Replicas", "3"), ("type", "fast")]).unwrap_err();
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert_eq!(parsed(&[("replicas", "2"), ("minReplicas", "3")]).unwrap_err().len(), 1);
    }

    #[test]
    fn hostile_values_are_cut_short_in_messages() {
        let faults = parsed(&[(&"k".repeat(100_000), "v"), ("replicas", &"9".repeat(100_000))]).unwrap_err();
        assert!(faults.iter().all(|fault| fault.len() < 300));
    }
}
