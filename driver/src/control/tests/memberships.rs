//! Proposals under concurrency, asked again, after a restart; disks declared lost.

use super::*;
use ashlar_types::{ChangeAnswer, Lsn, MemberState};

fn eject(number: u128) -> Change {
    Change::Eject { disks: vec![disk(number)], commit: Lsn::from_raw(7), reason: "silent".to_owned() }
}

#[tokio::test]
async fn of_concurrent_proposals_on_one_version_one_is_applied() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let record = world.control.grant(id, &node("n1")).await.unwrap();
    let tasks: Vec<_> = (1..=3)
        .map(|number| {
            let (control, record) = (world.control.clone(), record.clone());
            tokio::spawn(
                async move { control.propose(id, record.epoch, record.version, &eject(number)).await.unwrap() },
            )
        })
        .collect();
    let mut applied = 0;
    for task in tasks {
        match task.await.unwrap() {
            ChangeAnswer::Applied { record } => {
                applied += 1;
                assert_eq!(record.in_sync().count(), 2);
            }
            ChangeAnswer::Refused { record, .. } => assert_eq!(record.in_sync().count(), 2),
            ChangeAnswer::Fenced { .. } => panic!("fenced by nobody"),
        }
    }
    assert_eq!(applied, 1);
    assert_eq!(world.kinds_of_events().await.iter().filter(|kind| *kind == "ejected").count(), 1);
}

#[tokio::test]
async fn a_proposal_asked_again_is_answered_as_before_also_after_a_restart() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let record = world.control.grant(id, &node("n1")).await.unwrap();
    let first = world.control.propose(id, record.epoch, record.version, &eject(2)).await.unwrap();
    assert!(matches!(first, ChangeAnswer::Applied { .. }));
    assert_eq!(world.control.propose(id, record.epoch, record.version, &eject(2)).await.unwrap(), first);
    let world = world.restarted().await;
    assert_eq!(world.control.propose(id, record.epoch, record.version, &eject(2)).await.unwrap(), first);
    assert_eq!(world.kinds_of_events().await.iter().filter(|kind| *kind == "ejected").count(), 1);
    let other = world.control.propose(id, record.epoch, record.version, &eject(3)).await.unwrap();
    assert!(matches!(other, ChangeAnswer::Refused { .. }));
}

#[tokio::test]
async fn an_older_epoch_is_fenced_and_changes_nothing() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let old = world.control.grant(id, &node("n1")).await.unwrap();
    let new = world.control.grant(id, &node("n1")).await.unwrap();
    let answer = world.control.propose(id, old.epoch, new.version, &eject(2)).await.unwrap();
    assert_eq!(answer, ChangeAnswer::Fenced { epoch: new.epoch });
    assert_eq!(world.control.volume(id).await.unwrap().volume.record, new);
}

#[tokio::test]
async fn each_step_of_a_return_is_told() {
    let world = World::with_nodes(3).await;
    let id = world.create("a").await.volume.id();
    let mut record = world.control.grant(id, &node("n1")).await.unwrap();
    let returns = Change::BeginReturn { disk: disk(2) };
    let steps = [
        Change::OpenDirty,
        eject(2),
        returns.clone(),
        Change::AbandonReturn { disk: disk(2) },
        returns,
        Change::Join { disk: disk(2) },
    ];
    for change in steps {
        record = match world.control.propose(id, record.epoch, record.version, &change).await.unwrap() {
            ChangeAnswer::Applied { record } => record,
            other => panic!("{change:?}: {other:?}"),
        };
    }
    assert_eq!(record.in_sync().count(), 3);
    let kinds = world.kinds_of_events().await;
    let told = ["attached", "opened", "ejected", "returning", "return-abandoned", "returning", "in-sync"];
    assert_eq!(kinds[kinds.len() - told.len()..], told);
}

#[tokio::test]
async fn a_disk_is_lost_only_when_it_is_silent_and_every_volume_allows_it() {
    let world = World::with_nodes(3).await;
    let a = world.create("a").await.volume.id();
    let b = world.create("b").await.volume.id();
    let control = &world.control;
    let online = control.declare_disk_lost(disk(1), false).await.unwrap_err();
    assert!(online.message.contains("online"), "{online}");
    let record = control.grant(b, &node("n2")).await.unwrap();
    control.propose(b, record.epoch, record.version, &eject(2)).await.unwrap();
    control.registry.end_silent(&control.catalog, tokio::time::Instant::now() + Duration::from_secs(4)).await;
    let refused = control.declare_disk_lost(disk(1), false).await.unwrap_err();
    assert!(refused.message.contains("volume b"), "{refused}");
    assert_eq!(
        control.volume(a).await.unwrap().volume.record.in_sync().count(),
        3,
        "nothing is changed unless all allow it"
    );
    assert_eq!(control.declare_disk_lost(disk(1), true).await.unwrap().len(), 2);
    assert_eq!(control.declare_disk_lost(disk(1), false).await.unwrap().len(), 2, "it is lost already");
    let record = control.volume(a).await.unwrap().volume.record;
    assert_eq!(record.member(disk(1)).unwrap().state, MemberState::Out { commit: Lsn::ZERO });
    assert_eq!(record.declared_lost, [disk(1)]);
    assert_eq!(control.declare_disk_lost(disk(9), true).await.unwrap_err().kind, ErrorKind::NotFound);
}
