//! What is kept of a choice, and for how long.

use super::*;
use crate::volumes::tests::{disk, event, open, volume};
use crate::{KeyRange, Transaction};
use ashlar_types::{Lsn, Member, MemberState};

fn choice(number: u128, occasion: &str) -> Choice {
    let left_out = vec![LeftOut { disk: disk(9), node: "n9".parse().unwrap(), reason: "less room".to_owned() }];
    Choice {
        disk: disk(number),
        chosen_ms: 7,
        occasion: occasion.to_owned(),
        taken: "most".to_owned(),
        left_out,
        more: 3,
    }
}

#[tokio::test]
async fn a_choice_lasts_as_long_as_its_disk_holds_chunks() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let claims = catalog.claims().await.unwrap();
    let chosen = [1, 2, 3].map(|number| choice(number, "created"));
    let made = catalog.create_volume(&volume(1, "a"), &claims, &chosen, event()).await.unwrap();
    let id = made.volume.id();
    assert_eq!(catalog.choices(id).await.unwrap(), chosen);

    let mut next = made.volume.record.clone();
    next.version += 1;
    let state = MemberState::Out { commit: Lsn::ZERO };
    next.members.push(Member { disk: disk(4), node: "n4".parse().unwrap(), zone: None, state });
    next.chunks[0].members = vec![0, 1, 3];
    let claims = catalog.claims().await.unwrap();
    let came = Some(choice(4, "disk 3 failed"));
    let changed = catalog.change_holders(&made, next, &claims, came, vec![event()]).await.unwrap();
    let disks: Vec<_> = catalog.choices(id).await.unwrap().iter().map(|choice| choice.disk).collect();
    assert_eq!(disks, [1, 2, 4].map(disk));
    catalog.delete_volume(&changed, None, event()).await.unwrap();
    assert!(catalog.choices(id).await.unwrap().is_empty());
    assert!(catalog.store().read(vec![KeyRange::prefix("choice/")]).await.unwrap().ranges[0].is_empty());
}

#[tokio::test]
async fn choices_that_cannot_be_read_hold_up_no_repair() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = open(directory.path()).await;
    let id = volume(1, "a").id();
    catalog.commit(Transaction::default().put(keys::choices(id), b"{".to_vec()), vec![]).await.unwrap();
    assert_eq!(catalog.choices(id).await.unwrap_err().kind(), CatalogErrorKind::Corrupt);
    let after = catalog.choices_after(id, |_| true, Some(choice(4, "disk 3 failed"))).await.unwrap();
    assert_eq!(after.len(), 1);
}
